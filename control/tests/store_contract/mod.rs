//! What every implementation of `Store` must do, written once.
//!
//! A [`Fixture`] opens the same store again and again; each scenario opens it between its steps, so that nothing that
//! it relies on was only in memory. `store_contract!` makes one test of each scenario.

use std::sync::Arc;
use std::time::Duration;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::{Key, KeyHolder, Operator, Role};
use runit_core::ledger::{LeasePolicy, LeaseReport, LeaseRequest, Shortage, Spent, Usage};
use runit_core::query::{EventFilter, EventsFrom};
use runit_core::session::{Change, Claim, Ending, Offer, Refusal, Session, SessionState, SessionStatus};
use runit_core::store::{ChangeError, GrantError, Registration, Store};
use runit_core::trail::{Finding, TrailKey, Verdict};
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::usage::{UsageFilter, UsageRecord};
use runit_core::{
    KeyId, LeaseId, LockId, LockMode, NodeId, Rejection, RenterAddress, SecretHash, SessionId, Timestamp,
};
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) const CAP: u64 = 1_000_000;
const HOUR: u64 = 3_600_000;

/// A store that outlives its handles.
pub(crate) trait Fixture {
    /// Opens it anew, as a restarted process would.
    fn open(&self) -> Arc<dyn Store> {
        self.open_with(trail_key())
    }

    /// The same with a key of the caller's for the trail.
    fn open_with(&self, key: TrailKey) -> Arc<dyn Store>;
}

/// What seals the trail in all these tests.
pub(crate) fn trail_key() -> TrailKey {
    TrailKey::new([7; 32])
}

macro_rules! store_contract {
    ($fixture:expr; $($scenario:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                store_contract::$scenario(&$fixture).await;
            }
        )*
    };
}

pub(crate) fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_334_400_000 + ms)
}

pub(crate) fn id(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn registration(number: u128, credential: &str) -> Registration {
    let offer = Offer {
        upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).unwrap(),
        sealed_credential: format!("sealed {credential}").into_bytes(),
        credential_hash: SecretHash::of(credential),
        hardware: Some("{\"gpu\":\"A100\"}".into()),
        pricing: None,
    };
    let provider = "gpu-box".parse().unwrap();
    let provider_secret = SecretHash::of("secret");
    Registration { id: id(number), provider, provider_secret, provider_key: None, offer, cap_bytes: CAP }
}

fn address(last: u8) -> RenterAddress {
    RenterAddress::new([127, 0, 0, last].into())
}

pub(crate) fn claim(token: &str, from: u8, cookie: Option<&str>) -> Change {
    let claim = Claim {
        token: SecretHash::of(token),
        session: None,
        address: address(from),
        cookie: cookie.map(SecretHash::of),
    };
    Change::Claim(claim, LockMode::Exact)
}

pub(crate) fn issue(token: &str) -> Change {
    Change::IssueToken(SecretHash::of(token))
}

pub(crate) fn release(token: &str) -> Change {
    Change::Release { token: SecretHash::of(token), address: address(1), mode: LockMode::Exact }
}

fn lease(session: u128, lease: u128, want: u64) -> LeaseRequest {
    lease_of("token", session, lease, want)
}

pub(crate) fn lease_of(token: &str, session: u128, lease: u128, want: u64) -> LeaseRequest {
    let (lease, lock) = (LeaseId::from_uuid(Uuid::from_u128(lease)), LockId::of(SecretHash::of(token)));
    LeaseRequest { lease, lock, node: node(), session: id(session), want }
}

fn node() -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(9))
}

pub(crate) fn report(session: u128, lease: u128, sequence: u64, bytes: (u64, u64), closing: bool) -> LeaseReport {
    let lease = LeaseId::from_uuid(Uuid::from_u128(lease));
    LeaseReport { lease, session: id(session), sequence, bytes_in: bytes.0, bytes_out: bytes.1, closing }
}

pub(crate) fn policy() -> LeasePolicy {
    LeasePolicy { min_bytes: 1_000, max_bytes: 100_000, ttl: Duration::from_secs(60) }
}

