//! Whatever a renter claims, the address that a listed proxy saw is the one that counts.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use runit_core::RenterAddress;
use runit_core::client_address::{client_address, is_listed};

fn listed() -> Vec<IpNet> {
    ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().expect("a network")).to_vec()
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn proxy() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[b, c, d]| IpAddr::from([10, b, c, d])),
        any::<[u8; 10]>().prop_map(|rest| {
            let mut bytes = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes[6..].copy_from_slice(&rest);
            IpAddr::from(bytes)
        }),
    ]
}

/// What a renter puts into the header: anything, also addresses and commas.
fn claim() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        any_address().prop_map(|address| address.to_string().into_bytes()),
        proxy().prop_map(|address| format!("{address}, ").into_bytes()),
    ]
}

fn spelled(address: IpAddr, how: u8) -> String {
    match (address, how % 3) {
        (IpAddr::V4(v4), 1) => format!("::ffff:{v4}"),
        (IpAddr::V6(v6), 1) => format!("[{v6}]"),
        (IpAddr::V4(v4), 2) => format!("{v4}:443"),
        (IpAddr::V6(v6), 2) => format!("[{v6}]:443"),
        (address, _) => address.to_string(),
    }
}

proptest! {
    #[test]
    fn no_claim_changes_the_address_that_the_first_proxy_saw(
        claims in prop::collection::vec(claim(), 0..4),
        renter in any_address(),
        proxies in prop::collection::vec(proxy(), 1..4),
        spelling in any::<u8>(),
        own_line in any::<bool>(),
    ) {
        let listed = listed();
        let renter = RenterAddress::new(renter);
        prop_assume!(!is_listed(renter, &listed));
        // Each proxy appends whom it saw: the first one the renter, the others the proxy before them.
        let seen: Vec<String> = std::iter::once(renter.ip())
            .chain(proxies[..proxies.len() - 1].iter().copied())
            .map(|address| spelled(address, spelling))
            .collect();
        let mut lines = claims;
        if own_line || lines.is_empty() {
            lines.push(seen.join(", ").into_bytes());
        } else {
            let last = lines.last_mut().expect("not empty");
            last.extend_from_slice(b", ");
            last.extend_from_slice(seen.join(",").as_bytes());
        }
        let peer = RenterAddress::new(proxies[proxies.len() - 1]);
        prop_assert_eq!(client_address(peer, lines.iter().map(Vec::as_slice), &listed), Ok(renter));
    }

    #[test]
    fn without_a_listed_proxy_no_header_is_read(claims in prop::collection::vec(claim(), 0..4), peer in any_address()) {
        let peer = RenterAddress::new(peer);
        prop_assume!(!is_listed(peer, &listed()));
        prop_assert_eq!(client_address(peer, claims.iter().map(Vec::as_slice), &listed()), Ok(peer));
    }
}
