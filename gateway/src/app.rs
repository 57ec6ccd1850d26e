//! Pingora's view of the gateway: a server app that puts the guard around each connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;
use runit_config::{Limits, LiveSettings, NodeSettings};
use runit_core::RenterAddress;
use runit_core::client_address::is_listed;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::answer::last_words;
use crate::connection::Connection;
use crate::gateway::rate_of;
use crate::guard::{Guard, HeadLimits};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::places::{Full, Places};
use crate::proxy::{OWN_ANSWER, Proxy, digest_with};
use crate::rarely::rarely;
use crate::reception::{Unwelcome, encrypted, named};
use crate::tunnel::Terms;

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
    pub(crate) tls: Option<Acceptor>,
    pub(crate) metrics: Arc<Metrics>,
    /// Pingora's shutdown is for what takes new requests; a tunnel may outlive it.
    pub(crate) lifecycle: Lifecycle,
}

#[async_trait]
impl ServerApp for GatewayApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (connection, stream, _open) = self.receive(stream).await?;
        let digest = Arc::new(digest_with(&connection).ok()?);
        let guard = Guard::new(stream, Arc::clone(&connection), digest, HeadLimits::of(&self.settings.load()));
        // The proxy answers requests on this stream until it ends, or until one of them is upgraded.
        tokio::select! {
            biased;
            _ = ServerApp::process_new(&self.proxy, Box::new(guard), shutdown) => {}
            // The guard ends what comes by; what waits for the provider is ended here.
            () = rarely(async { connection.until_cut().await; tokio::time::sleep(CUT_WITHIN).await }) => {}
        }
        if let Some(renter) = connection.take_guard() {
            self.converse(renter, &connection).await;
        }
        self.metrics.audit_difference.inc_by(connection.audit());
        self.note_cut(&connection);
        None
    }
}

impl GatewayApp {
    /// What comes before HTTP: the load balancer's header, a place for whom it names, TLS.
    async fn receive(&self, stream: Stream) -> Option<(Arc<Connection>, Stream, Counted<'_>)> {
        let settings = self.settings.load();
        let deadline = Instant::now() + Duration::from_millis(settings.gateway.handshake_timeout_ms);
        let named = named(stream, &settings.gateway.proxy_protocol, deadline).await;
        let (stream, peer) = named.map_err(|why| self.note(why)).ok()?;
        let limits = limits_for(peer, &settings);
        let connection = self.places.enter(peer, &limits);
        let turned_away = |full: Full| self.metrics.turned_away.with_label_values(&[full.label()]).inc();
        let connection = connection.map_err(turned_away).ok()?;
        let open = Counted::new(&self.metrics.connections);
        let stream = tokio::select! {
            stream = encrypted(stream, self.tls.as_ref(), deadline) => stream.map_err(|why| self.note(why)).ok(),
            () = connection.until_cut() => {
                self.note_cut(&connection);
                None
            }
        };
        Some((connection, stream?, open))
    }

    /// What is said on a socket that Pingora has let go of: a WebSocket's frames, or why a request could not be read.
    async fn converse(&self, mut renter: Guard, connection: &Connection) {
        if let Some(tunnel) = connection.take_tunnel() {
            let _open = Counted::new(&self.metrics.websockets);
            let settings = self.settings.load();
            let terms = Terms {
                idle: Duration::from_secs(settings.gateway.websocket_idle_seconds),
                reads: rate_of(settings.limits.websocket_reads_per_session),
                waits: self.metrics.websocket_waits.clone(),
            };
            drop(settings);
            tunnel.run(renter, connection, &terms, self.lifecycle.ending()).await;
        } else if let Some(refusal) = connection.take_unreadable() {
            self.metrics.refusals.with_label_values(&[refusal.row().1]).inc();
            connection.answer_ourselves();
            renter.linger_when_dropped();
            if let Ok(words) = last_words(refusal, &self.settings.load().control.public_url) {
                // It fits into the socket's buffer, unless answers before it were not read.
                let said = async {
                    renter.write_all(&words).await?;
                    renter.flush().await
                };
                let _ = tokio::time::timeout(OWN_ANSWER, said).await;
            }
        }
    }

    fn note_cut(&self, connection: &Connection) {
        if let Some(cut) = connection.cut_reason() {
            self.metrics.cuts.with_label_values(&[cut.label()]).inc();
        }
    }

    fn note(&self, why: Unwelcome) {
        self.metrics.unwelcome.with_label_values(&[why.label()]).inc();
    }
}

/// A listed proxy has the connections of many renters, so it is not bounded as one of them.
fn limits_for(peer: RenterAddress, settings: &NodeSettings) -> Limits {
    let mut limits = settings.limits.clone();
    if is_listed(peer, &settings.gateway.trusted_proxies) {
        limits.connections_per_address = usize::MAX;
        limits.waiting_connections_per_address = usize::MAX;
    }
    limits
}