pub(crate) fn key(number: u128, holder: KeyHolder) -> Key {
    Key {
        id: KeyId::from_uuid(Uuid::from_u128(number)),
        hash: SecretHash::of(&format!("key {number}")),
        holder,
        created_at: at(number as u64),
        revoked_at: None,
    }
}

pub(crate) async fn locked(store: &dyn Store, number: u128, token: &str) {
    store.register(registration(number, "one"), at(0)).await.unwrap();
    store.change(id(number), issue(token), at(1)).await.unwrap();
    store.change(id(number), claim(token, 1, Some("cookie")), at(2)).await.unwrap();
}

/// Everything about two sessions is the same.
fn assert_same(left: &Session, right: &Session) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
    assert_eq!(left.state, right.state, "Debug hides hashes");
    assert_eq!(left.provider_secret, right.provider_secret);
    assert_eq!(left.offer.credential_hash, right.offer.credential_hash);
}

pub(crate) async fn a_registered_session_is_read_back_whole(fixture: &impl Fixture) {
    let registered = fixture.open().register(registration(1, "one"), at(5)).await.unwrap();
    let read = fixture.open().session(id(1)).await.unwrap().expect("registered");
    assert_same(&registered, &read);
    assert_eq!((read.status(), read.cap_bytes, read.registered_at), (SessionStatus::Ready, CAP, at(5)));
    assert!(fixture.open().session(id(2)).await.unwrap().is_none());
    assert_eq!(fixture.open().live_sessions().await.unwrap().len(), 1);
}

pub(crate) async fn only_the_same_secret_registers_a_session_again(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    let stranger = Registration { provider_secret: SecretHash::of("guess"), ..registration(1, "two") };
    let refused = store.register(stranger, at(1)).await;
    assert!(matches!(refused, Err(ChangeError::Refused(Refusal::NotYours))), "{refused:?}");
    let again = Registration { cap_bytes: 7, ..registration(1, "two") };
    let again = store.register(again, at(2)).await.unwrap();
    assert_eq!((again.cap_bytes, again.revision), (CAP, 2), "a known session keeps its cap");
    assert_same(&again, &fixture.open().session(id(1)).await.unwrap().unwrap());
}

pub(crate) async fn tokens_find_their_session_as_long_as_they_open_it(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    for token in ["first", "second", "third"] {
        store.change(id(1), issue(token), at(1)).await.unwrap();
    }
    let store = fixture.open();
    let found = store.session_by_token(SecretHash::of("second")).await.unwrap().expect("outstanding");
    let tokens = ["first", "second", "third"].map(SecretHash::of).to_vec();
    assert_eq!(found.state, SessionState::Ready { tokens }, "oldest first");
    store.change(id(1), claim("second", 1, None), at(2)).await.unwrap();
    let store = fixture.open();
    assert!(store.session_by_token(SecretHash::of("first")).await.unwrap().is_none(), "died with the lock");
    assert!(store.session_by_token(SecretHash::of("second")).await.unwrap().is_some(), "holds the lock");
    store.change(id(1), release("second"), at(3)).await.unwrap();
    assert!(fixture.open().session_by_token(SecretHash::of("second")).await.unwrap().is_none());
}

pub(crate) async fn a_lock_is_as_before_after_a_restart(fixture: &impl Fixture) {
    locked(&*fixture.open(), 1, "token").await;
    let store = fixture.open();
    let session = store.session(id(1)).await.unwrap().unwrap();
    let lock = session.lock().expect("locked");
    assert_eq!((lock.token, lock.cookie), (SecretHash::of("token"), Some(SecretHash::of("cookie"))));
    assert_eq!((lock.address, lock.taken_at, lock.renter_seen_at), (address(1), at(2), at(2)));
    let second = store.change(id(1), claim("token", 1, Some("other browser")), at(3)).await;
    assert!(matches!(second, Err(ChangeError::Refused(Refusal::Rejected(Rejection::AlreadyInUse)))), "{second:?}");
    let elsewhere = store.change(id(1), claim("token", 2, None), at(3)).await;
    assert!(matches!(elsewhere, Err(ChangeError::Refused(Refusal::Rejected(Rejection::AddressMismatch)))));
    assert_same(&session, &fixture.open().session(id(1)).await.unwrap().unwrap());
}

