//! `registration = "key"`: who may register, and what goes with a key.

use std::time::Duration;

use runit_config::Registration as Registering;
use runit_control::sealer::Sealer;
use runit_control::sqlite::SqliteStore;
use runit_core::session::{Offer, SessionStatus};
use runit_core::store::{Registration, Store};
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{Secret, SecretHash, SessionId, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::{Answer, OPERATOR_KEY, TestApp, UPSTREAM, bearer, json_type, offer, offer_with};

async fn keyed() -> TestApp {
    TestApp::with(|settings| settings.control.registration = Registering::Key).await
}

async fn make_key(app: &TestApp, provider: &str) -> (String, String) {
    let body = json!({ "providerId": provider });
    let made = app.operator().post_as("/admin/v1/keys", OPERATOR_KEY, body).await.expect(201);
    (made["key"].as_str().unwrap().to_owned(), made["keyId"].as_str().unwrap().to_owned())
}

async fn register(app: &TestApp, key: &str, offer: Value, secret: Option<&str>) -> Answer {
    let mut headers = vec![json_type(), ("runit-provider-key", key.to_owned())];
    headers.extend(secret.map(bearer));
    app.client(1).send(reqwest::Method::POST, "/provider/session", &headers, Some(offer.to_string())).await
}

fn refused(answer: &Answer) {
    answer.expect_problem(403, "a key for this provider is required", "provider_key_required");
}

#[tokio::test]
async fn only_a_key_for_the_very_provider_registers() {
    let app = keyed().await;
    let (key, key_id) = make_key(&app, "gpu-box").await;
    refused(&app.client(1).post("/provider/session", offer()).await);
    refused(&register(&app, "", offer(), None).await);
    refused(&register(&app, "a guess", offer(), None).await);
    refused(&register(&app, OPERATOR_KEY, offer(), None).await);
    refused(&register(&app, &key, offer_with(json!({ "providerId": "lab" })), None).await);
    let registered = register(&app, &key, offer(), None).await.expect(200);
    let id = registered["sessionId"].as_str().unwrap();
    let shown = app.operator().get_as(&format!("/admin/v1/sessions/{id}"), OPERATOR_KEY).await.expect(200);
    assert_eq!(shown["providerKeyId"], key_id.as_str());
    assert_eq!(app.events(&["INVALID_PROVIDER_REGISTRATION"]).await.len(), 5);
    let asked = app.operator().get_as("/admin/v1/sessions", &key).await;
    asked.expect_status(401);
}

#[tokio::test]
async fn with_a_key_its_sessions_go_and_stay_out() {
    let mut app = keyed().await;
    let (old, old_id) = make_key(&app, "gpu-box").await;
    let (new, _) = make_key(&app, "gpu-box").await;
    let mut sessions = Vec::new();
    for key in [&old, &old, &new] {
        sessions.push(register(&app, key, offer(), None).await.expect(200));
    }
    let field = |n: usize, name: &str| sessions[n][name].as_str().unwrap().to_owned();
    // The second one's agent has the new key by now.
    let again = offer_with(json!({ "sessionId": field(1, "sessionId") }));
    register(&app, &new, again, Some(&field(1, "providerSecret"))).await.expect(200);

    app.operator().delete_as(&format!("/admin/v1/keys/{old_id}"), OPERATOR_KEY).await.expect(200);
    let status = async |app: &TestApp, n: usize| {
        let body = json!({ "sessionId": field(n, "sessionId") });
        app.client(1).post_as("/provider/heartbeat", &field(n, "providerSecret"), body).await.status.as_u16()
    };
    assert_eq!((status(&app, 0).await, status(&app, 1).await, status(&app, 2).await), (404, 200, 200));
    let again = offer_with(json!({ "sessionId": field(0, "sessionId") }));
    refused(&register(&app, &old, again, Some(&field(0, "providerSecret"))).await);
    app.restart().await;
    assert_eq!((status(&app, 0).await, status(&app, 1).await, status(&app, 2).await), (404, 200, 200));
}

#[tokio::test]
async fn sessions_without_a_key_go_when_one_is_demanded() {
    let mut app = TestApp::start().await;
    let (key, _) = make_key(&app, "gpu-box").await;
    refused(&register(&app, "a guess", offer(), None).await);
    let bare = app.register().await;
    let keyed = register(&app, &key, offer(), None).await.expect(200);
    app.restart_with(|settings| settings.control.registration = Registering::Key).await;
    assert_eq!(app.status(&bare).await, "unknown session");
    let body = json!({ "sessionId": keyed["sessionId"] });
    let secret = keyed["providerSecret"].as_str().unwrap();
    app.client(1).post_as("/provider/heartbeat", secret, body).await.expect(200);
}

#[tokio::test]
async fn of_a_registration_and_a_revocation_at_once_no_session_is_left() {
    let app = keyed().await;
    for _ in 0..20 {
        let (key, id) = make_key(&app, "gpu-box").await;
        let path = format!("/admin/v1/keys/{id}");
        let operator = app.operator();
        let (_, revoked) = tokio::join!(register(&app, &key, offer(), None), operator.delete_as(&path, OPERATOR_KEY));
        revoked.expect(200);
        let left = app.operator().get_as("/admin/v1/sessions", OPERATOR_KEY).await.expect(200);
        assert_eq!(left["total"], 0, "{left}");
    }
}

#[tokio::test]
async fn a_session_that_another_node_registers_after_the_revocation_goes_too() {
    let app = keyed().await;
    let (_, key_id) = make_key(&app, "gpu-box").await;
    app.operator().delete_as(&format!("/admin/v1/keys/{key_id}"), OPERATOR_KEY).await.expect(200);

    // That node has not heard of it when it looks at the key again.
    let id = SessionId::from_uuid(Uuid::from_u128(7));
    let sealer = Sealer::from_existing_file(&app.data_dir().join("credential.key")).unwrap();
    let store = SqliteStore::open(&app.data_dir().join("runit.db"), sealer.trail_key()).unwrap();
    let registration = Registration {
        id,
        provider: "gpu-box".parse().unwrap(),
        provider_secret: SecretHash::of("secret"),
        provider_key: Some(key_id.parse().unwrap()),
        offer: Offer {
            upstream: UpstreamUrl::parse(UPSTREAM, &UpstreamPolicy::default()).unwrap(),
            sealed_credential: sealer.seal(id, &Secret::new("jupyter-secret")).unwrap(),
            credential_hash: SecretHash::of("jupyter-secret"),
            hardware: None,
            pricing: None,
        },
        cap_bytes: 1,
    };
    store.register(registration, Timestamp::from_unix_ms(1_795_334_400_000)).await.unwrap();
    let gone = async {
        while store.session(id).await.unwrap().unwrap().status() != SessionStatus::Removed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the sweeper removes it");
    app.swept().await; // the event follows the change
    assert_eq!(app.events(&["SESSION_REMOVED"]).await.len(), 1);
}
