//! The renter's address, what a lock compares, and what a rate limit counts by.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Where a renter's connection comes from. IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2) are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RenterAddress(IpAddr);

impl RenterAddress {
    /// Takes the address of a socket, in whichever spelling the kernel gave it.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The canonical address.
    pub const fn ip(self) -> IpAddr {
        self.0
    }

    /// The network that a rate limit counts by.
    pub fn network(self) -> NetworkKey {
        NetworkKey(match self.0 {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(first_bits(v6, 64)),
        })
    }
}

impl fmt::Display for RenterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One IPv4 address or one IPv6 /64: a single site gets at least a /64 (RFC 6177), so counting by address there
/// would count nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey(IpAddr);

impl NetworkKey {
    /// The IPv6 /48 that it is in: all that one site may have (RFC 6177, section 2). An IPv4 address stands for itself.
    pub fn site(self) -> Option<Self> {
        match self.0 {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(Self(IpAddr::V6(first_bits(v6, 48)))),
        }
    }
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How strictly a lock holds on to the address that took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// The very same address.
    #[default]
    Exact,
    /// The same IPv4 /24 or IPv6 /64.
    Prefix,
    /// Any address; a differing one is only reported.
    Observe,
}

impl LockMode {
    /// Whether a connection from `seen` may use a lock that `holder` took.
    pub fn admits(self, holder: RenterAddress, seen: RenterAddress) -> bool {
        match self {
            Self::Exact => holder == seen,
            Self::Prefix => prefix(holder.0) == prefix(seen.0),
            Self::Observe => true,
        }
    }
}

fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => IpAddr::V6(first_bits(v6, 64)),
    }
}

fn first_bits(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> RenterAddress {
        RenterAddress::new(text.parse().expect("a literal in this test"))
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(address("::ffff:127.0.0.2"), address("127.0.0.2"));
        assert_ne!(address("::1"), address("127.0.0.1"));
    }

    #[test]
    fn each_mode_admits_what_it_says() {
        let table = [
            ("10.1.2.3", "10.1.2.3", true, true),
            ("10.1.2.3", "10.1.2.4", false, true),
            ("10.1.2.3", "10.1.3.3", false, false),
            ("2001:db8::1", "2001:db8::2", false, true),
            ("2001:db8::1", "2001:db8:0:1::1", false, false),
            ("10.1.2.3", "2001:db8::1", false, false),
        ];
        for (holder, seen, exact, by_prefix) in table {
            let (holder, seen) = (address(holder), address(seen));
            assert_eq!(LockMode::Exact.admits(holder, seen), exact, "exact {holder} {seen}");
            assert_eq!(LockMode::Prefix.admits(holder, seen), by_prefix, "prefix {holder} {seen}");
            assert!(LockMode::Observe.admits(holder, seen));
        }
    }

    #[test]
    fn rates_count_an_ipv6_site_as_one() {
        assert_eq!(address("2001:db8::1").network(), address("2001:db8::ffff:1").network());
        assert_ne!(address("2001:db8::1").network(), address("2001:db8:0:1::1").network());
        assert_ne!(address("10.0.0.1").network(), address("10.0.0.2").network());
    }
}
