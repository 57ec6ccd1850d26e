//! From a session's upstream to the address that is dialled.
//!
//! The name is resolved for each new connection and every address checked; what is dialled is the checked address
//! itself, so that a name that changes its mind in between gains nothing.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use runit_config::NodeSettings;
use runit_core::{SessionView, UpstreamUrl};

use crate::answer::Refusal;

/// How long the parts of an exchange with a provider may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpstreamTimeouts {
    /// TCP and TLS together.
    pub(crate) connect: Duration,
    /// Until the first byte of the answer, and between its bytes.
    pub(crate) read: Duration,
}

impl UpstreamTimeouts {
    /// As the settings have them now.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        Self {
            connect: Duration::from_millis(settings.gateway.upstream_connect_timeout_ms),
            read: Duration::from_millis(settings.gateway.upstream_first_byte_timeout_ms),
        }
    }
}

/// An idle connection to a provider is kept for so long.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// Where to send a request of `session`.
///
/// # Errors
/// [`Refusal::UpstreamForbidden`] if the name resolves to nothing, or to an address that may not be dialled.
pub(crate) async fn peer(session: &SessionView, timeouts: UpstreamTimeouts) -> Result<HttpPeer, Refusal> {
    let upstream = &session.upstream;
    let address = resolve(upstream, timeouts.connect).await?;
    let mut peer = HttpPeer::new(address, upstream.is_tls(), upstream.host().to_owned());
    // A pooled connection serves the session that opened it and no other, and not across a change of credential.
    let mut hasher = DefaultHasher::new();
    (session.id, session.credential.expose()).hash(&mut hasher);
    peer.group_key = hasher.finish();
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.read);
    options.idle_timeout = Some(POOL_IDLE);
    peer.options = options;
    Ok(peer)
}

async fn resolve(upstream: &UpstreamUrl, patience: Duration) -> Result<SocketAddr, Refusal> {
    let lookup = tokio::net::lookup_host((upstream.host(), upstream.port()));
    let addresses = tokio::time::timeout(patience, lookup).await.map_err(|_| Refusal::UpstreamTimedOut)?;
    let addresses: Vec<SocketAddr> = addresses.map_err(|_| Refusal::UpstreamForbidden)?.collect();
    checked(upstream, &addresses)
}

/// The first address, if all of them may be dialled: a name with one forbidden address is not to be trusted with any.
fn checked(upstream: &UpstreamUrl, addresses: &[SocketAddr]) -> Result<SocketAddr, Refusal> {
    let allowed = addresses.iter().all(|address| upstream.may_dial(address.ip()));
    addresses.first().copied().filter(|_| allowed).ok_or(Refusal::UpstreamForbidden)
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
        assert_eq!(checked(&tunnel, &public), Ok(public[0]));
        for bad in ["127.0.0.1:443", "169.254.169.254:443", "[::1]:443", "10.0.0.1:443"] {
            assert_eq!(checked(&tunnel, &[public[0], address(bad)]), Err(Refusal::UpstreamForbidden), "{bad}");
        }
        assert_eq!(checked(&tunnel, &[]), Err(Refusal::UpstreamForbidden));
    }
}
