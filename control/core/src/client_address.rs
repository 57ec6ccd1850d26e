//! Whose request it is, where proxies that the operator lists stand before us.
//!
//! Each proxy appends the address that it saw to `X-Forwarded-For`, so the line is read from the right, and only as far
//! as proxies of ours wrote it: what stands further left is what somebody claimed (RFC 7239, section 8.1, on trust).
//! `Forwarded` (RFC 7239) is not read: two headers that may contradict each other are one too many.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::address::RenterAddress;

/// A listed proxy wrote something that is no address: nobody can say whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a listed proxy sent a malformed X-Forwarded-For")]
pub struct MalformedForwarding;

/// Whether `address` is a proxy that is believed.
pub fn is_listed(address: RenterAddress, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.ip()))
}

/// Who sent a request that came from `peer` with these `X-Forwarded-For` lines, in the order in which they came.
///
/// Only if `peer` is listed are they looked at. Then it is the right-most address that is not a listed proxy's; where all
/// are, the left-most; where there is none, `peer`: a request of the proxy's own. An address may have a port
/// (`1.2.3.4:56`, `[::1]:56`), which is dropped; IPv4 in IPv6 is IPv4.
///
/// # Errors
/// [`MalformedForwarding`] when what a listed proxy wrote is not an address: empty, a name, `unknown`, a zone.
pub fn client_address<'a>(
    peer: RenterAddress,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> Result<RenterAddress, MalformedForwarding> {
    let mut client = peer;
    let mut hops = lines.rev().flat_map(|line| line.rsplit(|&c| c == b','));
    while is_listed(client, trusted) {
        match hops.next() {
            Some(hop) => client = parse(hop).ok_or(MalformedForwarding)?,
            None => break,
        }
    }
    Ok(client)
}

fn parse(hop: &[u8]) -> Option<RenterAddress> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?,
    };
    // A zone (`fe80::1%eth0`) only means something on the machine that wrote it.
    (!text.contains('%')).then(|| RenterAddress::new(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8:1::/48"];

    fn read(peer: &str, lines: &[&str]) -> Result<String, MalformedForwarding> {
        let trusted = TRUSTED.map(|network| network.parse().expect("a network"));
        let peer = RenterAddress::new(peer.parse().expect("an address"));
        client_address(peer, lines.iter().map(|line| line.as_bytes()), &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_address_that_is_no_listed_proxy_sent_it() {
        let table: [(&str, &[&str], &str); 17] = [
            // Nobody who is not listed is believed.
            ("203.0.113.9", &["1.1.1.1"], "203.0.113.9"),
            ("203.0.113.9", &["garbage"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["not an address, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1", "10.9.9.9"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1,\t10.9.9.9 ,192.0.2.7"], "1.1.1.1"),
            ("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            // Spellings.
            ("::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1:443"], "1.1.1.1"),
            ("10.0.0.1", &["[2001:db8::5]:443"], "2001:db8::5"),
            ("10.0.0.1", &["[2001:db8::5]"], "2001:db8::5"),
            ("10.0.0.1", &["[::ffff:1.1.1.1]:80"], "1.1.1.1"),
            ("2001:db8:1::9", &["2001:DB8::5, [2001:db8:1::8]:1"], "2001:db8::5"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, ::ffff:10.3.3.3"], "1.1.1.1"),
        ];
        for (peer, lines, client) in table {
            assert_eq!(read(peer, lines), Ok(client.to_owned()), "{peer} {lines:?}");
        }
    }

    #[test]
    fn what_a_listed_proxy_wrote_must_be_an_address() {
        for hop in [
            "",
            " ",
            "unknown",
            "_hidden",
            "1.1.1",
            "1.1.1.1.1",
            "01.1.1.1",
            "1.1.1.1:x",
            "1.1.1.1:99999",
            "[1.1.1.1]",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "fe80::1%1",
            "[fe80::1%1]:80",
            "for=1.1.1.1",
            "\"1.1.1.1\"",
            "1.1.1.1 2.2.2.2",
            "\u{661}.1.1.1",
        ] {
            assert_eq!(read("10.0.0.1", &[hop]), Err(MalformedForwarding), "{hop:?}");
            assert_eq!(read("10.0.0.1", &[&format!("6.6.6.6,{hop}")]), Err(MalformedForwarding), "{hop:?}");
            assert_eq!(read("10.0.0.1", &[&format!("6.6.6.6,{hop}, 10.2.2.2")]), Err(MalformedForwarding), "{hop:?}");
        }
    }
}
