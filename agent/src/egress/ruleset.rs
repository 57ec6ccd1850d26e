//! The rules as nft reads them. Pure.
//!
//! ```text
//!   container ──▶ bridge ──▶ forward ──▶ world        exceptions, name servers; then no special-purpose address
//!                   └─────▶ input ───▶ this machine   exceptions, name servers, answers to what this machine asked
//! ```
//!
//! What is refused is refused loudly: a program in the notebook fails at once and not after two minutes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IANA's special-purpose registry (RFC 6890), multicast and what is reserved.
const DENIED_V4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
     192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, \
     224.0.0.0/3";
/// The same within global unicast; all that is outside of it is denied as a whole. 6to4 could carry any IPv4 address.
const DENIED_V6: &str = "2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20";
const GLOBAL_UNICAST: &str = "2000::/3";

const TEMPLATE: &str = include_str!("ruleset.nft");

/// Whether the container's own traffic flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// To public addresses and exceptions.
    Open,
    /// The daily cap is used up: nowhere.
    Cut,
}

/// What the rules are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name; no other agent's.
    pub table: String,
    /// The bridge that the container is behind.
    pub bridge: String,
    /// Networks that may be reached whatever they are.
    pub exceptions: Vec<IpNet>,
    /// Name servers: port 53 of these may be reached.
    pub resolvers: Vec<IpAddr>,
}

impl Ruleset {
    /// One transaction for `nft -f -`, which replaces the table whole, or makes it.
    pub fn text(&self, flow: Flow) -> String {
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            self.exceptions.iter().map(IpNet::trunc).partition(|net| matches!(net, IpNet::V4(_)));
        let resolvers_v4: Vec<Ipv4Addr> = self.resolvers.iter().filter_map(|ip| v4_of(*ip)).collect();
        let resolvers_v6: Vec<Ipv6Addr> = self.resolvers.iter().filter_map(|ip| v6_of(*ip)).collect();
        let flow = match flow {
            Flow::Open => "open",
            Flow::Cut => "cut",
        };
        [
            ("TABLE", self.table.clone()),
            ("BRIDGE", self.bridge.clone()),
            ("FLOW", flow.to_owned()),
            ("EXCEPTIONS4", elements(&listed(&v4))),
            ("EXCEPTIONS6", elements(&listed(&v6))),
            ("RESOLVERS4", elements(&listed(&resolvers_v4))),
            ("RESOLVERS6", elements(&listed(&resolvers_v6))),
            ("DENIED4", elements(DENIED_V4)),
            ("DENIED6", elements(DENIED_V6)),
            ("GLOBAL6", GLOBAL_UNICAST.to_owned()),
        ]
        .iter()
        .fold(TEMPLATE.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// nft takes no empty list.
fn elements(listed: &str) -> String {
    if listed.is_empty() { String::new() } else { format!("elements = {{ {listed} }}") }
}

fn listed<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn v4_of(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

fn v6_of(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => Some(v6),
        _ => None,
    }
}

/// The name servers of a `resolv.conf` that the container would be sent to: not this machine's own loopback, which the
/// engine asks itself, and no address with a zone.
pub fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    servers.filter(|address| !address.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use runit_core::upstream::is_public;

    fn denies(address: IpAddr) -> bool {
        let within =
            |list: &str| list.split(", ").any(|net| net.trim().parse::<IpNet>().expect(net).contains(&address));
        match address {
            IpAddr::V4(_) => within(DENIED_V4),
            IpAddr::V6(_) => within(DENIED_V6) || !within(GLOBAL_UNICAST),
        }
    }

    fn edges() -> impl Iterator<Item = IpAddr> {
        let nets = [DENIED_V4, DENIED_V6, GLOBAL_UNICAST].join(", ");
        let nets: Vec<IpNet> = nets.split(", ").map(|net| net.trim().parse().expect("a network")).collect();
        nets.into_iter().flat_map(|net| match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let near = [first.checked_sub(1), Some(first), Some(last), last.checked_add(1)];
                near.into_iter().flatten().map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))).collect::<Vec<_>>()
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let near = [first.checked_sub(1), Some(first), Some(last), last.checked_add(1)];
                near.into_iter().flatten().map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))).collect()
            }
        })
    }

    /// 6to4 is denied as a whole here, where the gateway looks at the address inside.
    fn should_be_denied(address: IpAddr) -> bool {
        let is_6to4 = matches!(address, IpAddr::V6(v6) if v6.segments()[0] == 0x2002);
        // NAT64 and mapped addresses are outside of global unicast.
        let is_translated = matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xe000 != 0x2000);
        is_6to4 || is_translated || !is_public(address)
    }

    #[test]
    fn at_every_edge_the_rules_deny_what_the_gateway_would_not_dial() {
        for address in edges() {
            assert_eq!(denies(address), should_be_denied(address), "{address}");
        }
    }

    proptest! {
        #[test]
        fn everywhere_the_rules_deny_what_the_gateway_would_not_dial(v4: u32, v6: u128, global: bool) {
            let v6 = if global { (v6 >> 3) | (1 << 125) } else { v6 };
            for address in [IpAddr::from(Ipv4Addr::from_bits(v4)), IpAddr::from(Ipv6Addr::from_bits(v6))] {
                prop_assert_eq!(denies(address), should_be_denied(address), "{}", address);
            }
        }
    }

    #[test]
    fn name_servers_are_read_as_the_engine_reads_them() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.53\nnameserver\t2606:4700::1111 \nnameserver 127.0.0.53\n\
                    nameserver fe80::1%eth0\nsearch lan\nnameserver\n";
        let expected: [IpAddr; 2] = ["10.0.0.53".parse().expect("one"), "2606:4700::1111".parse().expect("two")];
        assert_eq!(resolvers(text), expected);
    }

    #[test]
    fn exceptions_come_before_what_is_denied_and_nothing_is_left_out() {
        let rules = Ruleset {
            table: "runit_00".to_owned(),
            bridge: "runit-00".to_owned(),
            exceptions: vec!["10.1.2.3/24".parse().expect("a network"), "fd00::/8".parse().expect("a network")],
            resolvers: vec!["10.0.0.53".parse().expect("an address")],
        };
        let text = rules.text(Flow::Open);
        assert!(
            text.contains("set exceptions4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.1.2.0/24 } }")
        );
        assert!(text.contains("elements = { fd00::/8 }"));
        assert!(text.find("@exceptions4 accept") < text.find("@denied4 goto refused"));
        let is_left = |word: &str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let rules = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        assert_eq!(
            rules
                .flat_map(|line| line.split([' ', '"', '_']))
                .find(|word| is_left(word) && !word.as_bytes()[0].is_ascii_digit()),
            None
        );
    }
}