pub(crate) async fn an_ipv6_lock_is_as_before_after_a_restart(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    store.change(id(1), issue("token"), at(1)).await.unwrap();
    let v6 = RenterAddress::new("2001:db8::1".parse().unwrap());
    let claim = Claim { token: SecretHash::of("token"), session: None, address: v6, cookie: None };
    store.change(id(1), Change::Claim(claim, LockMode::Exact), at(2)).await.unwrap();
    let session = fixture.open().session(id(1)).await.unwrap().unwrap();
    assert_eq!(session.lock().map(|lock| lock.address), Some(v6));
}

pub(crate) async fn of_many_concurrent_claims_exactly_one_takes_the_lock(fixture: &impl Fixture) {
    const CLAIMS: u8 = 50;
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    for n in 0..CLAIMS {
        store.change(id(1), issue(&format!("token {n}")), at(1)).await.unwrap();
    }
    let handles = [store, fixture.open()];
    let mut claims = JoinSet::new();
    for n in 0..CLAIMS {
        let store = Arc::clone(&handles[usize::from(n) % 2]);
        claims.spawn(async move { store.change(id(1), claim(&format!("token {n}"), n, None), at(2)).await });
    }
    let outcomes = claims.join_all().await;
    let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    for outcome in &outcomes {
        let lost = matches!(outcome, Err(ChangeError::Refused(Refusal::Rejected(Rejection::InvalidToken))));
        assert!(lost || outcome.is_ok(), "{outcome:?}");
    }
    assert_same(winners[0], &fixture.open().session(id(1)).await.unwrap().unwrap());
}

pub(crate) async fn a_refused_change_changes_nothing_and_an_unknown_session_is_unknown(fixture: &impl Fixture) {
    let store = fixture.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    let before = store.session(id(1)).await.unwrap().unwrap();
    assert!(store.change(id(1), Change::Cut, at(1)).await.is_err());
    assert!(store.change(id(1), Change::ProviderSilent(Duration::from_secs(1)), at(999)).await.is_err());
    assert_same(&before, &fixture.open().session(id(1)).await.unwrap().unwrap());
    assert!(matches!(store.change(id(2), Change::Remove, at(1)).await, Err(ChangeError::Unknown)));
}

pub(crate) async fn a_removed_session_leaves_a_tombstone_with_its_owner_and_its_usage(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    let granted = store.grant(lease(1, 1, 5_000), policy(), at(3)).await.unwrap().granted;
    store.settle(vec![report(1, 1, 1, (1_000, 2_000), true)], at(4)).await.unwrap();
    store.change(id(1), Change::Remove, at(5)).await.unwrap();
    let store = fixture.open();
    assert!(store.live_sessions().await.unwrap().is_empty());
    assert!(store.session_by_token(SecretHash::of("token")).await.unwrap().is_none(), "tokens die with it");
    let tombstone = store.session(id(1)).await.unwrap().expect("a tombstone");
    assert_eq!(tombstone.state, SessionState::Removed { since: at(5), clean: false });
    assert!(matches!(store.grant(lease(1, 2, 1), policy(), at(6)).await, Err(GrantError::Unknown)));
    let stranger = Registration { provider_secret: SecretHash::of("guess"), ..registration(1, "two") };
    assert!(store.register(stranger, at(6)).await.is_err());
    let back = store.register(registration(1, "two"), at(7)).await.unwrap();
    assert_eq!(back.status(), SessionStatus::Ready);
    assert!(granted >= 3_000);
    assert_eq!(fixture.open().ledger(id(1), at(8)).await.unwrap().charged(), 3_000);
}

