//! What the data plane asks, through the authority of a whole control plane.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures::StreamExt;
use runit_core::authority::{ClaimError, DirectoryChange, LeaseError};
use runit_core::ledger::{LeaseRequest, Shortage};
use runit_core::{LeaseId, LockId, NodeId, Rejection, SecretHash, SessionStatus};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::TestApp;

#[tokio::test]
async fn claims_are_decided_and_recorded() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let view = app.claim(&session.token, 2, Some("first")).await.unwrap();
    assert_eq!((view.status, view.credential.expose()), (SessionStatus::Locked, "jupyter-secret"));
    for (token, from, cookie, expected) in [
        (&*session.token, 2, Some("second"), Rejection::AlreadyInUse),
        (&session.token, 3, Some("first"), Rejection::AddressMismatch),
        ("67e55044-10b1-426f-9247-bb680e5fe0c8", 2, None, Rejection::InvalidToken),
    ] {
        let refused = app.claim(token, from, cookie).await.err();
        assert_eq!(refused, Some(ClaimError::Rejected(expected)));
    }
    app.claim(&session.token, 2, None).await.expect("the renter's program joins");
    let kinds = ["SESSION_LOCKED", "SESSION_ALREADY_LOCKED", "SESSION_HIJACK_ATTEMPT", "INVALID_ACCESS_ATTEMPT"];
    assert_eq!(app.events(&kinds).await, kinds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_concurrent_claims_exactly_one_takes_the_lock() {
    let app = TestApp::start().await;
    app.register().await;
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let given = app.client(1).post("/renter/request", json!({})).await.expect(200);
        tokens.push(given["accessToken"].as_str().unwrap().to_owned());
    }
    let mut claims = JoinSet::new();
    for (n, token) in (1_u8..).zip(tokens) {
        let authority = app.authority();
        let token = runit_core::AccessToken::parse(&token).unwrap().hash();
        let address = runit_core::RenterAddress::new([127, 0, 0, n].into());
        claims.spawn(async move {
            authority.claim(runit_core::session::Claim { token, session: None, address, cookie: None }).await.is_ok()
        });
    }
    assert_eq!(claims.join_all().await.into_iter().filter(|&won| won).count(), 1);
    assert_eq!(app.events(&["SESSION_LOCKED"]).await.len(), 1);
}

#[tokio::test]
async fn a_watcher_hears_of_a_sessions_whole_life_in_order() {
    let app = TestApp::start().await;
    let mut watch = app.authority().watch();
    assert!(matches!(watch.next().await, Some(DirectoryChange::Snapshot(views)) if views.is_empty()));
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let path = format!("/renter/release/{}", session.token);
    app.client(2).send(reqwest::Method::POST, &path, &[], None).await.expect(200);
    app.client(1).delete_as(&format!("/provider/session/{}", session.id), &session.secret).await.expect(204);
    let (mut seen, mut revision) = (Vec::new(), 0);
    loop {
        match watch.next().await.unwrap() {
            DirectoryChange::Upsert(view) => {
                assert!(view.revision > revision, "revisions go up");
                revision = view.revision;
                seen.push(view.status);
            }
            DirectoryChange::Remove(id, _) => break assert_eq!(id.to_string(), session.id),
            DirectoryChange::Snapshot(_) => panic!("no gap"),
        }
    }
    seen.dedup();
    assert_eq!(seen, [SessionStatus::Ready, SessionStatus::Locked, SessionStatus::Recycling]);
}

#[tokio::test]
async fn a_claim_whose_caller_went_away_is_published_all_the_same() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let mut watch = app.authority().watch();
    watch.next().await;
    {
        let mut claim = pin!(app.claim(&session.token, 2, None));
        let mut once = Context::from_waker(Waker::noop());
        assert!(claim.as_mut().poll(&mut once).is_pending(), "dropped at its first await");
    }
    let change = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("published").unwrap();
    assert!(matches!(change, DirectoryChange::Upsert(view) if view.status == SessionStatus::Locked));
}

#[tokio::test]
async fn leases_stop_at_the_cap_and_at_unknown_sessions() {
    let app = TestApp::with(|settings| settings.quota.cap_bytes = 1_000).await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let request = |lease: u128, id: &str| LeaseRequest {
        lease: LeaseId::from_uuid(Uuid::from_u128(lease)),
        node: NodeId::from_uuid(Uuid::from_u128(1)),
        session: id.parse().unwrap(),
        lock: LockId::of(SecretHash::of(&session.token)),
        want: 2_000,
    };
    let authority = app.authority();
    assert_eq!(authority.lease(request(1, &session.id)).await.unwrap().granted, 1_000);
    let short = authority.lease(request(2, &session.id)).await;
    assert_eq!(short, Err(LeaseError::Short(Shortage::Leased)));
    app.step(Duration::from_secs(60));
    let short = authority.lease(request(3, &session.id)).await;
    assert!(matches!(short, Err(LeaseError::Short(Shortage::CapReached { .. }))), "forfeited: {short:?}");
    let unknown = authority.lease(request(4, "67e55044-10b1-426f-9247-bb680e5fe0c8")).await;
    assert_eq!(unknown, Err(LeaseError::UnknownSession));
    let standing = authority.standing(session.id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((standing.used.forfeited, standing.remaining), (1_000, 0));
}

#[tokio::test]
async fn where_addresses_are_only_observed_a_differing_one_passes_and_is_recorded() {
    let app = TestApp::with(|settings| settings.lock.mode = runit_config::LockMode::Observe).await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    app.claim(&session.token, 3, None).await.expect("admitted");
    let kinds = ["SESSION_LOCKED", "SESSION_HIJACK_ATTEMPT"];
    assert_eq!(app.events(&kinds).await, kinds);
}

#[tokio::test]
async fn what_is_refused_is_recorded_up_to_a_bound_and_counted_beyond() {
    let app = TestApp::start().await;
    let session = app.register().await;
    for _ in 0..40 {
        app.claim("67e55044-10b1-426f-9247-bb680e5fe0c8", 9, None).await.unwrap_err();
    }
    assert_eq!(app.events(&["INVALID_ACCESS_ATTEMPT"]).await.len(), 30);
    let text = prometheus::TextEncoder::new().encode_to_string(&app.control.gather()).unwrap();
    assert!(text.contains("runit_security_events_total{kind=\"INVALID_ACCESS_ATTEMPT\"} 40"), "{text}");
    app.claim(&session.token, 9, None).await.expect("a bound on records, not on renters");
}
