//! What is known about cloudflared's command line, versions, names and messages. Pure.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use runit_config::TunnelProtocol;

/// These decode `%2F` and merge `//` in request paths.
const BROKEN_VERSIONS: [&str; 2] = ["2026.8.0", "2026.8.1"];
const DOMAIN: &str = ".trycloudflare.com";

/// Arguments for a quick tunnel to `gate`, or for the tunnel whose token is in a file; that one's account knows where it
/// leads. The grace period is how long cloudflared takes to end when asked to.
pub(super) fn arguments(
    gate: SocketAddr,
    metrics: SocketAddr,
    protocol: Option<TunnelProtocol>,
    token_file: Option<&Path>,
) -> Vec<OsString> {
    let metrics = metrics.to_string();
    let mut arguments = vec!["tunnel", "--no-autoupdate", "--grace-period", "1s"];
    if let Some(protocol) = protocol {
        let name = match protocol {
            TunnelProtocol::Quic => "quic",
            TunnelProtocol::Http2 => "http2",
        };
        arguments.extend(["--protocol", name]);
    }
    arguments.extend(["--metrics", &metrics]);
    let mut arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
    match token_file {
        None => arguments.extend(["--url".into(), format!("http://{gate}").into()]),
        Some(file) => arguments.extend(["run".into(), "--token-file".into(), file.into()]),
    }
    arguments
}

/// The version in `cloudflared version 2026.8.2 (built ...)`.
pub(super) fn version(output: &str) -> Option<&str> {
    output.lines().find_map(|line| line.strip_prefix("cloudflared version ")?.split_whitespace().next())
}

/// Whether a version must not be used.
pub(super) fn is_broken(version: &str) -> bool {
    BROKEN_VERSIONS.contains(&version)
}

/// Whether a name can be that of a quick tunnel: one label of 3 to 63 lower-case letters, digits and inner hyphens.
pub(super) fn is_quick_tunnel(hostname: &str) -> bool {
    let Some(label) = hostname.strip_suffix(DOMAIN) else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    label != "api"
        && (3..=63).contains(&label.len())
        && label.bytes().all(|byte| plain(byte) || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a line of cloudflared's output says that no tunnel is given out at the moment.
pub(super) fn is_rate_limit(line: &str) -> bool {
    ["429 Too Many Requests", "status_code=429", "error code: 1015", "StatusCode: 429"]
        .iter()
        .any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_exactly_this() {
        let (gate, metrics) = (SocketAddr::from(([127, 0, 0, 1], 4000)), SocketAddr::from(([127, 0, 0, 1], 4001)));
        let line = |protocol, token_file| arguments(gate, metrics, protocol, token_file).join(" ".as_ref());
        assert_eq!(
            line(None, None),
            "tunnel --no-autoupdate --grace-period 1s --metrics 127.0.0.1:4001 --url http://127.0.0.1:4000"
        );
        assert_eq!(
            line(Some(TunnelProtocol::Http2), Some(Path::new("/etc/token"))),
            "tunnel --no-autoupdate --grace-period 1s --protocol http2 --metrics 127.0.0.1:4001 run --token-file /etc/token"
        );
    }

    #[test]
    fn versions_are_read_and_the_broken_ones_known() {
        assert_eq!(version("cloudflared version 2026.8.1 (built 2026-08-20-1130 UTC)\n"), Some("2026.8.1"));
        assert_eq!(version("cloudflared"), None);
        assert!(is_broken("2026.8.0") && is_broken("2026.8.1"));
        assert!(!is_broken("2026.8.2") && !is_broken("2026.7.0"));
    }

    #[test]
    fn only_names_of_quick_tunnels_are_taken() {
        for name in ["a-b-c.trycloudflare.com", "abc.trycloudflare.com", "0a0.trycloudflare.com"] {
            assert!(is_quick_tunnel(name), "{name}");
        }
        let long = format!("{}.trycloudflare.com", "a".repeat(64));
        for name in [
            "api.trycloudflare.com",
            "ab.trycloudflare.com",
            "-ab.trycloudflare.com",
            "ab-.trycloudflare.com",
            "Abc.trycloudflare.com",
            "a.b.trycloudflare.com",
            "abc.trycloudflare.com:80",
            "abc.trycloudflare.com.",
            "u@abc.trycloudflare.com",
            "abc.trycloudflare.com.evil.example",
            "trycloudflare.com",
            "",
            &long,
        ] {
            assert!(!is_quick_tunnel(name), "{name}");
        }
    }

    #[test]
    fn rate_limits_are_recognised() {
        assert!(is_rate_limit(
            r#"ERR Error unmarshaling QuickTunnel response: error code: 1015 status_code="429 Too Many Requests""#
        ));
        assert!(!is_rate_limit("INF Registered tunnel connection connIndex=0 port=4290"));
    }
}
