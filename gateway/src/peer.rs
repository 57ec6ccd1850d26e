//! A session's provider as Pingora sees it: limits of time, a pool of its own, and no address.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType, Result};
use runit_config::NodeSettings;
use tokio::net::TcpSocket;

use crate::outbound::Dialler;

/// How long the parts of an exchange with a provider may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpstreamTimeouts {
    /// Name, TCP and TLS together.
    pub(crate) connect: Duration,
    /// Until the first byte of the answer, and between its bytes. `crate::pace` bounds both more closely.
    pub(crate) read: Duration,
    /// To take a part of the request.
    pub(crate) write: Duration,
}

impl UpstreamTimeouts {
    /// As the settings have them now.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        let of = &settings.gateway;
        Self {
            connect: Duration::from_millis(of.upstream_connect_timeout_ms),
            read: Duration::from_millis(of.upstream_first_byte_timeout_ms),
            write: Duration::from_millis(of.upstream_silence_timeout_ms),
        }
    }
}

/// An idle connection to a provider is kept for so long.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(60);

/// A hook of Pingora's own dialling, which nobody comes to while there is a dialler.
type Hook = Arc<dyn Fn(&TcpSocket) -> Result<()> + Send + Sync>;

static NEVER: LazyLock<Hook> =
    LazyLock::new(|| Arc::new(|_| Error::e_explain(ErrorType::InternalError, "dialled without a check")));

/// Where to send a request; `dialler` finds the way when there is no pooled connection.
pub(crate) fn peer(dialler: Dialler, timeouts: UpstreamTimeouts) -> HttpPeer {
    let view = Arc::clone(&dialler.view);
    let upstream = &view.upstream;
    // The one address that Pingora does not compare with that of a pooled socket.
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, upstream.port()));
    let mut peer = HttpPeer::new(nobody, upstream.is_tls(), upstream.host().to_owned());
    // A pooled connection serves the session that opened it and no other, and not across a change of credential.
    let mut hasher = DefaultHasher::new();
    (view.id, view.credential.expose()).hash(&mut hasher);
    peer.group_key = hasher.finish();
    let mut options = PeerOptions::new();
    options.custom_l4 = Some(Arc::new(dialler));
    options.upstream_tcp_sock_tweak_hook = Some(Arc::clone(&NEVER));
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(POOL_IDLE);
    peer.options = options;
    peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::SystemOutbound;
    use crate::testing::{live_session, view};
    use pingora::connectors::TransportConnector;
    use runit_core::SessionId;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_peer_that_lost_its_dialler_reaches_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let view = Arc::new(view(SessionId::from_uuid(Uuid::new_v4()), 1));
        let (_data, session) = live_session(&view);
        let patience = Duration::from_secs(5);
        let dialler = Dialler { outbound: Arc::new(SystemOutbound), session, view, patience };
        let mut peer = peer(dialler, UpstreamTimeouts { connect: patience, read: patience, write: patience });
        // 0.0.0.0 is this machine, to Linux.
        peer._address =
            listener.local_addr().map(|at| SocketAddr::from(([0, 0, 0, 0], at.port()))).expect("bound").into();
        peer.options.custom_l4 = None;
        assert!(TransportConnector::new(None).new_stream(&peer).await.is_err());
        listener.set_nonblocking(true).expect("a socket");
        assert!(listener.accept().is_err(), "nobody came");
    }
}
