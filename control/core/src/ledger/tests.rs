use super::*;
use uuid::Uuid;

const POLICY: LeasePolicy = LeasePolicy { min_bytes: 100, max_bytes: 1000, ttl: Duration::from_secs(60) };
const HOUR: u64 = 3600;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1000)
}

fn request(lease: u128, want: u64) -> LeaseRequest {
    LeaseRequest {
        lease: LeaseId::from_uuid(Uuid::from_u128(lease)),
        node: NodeId::from_uuid(Uuid::from_u128(1)),
        session: SessionId::from_uuid(Uuid::from_u128(2)),
        want,
    }
}

fn report(lease: u128, sequence: u64, bytes_in: u64, bytes_out: u64, closing: bool) -> LeaseReport {
    let LeaseRequest { lease, session, .. } = request(lease, 0);
    LeaseReport { lease, session, sequence, bytes_in, bytes_out, closing }
}

#[test]
fn an_open_lease_is_charged_in_full_and_a_returned_one_by_use() {
    let mut ledger = Ledger::default();
    let lease = ledger.grant(&request(1, 400), 10_000, &POLICY, at(0)).expect("plenty");
    assert_eq!((lease.granted, ledger.charged()), (400, 400));
    ledger.report(&report(1, 1, 10, 20, false), at(1));
    assert_eq!(ledger.charged(), 400);
    ledger.report(&report(1, 2, 11, 22, true), at(2));
    assert_eq!(ledger.charged(), 33);
}

#[test]
fn an_expired_lease_is_charged_in_full() {
    let mut ledger = Ledger::default();
    ledger.grant(&request(1, 400), 10_000, &POLICY, at(0)).expect("plenty");
    ledger.report(&report(1, 1, 10, 20, false), at(1));
    ledger.advance(at(60));
    assert_eq!(ledger.charged(), 400);
    ledger.report(&report(1, 2, 11, 22, true), at(61));
    assert_eq!(ledger.charged(), 400, "too late");
    let standing = ledger.standing(10_000);
    assert_eq!(standing.used, Usage { bytes_in: 10, bytes_out: 20, forfeited: 370 });
}

#[test]
fn repeated_and_reordered_messages_change_nothing() {
    let mut ledger = Ledger::default();
    let first = ledger.grant(&request(1, 400), 10_000, &POLICY, at(0)).expect("plenty");
    let again = ledger.grant(&request(1, 400), 10_000, &POLICY, at(1)).expect("the same");
    assert_eq!((first.granted, again.granted, ledger.charged()), (400, 400, 400));
    ledger.report(&report(1, 5, 50, 50, false), at(2));
    ledger.report(&report(1, 4, 90, 90, false), at(2));
    assert_eq!(ledger.standing(10_000).used.moved(), 100);
    ledger.report(&report(1, 6, 60, 60, true), at(3));
    ledger.report(&report(1, 6, 60, 60, true), at(3));
    assert_eq!(ledger.charged(), 120);
}

#[test]
fn grants_add_up_to_exactly_the_cap() {
    let mut ledger = Ledger::default();
    let mut sum = 0;
    let mut lease = 0;
    while let Ok(grant) = ledger.grant(&request(lease, 400), 5_000, &POLICY, at(0)) {
        sum += grant.granted;
        lease += 1;
        assert!(ledger.charged() <= 5_000);
    }
    assert_eq!(sum, 5_000);
    assert_eq!(ledger.grant(&request(lease, 1), 5_000, &POLICY, at(0)), Err(Shortage::Leased));
}

#[test]
fn bytes_come_free_a_day_after_their_buckets_end_and_not_before() {
    let mut ledger = Ledger::default();
    ledger.grant(&request(1, 100), 100, &POLICY, at(0)).expect("the whole cap");
    ledger.report(&report(1, 1, 0, 100, true), at(1));
    let free = at(24 * HOUR + 300);
    assert_eq!(ledger.grant(&request(2, 1), 100, &POLICY, at(2)), Err(Shortage::CapReached { free_at: free }));
    assert_eq!(ledger.standing(100).next_free_at, Some(free));
    assert!(ledger.clone().grant(&request(2, 1), 100, &POLICY, at(24 * HOUR + 299)).is_err());
    assert!(ledger.grant(&request(2, 1), 100, &POLICY, free).is_ok());
}

#[test]
fn a_clock_that_steps_back_frees_nothing() {
    let mut ledger = Ledger::default();
    ledger.grant(&request(1, 100), 100, &POLICY, at(2 * HOUR)).expect("the whole cap");
    ledger.report(&report(1, 1, 0, 100, true), at(HOUR));
    assert!(ledger.grant(&request(2, 1), 100, &POLICY, at(25 * HOUR + 600)).is_err(), "booked at two, not at one");
    assert!(ledger.grant(&request(2, 1), 100, &POLICY, at(26 * HOUR + 300)).is_ok());
}

#[test]
fn a_cap_of_nothing_grants_nothing() {
    let mut ledger = Ledger::default();
    let refused = ledger.grant(&request(1, 1), 0, &POLICY, at(0));
    assert!(matches!(refused, Err(Shortage::CapReached { .. })));
}

#[test]
fn a_lowered_cap_does_not_underflow() {
    let mut ledger = Ledger::default();
    ledger.grant(&request(1, 400), 10_000, &POLICY, at(0)).expect("plenty");
    assert!(ledger.grant(&request(2, 1), 10, &POLICY, at(1)).is_err());
    assert_eq!(ledger.standing(10).remaining, 10);
}
