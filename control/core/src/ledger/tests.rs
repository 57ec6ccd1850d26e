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
        lock: LockId::from_uuid(Uuid::from_u128(3)),
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
        assert!(sum <= 5_000 && ledger.charged() == sum);
    }
    assert_eq!(sum, 5_000);
    assert_eq!(ledger.grant(&request(lease, 1), 5_000, &POLICY, at(0)), Err(Shortage::Leased));
}

#[test]
fn more_than_4_gib_are_counted_in_every_place() {
    const GIB: u64 = 1 << 30;
    let policy = LeasePolicy { min_bytes: GIB, max_bytes: GIB, ttl: POLICY.ttl };
    let mut ledger = Ledger::default();
    for lease in 0..10 {
        ledger.grant(&request(lease, GIB), 100 * GIB, &policy, at(0)).expect("plenty");
        let (bytes_in, bytes_out) = if lease < 5 { (GIB, 0) } else { (0, GIB) };
        ledger.report(&report(lease, 1, bytes_in, bytes_out, lease % 2 == 0), at(1));
        assert_eq!(ledger.charged(), (u64::try_from(lease).expect("small") + 1) * GIB);
    }
    ledger.advance(at(61));
    assert_eq!(ledger.standing(0).used, Usage { bytes_in: 5 * GIB, bytes_out: 5 * GIB, forfeited: 0 });
    ledger.grant(&request(99, GIB), 100 * GIB, &policy, at(62)).expect("plenty");
    let spent = Spent { since: request(99, 0).lease, bytes_in: 5 * GIB, bytes_out: 5 * GIB, reserved: 5 * GIB };
    ledger.recover(request(99, 0).node, &spent, at(62));
    assert_eq!(ledger.charged(), 11 * GIB);
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

mod recovery {
    use super::*;

    const CAP: u64 = 100_000;

    fn node(name: u128) -> NodeId {
        NodeId::from_uuid(Uuid::from_u128(name))
    }

    fn spent(since: u128, bytes_in: u64, bytes_out: u64, reserved: u64) -> Spent {
        Spent { since: LeaseId::from_uuid(Uuid::from_u128(since)), bytes_in, bytes_out, reserved }
    }

    /// A ledger that has granted node 1 these leases of 400, in this order.
    fn granted(leases: &[u128]) -> Ledger {
        let mut ledger = Ledger::default();
        for &lease in leases {
            ledger.grant(&request(lease, 400), CAP, &POLICY, at(0)).expect("plenty");
        }
        ledger
    }

    fn used(ledger: &Ledger) -> Usage {
        assert!(ledger.open.is_empty() && ledger.settled.is_empty(), "all settled: {ledger:?}");
        ledger.standing(CAP).used
    }

    #[test]
    fn a_dead_nodes_leases_are_charged_what_was_spent_and_reserved_and_the_rest_returned() {
        let mut ledger = granted(&[1, 2]);
        ledger.report(&report(1, 1, 10, 20, false), at(1));
        ledger.recover(node(1), &spent(1, 300, 200, 64), at(2));
        assert_eq!(used(&ledger), Usage { bytes_in: 300, bytes_out: 200, forfeited: 64 });
        assert_eq!(ledger.charged(), 564);
    }

    #[test]
    fn what_was_settled_since_the_first_lease_is_not_charged_again() {
        let mut ledger = granted(&[1, 2]);
        ledger.report(&report(1, 1, 150, 250, true), at(1));
        ledger.report(&report(2, 1, 5, 5, false), at(1));
        ledger.recover(node(1), &spent(1, 170, 260, 0), at(2));
        assert_eq!(used(&ledger), Usage { bytes_in: 170, bytes_out: 260, forfeited: 0 });
    }

    #[test]
    fn recovering_again_changes_nothing() {
        let mut ledger = granted(&[1]);
        ledger.recover(node(1), &spent(1, 30, 0, 0), at(1));
        let once = ledger.clone();
        ledger.recover(node(1), &spent(1, 30, 0, 0), at(1));
        assert_eq!(ledger, once);
    }

    #[test]
    fn a_lease_that_expired_is_charged_in_full_and_the_others_by_use() {
        let mut ledger = granted(&[1]);
        ledger.report(&report(1, 1, 30, 0, false), at(1));
        ledger.grant(&request(2, 400), CAP, &POLICY, at(50)).expect("plenty");
        // Of the first 50 moved, of the second 40: what the first did not report is charged to the second too.
        ledger.recover(node(1), &spent(1, 90, 0, 0), at(60));
        assert_eq!(used(&ledger), Usage { bytes_in: 90, bytes_out: 0, forfeited: 370 });
    }

    #[test]
    fn bytes_forfeited_by_one_lease_do_not_pay_for_later_bytes_of_another() {
        let mut ledger = granted(&[1]);
        ledger.grant(&request(2, 400), CAP, &POLICY, at(50)).expect("plenty");
        ledger.advance(at(60));
        assert_eq!(ledger.standing(CAP).used.forfeited, 400);
        ledger.recover(node(1), &spent(1, 0, 100, 0), at(90));
        assert_eq!(used(&ledger), Usage { bytes_in: 0, bytes_out: 100, forfeited: 400 });
    }

    #[test]
    fn a_grant_whose_answer_was_lost_hides_no_bytes() {
        let mut ledger = granted(&[1, 2]);
        // The node never heard of 2. It settles 1, holds nothing by its own account, and begins anew with 3.
        ledger.report(&report(1, 1, 400, 0, true), at(1));
        ledger.grant(&request(3, 400), CAP, &POLICY, at(2)).expect("plenty");
        ledger.recover(node(1), &spent(3, 300, 0, 0), at(3));
        assert_eq!(used(&ledger), Usage { bytes_in: 700, bytes_out: 0, forfeited: 0 });
    }

    #[test]
    fn settled_bytes_are_kept_no_longer_than_a_node_holds_leases() {
        let mut ledger = granted(&[1]);
        ledger.report(&report(1, 1, 400, 0, true), at(1));
        assert!(ledger.settled.is_empty());
        ledger.grant(&request(2, 400), CAP, &POLICY, at(2)).expect("plenty");
        ledger.advance(at(62));
        assert!(ledger.settled.is_empty());
    }

    #[test]
    fn never_more_than_granted_is_charged_nor_less_than_reported() {
        let mut ledger = granted(&[1, 2]);
        ledger.recover(node(1), &spent(1, u64::MAX, u64::MAX, u64::MAX), at(1));
        assert_eq!(ledger.charged(), 800);
        let mut ledger = granted(&[1, 2]);
        ledger.report(&report(2, 1, 70, 7, false), at(1));
        ledger.recover(node(1), &spent(1, 0, 0, 0), at(2));
        assert_eq!(used(&ledger), Usage { bytes_in: 70, bytes_out: 7, forfeited: 0 });
    }

    #[test]
    fn other_nodes_keep_their_leases() {
        let mut ledger = granted(&[1]);
        let other = LeaseRequest { node: node(9), ..request(5, 400) };
        ledger.grant(&other, CAP, &POLICY, at(0)).expect("plenty");
        ledger.recover(node(1), &spent(1, 1, 0, 0), at(1));
        assert_eq!((ledger.open.len(), ledger.settled.len(), ledger.charged()), (1, 1, 401));
    }
}
