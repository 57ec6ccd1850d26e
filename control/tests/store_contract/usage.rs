//! Records of usage.

use runit_core::ledger::{Spent, Usage};
use runit_core::session::Change;
use runit_core::store::Store;
use runit_core::usage::{UsageFilter, UsageRecord};
use runit_core::{LeaseId, LockId, SecretHash, Timestamp};
use uuid::Uuid;

use super::{Fixture, HOUR, at, claim, id, issue, lease_of, node, policy, registration, release, report};

async fn all_records(store: &dyn Store) -> Vec<UsageRecord> {
    store.usage_records(UsageFilter::default(), None, 1_000).await.unwrap()
}

pub(crate) async fn each_lock_has_a_record_that_outlives_its_session(fixture: &impl Fixture) {
    let lock = |token: &str| LockId::of(SecretHash::of(token));
    let store = fixture.open();
    let mut priced = registration(1, "one");
    priced.offer.pricing = Some("{\"eurPerHour\":2}".into());
    store.register(priced, at(0)).await.unwrap();
    store.change(id(1), issue("first"), at(1)).await.unwrap();
    assert!(all_records(&*store).await.is_empty(), "a token is no lock");
    store.change(id(1), claim("first", 1, None), at(1_000)).await.unwrap();
    store.grant(lease_of("first", 1, 1, 10_000), policy(), at(2_000)).await.unwrap();
    store.grant(lease_of("first", 1, 2, 1_000), policy(), at(2_000)).await.unwrap();
    store.settle(vec![report(1, 1, 1, (100, 200), true)], at(3_000)).await.unwrap();
    let record = fixture.open().usage_record(lock("first")).await.unwrap().expect("begun");
    assert_eq!((record.session, record.started_at, record.ended_at, record.is_final), (id(1), at(1_000), None, false));
    assert_eq!((record.used.bytes_in, record.used.bytes_out, record.seconds(at(4_001))), (100, 200, 4));

    let store = fixture.open();
    store.change(id(1), release("first"), at(5_500)).await.unwrap();
    store.change(id(1), Change::Refresh(registration(1, "two").offer), at(6_000)).await.unwrap();
    store.change(id(1), issue("second"), at(6_000)).await.unwrap();
    store.settle(vec![report(1, 2, 1, (7, 0), false)], at(7_000)).await.unwrap();
    let record = store.usage_record(lock("first")).await.unwrap().expect("ended");
    assert_eq!(
        (record.ended_at, record.seconds(at(9_999)), record.is_final),
        (Some(at(5_500)), 5, false),
        "a lease is open"
    );
    assert_eq!(record.pricing.as_deref(), Some("{\"eurPerHour\":2}"), "as it was offered then");
    assert_eq!(store.expire_leases(at(61_999)).await.unwrap(), 0);
    assert_eq!(fixture.open().expire_leases(at(62_000)).await.unwrap(), 1);
    let store = fixture.open();
    store.change(id(1), claim("second", 1, None), at(62_000)).await.unwrap();
    store.grant(lease_of("second", 1, 3, 1_000), policy(), at(62_000)).await.unwrap();
    store.settle(vec![report(1, 3, 1, (0, 5), true)], at(63_000)).await.unwrap();
    let record = store.usage_record(lock("first")).await.unwrap().expect("final");
    assert!(record.is_final);
    assert_eq!(
        (record.used.bytes_in, record.used.bytes_out, record.used.forfeited),
        (107, 200, 993),
        "late, and its own"
    );
    let second = store.usage_record(lock("second")).await.unwrap().expect("stands");
    assert_eq!((second.used.moved(), second.ended_at, second.pricing), (5, None, None));

    store.change(id(1), Change::Remove, at(70_000)).await.unwrap();
    store.forget_removed(at(70_001)).await.unwrap();
    let store = fixture.open();
    assert!(store.session(id(1)).await.unwrap().is_none());
    let records = all_records(&*store).await;
    let ends: Vec<_> = records.iter().map(|record| (record.lock, record.ended_at, record.is_final)).collect();
    assert_eq!(ends, [(lock("first"), Some(at(5_500)), true), (lock("second"), Some(at(70_000)), true)]);
    let next = store.usage_records(UsageFilter::default(), Some((at(1_000), lock("first"))), 10).await.unwrap();
    assert_eq!(next, records[1..]);
    let late = UsageFilter { ended_since: Some(at(6_000)), ..UsageFilter::default() };
    assert_eq!(store.usage_records(late, None, 10).await.unwrap(), records[1..]);
    let early = UsageFilter { ended_before: Some(at(6_000)), session: Some(id(1)), ..UsageFilter::default() };
    assert_eq!(store.usage_records(early, None, 10).await.unwrap(), records[..1]);
    let others = UsageFilter { provider: Some("nobody".parse().unwrap()), ..UsageFilter::default() };
    assert!(store.usage_records(others, None, 10).await.unwrap().is_empty());
}

