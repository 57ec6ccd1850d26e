//! Pingora's view of the gateway: a server app that puts the guard around each connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;
use runit_config::LiveSettings;
use runit_core::RenterAddress;

use crate::guard::{Guard, HeadLimits};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::proxy::{Proxy, digest_with};

/// How long a connection that was cut may take to end by itself.
const CUT_WITHIN: Duration = Duration::from_millis(300);

/// One more in a gauge for as long as this lives, also through a panic.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves renters' connections.
pub struct GatewayApp {
    pub(crate) proxy: Arc<HttpProxy<Proxy>>,
    pub(crate) settings: LiveSettings,
    pub(crate) places: Arc<Places>,
    pub(crate) metrics: Arc<Metrics>,
    /// Pingora's shutdown is for what takes new requests; a tunnel may outlive it.
    pub(crate) lifecycle: Lifecycle,
}

#[async_trait]
impl ServerApp for GatewayApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let address = renter_address(&stream)?;
        let connection = match self.places.enter(address, &self.settings.load().limits) {
            Ok(connection) => connection,
            Err(full) => {
                self.metrics.turned_away.with_label_values(&[full.label()]).inc();
                return None;
            }
        };
        let digest = Arc::new(digest_with(&connection).ok()?);
        let guard = Guard::new(stream, Arc::clone(&connection), digest, HeadLimits::of(&self.settings.load()));
        let _open = Counted::new(&self.metrics.connections);
        // The proxy answers requests on this stream until it ends, or until one of them is upgraded.
        tokio::select! {
            _ = ServerApp::process_new(&self.proxy, Box::new(guard), shutdown) => {}
            // The guard ends what comes by; what waits for the provider is ended here.
            () = async { connection.until_cut().await; tokio::time::sleep(CUT_WITHIN).await } => {}
        }
        if let Some((tunnel, renter)) = connection.take_tunnel() {
            let _open = Counted::new(&self.metrics.websockets);
            let idle = Duration::from_secs(self.settings.load().gateway.websocket_idle_seconds);
            tunnel.run(renter, &connection, idle, self.lifecycle.ending()).await;
        }
        self.metrics.audit_difference.inc_by(connection.audit());
        if let Some(cut) = connection.cut_reason() {
            self.metrics.cuts.with_label_values(&[cut.label()]).inc();
        }
        None
    }
}

/// The socket's peer. A connection that has none by now is dead.
fn renter_address(stream: &Stream) -> Option<RenterAddress> {
    let digest = stream.get_socket_digest()?;
    let peer = digest.peer_addr()?.as_inet()?;
    Some(RenterAddress::new(peer.ip()))
}
