//! URLs that providers register, and addresses that may be dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use runit_core::{UpstreamPolicy, UpstreamUrl};

use super::spelled;

const PARTS: [&str; 46] = [
    "https://",
    "http://",
    "a-b",
    "calm-red-fox",
    ".trycloudflare.com",
    ".evil.com",
    "@",
    ":",
    "443",
    "80",
    "8888",
    ".",
    "/",
    "//",
    "?",
    "#",
    "%2e",
    "%00",
    "\\",
    "[",
    "]",
    "::1",
    "::ffff:127.0.0.1",
    "%25eth0",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "localhost",
    "localhost.",
    "gpu.example.org",
    "api",
    "-",
    "A",
    "xn--",
    "\u{2010}",
    "\u{ff0e}",
    "\u{3002}",
    "\t",
    "\n",
    " ",
    "user:pass@",
    "ws://",
    "file://",
    "169.254.169.254",
];

fn policy() -> UpstreamPolicy {
    UpstreamPolicy {
        hosts: vec!["gpu.example.org".into()],
        plain_http_hosts: vec!["127.0.0.1".into(), "localhost".into()],
    }
}

/// The few shapes that there are, told without a URL parser.
fn is_allowed(text: &str) -> bool {
    let text = text.strip_suffix('/').unwrap_or(text);
    let is_port =
        |port: &str| !port.starts_with('0') && port.parse::<u16>().is_ok() && port.bytes().all(|c| c.is_ascii_digit());
    let is_at = |rest: &str, host: &str, ports: bool| match rest.strip_prefix(host) {
        Some("") => true,
        Some(rest) => ports && rest.strip_prefix(':').is_some_and(is_port),
        None => false,
    };
    let label = text.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".trycloudflare.com"));
    if let Some(label) = label {
        let plain = label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        return plain
            && (3..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label != "api";
    }
    let local = |rest: &str| is_at(rest, "127.0.0.1", true) || is_at(rest, "localhost", true);
    match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => local(rest) || is_at(rest, "gpu.example.org", true),
        (_, Some(rest)) => local(rest),
        _ => false,
    }
}

#[test]
fn only_the_few_allowed_shapes_of_urls_are_accepted() {
    bolero::check!().with_type::<(bool, Vec<u8>)>().for_each(|(begun, bytes)| {
        let start = if *begun { "https://" } else { "" };
        let text = format!("{start}{}", String::from_utf8_lossy(&spelled(bytes, &PARTS)));
        let Ok(url) = UpstreamUrl::parse(&text, &policy()) else { return };
        assert!(is_allowed(&text), "{text:?} was accepted");
        assert_eq!(UpstreamUrl::parse(&url.to_string(), &policy()), Ok(url), "{text:?} is not read back");
    });
}

#[test]
fn every_way_to_write_a_special_address_is_as_special() {
    let tunnel = UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).expect("valid");
    bolero::check!().with_type::<(u8, [u8; 4])>().for_each(|(kind, octets)| {
        let first = [0, 10, 100, 127, 169, 172, 192, 198, 203, 224, 255, octets[0]][usize::from(*kind) % 12];
        let v4 = Ipv4Addr::new(first, octets[1], octets[2], octets[3]);
        let special = v4.is_private()
            || v4.is_loopback()
            || v4.is_link_local()
            || v4.is_documentation()
            || v4.is_multicast()
            || v4.is_broadcast()
            || v4.is_unspecified()
            || first == 0
            || first >= 240
            || (first == 100 && octets[1] & 0xc0 == 64)
            || (first == 198 && octets[1] & 0xfe == 18)
            || (first == 192 && octets[1] == 0 && octets[2] == 0);
        let [a, b] = [u16::from_be_bytes([first, octets[1]]), u16::from_be_bytes([octets[2], octets[3]])];
        let spellings = [
            IpAddr::V4(v4),
            IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b)),
            IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b)),
            IpAddr::V6(Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1)),
        ];
        for address in spellings {
            assert!(!(special && tunnel.may_dial(address)), "{address} may be dialled");
        }
    });
}