/// Grants, reports, expiry, release, recycling, removal and recovery in any order, by a generator with fixed seeds.
pub(crate) async fn records_add_up_to_the_ledger_whatever_happens(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "0"), at(0)).await.unwrap();
    let (mut now, mut token, mut leases, mut seed) = (0, 0_u64, 0_u128, 7_u64);
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..1_500 {
        now += if draw(40) == 0 { HOUR } else { draw(20_000) };
        let (of, bytes) = (token.to_string(), (draw(3_000), draw(3_000)));
        // Whatever is refused is part of it.
        match draw(8) {
            0 | 1 => drop(store.grant(lease_of(&of, 1, leases, draw(9_000)), policy(), at(now)).await),
            2 | 3 => {
                let lease = leases.saturating_sub(u128::from(draw(4)));
                store.settle(vec![report(1, lease, now, bytes, draw(2) == 0)], at(now)).await.unwrap();
            }
            4 => drop(store.expire_leases(at(now)).await.unwrap()),
            5 => {
                let since = LeaseId::from_uuid(Uuid::from_u128(leases.saturating_sub(u128::from(draw(9)))));
                let spent = Spent { since, bytes_in: bytes.0, bytes_out: bytes.1, reserved: draw(500) };
                store.recover(node(), vec![(id(1), spent)], at(now)).await.unwrap();
            }
            7 if draw(20) == 0 => drop(store.prune_usage(at(now)).await.unwrap()),
            6 => {
                let end = if draw(5) == 0 { Change::Remove } else { release(&of) };
                drop(store.change(id(1), end, at(now)).await);
                drop(store.register(registration(1, &format!("workspace {now}")), at(now)).await);
                token += 1;
                drop(store.change(id(1), issue(&token.to_string()), at(now)).await);
                drop(store.change(id(1), claim(&token.to_string(), 1, None), at(now)).await);
            }
            _ => leases += 1,
        }
        let ledger = store.ledger(id(1), at(0)).await.unwrap();
        assert_eq!(sum_of_records(&*store).await, ledger.total, "at {now}");
    }
    store.prune_usage(at(now)).await.unwrap();
    let carried = store.carried_usage(None, 10).await.unwrap();
    assert!(carried[0].records > 50 && carried[0].used.forfeited > 0, "{carried:?}");
    let kept = fixture.open().ledger(id(1), at(0)).await.unwrap();
    assert!(kept.total.total() > kept.charged(), "buckets have left the window meanwhile: {:?}", kept.total);
}

async fn sum_of_records(store: &dyn Store) -> Usage {
    let records = all_records(store).await.into_iter().map(|record| record.used);
    let carried = store.carried_usage(None, 1_000).await.unwrap().into_iter().map(|carried| carried.used);
    records.chain(carried).fold(Usage::default(), |sum, used| sum.plus(&used))
}

