//! The listener for plain HTTP beside one with TLS: it answers each request with a redirect, and nothing else.
//!
//! Where to is decided by the settings: a rental's own host where the request names one, else `gateway.public_url`; never
//! anywhere else. A `token` parameter came over the wire in the clear, and is not sent along a second time.
//!
//! A connection's whole life is short, so all of them wait as far as their places go: at the limit the oldest gives way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use prometheus::IntCounter;
use runit_core::client_address::is_listed;
use runit_core::{HostLabel, RenterAddress};
use runit_listener::files;
use runit_listener::places::{Bounds, Full, Place, Places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::entrance::with_query;
use crate::gateway::split_target;
use crate::head::HeadScanner;
use crate::metrics::Metrics;
use crate::reception::socket_peer;

/// Connections at one moment, at the most, and of one network.
const CONNECTIONS: usize = 1_024;
const PER_NETWORK: usize = 32;
/// For one connection, from its first to its last byte.
const WITHIN: Duration = Duration::from_secs(5);
const HEAD_BYTES: usize = 16 * 1024;

/// How many there may be, by the files that this process may open.
pub(crate) fn connections() -> usize {
    files::share(CONNECTIONS, 16)
}

/// Redirects to the same path over TLS.
pub struct RedirectApp {
    gateway: runit_config::Gateway,
    places: Arc<Places>,
    turned_away: IntCounter,
}

impl RedirectApp {
    /// Redirects to the public names in the settings.
    pub fn new(gateway: &runit_config::Gateway, metrics: &Metrics) -> Self {
        let (connections, per_network) = (connections(), PER_NETWORK);
        let bounds = Bounds { connections, per_network, waiting_per_network: per_network };
        let turned_away = metrics.turned_away.with_label_values(&["redirect"]);
        Self { gateway: gateway.clone(), places: Places::new(bounds), turned_away }
    }

    /// A listed proxy or balancer has the connections of many, so it is not bounded as one of them.
    fn admit(&self, peer: RenterAddress) -> Result<Place, Full> {
        let listed = [&self.gateway.trusted_proxies, &self.gateway.proxy_protocol];
        if listed.iter().any(|networks| is_listed(peer, networks)) {
            self.places.enter_for_many(peer.network())
        } else {
            self.places.enter(peer.network())
        }
    }

    async fn converse(&self, mut stream: Stream) -> std::io::Result<()> {
        let mut scanner = HeadScanner::default();
        let mut head = Vec::new();
        let mut chunk = [0; 1_024];
        while !scanner.is_done() && head.len() < HEAD_BYTES {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            scanner.advance(&chunk[..read]);
            head.extend_from_slice(&chunk[..read]);
        }
        let answer = if scanner.is_done() { self.answer(&head) } else { bad_request() };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(&mut stream).await
    }

    fn answer(&self, head: &[u8]) -> String {
        let Some(target) = target(head) else { return bad_request() };
        format!(
            "HTTP/1.1 308 Permanent Redirect\r\nLocation: {}{target}\r\nCache-Control: no-store\r\n\
             Referrer-Policy: no-referrer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.origin(head)
        )
    }

    fn origin(&self, head: &[u8]) -> String {
        let mut url = self.gateway.public_url.clone();
        let rental = self.gateway.sessions_host.as_ref().and_then(|under| Some((host_label(head, under)?, under)));
        if let Some((label, under)) = rental {
            url.set_host(Some(&format!("{label}.{under}"))).expect("a label and a host name");
        }
        url.as_str().trim_end_matches('/').to_owned()
    }
}

/// The rental that `Host` names, whatever its port: that one is this listener's.
fn host_label(head: &[u8], under: &str) -> Option<HostLabel> {
    let mut lines = head.split(|&c| c == b'\n').filter_map(|line| std::str::from_utf8(line.trim_ascii()).ok());
    let (_, host) =
        lines.find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("host")))?;
    let host = host.trim().to_ascii_lowercase();
    let name = host.split_once(':').map_or(&*host, |(name, _)| name);
    name.strip_suffix(under)?.strip_suffix('.')?.parse().ok()
}

