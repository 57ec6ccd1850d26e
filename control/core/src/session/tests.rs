use super::*;
use crate::secret::AccessToken;
use crate::upstream::UpstreamPolicy;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1000)
}

fn address(last: u8) -> RenterAddress {
    RenterAddress::new([127, 0, 0, last].into())
}

fn offer(credential: &str) -> Offer {
    Offer {
        upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).expect("valid"),
        sealed_credential: credential.as_bytes().to_vec(),
        credential_hash: SecretHash::of(credential),
        hardware: None,
        pricing: None,
    }
}

fn ready() -> Session {
    let provider = "p".parse().expect("valid");
    let id = SessionId::from_uuid(Uuid::from_u128(1));
    let mut session = Session::register(id, provider, SecretHash::of("provider"), None, offer("one"), 100, at(0));
    for token in ["token", "other"] {
        session.apply(Change::IssueToken(SecretHash::of(token)), at(1)).expect("ready");
    }
    session
}

fn claim(token: &str, last: u8, cookie: Option<&str>) -> Change {
    let claim = Claim {
        token: SecretHash::of(token),
        session: None,
        address: address(last),
        cookie: cookie.map(SecretHash::of),
    };
    Change::Claim(claim, LockMode::Exact)
}

fn locked() -> Session {
    let mut session = ready();
    session.apply(claim("token", 1, Some("cookie")), at(2)).expect("the first use");
    session
}

fn release(token: &str, last: u8) -> Change {
    Change::Release { token: SecretHash::of(token), address: address(last), mode: LockMode::Exact }
}

#[test]
fn the_first_use_takes_the_lock_and_kills_the_other_tokens() {
    let mut session = locked();
    assert_eq!(session.status(), SessionStatus::Locked);
    assert_eq!(session.apply(claim("other", 1, None), at(3)), Err(Rejection::InvalidToken.into()));
}

#[test]
fn an_unknown_token_takes_nothing() {
    let mut session = ready();
    assert_eq!(session.apply(claim("guess", 1, None), at(2)), Err(Rejection::InvalidToken.into()));
    assert_eq!(session.status(), SessionStatus::Ready);
}

#[test]
fn another_browser_is_told_that_the_session_is_in_use() {
    let mut session = locked();
    assert_eq!(session.apply(claim("token", 1, Some("second")), at(3)), Err(Rejection::AlreadyInUse.into()));
    assert_eq!(session.lock().and_then(|lock| lock.cookie), Some(SecretHash::of("cookie")));
}

#[test]
fn a_browser_may_join_the_lock_that_a_program_took_once() {
    let mut session = ready();
    session.apply(claim("token", 1, None), at(2)).expect("a program's first use");
    session.apply(claim("token", 1, Some("cookie")), at(3)).expect("the renter's browser");
    assert_eq!(session.apply(claim("token", 1, Some("second")), at(4)), Err(Rejection::AlreadyInUse.into()));
}

#[test]
fn another_address_gets_nowhere_with_the_token() {
    let mut session = locked();
    for change in [claim("token", 2, None), claim("token", 2, Some("c")), release("token", 2)] {
        assert_eq!(session.apply(change, at(3)), Err(Rejection::AddressMismatch.into()));
    }
    assert_eq!(session.status(), SessionStatus::Locked);
}

fn reconnect(proof: Proof, last: u8) -> Change {
    Change::Reconnect(Reconnection { token: SecretHash::of("token"), proof, address: address(last) })
}

#[test]
fn a_lock_moves_to_another_address_with_its_cookie_and_nothing_else_changes() {
    let mut session = locked();
    let before = session.clone();
    session.apply(reconnect(Proof::Cookie(SecretHash::of("cookie")), 2), at(9)).expect("token and cookie");
    let (old, new) = (before.lock().expect("locked"), session.lock().expect("locked still"));
    assert_eq!((new.address, new.renter_seen_at), (address(2), at(9)));
    assert_eq!((new.token, new.cookie, new.taken_at), (old.token, old.cookie, old.taken_at));
    assert!(session.revision > before.revision, "nodes must hear of it");
    assert_eq!(session.apply(release("token", 1), at(10)), Err(Rejection::AddressMismatch.into()));
    session.apply(release("token", 2), at(10)).expect("its holder");
}

