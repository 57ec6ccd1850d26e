//! `/renter/reconnect`: the way back of a renter whose address has changed.

use std::time::Duration;

use runit_config::Limit;
use runit_core::authority::ReconnectError;
use runit_core::session::{Proof, Reconnection};
use runit_core::{AccessToken, Rejection, RenterAddress, SecretHash};
use serde_json::json;

use crate::app::{Registered, TestApp, json_type};

const MOVES: [&str; 2] = ["SESSION_ADDRESS_LEFT", "SESSION_RECONNECTED"];

/// A session taken at 127.0.0.1 with a token that was asked for; token and secret.
async fn taken(app: &TestApp) -> (Registered, String, String) {
    let session = app.register().await;
    let given = app.client(1).post("/renter/request", json!({ "sessionId": session.id })).await.expect(200);
    let text = |name: &str| given[name].as_str().unwrap().to_owned();
    let (token, secret) = (text("accessToken"), text("reconnectSecret"));
    app.claim(&token, 1, Some("cookie")).await.unwrap();
    (session, token, secret)
}

fn body(secret: &str) -> serde_json::Value {
    json!({ "reconnectSecret": secret })
}

#[tokio::test]
async fn with_the_secret_the_lock_moves_and_files_and_ledger_stay() {
    let app = TestApp::start().await;
    let (session, token, secret) = taken(&app).await;
    let path = format!("/renter/reconnect/{token}");
    app.client(2).post(&path, body("guess")).await.expect_problem(403, "IP mismatch - access denied", "ip_mismatch");
    assert_eq!(app.client(2).post(&path, body(&secret)).await.expect(200), json!({ "ok": true }));
    assert_eq!(app.status(&session).await, "LOCKED", "the workspace is not recycled");
    let usage = format!("/renter/usage/{token}");
    app.client(2).get(&usage).await.expect(200);
    app.client(1).get(&usage).await.expect_status(403);
    app.client(1).post(&format!("/renter/release/{token}"), json!({})).await.expect_status(403);
    // Back again, by header; and once more, which changes nothing.
    for _ in 0..2 {
        let answer = app.client(1).post_as("/renter/reconnect", &token, body(&secret)).await;
        answer.expect(200);
    }
    assert_eq!(app.events(&MOVES).await, MOVES.repeat(2));
    app.client(1).post(&format!("/renter/release/{token}"), json!({})).await.expect(200);
    app.client(2).post(&path, body(&secret)).await.expect_status(404);
}

#[tokio::test]
async fn both_addresses_are_in_the_audit_trail() {
    let app = TestApp::start().await;
    let (_, token, secret) = taken(&app).await;
    app.client(2).post(&format!("/renter/reconnect/{token}"), body(&secret)).await.expect(200);
    let at = |last| Some(RenterAddress::new([127, 0, 0, last].into()));
    let expected = [("SESSION_ADDRESS_LEFT".to_owned(), at(1)), ("SESSION_RECONNECTED".to_owned(), at(2))];
    assert_eq!(app.events_with_addresses(&MOVES).await, expected);
}

#[tokio::test]
async fn the_data_plane_moves_a_lock_by_its_cookie() {
    let app = TestApp::start().await;
    let (_, token, _) = taken(&app).await;
    let token = AccessToken::parse(&token).unwrap().hash();
    let reconnect = |cookie: &str, last| Reconnection {
        token,
        proof: Proof::Cookie(SecretHash::of(cookie)),
        address: RenterAddress::new([127, 0, 0, last].into()),
    };
    let refused = app.authority().reconnect(reconnect("guess", 2)).await;
    assert_eq!(refused.map(drop), Err(ReconnectError::Rejected(Rejection::AddressMismatch)));
    let view = app.authority().reconnect(reconnect("cookie", 2)).await.unwrap();
    assert_eq!(view.lock.unwrap().address.to_string(), "127.0.0.2");
}

#[tokio::test]
async fn tries_are_counted_by_network_and_moves_by_session() {
    let limit = Limit { requests: 3, seconds: 600 };
    let app = TestApp::with(|settings| {
        settings.control.reconnect_limit = limit;
        settings.control.renter_absent_seconds = 86_400;
        settings.control.provider_silent_seconds = 86_400;
    })
    .await;
    let (_, token, secret) = taken(&app).await;
    let path = format!("/renter/reconnect/{token}");
    for _ in 0..3 {
        app.client(9).post(&path, body("guess")).await.expect_status(403);
    }
    let refused = app.client(9).post(&path, body(&secret)).await;
    refused.expect_problem(429, "too many reconnections", "too_many_reconnects");
    assert_eq!(refused.header("retry-after"), "600");
    // The thief has used up his own tries, and none of the renter's moves.
    for last in [2, 3, 4] {
        app.client(last).post(&path, body(&secret)).await.expect(200);
    }
    app.client(5).post(&path, body(&secret)).await.expect_status(429);
    app.client(4).get(&format!("/renter/usage/{token}")).await.expect(200);
    app.step(Duration::from_secs(599));
    app.client(6).post(&path, body(&secret)).await.expect_status(429);
    app.step(Duration::from_secs(1));
    app.client(6).post(&path, body(&secret)).await.expect(200);
    assert_eq!(app.events(&["RATE_LIMITED"]).await.len(), 2);
}

#[tokio::test]
async fn a_body_without_a_secret_and_an_unknown_token_get_nowhere() {
    let app = TestApp::start().await;
    let (_, token, secret) = taken(&app).await;
    let client = app.client(2);
    client.post(&format!("/renter/reconnect/{token}"), json!({})).await.expect_status(400);
    client.send(reqwest::Method::POST, &format!("/renter/reconnect/{token}"), &[], None).await.expect_status(415);
    let unknown = "/renter/reconnect/67e55044-10b1-426f-9247-bb680e5fe0c8";
    client.post(unknown, body(&secret)).await.expect_status(404);
    client
        .send(reqwest::Method::POST, "/renter/reconnect", &[json_type()], Some(body(&secret).to_string()))
        .await
        .expect_status(404);
}
