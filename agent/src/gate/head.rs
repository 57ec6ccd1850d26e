//! What the gate changes in the heads of requests and answers. Pure.

use std::net::SocketAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use runit_core::Secret;

/// Fields of one connection only (RFC 9110, 7.6.1), and `Expect`, which the gate answers itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a tunnel tells about itself and the gateway; the container is to learn neither.
const FORWARDING: [&str; 3] = ["forwarded", "x-real-ip", "cdn-loop"];
const FORWARDING_PREFIXES: [&str; 2] = ["cf-", "x-forwarded-"];

/// The two fields that replace the renter's: Jupyter's credential and a local Host.
#[derive(Debug, Clone)]
pub(super) struct Local {
    authorization: HeaderValue,
    host: HeaderValue,
}

impl Local {
    /// For Jupyter at `address`. A token that is no field value (ours are hexadecimal) becomes one that opens nothing.
    pub(super) fn new(address: SocketAddr, jupyter_token: &Secret) -> Self {
        let value = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        let mut authorization = value(format!("token {}", jupyter_token.expose()));
        authorization.set_sensitive(true);
        Self { authorization, host: value(address.to_string()) }
    }

    /// The request's head as Jupyter gets it.
    pub(super) fn request(&self, mut headers: HeaderMap, upgrade: Option<HeaderValue>) -> HeaderMap {
        strip(&mut headers, upgrade);
        headers.remove(header::EXPECT);
        let forwarding: Vec<HeaderName> = headers.keys().filter(|name| is_forwarding(name)).cloned().collect();
        for name in forwarding {
            headers.remove(name);
        }
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(header::HOST, self.host.clone());
        headers
    }
}

/// Jupyter's answer as the tunnel gets it.
pub(super) fn response(mut headers: HeaderMap, upgrade: Option<HeaderValue>) -> HeaderMap {
    strip(&mut headers, upgrade);
    headers
}

/// The protocol that a request or answer wants to switch to, if it says so in both fields (RFC 9110, 7.8).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

/// Removes what belongs to one connection, also what `Connection` names; an upgrade is put back.
fn strip(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<String> = connection_options(headers).map(str::to_owned).collect();
    for name in &named {
        headers.remove(name.as_str());
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|o| !o.is_empty())
}

fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    FORWARDING.contains(&name) || FORWARDING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn to_jupyter(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let sent = headers(fields);
        let upgrade = upgrade(&sent);
        Local::new(([127, 0, 0, 1], 8888).into(), &Secret::new("jt")).request(sent, upgrade)
    }

    #[test]
    fn jupyter_gets_its_own_credential_and_host() {
        let sent = to_jupyter(&[("authorization", "token gate"), ("host", "a.trycloudflare.com"), ("cookie", "a=b")]);
        assert_eq!(sent, headers(&[("cookie", "a=b"), ("authorization", "token jt"), ("host", "127.0.0.1:8888")]));
    }

    #[test]
    fn connection_cannot_remove_what_the_gate_sets() {
        let sent = to_jupyter(&[("connection", "authorization, host, x-other"), ("x-other", "1")]);
        assert_eq!(sent, headers(&[("authorization", "token jt"), ("host", "127.0.0.1:8888")]));
    }

    #[test]
    fn nothing_tells_the_container_of_tunnel_or_gateway() {
        let sent = to_jupyter(&[
            ("cf-connecting-ip", "203.0.113.1"),
            ("cf-warp-tag-id", "1"),
            ("x-forwarded-host", "a.trycloudflare.com"),
            ("x-forwarded-for", "203.0.113.1"),
            ("forwarded", "for=203.0.113.1"),
            ("cdn-loop", "cloudflare"),
        ]);
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn an_upgrade_passes_only_if_both_fields_ask_for_it() {
        let sent = to_jupyter(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("keep-alive", "5")]);
        assert_eq!(sent.get("connection").map(HeaderValue::as_bytes), Some(&b"Upgrade"[..]));
        assert_eq!(sent.get("upgrade").map(HeaderValue::as_bytes), Some(&b"websocket"[..]));
        assert!(!sent.contains_key("keep-alive"));
        assert!(!to_jupyter(&[("upgrade", "websocket")]).contains_key("upgrade"));
        assert!(!to_jupyter(&[("connection", "upgrade")]).contains_key("connection"));
    }
}