pub(crate) async fn presence_goes_forward_only_and_passes_over_the_absent(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    store.register(registration(2, "one"), at(0)).await.unwrap();
    let all = vec![id(1), id(2), id(3)];
    store.providers_seen(all.clone(), at(50)).await.unwrap();
    store.renters_seen(all.clone(), at(60)).await.unwrap();
    store.providers_seen(all.clone(), at(10)).await.unwrap();
    store.renters_seen(all, at(10)).await.unwrap();
    let store = fixture.open();
    let first = store.session(id(1)).await.unwrap().unwrap();
    assert_eq!(first.provider_seen_at, at(50));
    assert_eq!(first.lock().map(|lock| lock.renter_seen_at), Some(at(60)));
    let second = store.session(id(2)).await.unwrap().unwrap();
    assert_eq!((second.provider_seen_at, second.status()), (at(50), SessionStatus::Ready));
    assert_eq!(second.revision, 1, "nothing that the data plane must hear of");
}

pub(crate) async fn sessions_removed_long_ago_are_forgotten_with_all_that_belongs_to_them(fixture: &impl Fixture) {
    let store = fixture.open();
    for number in 1..=3 {
        let token = number.to_string();
        locked(&*store, number, &token).await;
        store.grant(lease_of(&token, number, number, 1), policy(), at(2)).await.unwrap();
    }
    store.change(id(1), Change::Remove, at(3)).await.unwrap();
    store.change(id(2), Change::Remove, at(HOUR)).await.unwrap();
    let store = fixture.open();
    assert_eq!(store.forget_removed(at(HOUR)).await.unwrap(), 1);
    assert_eq!(store.forget_removed(at(HOUR)).await.unwrap(), 0);
    let store = fixture.open();
    assert!(store.session(id(1)).await.unwrap().is_none());
    assert!(store.session(id(2)).await.unwrap().is_some(), "removed not long enough ago");
    assert!(store.session(id(3)).await.unwrap().is_some(), "not removed");
    assert_eq!(store.ledger(id(1), at(HOUR)).await.unwrap().charged(), 0);
    assert!(store.ledger(id(2), at(HOUR)).await.unwrap().charged() > 0);
}

pub(crate) async fn the_sweeper_is_told_of_those_that_are_due_and_no_others(fixture: &impl Fixture) {
    let store = fixture.open();
    locked(&*store, 1, "token").await;
    for number in 2..=4 {
        store.register(registration(number, "one"), at(0)).await.unwrap();
    }
    store.providers_seen(vec![id(1), id(2)], at(100)).await.unwrap();
    store.change(id(4), Change::Remove, at(1)).await.unwrap();
    let due = |silent: u64, absent: u64| {
        let store = fixture.open();
        async move {
            let mut due = store.due(at(silent), at(absent)).await.unwrap();
            due.sort_unstable();
            due
        }
    };
    assert_eq!(due(99, 1).await, [id(3)]);
    assert_eq!(due(99, 2).await, [id(1), id(3)]);
    assert_eq!(due(100, 1).await, [id(1), id(2), id(3)]);
}

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

pub(crate) async fn keys_are_kept_as_hashes_and_stay_when_they_are_revoked(fixture: &impl Fixture) {
    let operator = key(1, KeyHolder::Operator { name: "night shift".parse().unwrap(), role: Role::Read });
    let provider = key(2, KeyHolder::Provider("gpu-box".parse().unwrap()));
    fixture.open().add_key(provider.clone()).await.unwrap();
    fixture.open().add_key(operator.clone()).await.unwrap();
    assert_eq!(fixture.open().keys().await.unwrap(), [operator.clone(), provider.clone()], "the oldest first");

    let revoked = fixture.open().revoke_key(operator.id, at(7)).await.unwrap().expect("there");
    assert_eq!(revoked.revoked_at, Some(at(7)));
    assert_eq!(fixture.open().revoke_key(operator.id, at(8)).await.unwrap(), Some(revoked.clone()), "once");
    assert_eq!(fixture.open().keys().await.unwrap(), [revoked, provider]);
    assert_eq!(fixture.open().revoke_key(KeyId::from_uuid(Uuid::from_u128(3)), at(9)).await.unwrap(), None);
}

