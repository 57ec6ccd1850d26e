//! Inputs of core's benchmarks, fixed, so that two runs do the same work; and [a simulation of leases](leases).

pub mod leases;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use runit_core::budget::{Budget, Direction};
use runit_core::lease_book::LeaseBook;
use runit_core::ledger::{BUCKET, Lease, LeasePolicy, LeaseRequest, Ledger, Usage, WINDOW};
use runit_core::session::SessionStatus;
use runit_core::time::millis;
use runit_core::{
    LeaseId, Lock, LockId, NodeId, Presented, RenterAddress, Secret, SecretHash, SessionId, SessionView, Timestamp,
    UpstreamPolicy, UpstreamUrl,
};
use uuid::Uuid;

/// A renter's token.
pub const TOKEN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
/// One read of the proxy. Fewer bytes than that are spent of it, so that one budget lasts for a whole run.
pub const WANT: usize = 16 * 1024;
/// Bytes.
pub const MIB: u64 = 1 << 20;
/// Now, for the ledger: noon of the 22nd of November 2026, in UTC.
pub const NOW: Timestamp = Timestamp::from_unix_ms(1_795_348_800_000);
/// The default one.
pub const POLICY: LeasePolicy = LeasePolicy { min_bytes: MIB, max_bytes: 64 * MIB, ttl: Duration::from_secs(60) };

/// The whole meter of one read or write.
pub fn pass_one_byte(budget: &Budget) {
    budget.reserve(black_box(WANT)).spend(Direction::Out, 1);
}

/// As much as a budget holds: four thousand million iterations.
pub fn full_budget() -> Budget {
    let budget = Budget::default();
    budget.deposit(u64::from(u32::MAX)).expect("the most that fits");
    budget
}

/// Leases of that number, all open.
pub fn lease_book(leases: u128, now: Instant) -> LeaseBook {
    let mut book = LeaseBook::new(session_id());
    for number in 0..leases {
        let lease = Lease { id: lease_id(number), granted: 1000 * MIB, ttl: POLICY.ttl };
        book.add(&lease, now, Duration::from_secs(5));
    }
    book
}

/// A whole day of usage in every bucket, and two leases open.
pub fn full_ledger() -> Ledger {
    let this = NOW.unix_ms() / millis(BUCKET);
    let day = millis(WINDOW) / millis(BUCKET);
    let usage = Usage { bytes_in: 1_000, bytes_out: 30_000_000, forfeited: 0 };
    let closed: BTreeMap<u64, Usage> = (this - day + 1..=this).map(|bucket| (bucket, usage)).collect();
    assert_eq!(closed.len(), 288);
    let mut ledger = Ledger { closed, latest: NOW, ..Ledger::default() };
    for number in 0..2 {
        ledger.grant(&lease_request(number), u64::MAX, &POLICY, NOW).expect("no cap");
    }
    ledger
}

/// A node asks for 8 MiB.
pub fn lease_request(number: u128) -> LeaseRequest {
    LeaseRequest {
        lease: lease_id(number),
        node: node_id(),
        session: session_id(),
        lock: LockId::of(SecretHash::of(TOKEN)),
        want: 8 * MIB,
    }
}

/// What a request presents.
pub fn presented(cookie: Option<&str>, token: &str) -> Presented {
    Presented { cookies: cookie.map(SecretHash::of).into_iter().collect(), tokens: vec![SecretHash::of(token)] }
}

/// A session whose lock [`address`] 1 holds, by [`TOKEN`] and a cookie.
pub fn locked_session() -> SessionView {
    let lock = Lock {
        token: SecretHash::of(TOKEN),
        address: address(1),
        cookie: Some(SecretHash::of("cookie")),
        taken_at: NOW,
        renter_seen_at: NOW,
    };
    SessionView {
        id: session_id(),
        revision: 1,
        status: SessionStatus::Locked,
        ending: None,
        lock: Some(Box::new(lock)),
        upstream: UpstreamUrl::parse("https://calm-red-fox.trycloudflare.com", &UpstreamPolicy::default())
            .expect("a quick tunnel's"),
        credential: Secret::new("credential"),
        cap_bytes: 10_240 * MIB,
    }
}

/// A renter's, `192.0.2.<last>`.
pub fn address(last: u8) -> RenterAddress {
    RenterAddress::new([192, 0, 2, last].into())
}

/// The one session.
pub fn session_id() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(1))
}

/// The one node.
pub fn node_id() -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(2))
}

/// The lease of that number.
pub fn lease_id(number: u128) -> LeaseId {
    LeaseId::from_uuid(Uuid::from_u128(1000 + number))
}
