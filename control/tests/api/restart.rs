//! A restart changes nothing that anybody relies on.

use futures::StreamExt;
use runit_core::authority::DirectoryChange;
use runit_core::ledger::{LeaseReport, LeaseRequest};
use runit_core::{LeaseId, LockId, NodeId, SecretHash};
use serde_json::json;
use uuid::Uuid;

use crate::app::{TestApp, offer_with};

#[tokio::test]
async fn sessions_locks_tokens_and_usage_are_as_before() {
    let mut app = TestApp::start().await;
    let (free, rented) = (app.register().await, app.register().await);
    app.claim(&rented.token, 2, Some("cookie")).await.unwrap();
    let (id, lease) = (rented.id.parse().unwrap(), LeaseId::from_uuid(Uuid::from_u128(1)));
    let request = LeaseRequest {
        lease,
        node: NodeId::from_uuid(Uuid::from_u128(2)),
        session: id,
        lock: LockId::of(SecretHash::of(&rented.token)),
        want: 5_000,
    };
    app.authority().lease(request).await.unwrap();
    let report = LeaseReport { lease, session: id, sequence: 1, bytes_in: 100, bytes_out: 200, closing: true };
    app.authority().settle(vec![report]).await.unwrap();

    app.restart().await;

    assert_eq!((&*app.status(&free).await, &*app.status(&rented).await), ("READY", "LOCKED"));
    let usage = app.client(2).get(&format!("/renter/usage/{}", rented.token)).await.expect(200);
    assert_eq!((&usage["usedIn"], &usage["usedOut"]), (&json!(100), &json!(200)));
    assert!(app.claim(&rented.token, 2, Some("another")).await.is_err());
    assert!(app.claim(&rented.token, 3, None).await.is_err());
    let view = app.claim(&free.token, 3, None).await.expect("an unused token");
    assert_eq!(view.credential.expose(), "jupyter-secret", "sealed at rest, opened again");
}

#[tokio::test]
async fn two_processes_share_the_store_while_one_takes_over_from_the_other() {
    let old = TestApp::start().await;
    let (rented, left) = (old.register().await, old.register().await);
    let new = old.beside().await;
    let mut watch = old.authority().watch();
    assert!(matches!(watch.next().await, Some(DirectoryChange::Snapshot(views)) if views.len() == 2));

    new.claim(&rented.token, 2, None).await.unwrap();
    old.until(&rented, "LOCKED").await;
    new.client(2).post(&format!("/renter/release/{}", rented.token), json!({})).await.expect(200);
    old.until(&rented, "RECYCLING").await;
    old.client(1).delete_as(&format!("/provider/session/{}", left.id), &left.secret).await.expect(204);
    new.until(&left, "unknown session").await;
    let third = new.register().await;
    old.until(&third, "READY").await;
    let mut told = Vec::new();
    while told.len() < 4 {
        match watch.next().await.unwrap() {
            DirectoryChange::Upsert(view) => told.push(view.status.as_str()),
            DirectoryChange::Remove(..) => told.push("removed"),
            DirectoryChange::Snapshot(_) => panic!("no gap"),
        }
    }
    told.dedup();
    assert_eq!(told, ["LOCKED", "RECYCLING", "removed", "READY"], "the old one's data plane hears of all");
}

#[tokio::test]
async fn leaving_and_coming_back_resets_no_usage() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let (id, lease) = (session.id.parse().unwrap(), LeaseId::from_uuid(Uuid::from_u128(1)));
    let request = LeaseRequest {
        lease,
        node: NodeId::from_uuid(Uuid::from_u128(2)),
        session: id,
        lock: LockId::of(SecretHash::of(&session.token)),
        want: 5_000,
    };
    app.authority().lease(request).await.unwrap();
    let report = LeaseReport { lease, session: id, sequence: 1, bytes_in: 100, bytes_out: 200, closing: true };
    app.authority().settle(vec![report]).await.unwrap();
    let path = format!("/provider/session/{}", session.id);
    app.client(1).delete_as(&path, &session.secret).await.expect(204);
    let again = offer_with(
        json!({ "sessionId": session.id, "publicUrl": "https://new-blue-owl.trycloudflare.com", "token": "new" }),
    );
    let back = app.client(1).post_as("/provider/session", &session.secret, again).await.expect(200);
    let usage = app.client(2).get(&format!("/renter/usage/{}", back["accessToken"].as_str().unwrap())).await;
    assert_eq!(usage.expect(200)["usedOut"], 200);
}

#[tokio::test]
async fn a_host_that_is_no_longer_listed_and_a_lost_key_remove_the_session() {
    let mut app = TestApp::with(|settings| settings.upstream.hosts = vec!["gpu.example.org".into()]).await;
    let listed = offer_with(json!({ "publicUrl": "https://gpu.example.org" }));
    app.client(1).post("/provider/session", listed).await.expect(200);
    let tunnel = app.register().await;
    app.restart_with(|settings| settings.upstream.hosts.clear()).await;
    let list = app.client(1).get("/renter/sessions").await.expect(200);
    assert_eq!((list.as_array().unwrap().len(), &list[0]["sessionId"]), (1, &json!(tunnel.id)));

    let key = app.data_dir().join("credential.key");
    app.restart_with(|_| std::fs::remove_file(key).unwrap()).await;
    assert_eq!(app.client(1).get("/renter/sessions").await.expect(200), json!([]));
    assert_eq!(app.events(&["SESSION_REMOVED"]).await.len(), 2);
    let body = json!({ "sessionId": tunnel.id });
    let answer = app.client(1).post_as("/provider/heartbeat", &tunnel.secret, body).await;
    answer.expect_problem(404, "unknown session - re-register required", "re_register_required");
    let again = offer_with(json!({ "sessionId": tunnel.id }));
    app.client(1).post_as("/provider/session", &tunnel.secret, again).await.expect(200);
    assert_eq!(app.status(&tunnel).await, "READY");
}