pub(crate) async fn a_session_keeps_the_key_it_was_registered_with_and_how_its_lock_ended(fixture: &impl Fixture) {
    let (first, second) = (KeyId::from_uuid(Uuid::from_u128(1)), KeyId::from_uuid(Uuid::from_u128(2)));
    let with = |key| Registration { provider_key: Some(key), ..registration(1, "one") };
    fixture.open().register(with(first), at(0)).await.unwrap();
    assert_eq!(fixture.open().session(id(1)).await.unwrap().unwrap().provider_key, Some(first));
    fixture.open().register(with(second), at(1)).await.unwrap();
    assert_eq!(fixture.open().session(id(1)).await.unwrap().unwrap().provider_key, Some(second));

    for (number, end, ending) in [(1, Change::Cut, Ending::Cut), (2, Change::ReleaseByOperator, Ending::Released)] {
        fixture.open().register(registration(number, "one"), at(2)).await.unwrap();
        locked(&*fixture.open(), number, &format!("token {number}")).await;
        fixture.open().change(id(number), end, at(3)).await.unwrap();
        let session = fixture.open().session(id(number)).await.unwrap().unwrap();
        assert_eq!(session.state, SessionState::Recycling { since: at(3), ending });
    }
}

pub(crate) async fn operators_see_sessions_with_their_ledgers_and_providers_with_their_sessions(
    fixture: &impl Fixture,
) {
    let store = fixture.open();
    for number in 1..=3 {
        store.register(registration(number, "one"), at(number as u64)).await.unwrap();
    }
    let elsewhere = Registration { provider: "lab".parse().unwrap(), ..registration(4, "one") };
    store.register(elsewhere, at(9)).await.unwrap();
    store.change(id(3), Change::Remove, at(10)).await.unwrap();
    assert_eq!(store.sessions_with_ledgers().await.unwrap(), []);
    store.change(id(2), issue("token"), at(10)).await.unwrap();
    store.change(id(2), claim("token", 1, None), at(11)).await.unwrap();
    let granted = store.grant(lease(2, 1, 100), policy(), at(11)).await.unwrap().granted;

    let store = fixture.open();
    assert_eq!(store.sessions_with_ledgers().await.unwrap(), [id(2)]);
    let records = store.records(vec![id(2), id(7), id(3)], at(12)).await.unwrap();
    let mut shown: Vec<_> =
        records.iter().map(|(session, ledger)| (session.id, ledger.standing(CAP).reserved)).collect();
    shown.sort_unstable();
    assert_eq!(shown, [(id(2), granted), (id(3), 0)]);
    let late = store.records(vec![id(2)], at(HOUR)).await.unwrap();
    assert_eq!(late[0].1.standing(CAP).used.forfeited, granted, "the ledger as it is now");

    let providers = store.providers().await.unwrap();
    let names: Vec<&str> = providers.iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(names, ["gpu-box", "lab"]);
    let mut sessions = providers[0].sessions.clone();
    sessions.sort_by_key(|(status, ..)| status.as_str());
    assert_eq!(
        sessions,
        [(SessionStatus::Locked, 1, at(2)), (SessionStatus::Ready, 1, at(1)), (SessionStatus::Removed, 1, at(3))]
    );
}

pub(crate) async fn a_store_that_can_be_written_to_says_so(fixture: &impl Fixture) {
    fixture.open().probe(at(0)).await.unwrap();
    fixture.open().probe(at(1)).await.unwrap();
}

async fn verify(store: &dyn Store) -> Verdict {
    runit_control::anchors::verify(store, &trail_key(), &[]).await.unwrap()
}

pub(crate) fn events(count: u64, from: u64) -> Vec<SecurityEvent> {
    (from..from + count).map(|ms| SecurityEvent::new(EventKind::SessionLocked, at(ms)).session(id(ms.into()))).collect()
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

pub(crate) async fn a_receivers_place_in_the_trail_survives(fixture: &impl Fixture) {
    assert_eq!(fixture.open().webhook_cursor("ops".into()).await.unwrap(), None);
    fixture.open().save_webhook_cursor("ops".into(), 7).await.unwrap();
    fixture.open().save_webhook_cursor("other".into(), 3).await.unwrap();
    for place in [8, 5] {
        fixture.open().save_webhook_cursor("ops".into(), place).await.unwrap();
    }
    assert_eq!(fixture.open().webhook_cursor("ops".into()).await.unwrap(), Some(8));
}