fn bad_request() -> String {
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
}

/// Path and query of a request in origin form, without tokens; nothing in it can end a header line.
fn target(head: &[u8]) -> Option<String> {
    let line = head.trim_ascii_start().split(|&c| c == b'\r' || c == b'\n').next()?;
    let mut parts = line.split(|&c| c == b' ');
    let (_method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_http = version.starts_with(b"HTTP/1.") && parts.next().is_none();
    let is_origin_form = target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic);
    let (path, query) = split_target(target);
    if is_http && is_origin_form { with_query(path, query) } else { None }
}

#[async_trait]
impl ServerApp for RedirectApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let place = self.admit(socket_peer(&stream)?).map_err(|_| self.turned_away.inc()).ok()?;
        tokio::select! {
            biased;
            () = place.gave_way() => self.turned_away.inc(),
            // How it ends is the client's affair.
            _ = tokio::time::timeout(WITHIN, self.converse(stream)) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use runit_core::SecretHash;

    use super::*;

    fn location(request: &str) -> Option<String> {
        location_at(request, "evil.example")
    }

    fn location_at(request: &str, host: &str) -> Option<String> {
        let gateway = runit_config::Gateway {
            public_url: "https://gateway.example:8443".parse().expect("a URL"),
            sessions_host: Some("notebooks.test".to_owned()),
            ..runit_config::Gateway::default()
        };
        let app = RedirectApp::new(&gateway, &Metrics::new().expect("no name twice"));
        let answer = app.answer(format!("{request}\r\nAccept: */*\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(answer.matches("\r\n\r\n").count(), 1);
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        assert_eq!(answer.starts_with("HTTP/1.1 308 "), location.is_some(), "{answer}");
        location.map(str::to_owned)
    }

    #[test]
    fn path_and_query_are_kept_and_the_host_is_ours() {
        for (target, kept) in [
            ("/", "/"),
            ("/s/x/lab?reset&a=%2F//", "/s/x/lab?reset&a=%2F//"),
            ("/s/x/lab?token=secret", "/s/x/lab"),
            ("/s/x/lab?a=1&token=secret&b=2", "/s/x/lab?a=1&b=2"),
            ("//evil.example/x", "//evil.example/x"),
            ("/\\evil.example", "/\\evil.example"),
        ] {
            let expected = format!("https://gateway.example:8443{kept}");
            assert_eq!(location(&format!("GET {target} HTTP/1.1")).as_deref(), Some(&*expected));
        }
        assert!(location("POST /x HTTP/1.0").is_some(), "308 keeps the method");
    }

    #[test]
    fn a_rental_is_led_to_its_own_host_and_no_other_name_is_followed() {
        let label = HostLabel::of(SecretHash::of("token"));
        let ours = format!("https://{label}.notebooks.test:8443/s/x");
        let main = "https://gateway.example:8443/s/x";
        for (host, expected) in [
            (format!("{label}.notebooks.test"), &*ours),
            (format!("{label}.Notebooks.test:80"), &ours),
            (format!("{label}.notebooks.test.evil"), main),
            (format!("{label}.evilnotebooks.test"), main),
            (format!("evil.example/{label}.notebooks.test"), main),
            ("x.notebooks.test".to_owned(), main),
            (".notebooks.test".to_owned(), main),
        ] {
            assert_eq!(location_at("GET /s/x HTTP/1.1", &host).as_deref(), Some(expected), "{host}");
        }
    }

    #[test]
    fn what_is_no_plain_request_is_not_reflected() {
        for line in [
            "GET http://evil.example/ HTTP/1.1",
            "GET @evil.example HTTP/1.1",
            ".evil.example / HTTP/1.1 x",
            "GET /\u{e9} HTTP/1.1",
            "GET /a\tb HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /",
            "CONNECT evil.example:443 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "",
        ] {
            assert_eq!(location(line), None, "{line:?}");
        }
    }
}
