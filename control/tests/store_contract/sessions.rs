//! Sessions and their locks.

use std::sync::Arc;
use std::time::Duration;

use runit_core::session::{Change, Claim, Refusal, Session, SessionState, SessionStatus};
use runit_core::store::{ChangeError, GrantError, Registration};
use runit_core::{LockMode, Rejection, RenterAddress, SecretHash};
use tokio::task::JoinSet;

use super::{
    CAP, Fixture, HOUR, address, at, claim, id, issue, lease, lease_of, locked, policy, registration, release, report,
};

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