#[test]
fn a_lock_moves_with_the_secret_behind_its_token() {
    let secret = Secret::new("kept to himself");
    let token = AccessToken::behind(&secret);
    let mut session = ready();
    session.apply(Change::IssueToken(token.hash()), at(1)).expect("ready");
    let claim = Claim { token: token.hash(), session: None, address: address(1), cookie: None };
    session.apply(Change::Claim(claim, LockMode::Exact), at(2)).expect("a program's first use");
    for (secret, outcome) in [("guess", Err(Rejection::AddressMismatch.into())), ("kept to himself", Ok(()))] {
        let proof = Proof::Secret(Secret::new(secret));
        let change = Change::Reconnect(Reconnection { token: token.hash(), proof, address: address(2) });
        assert_eq!(session.apply(change, at(3)), outcome);
    }
    assert_eq!(session.lock().map(|lock| lock.address), Some(address(2)));
}

#[test]
fn a_lock_does_not_move_without_proof_or_after_its_end() {
    let mut session = locked();
    let before = session.lock().cloned();
    for proof in [Proof::Cookie(SecretHash::of("guess")), Proof::Secret(Secret::new("token"))] {
        assert_eq!(session.apply(reconnect(proof, 2), at(3)), Err(Rejection::AddressMismatch.into()));
    }
    let stranger = Reconnection {
        token: SecretHash::of("other"),
        proof: Proof::Cookie(SecretHash::of("cookie")),
        address: address(2),
    };
    assert_eq!(session.apply(Change::Reconnect(stranger), at(3)), Err(Rejection::InvalidToken.into()));
    assert_eq!(session.lock().cloned(), before);
    let by_cookie = || reconnect(Proof::Cookie(SecretHash::of("cookie")), 2);
    session.apply(release("token", 1), at(4)).expect("its holder");
    assert_eq!(session.apply(by_cookie(), at(5)), Err(Rejection::InvalidToken.into()));
    let mut program = ready();
    program.apply(claim("token", 1, None), at(2)).expect("a program's first use");
    assert_eq!(program.apply(by_cookie(), at(3)), Err(Rejection::AddressMismatch.into()), "a lock without a cookie");
}

#[test]
fn a_released_session_is_ready_only_with_a_new_credential() {
    let mut session = locked();
    session.apply(release("token", 1), at(3)).expect("its holder");
    assert_eq!(session.status(), SessionStatus::Recycling);
    session.apply(Change::Refresh(offer("one")), at(4)).expect("a new tunnel only");
    assert_eq!(session.status(), SessionStatus::Recycling);
    session.apply(Change::Refresh(offer("two")), at(5)).expect("a fresh workspace");
    assert_eq!(session.state, SessionState::Ready { tokens: vec![] });
}

#[test]
fn a_new_tunnel_leaves_the_lock_alone() {
    let mut session = locked();
    let before = session.lock().cloned();
    session.apply(Change::Refresh(offer("two")), at(3)).expect("allowed");
    assert_eq!(session.lock().cloned(), before);
}

#[test]
fn an_absent_renter_loses_the_lock_and_a_present_one_does_not() {
    let mut session = locked();
    assert_eq!(session.apply(Change::RenterAbsent(MINUTE), at(61)), Err(Refusal::StillPresent));
    let heartbeat =
        Change::RenterHeartbeat { token: SecretHash::of("token"), address: address(1), mode: LockMode::Exact };
    session.apply(heartbeat, at(30)).expect("its holder");
    assert_eq!(session.apply(Change::RenterAbsent(MINUTE), at(62)), Err(Refusal::StillPresent));
    session.apply(Change::RenterAbsent(MINUTE), at(90)).expect("gone for a minute");
    assert_eq!(session.status(), SessionStatus::Recycling);
}

#[test]
fn a_silent_provider_is_removed_and_comes_back_dirty_with_the_same_workspace() {
    let mut session = locked();
    assert_eq!(session.apply(Change::ProviderSilent(MINUTE), at(59)), Err(Refusal::StillPresent));
    session.apply(Change::ProviderSilent(MINUTE), at(60)).expect("silent");
    assert_eq!(session.status(), SessionStatus::Removed);
    let provider = "p".parse().expect("valid");
    session.register_again(&provider, SecretHash::of("provider"), None, offer("one"), at(70)).expect("the same agent");
    assert_eq!(session.status(), SessionStatus::Recycling);
}

#[test]
fn a_revoked_key_takes_the_session_that_was_last_registered_with_it() {
    let key = |number| KeyId::from_uuid(Uuid::from_u128(number));
    let mut session = ready();
    assert_eq!(session.apply(Change::KeyRevoked(key(1)), at(2)), Err(Refusal::StillPresent), "registered without one");
    let again = |session: &mut Session, key| {
        session.register_again(&"p".parse().expect("valid"), SecretHash::of("provider"), Some(key), offer("one"), at(3))
    };
    again(&mut session, key(1)).expect("the same agent");
    again(&mut session, key(2)).expect("the same agent");
    assert_eq!(session.apply(Change::KeyRevoked(key(1)), at(4)), Err(Refusal::StillPresent), "it has the next one");
    session.apply(Change::KeyRevoked(key(2)), at(5)).expect("its key");
    assert_eq!(session.status(), SessionStatus::Removed);
}

