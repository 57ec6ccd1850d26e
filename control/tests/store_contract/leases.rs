//! Leases and what they charge.

use std::sync::Arc;

use runit_core::LeaseId;
use runit_core::ledger::{Shortage, Spent};
use runit_core::session::{Change, Refusal};
use runit_core::store::{ChangeError, GrantError, Store};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    CAP, Fixture, HOUR, at, claim, id, issue, lease, lease_of, locked, node, policy, registration, release, report,
};

pub(crate) async fn usage_and_leases_are_as_before_after_a_restart(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    let first = store.grant(lease(1, 1, 10_000), policy(), at(10)).await.unwrap();
    let second = store.grant(lease(1, 2, 20_000), policy(), at(11)).await.unwrap();
    store.settle(vec![report(1, 1, 1, (100, 200), true), report(1, 2, 1, (5, 6), false)], at(20)).await.unwrap();
    let before = store.ledger(id(1), at(30)).await.unwrap();
    let store = fixture.open();
    let after = store.ledger(id(1), at(30)).await.unwrap();
    assert_eq!(before, after);
    assert_eq!((first.granted, second.granted), (10_000, 20_000));
    store.grant(lease(1, 0, 30_000), policy(), at(31)).await.unwrap();
    let open = fixture.open().ledger(id(1), at(31)).await.unwrap().open;
    assert_eq!(open.iter().map(|lease| lease.granted).collect::<Vec<_>>(), [20_000, 30_000], "in order of granting");
    store.settle(vec![report(1, 0, 1, (0, 0), true)], at(31)).await.unwrap();
    assert_eq!(after.charged(), 300 + 20_000);
    let again = store.grant(lease(1, 2, 20_000), policy(), at(31)).await.unwrap();
    assert_eq!(again.granted, 20_000, "the same name, the same lease");
    assert_eq!(fixture.open().ledger(id(1), at(32)).await.unwrap().charged(), 300 + 20_000);
    assert_eq!(fixture.open().ledger(id(7), at(32)).await.unwrap().charged(), 0, "never moved a byte");
}

pub(crate) async fn a_repeated_or_older_report_changes_nothing(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    store.grant(lease(1, 1, 10_000), policy(), at(1)).await.unwrap();
    let reports = vec![report(1, 1, 1, (10, 10), false), report(1, 1, 2, (20, 30), true)];
    store.settle(reports.clone(), at(2)).await.unwrap();
    fixture.open().settle(reports, at(3)).await.unwrap();
    let store = fixture.open();
    store.settle(vec![report(1, 99, 1, (1, 1), true), report(8, 1, 1, (1, 1), true)], at(4)).await.unwrap();
    assert_eq!(store.ledger(id(1), at(5)).await.unwrap().standing(CAP).used.moved(), 50);
}

pub(crate) async fn an_unsettled_lease_is_charged_in_full_and_comes_free_after_a_day(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    store.grant(lease(1, 1, 10_000), policy(), at(0)).await.unwrap();
    store.settle(vec![report(1, 1, 1, (1_000, 0), false)], at(1)).await.unwrap();
    let after_expiry = fixture.open().ledger(id(1), at(60_000)).await.unwrap();
    assert_eq!((after_expiry.standing(CAP).used.forfeited, after_expiry.charged()), (9_000, 10_000));
    store.grant(lease(1, 2, 1_000), policy(), at(60_000)).await.unwrap();
    store.settle(vec![report(1, 2, 1, (0, 0), true)], at(60_001)).await.unwrap();
    let next_day = fixture.open().ledger(id(1), at(24 * HOUR)).await.unwrap();
    assert_eq!(next_day.charged(), 10_000, "its bucket has not ended a day ago");
    assert_eq!(fixture.open().ledger(id(1), at(24 * HOUR + HOUR)).await.unwrap().charged(), 0);
    let store = fixture.open();
    store.grant(lease(1, 3, 1_000), policy(), at(26 * HOUR)).await.unwrap();
    assert_eq!(fixture.open().ledger(id(1), at(26 * HOUR)).await.unwrap().charged(), 1_000);
}

pub(crate) async fn a_dead_nodes_leases_are_settled_by_what_it_left_behind(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    store.grant(lease(1, 1, 10_000), policy(), at(1)).await.unwrap();
    store.grant(lease(1, 2, 20_000), policy(), at(2)).await.unwrap();
    store.settle(vec![report(1, 1, 1, (100, 200), true)], at(3)).await.unwrap();
    let first = LeaseId::from_uuid(Uuid::from_u128(1));
    let spent = Spent { since: first, bytes_in: 150, bytes_out: 250, reserved: 7 };
    for _ in 0..2 {
        fixture.open().recover(node(), vec![(id(1), spent), (id(8), spent)], at(4)).await.unwrap();
    }
    let standing = fixture.open().ledger(id(1), at(5)).await.unwrap().standing(CAP);
    assert_eq!((standing.used.bytes_in, standing.used.bytes_out), (150, 250), "settled bytes are not charged twice");
    assert_eq!((standing.used.forfeited, standing.reserved), (7, 0));
}

