//! The trail of events, and who was sent how much of it.

use std::sync::Arc;
use std::time::Duration;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::Operator;
use runit_core::query::{EventFilter, EventsFrom};
use runit_core::store::Store;
use runit_core::trail::{Finding, TrailKey, Verdict};
use runit_core::{KeyId, RenterAddress};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Fixture, address, at, events, id, trail_key};

pub(crate) async fn events_are_kept_in_order(fixture: &impl Fixture) {
    let full = SecurityEvent::new(EventKind::SessionLocked, at(1))
        .session(id(1))
        .provider("gpu-box".parse().unwrap())
        .address(RenterAddress::new("2001:db8::7".parse().unwrap()));
    let bare = SecurityEvent::new(EventKind::RateLimited, at(2));
    fixture.open().append_events(vec![full.clone(), bare.clone()]).await.unwrap();
    fixture.open().append_events(vec![full.clone()]).await.unwrap();
    let store = fixture.open();
    assert_eq!(store.events(10).await.unwrap(), [full.clone(), bare.clone(), full.clone()]);
    assert_eq!(store.events(2).await.unwrap(), [bare, full], "the last ones, oldest first");
}

pub(crate) async fn events_are_found_by_what_is_asked_and_counted_by_kind_and_time(fixture: &impl Fixture) {
    let key = KeyId::from_uuid(Uuid::from_u128(9));
    let locked = |ms, number| SecurityEvent::new(EventKind::SessionLocked, at(ms)).session(id(number));
    let refused = |ms| SecurityEvent::new(EventKind::RateLimited, at(ms)).address(address(3));
    let cut = locked(3_000, 1).operator(Operator::Key(key)).key(key).provider("gpu-box".parse().unwrap());
    let written = vec![locked(0, 1), refused(1_000), locked(2_000, 2), cut.clone(), refused(60_000)];
    fixture.open().append_events(written.clone()).await.unwrap();

    let store = fixture.open();
    let find = async |filter: EventFilter, from, limit| {
        let found = store.find_events(filter, from, limit).await.unwrap();
        found.iter().map(|placed| placed.place).collect::<Vec<u64>>()
    };
    let any = EventFilter::default;
    assert_eq!(find(any(), EventsFrom::Newest, 2).await, [5, 4]);
    assert_eq!(find(any(), EventsFrom::Before(4), 2).await, [3, 2]);
    assert_eq!(find(any(), EventsFrom::After(3), 9).await, [4, 5]);
    let kinds = vec![EventKind::RateLimited, EventKind::SessionCut];
    assert_eq!(find(EventFilter { kinds, ..any() }, EventsFrom::Newest, 9).await, [5, 2]);
    assert_eq!(find(EventFilter { session: Some(id(1)), ..any() }, EventsFrom::Newest, 9).await, [4, 1]);
    let provider = Some("gpu-box".parse().unwrap());
    assert_eq!(find(EventFilter { provider, ..any() }, EventsFrom::Newest, 9).await, [4]);
    let (since, until) = (Some(at(1_000)), Some(at(3_000)));
    assert_eq!(find(EventFilter { since, until, ..any() }, EventsFrom::Newest, 9).await, [3, 2], "until is not in it");
    let whole = store.find_events(any(), EventsFrom::After(3), 1).await.unwrap();
    assert_eq!(whole[0].event, cut);

    let mut counts = store.count_events(at(1_000), Duration::from_secs(60)).await.unwrap();
    counts.sort_by_key(|(began, kind, _)| (*began, kind.as_str()));
    assert_eq!(
        counts,
        [
            (at(0), EventKind::RateLimited, 1),
            (at(0), EventKind::SessionLocked, 2),
            (at(60_000), EventKind::RateLimited, 1)
        ]
    );
}

async fn verify(store: &dyn Store) -> Verdict {
    runit_control::anchors::verify(store, &trail_key(), &[]).await.unwrap()
}

pub(crate) async fn the_trail_is_a_chain_over_restarts_and_concurrent_writers(fixture: &impl Fixture) {
    let empty = fixture.open().trail_marks().await.unwrap();
    assert_eq!((empty.base, empty.head.mark.place), (empty.head, 0));
    let handles = [fixture.open(), fixture.open()];
    let mut writers = JoinSet::new();
    for n in 0..200 {
        let store = Arc::clone(&handles[usize::from(n % 2 == 0)]);
        writers.spawn(async move { store.append_events(events(n % 3, n)).await });
    }
    assert!(writers.join_all().await.iter().all(Result::is_ok));
    let store = fixture.open();
    let Verdict { events: count, findings } = verify(&*store).await;
    assert_eq!((count, findings), (199, vec![]));
    let links = store.events_after(150, 10).await.unwrap();
    assert_eq!(links.iter().map(|link| link.place).collect::<Vec<_>>(), (151..=160).collect::<Vec<_>>());
    assert_eq!(store.trail_marks().await.unwrap().head.mark.place, 199);
}

pub(crate) async fn events_can_be_pruned_by_number_and_by_age_and_the_rest_still_verifies(fixture: &impl Fixture) {
    let store = fixture.open();
    store.append_events(events(30, 0)).await.unwrap();
    assert_eq!(store.prune_events(1_000, at(0)).await.unwrap(), 0);
    assert_eq!(store.prune_events(25, at(0)).await.unwrap(), 5);
    assert_eq!(fixture.open().prune_events(1_000, at(20)).await.unwrap(), 15);
    assert_eq!(fixture.open().events(100).await.unwrap(), events(10, 20));
    fixture.open().append_events(events(1, 30)).await.unwrap();
    let verdict = verify(&*fixture.open()).await;
    assert_eq!((verdict.events, verdict.findings), (11, vec![]));
    assert_eq!(fixture.open().prune_events(0, at(0)).await.unwrap(), 11);
    fixture.open().append_events(events(2, 31)).await.unwrap();
    let verdict = verify(&*fixture.open()).await;
    assert_eq!((verdict.events, verdict.findings), (2, vec![]));
    assert_eq!(fixture.open().trail_marks().await.unwrap().head.mark.place, 33, "places are not used again");
}

pub(crate) async fn a_trail_whose_seal_is_of_another_key_goes_on_and_says_so(fixture: &impl Fixture) {
    fixture.open_with(TrailKey::new([1; 32])).append_events(events(2, 0)).await.unwrap();
    assert_eq!(verify(&*fixture.open()).await.findings, [Finding::Unsealed("head")]);
    fixture.open().append_events(events(1, 2)).await.unwrap();
    let verdict = verify(&*fixture.open()).await;
    assert_eq!((verdict.events, verdict.findings), (4, vec![Finding::Reported { place: 3 }]));
}

pub(crate) async fn a_receivers_place_in_the_trail_survives(fixture: &impl Fixture) {
    assert_eq!(fixture.open().webhook_cursor("ops".into()).await.unwrap(), None);
    fixture.open().save_webhook_cursor("ops".into(), 7).await.unwrap();
    fixture.open().save_webhook_cursor("other".into(), 3).await.unwrap();
    for place in [8, 5] {
        fixture.open().save_webhook_cursor("ops".into(), place).await.unwrap();
    }
    assert_eq!(fixture.open().webhook_cursor("ops".into()).await.unwrap(), Some(8));
}