pub(crate) async fn deleted_records_are_carried_on_and_no_sum_changes(fixture: &impl Fixture) {
    let store = fixture.open();
    let used = async |session: u128, token: &str, lease_id: u128, now: u64, bytes: (u64, u64)| {
        store.change(id(session), issue(token), at(now)).await.unwrap();
        store.change(id(session), claim(token, 1, None), at(now)).await.unwrap();
        store.grant(lease_of(token, session, lease_id, 10_000), policy(), at(now)).await.unwrap();
        store.settle(vec![report(session, lease_id, 1, bytes, true)], at(now)).await.unwrap();
        store.change(id(session), release(token), at(now + 1_500)).await.unwrap();
        store.change(id(session), Change::Refresh(registration(session, token).offer), at(now + 1_500)).await.unwrap();
    };
    store.register(registration(1, "one"), at(7)).await.unwrap();
    store.register(registration(2, "two"), at(8)).await.unwrap();
    used(1, "a", 1, 1_000, (1, 2)).await;
    used(1, "b", 2, 10_000, (10, 20)).await;
    used(2, "c", 3, 10_000, (5, 6)).await;
    used(1, "d", 4, 50_000, (100, 200)).await;
    store.change(id(2), issue("e"), at(20_000)).await.unwrap();
    store.change(id(2), claim("e", 1, None), at(20_000)).await.unwrap();
    store.grant(lease_of("e", 2, 5, 1_000), policy(), at(20_000)).await.unwrap();
    let before = sum_of_records(&*store).await;

    assert_eq!(store.prune_usage(at(2_500)).await.unwrap(), 0, "a lock that ended then is not one from before");
    assert_eq!(fixture.open().prune_usage(at(2_501)).await.unwrap(), 1);
    assert_eq!(fixture.open().prune_usage(at(50_000)).await.unwrap(), 2, "one that stands stays");
    let store_again = fixture.open();
    assert_eq!(sum_of_records(&*store_again).await, before);
    let carried = store_again.carried_usage(None, 10).await.unwrap();
    let shown: Vec<_> = carried
        .iter()
        .map(|one| {
            (one.session, one.registered_at, one.records, one.seconds, one.started_at, one.ended_at, one.used.moved())
        })
        .collect();
    let expected = [(id(1), at(7), 2, 4, at(1_000), at(11_500), 33), (id(2), at(8), 1, 2, at(10_000), at(11_500), 11)];
    assert_eq!(shown, expected);
    assert_eq!(store_again.carried_usage(None, 1).await.unwrap(), carried[..1]);
    assert_eq!(store_again.carried_usage(Some(carried[0].clone()), 10).await.unwrap(), carried[1..]);

    store.change(id(2), release("e"), at(21_000)).await.unwrap();
    assert_eq!(store.prune_usage(at(49_000)).await.unwrap(), 0, "a lease is open");
    store.expire_leases(at(80_000)).await.unwrap();
    assert_eq!(store.prune_usage(at(49_000)).await.unwrap(), 1);
    assert_eq!(sum_of_records(&*store).await, before.plus(&Usage { forfeited: 1_000, ..Usage::default() }));

    // A session that is forgotten, and registered again under its name, begins a sum of its own.
    store.change(id(1), Change::Remove, at(90_000)).await.unwrap();
    store.forget_removed(at(90_001)).await.unwrap();
    store.register(registration(1, "anew"), at(100_000)).await.unwrap();
    used(1, "f", 6, 110_000, (7, 0)).await;
    assert_eq!(store.prune_usage(at(200_000)).await.unwrap(), 2);
    let carried = store.carried_usage(None, 10).await.unwrap();
    let of_one: Vec<_> =
        carried.iter().filter(|one| one.session == id(1)).map(|one| (one.registered_at, one.used.moved())).collect();
    assert_eq!(of_one, [(Timestamp::default(), 300), (at(7), 33), (at(100_000), 7)]);
    assert_eq!(store.ledger(id(1), at(200_000)).await.unwrap().total.moved(), 7);
    assert!(all_records(&*store).await.is_empty());
}
