//! What operators see, and keys.

use runit_core::KeyId;
use runit_core::key::{KeyHolder, Role};
use runit_core::session::{Change, Ending, SessionState, SessionStatus};
use runit_core::store::Registration;
use uuid::Uuid;

use super::{CAP, Fixture, HOUR, at, claim, id, issue, key, lease, locked, policy, registration};

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
