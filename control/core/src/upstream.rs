//! Which URL a provider may register, and which address the gateway may dial for it.
//!
//! Two walls against server-side request forgery (OWASP SSRF prevention, case 2): the *name* must be a quick tunnel's or
//! one that the operator listed, and the *address* that it resolves to must be an ordinary public one. Only hosts that
//! the operator listed for plain HTTP, which are meant for use on one machine, may be private.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Which hosts the operator allows beside `https://<label>.trycloudflare.com`.
#[derive(Clone, Debug, Default)]
pub struct UpstreamPolicy {
    /// Further host names, reached over TLS.
    pub hosts: Vec<String>,
    /// Host names or addresses that may be reached over plain HTTP (or TLS) and may be private: local use.
    pub plain_http_hosts: Vec<String>,
}

/// Where a session's Jupyter is reached: scheme, host and port, nothing else. [`UpstreamUrl::parse`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    host: Box<str>,
    port: u16,
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    /// TLS with a host for local use.
    LocalHttps,
    /// Plain HTTP, which only a host for local use may speak.
    LocalHttp,
}

/// The URL is not one that may be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid public URL")]
pub struct InvalidUpstream;

impl UpstreamUrl {
    /// Checks a URL that a provider sent.
    ///
    /// The text must be the canonical spelling of `scheme://host[:port]` (WHATWG URL), with one trailing `/` at most:
    /// what has user info, a path, a query, a trailing dot, or an address in a strange base is refused rather than
    /// understood.
    ///
    /// # Errors
    /// [`InvalidUpstream`] for everything else.
    pub fn parse(text: &str, policy: &UpstreamPolicy) -> Result<Self, InvalidUpstream> {
        let url = Url::parse(text).map_err(|_| InvalidUpstream)?;
        let origin = text.strip_suffix('/').unwrap_or(text);
        if url.origin().ascii_serialization() != origin {
            return Err(InvalidUpstream);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(InvalidUpstream),
        };
        let port = url.port_or_known_default().ok_or(InvalidUpstream)?;
        let listed = |hosts: &[String]| hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&host));
        let scheme = match url.scheme() {
            "https" if is_quick_tunnel(&host) && port == 443 => Scheme::Https,
            "https" if listed(&policy.hosts) => Scheme::Https,
            "https" if listed(&policy.plain_http_hosts) => Scheme::LocalHttps,
            "http" if listed(&policy.plain_http_hosts) => Scheme::LocalHttp,
            _ => return Err(InvalidUpstream),
        };
        Ok(Self { host: host.into_boxed_str(), port, scheme })
    }

    /// Reads back what [`Display`](fmt::Display) wrote. Whether the host is still allowed is not asked: what was good
    /// when it was kept must not become unreadable.
    ///
    /// # Errors
    /// [`InvalidUpstream`] for what no URL that was let in looks like.
    pub fn read_back(text: &str) -> Result<Self, InvalidUpstream> {
        let url = Url::parse(text).map_err(|_| InvalidUpstream)?;
        let host = url.host_str().ok_or(InvalidUpstream)?.trim_matches(['[', ']']).to_owned();
        Self::parse(text, &UpstreamPolicy { hosts: vec![host.clone()], plain_http_hosts: vec![host] })
    }

    /// Host name, or address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted and the host's name verified.
    pub fn is_tls(&self) -> bool {
        self.scheme != Scheme::LocalHttp
    }

    /// Whether `address`, which the host resolved to, may be dialled.
    pub fn may_dial(&self, address: IpAddr) -> bool {
        match self.scheme {
            Scheme::Https => is_public(address),
            Scheme::LocalHttps | Scheme::LocalHttp => true,
        }
    }

    /// The `Host` header for this upstream (RFC 9110, section 7.2): the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        match (self.scheme, self.port) {
            (Scheme::Https | Scheme::LocalHttps, 443) | (Scheme::LocalHttp, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// The canonical URL, which [`UpstreamUrl::parse`] and [`UpstreamUrl::read_back`] take.
impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// The label that cloudflared draws: two or more lower-case words; `api` is Cloudflare's own.
fn is_quick_tunnel(host: &str) -> bool {
    let Some(label) = host.strip_suffix(".trycloudflare.com") else { return false };
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = label.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(inner)
        && edge(bytes.first())
        && edge(bytes.last())
        && label != "api"
}

/// Whether an address is an ordinary public one: in none of the special-purpose ranges of RFC 6890 and its registries,
/// also not by way of an embedded IPv4 address (mapped, NAT64, 6to4).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    // (network, prefix length)
    const SPECIAL: [([u8; 4], u32); 14] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 3),
    ];
    let bits = address.to_bits();
    !SPECIAL.iter().any(|&(network, length)| (bits ^ Ipv4Addr::from(network).to_bits()) >> (32 - length) == 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded_v4(address) {
        return is_public_v4(v4);
    }
    let [a, b, ..] = address.segments();
    let global_unicast = a & 0xe000 == 0x2000;
    let special = match (a, b) {
        (0x2001, b) if b < 0x0200 => true, // RFC 2928: protocol assignments, Teredo among them
        (0x2001, 0x0db8) => true,          // documentation
        (0x3fff, b) => b < 0x1000,         // documentation, RFC 9637
        _ => false,
    };
    global_unicast && !special
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(join(high, low)), // mapped, RFC 4291
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)), // NAT64, RFC 6052
        [0x2002, high, low, ..] => Some(join(high, low)),            // 6to4, RFC 3056
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> UpstreamPolicy {
        UpstreamPolicy {
            hosts: vec!["gpu.example.org".into()],
            plain_http_hosts: vec!["127.0.0.1".into(), "localhost".into()],
        }
    }

    #[test]
    fn quick_tunnels_and_listed_hosts_are_accepted_and_read_back() {
        for (text, authority) in [
            ("https://calm-red-fox.trycloudflare.com", "calm-red-fox.trycloudflare.com"),
            ("https://calm-red-fox.trycloudflare.com/", "calm-red-fox.trycloudflare.com"),
            ("https://gpu.example.org:8443", "gpu.example.org:8443"),
            ("http://127.0.0.1:8888", "127.0.0.1:8888"),
            ("http://localhost", "localhost"),
            ("https://localhost:8443", "localhost:8443"),
        ] {
            let url = UpstreamUrl::parse(text, &policy()).expect(text);
            assert_eq!(url.authority(), authority);
            assert_eq!(UpstreamUrl::parse(&url.to_string(), &policy()), Ok(url));
        }
    }

    #[test]
    fn look_alikes_and_strange_spellings_are_refused() {
        for text in [
            "",
            "calm-red-fox.trycloudflare.com",
            "http://calm-red-fox.trycloudflare.com",
            "https://calm-red-fox.trycloudflare.com:8443",
            "https://calm-red-fox.trycloudflare.com.evil.com",
            "https://calm-red-fox.trycloudflare.com@evil.com",
            "https://user:pass@calm-red-fox.trycloudflare.com",
            "https://calm-red-fox.trycloudflare.com/path",
            "https://calm-red-fox.trycloudflare.com//",
            "https://calm-red-fox.trycloudflare.com?q",
            "https://calm-red-fox.trycloudflare.com#f",
            "https://calm-red-fox.trycloudflare.com.",
            "https://api.trycloudflare.com",
            "https://trycloudflare.com",
            "https://a.b.trycloudflare.com",
            "https://-a-b.trycloudflare.com",
            "https://CALM-red.trycloudflare.com",
            "https://xn--80ak6aa92e.com",
            "https://calm\u{2010}red.trycloudflare.com",
            "https://gpu.example.org.",
            "https://evil.gpu.example.org",
            "https://127.0.0.2",
            "http://127.1:8888",
            "http://2130706433:8888",
            "http://0x7f.0.0.1:8888",
            "http://0177.0.0.1:8888",
            "http://[::ffff:127.0.0.1]:8888",
            "http://[::1]:8888",
            "http://169.254.169.254",
            "http://localhost.:8888",
            " https://calm-red-fox.trycloudflare.com",
            "https:\\\\calm-red-fox.trycloudflare.com",
            "file:///etc/passwd",
            "ws://calm-red-fox.trycloudflare.com",
        ] {
            assert_eq!(UpstreamUrl::parse(text, &policy()), Err(InvalidUpstream), "{text}");
        }
    }

    #[test]
    fn what_was_let_in_is_read_back_whatever_is_allowed_now_and_nothing_else_is() {
        for text in ["https://calm-red-fox.trycloudflare.com", "https://gpu.example.org", "http://[::1]:8888"] {
            assert_eq!(UpstreamUrl::read_back(text).map(|url| url.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "ftp://gpu.example.org", "https://gpu.example.org/path", "https://me@gpu.example.org"] {
            assert_eq!(UpstreamUrl::read_back(text), Err(InvalidUpstream), "{text}");
        }
    }

    #[test]
    fn special_purpose_addresses_are_never_dialled_over_tls() {
        let tunnel = UpstreamUrl::parse("https://a-b.trycloudflare.com", &policy()).expect("valid");
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!tunnel.may_dial(text.parse().expect("a literal")), "{text}");
        }
        for text in
            ["1.1.1.1", "104.16.0.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "64:ff9b::101:101"]
        {
            assert!(tunnel.may_dial(text.parse().expect("a literal")), "{text}");
        }
    }

    #[test]
    fn only_a_host_for_local_use_may_be_private() {
        for (url, tls) in [("http://localhost:8888", false), ("https://localhost:8443", true)] {
            let local = UpstreamUrl::parse(url, &policy()).expect("listed");
            assert!(local.may_dial(IpAddr::from([127, 0, 0, 1])));
            assert_eq!(local.is_tls(), tls);
        }
        let listed = UpstreamUrl::parse("https://gpu.example.org", &policy()).expect("listed");
        assert!(!listed.may_dial(IpAddr::from([127, 0, 0, 1])));
    }
}