#[test]
fn an_agent_that_restarts_with_a_fresh_workspace_is_ready_at_once() {
    let mut session = locked();
    session.apply(Change::Remove, at(3)).expect("deregistered");
    let provider = "p".parse().expect("valid");
    session.register_again(&provider, SecretHash::of("provider"), None, offer("two"), at(4)).expect("the same agent");
    assert_eq!(session.state, SessionState::Ready { tokens: vec![] });
}

#[test]
fn a_session_that_was_never_rented_comes_back_ready() {
    let mut session = ready();
    session.apply(Change::Remove, at(3)).expect("deregistered");
    let provider = "p".parse().expect("valid");
    session.register_again(&provider, SecretHash::of("provider"), None, offer("one"), at(4)).expect("the same agent");
    assert_eq!(session.state, SessionState::Ready { tokens: vec![] });
}

#[test]
fn somebody_else_cannot_register_a_known_id() {
    let mut session = locked();
    let (us, them) = ("p".parse().expect("valid"), "q".parse().expect("valid"));
    for (provider, secret) in [(&us, "guess"), (&them, "provider")] {
        let refused = session.register_again(provider, SecretHash::of(secret), None, offer("two"), at(3));
        assert_eq!(refused, Err(Refusal::NotYours));
    }
    assert_eq!(session.status(), SessionStatus::Locked);
}

#[test]
fn a_removed_session_takes_no_change() {
    let mut session = locked();
    session.apply(Change::Remove, at(3)).expect("deregistered");
    let changes = [
        Change::IssueToken(SecretHash::of("t")),
        claim("token", 1, None),
        release("token", 1),
        Change::Cut,
        Change::Refresh(offer("two")),
        Change::Remove,
        Change::RenterAbsent(Duration::ZERO),
    ];
    for change in changes {
        assert!(session.apply(change.clone(), at(4)).is_err(), "{change:?}");
        assert_eq!(session.status(), SessionStatus::Removed);
    }
}

#[test]
fn outstanding_tokens_are_bounded_and_the_oldest_goes_first() {
    let mut session = ready();
    for n in 0..OUTSTANDING_TOKENS {
        session.apply(Change::IssueToken(SecretHash::of(&n.to_string())), at(2)).expect("ready");
    }
    assert!(session.apply(claim("token", 1, None), at(3)).is_err());
    session.apply(claim("0", 1, None), at(3)).expect("still outstanding");
}

#[test]
fn every_change_that_the_data_plane_must_hear_of_counts_the_revision_up() {
    let mut session = ready();
    let before = session.revision;
    session.apply(claim("token", 1, None), at(2)).expect("first use");
    assert!(session.revision > before);
    let before = session.revision;
    session.apply(release("token", 1), at(3)).expect("its holder");
    assert!(session.revision > before);
}

#[test]
fn a_token_presented_to_another_session_takes_nothing() {
    let mut session = ready();
    let claim = Claim {
        token: SecretHash::of("token"),
        session: Some(SessionId::from_uuid(Uuid::from_u128(2))),
        address: address(1),
        cookie: None,
    };
    let refused = session.apply(Change::Claim(claim, LockMode::Exact), at(2));
    assert_eq!(refused, Err(Rejection::InvalidToken.into()));
    assert_eq!(session.status(), SessionStatus::Ready);
}

#[test]
fn a_restored_session_comes_back_only_with_a_fresh_workspace() {
    let mut locked = ready();
    locked.apply(claim("token", 1, None), at(2)).expect("first use");
    let mut gone = ready();
    gone.apply(Change::Remove, at(2)).expect("there");
    for mut session in [ready(), locked, gone] {
        let revision = session.revision;
        session.restored(at(9));
        assert!(session.revision > revision);
        assert!(session.apply(claim("token", 1, None), at(10)).is_err(), "its tokens are dead");
        let (provider, secret, offer) = (session.provider.clone(), session.provider_secret, session.offer.clone());
        session.register_again(&provider, secret, None, offer, at(11)).expect("its agent");
        assert_eq!(session.status(), SessionStatus::Recycling, "the same workspace, and nobody knows who was in it");
    }
}
