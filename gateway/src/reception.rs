//! What comes before a renter's first request: the load balancer's PROXY header, then TLS, both under one deadline.
//!
//! The listener itself is plain TCP for Pingora, whose own TLS listeners leave a handshake 60 s, log whatever a client
//! sends, and have no place for a deadline on what comes before. The guard sits above TLS, so that bytes are counted as
//! HTTP sees them.

use ipnet::IpNet;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Tcp;
use runit_core::RenterAddress;
use runit_core::client_address::is_listed;
use runit_listener::proxy_protocol;
use tokio::time::{Instant, timeout_at};

/// Why a connection never got to its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwelcome {
    /// It took too long.
    TooSlow,
    /// No PROXY header, a broken one, or from somebody who is not a load balancer.
    ProxyProtocol,
    /// The TLS handshake failed.
    Tls,
    /// The renter was gone by then.
    Gone,
}

impl Unwelcome {
    /// All of them, for metrics that start at zero.
    pub(crate) const ALL: [Self; 4] = [Self::TooSlow, Self::ProxyProtocol, Self::Tls, Self::Gone];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Tls => "tls",
            Self::Gone => "gone",
        }
    }
}

/// Who a connection's peer is: the socket's, or whom the header of a load balancer names. With `balancers` it must come
/// from one of them and begin with a header.
///
/// # Errors
/// [`Unwelcome`]; the connection is to be closed without a word.
pub(crate) async fn named(
    stream: Stream,
    balancers: &[IpNet],
    deadline: Instant,
) -> Result<(Stream, RenterAddress), Unwelcome> {
    let peer = socket_peer(&stream).ok_or(Unwelcome::Gone)?;
    if balancers.is_empty() {
        return Ok((stream, peer));
    }
    if !is_listed(peer, balancers) {
        return Err(Unwelcome::ProxyProtocol);
    }
    let mut stream = stream;
    let header = timeout_at(deadline, proxy_protocol::read(&mut stream)).await.map_err(|_| Unwelcome::TooSlow)?;
    let named = header.map_err(|_| Unwelcome::ProxyProtocol)?;
    Ok((stream, named.map_or(peer, |named| RenterAddress::new(named.ip()))))
}

/// The stream that HTTP is spoken on: inside TLS, where there is an acceptor.
///
/// # Errors
/// [`Unwelcome`]; the connection is to be closed without a word.
pub(crate) async fn encrypted(stream: Stream, tls: Option<&Acceptor>, deadline: Instant) -> Result<Stream, Unwelcome> {
    let Some(tls) = tls else { return Ok(stream) };
    let tcp = stream.into_any().downcast::<Tcp>().map_err(|_| Unwelcome::Gone)?;
    let received = timeout_at(deadline, tls.tls_handshake(*tcp)).await.map_err(|_| Unwelcome::TooSlow)?;
    Ok(Box::new(received.map_err(|_| Unwelcome::Tls)?))
}

/// The socket's peer. A connection that has none by now is dead.
pub(crate) fn socket_peer(stream: &Stream) -> Option<RenterAddress> {
    let digest = stream.get_socket_digest()?;
    let peer = digest.peer_addr()?.as_inet()?;
    Some(RenterAddress::new(peer.ip()))
}