pub(crate) async fn concurrent_leases_never_pass_the_cap(fixture: &impl Fixture) {
    let first = fixture.open();
    locked(&*first, 1, "token").await;
    let handles = [first, fixture.open()];
    let mut leases = JoinSet::new();
    for n in 0..200_u128 {
        let store = Arc::clone(&handles[usize::from(n % 2 == 0)]);
        leases.spawn(async move {
            match store.grant(lease(1, n, 100_000), policy(), at(1)).await {
                Ok(lease) => lease.granted,
                Err(GrantError::Short(Shortage::Leased)) => 0,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    let granted: u64 = leases.join_all().await.into_iter().sum();
    assert_eq!(granted, CAP);
    assert_eq!(fixture.open().ledger(id(1), at(2)).await.unwrap().charged(), CAP);
}

pub(crate) async fn what_one_process_gives_back_another_can_lease(fixture: &impl Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    locked(&*one, 1, "token").await;
    other.grant(lease(1, 1, 100_000), policy(), at(1)).await.unwrap();
    let mut lease_number = 2;
    while one.grant(lease(1, lease_number, 100_000), policy(), at(2)).await.is_ok() {
        lease_number += 1;
    }
    let short = |outcome| matches!(outcome, Err(GrantError::Short(Shortage::Leased)));
    assert!(short(other.grant(lease(1, 1_000, 1_000), policy(), at(3)).await), "all is leased");
    one.settle(vec![report(1, 2, 1, (10, 20), true)], at(4)).await.unwrap();
    other.grant(lease(1, 1_001, 1_000), policy(), at(5)).await.expect("it came back");
    let later = at(70_000);
    other.grant(lease(1, 1_002, 1_000), policy(), later).await.expect("and is no other node's when time has passed");
}

pub(crate) async fn bytes_are_leased_for_the_lock_that_stands_and_for_no_other(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    store.change(id(1), issue("first"), at(1)).await.unwrap();
    let refused = |outcome| matches!(outcome, Err(GrantError::NoLock));
    assert!(refused(store.grant(lease_of("first", 1, 1, 1_000), policy(), at(2)).await), "a token is no lock");
    store.change(id(1), claim("first", 1, None), at(3)).await.unwrap();
    let other = fixture.open();
    for (number, store) in [(2, &store), (3, &other)] {
        store.grant(lease_of("first", 1, number, 1_000), policy(), at(4)).await.unwrap();
        assert!(refused(store.grant(lease_of("second", 1, 9, 1_000), policy(), at(4)).await));
    }
    other.change(id(1), release("first"), at(5)).await.unwrap();
    assert!(refused(store.grant(lease_of("first", 1, 4, 1_000), policy(), at(6)).await), "another node has ended it");
    other.change(id(1), Change::Refresh(registration(1, "two").offer), at(7)).await.unwrap();
    other.change(id(1), issue("second"), at(8)).await.unwrap();
    let early = |store: Arc<dyn Store>, ms| async move {
        let claimed = store.change(id(1), claim("second", 1, None), at(ms)).await;
        matches!(claimed, Err(ChangeError::Refused(Refusal::StillLeased)))
    };
    assert!(early(Arc::clone(&store), 9).await, "two nodes may still spend for the first");
    store.settle(vec![report(1, 2, 1, (1, 2), true)], at(10)).await.unwrap();
    assert!(early(Arc::clone(&other), 60_003).await, "one may");
    other.change(id(1), claim("second", 1, None), at(60_004)).await.expect("its lease is over");
    store.grant(lease_of("second", 1, 5, 1_000), policy(), at(60_005)).await.expect("the lock stands");
    assert!(refused(other.grant(lease_of("first", 1, 6, 1_000), policy(), at(60_006)).await));
    let ledger = fixture.open().ledger(id(1), at(60_007)).await.unwrap();
    assert_eq!((ledger.total.moved(), ledger.total.forfeited, ledger.open.len()), (3, 1_000, 1));
}

pub(crate) async fn a_lease_that_expired_and_is_asked_for_again_is_a_new_one(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    store.grant(lease(1, 1, 1_000), policy(), at(0)).await.unwrap();
    store.grant(lease(1, 2, 1_000), policy(), at(1)).await.unwrap();
    let again = fixture.open().grant(lease(1, 1, 50_000), policy(), at(60_000)).await.unwrap();
    assert_eq!(again.granted, 50_000);
    let ledger = fixture.open().ledger(id(1), at(119_999)).await.unwrap();
    let open: Vec<_> = ledger.open.iter().map(|lease| (lease.granted, lease.expires_at)).collect();
    assert_eq!(open, [(50_000, at(120_000))]);
    assert_eq!(ledger.charged(), 52_000);
}
