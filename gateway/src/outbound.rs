//! The one way to a provider: its name is resolved, every address checked, and a checked one dialled.
//!
//! Pingora comes here for each new connection, of requests and of WebSockets alike; a pooled one needs no name. What is
//! dialled is a [`Checked`] address, and nothing but [`check`] makes one, so a name that changes its mind in between gains
//! nothing. A peer has no address of its own: whoever dialled it past this module would reach nobody.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, OrErr, Result};
use runit_core::{SessionView, UpstreamUrl};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::live::LiveSession;

/// What the world outside is asked. The system's own, but in tests.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// The addresses of a name, or of an address.
    ///
    /// # Errors
    /// When there are none.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// A TCP connection.
    ///
    /// # Errors
    /// When there can be none.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The system's resolver and sockets.
#[derive(Debug)]
pub struct SystemOutbound;

#[async_trait]
impl Outbound for SystemOutbound {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// The name resolves to nothing, or to an address that may not be dialled.
pub(crate) const FORBIDDEN: ErrorType = ErrorType::Custom("UpstreamForbidden");

/// For so long a session's addresses are good for further connections: a page opens many at once.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const TRIES: usize = 4;

/// An address that may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked(SocketAddr);

/// What a session's name resolved to.
#[derive(Debug)]
pub(crate) struct Known {
    upstream: UpstreamUrl,
    addresses: Vec<Checked>,
    until: Instant,
}

/// Dials the provider of one session.
pub(crate) struct Dialler {
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) session: Arc<LiveSession>,
    pub(crate) view: Arc<SessionView>,
    /// For names and TCP together.
    pub(crate) patience: Duration,
}

#[async_trait]
impl L4Connect for Dialler {
    async fn connect(&self, _nobody: &PeerAddress) -> Result<Stream> {
        Ok(self.dial(Instant::now() + self.patience).await?.into())
    }
}

impl Dialler {
    /// A connection to the first address that answers. Each has an equal part of the time that is left.
    async fn dial(&self, deadline: Instant) -> Result<TcpStream> {
        let addresses = self.addresses(deadline).await?;
        let mut outcome = Error::e_explain(FORBIDDEN, "no address");
        for (tried, &Checked(address)) in addresses.iter().enumerate() {
            let now = Instant::now();
            let part = deadline.saturating_duration_since(now) / u32::try_from(addresses.len() - tried).unwrap_or(1);
            outcome = match timeout_at(now + part, self.outbound.connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => Error::e_because(ErrorType::ConnectError, "provider not reachable", error),
                Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "provider not reachable"),
            };
        }
        // It may have moved.
        *self.session.known_addresses().await = None;
        outcome
    }

    /// The checked addresses, resolved once for connections that come together.
    async fn addresses(&self, deadline: Instant) -> Result<Vec<Checked>> {
        let resolved = async {
            let mut known = self.session.known_addresses().await;
            let upstream = &self.view.upstream;
            if let Some(known) = known.as_ref().filter(|known| known.is_good_for(upstream)) {
                return Ok(known.addresses.clone());
            }
            let found = self.outbound.resolve(upstream.host(), upstream.port()).await;
            let addresses = check(upstream, &found.or_err(FORBIDDEN, "no address")?)?;
            let until = Instant::now() + KNOWN_FOR;
            *known = Some(Known { upstream: upstream.clone(), addresses: addresses.clone(), until });
            Ok(addresses)
        };
        match timeout_at(deadline, resolved).await {
            Ok(addresses) => addresses,
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "no answer from the name server"),
        }
    }
}

impl Known {
    fn is_good_for(&self, upstream: &UpstreamUrl) -> bool {
        self.upstream == *upstream && Instant::now() < self.until
    }
}

/// The addresses, if all of them may be dialled: a name with one forbidden address is not to be trusted with any.
fn check(upstream: &UpstreamUrl, addresses: &[SocketAddr]) -> Result<Vec<Checked>> {
    if addresses.is_empty() || !addresses.iter().all(|address| upstream.may_dial(address.ip())) {
        return Error::e_explain(FORBIDDEN, "a forbidden address");
    }
    Ok(addresses.iter().take(TRIES).copied().map(Checked).collect())
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler").field("session", &self.session.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::UpstreamPolicy;

    #[test]
    fn one_forbidden_address_is_enough_to_refuse_a_name() {
        let tunnel = UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).expect("valid");
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        let public = [address("104.16.0.1:443"), address("[2606:4700::1]:443")];
        assert_eq!(check(&tunnel, &public).expect("public"), public.map(Checked));
        for bad in ["127.0.0.1:443", "169.254.169.254:443", "[::1]:443", "10.0.0.1:443"] {
            let refused = check(&tunnel, &[public[0], address(bad)]).expect_err(bad);
            assert_eq!(refused.etype(), &FORBIDDEN);
        }
        assert!(check(&tunnel, &[]).is_err());
    }
}
