//! `/renter/...` and `/access/...`

use std::time::Duration;

use reqwest::Method;
use runit_core::ledger::{LeaseReport, LeaseRequest};
use runit_core::{AccessToken, HostLabel, LeaseId, LockId, NodeId, SecretHash};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{Registered, TestApp, bearer, json_type, offer, offer_with};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

#[tokio::test]
async fn the_list_shows_free_sessions_without_any_secret() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let rented = app.register().await;
    app.claim(&rented.token, 1, None).await.unwrap();
    let answer = app.client(2).get("/renter/sessions").await;
    let expected = json!([{ "sessionId": session.id, "hardware": { "gpu": "A100" }, "pricing": { "perHour": 2 } }]);
    assert_eq!(answer.expect(200), expected);
}

#[tokio::test]
async fn a_request_gets_the_oldest_free_session_or_the_one_it_names() {
    let app = TestApp::start().await;
    let first = app.register().await;
    app.step(Duration::from_secs(1));
    let second = app.register().await;
    let client = app.client(2);
    let oldest = client.post("/renter/request", json!({})).await.expect(200);
    assert_eq!(oldest["sessionId"], first.id);
    let token = oldest["accessToken"].as_str().unwrap();
    assert_eq!(oldest["url"], format!("https://gateway.example/access/{token}"));
    assert_eq!(oldest["serverUrl"], format!("https://gateway.example/s/{}/", first.id));
    assert_eq!((&oldest["hardware"], &oldest["pricing"]), (&json!({ "gpu": "A100" }), &json!({ "perHour": 2 })));
    let named = client.post("/renter/request", json!({ "sessionId": second.id })).await.expect(200);
    assert_eq!(named["sessionId"], second.id);
    let without_body = client.send(Method::POST, "/renter/request", &[], None).await.expect(200);
    assert_eq!(without_body["sessionId"], first.id);
    assert!(app.claim(token, 2, None).await.is_ok());
    let next = client.post("/renter/request", json!({})).await.expect(200);
    assert_eq!(next["sessionId"], second.id, "the first one is rented now");
}

#[tokio::test]
async fn where_rentals_have_hosts_each_token_names_its_own_and_the_link_stays_where_it_is() {
    let app = TestApp::with(|settings| settings.gateway.sessions_host = Some("notebooks.test".to_owned())).await;
    let session = app.register().await;
    let mut servers = Vec::new();
    for _ in 0..2 {
        let given = app.client(2).post("/renter/request", json!({})).await.expect(200);
        let token = AccessToken::parse(given["accessToken"].as_str().unwrap()).unwrap();
        assert_eq!(given["url"], format!("https://gateway.example/access/{}", token.expose()));
        let label = HostLabel::of(token.hash());
        assert_eq!(given["serverUrl"], format!("https://{label}.notebooks.test/s/{}/", session.id));
        servers.push(given["serverUrl"].clone());
    }
    assert_ne!(servers[0], servers[1]);
}

#[tokio::test]
async fn where_nothing_is_free_a_request_gets_nothing() {
    let app = TestApp::start().await;
    let client = app.client(2);
    let refused = async |body: Value| {
        let answer = client.post("/renter/request", body).await;
        answer.expect_problem(404, "no sessions available", "no_sessions_available");
    };
    refused(json!({})).await;
    refused(Value::Null).await;
    let session = app.register().await;
    refused(json!({ "sessionId": UNKNOWN })).await;
    refused(json!({ "sessionId": "nonsense" })).await;
    app.claim(&session.token, 1, None).await.unwrap();
    refused(json!({})).await;
    refused(json!({ "sessionId": session.id })).await;
    let wrong_type = client.post("/renter/request", json!({ "sessionId": 5 })).await;
    wrong_type.expect_problem(400, "invalid payload", "invalid_payload");
    assert!(wrong_type.text.contains("sessionId"));
    let list = client.post("/renter/request", json!([null])).await;
    list.expect_problem(400, "invalid payload", "invalid_payload");
    client.get("/access/%FF").await.expect_problem(403, "Invalid or expired token", "invalid_token");
}

#[tokio::test]
async fn access_is_handed_over_to_the_gateway_and_to_nowhere_else() {
    let app = TestApp::start().await;
    let client = app.client(2);
    let answer = client.get(&format!("/access/{UNKNOWN}")).await;
    answer.expect_redirect(&format!("https://gateway.example/access/{UNKNOWN}"));
    let by_header = client.get_as("/access", UNKNOWN).await;
    by_header.expect_redirect(&format!("https://gateway.example/access/{UNKNOWN}"));
    for nonsense in ["x", "..%2f..%2fevil", "%0d%0aSet-Cookie:%20a=b", &UNKNOWN.to_uppercase()] {
        let answer = client.get(&format!("/access/{nonsense}")).await;
        answer.expect_problem(403, "Invalid or expired token", "invalid_token");
    }
}

impl crate::app::Answer {
    #[track_caller]
    fn expect_redirect(&self, location: &str) {
        assert_eq!(self.status, 302, "{}", self.text);
        assert_eq!(self.header("location"), location);
        assert_eq!(self.header("referrer-policy"), "no-referrer");
        assert_eq!(self.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_token_serves_its_lock_from_the_locks_address_only() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let (renter, thief) = (app.client(2), app.client(3));
    for call in ["heartbeat", "release"] {
        let path = format!("/renter/{call}/{}", session.token);
        let answer = thief.send(Method::POST, &path, &[], None).await;
        answer.expect_problem(403, "IP mismatch - access denied", "ip_mismatch");
    }
    let usage = thief.get(&format!("/renter/usage/{}", session.token)).await;
    usage.expect_problem(403, "IP mismatch - access denied", "ip_mismatch");
    assert_eq!(app.events(&["SESSION_HIJACK_ATTEMPT"]).await.len(), 3);

    let beat = renter.send(Method::POST, &format!("/renter/heartbeat/{}", session.token), &[], None).await;
    assert_eq!(beat.expect(200), json!({ "ok": true }));
    let beat = renter.send(Method::POST, "/renter/heartbeat", &[bearer(&session.token)], None).await;
    assert_eq!(beat.expect(200), json!({ "ok": true }));
    let released = renter.send(Method::POST, "/renter/release", &[bearer(&session.token)], None).await;
    assert_eq!(released.expect(200), json!({ "ok": true }));
    assert_eq!(app.events(&["SESSION_LOCKED", "SESSION_RELEASED"]).await, ["SESSION_LOCKED", "SESSION_RELEASED"]);
    let again = renter.send(Method::POST, &format!("/renter/release/{}", session.token), &[], None).await;
    again.expect_problem(404, "Invalid or expired token", "unknown_token");
}

#[tokio::test]
async fn a_renters_statement_says_what_his_lock_has_used_and_stays_after_its_end() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let path = format!("/renter/statement/{}", session.token);
    app.client(2).get(&path).await.expect_problem(404, "Invalid or expired token", "unknown_token");
    app.claim(&session.token, 2, None).await.unwrap();
    app.client(3).get(&path).await.expect_problem(403, "IP mismatch - access denied", "ip_mismatch");
    spend(&app, &session, 30, 40).await;
    let standing = app.client(2).get(&path).await.expect(200);
    assert_eq!(
        (&standing["bytesIn"], &standing["bytesOut"], &standing["final"]),
        (&json!(30), &json!(40), &json!(false))
    );
    assert_eq!((&standing["endedAt"], &standing["sessionId"]), (&json!(null), &json!(session.id)));
    app.client(2).send(Method::POST, "/renter/release", &[bearer(&session.token)], None).await.expect(200);
    let ended = app.client(3).send(Method::GET, "/renter/statement", &[bearer(&session.token)], None).await.expect(200);
    assert_eq!(
        (&ended["bytesIn"], &ended["final"]),
        (&json!(30), &json!(true)),
        "whoever has the token, from anywhere"
    );
    assert!(ended["endedAt"].is_string() && ended["idempotencyKey"] == standing["idempotencyKey"]);
}

#[tokio::test]
async fn tokens_that_open_nothing_are_unknown() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let client = app.client(2);
    for token in [UNKNOWN, "nonsense", &session.token] {
        for call in ["heartbeat", "release"] {
            let answer = client.send(Method::POST, &format!("/renter/{call}/{token}"), &[], None).await;
            answer.expect_problem(404, "Invalid or expired token", "unknown_token");
        }
    }
    for answer in [client.get(&format!("/renter/usage/{UNKNOWN}")).await, client.get("/renter/usage").await] {
        answer.expect_problem(404, "Invalid or expired token", "unknown_token");
    }
}

#[tokio::test]
async fn usage_is_told_by_direction_without_side_effects_and_over_the_cap() {
    let app = TestApp::with(|settings| settings.quota.cap_bytes = 1_000).await;
    let session = app.register().await;
    let renter = app.client(2);
    let usage = async || renter.get(&format!("/renter/usage/{}", session.token)).await.expect(200);
    let before = usage().await;
    assert_eq!((&before["status"], &before["nextFreeAt"]), (&json!("READY"), &Value::Null), "an unused token");
    assert_eq!(before["lockedAt"], Value::Null);
    app.claim(&session.token, 2, None).await.unwrap();

    spend(&app, &session, 300, 700).await;

    app.step(Duration::from_secs(30));
    let after = usage().await;
    let expected = json!({
        "sessionId": session.id, "status": "LOCKED", "lockedAt": "2026-11-22T08:00:00.000Z", "usedIn": 300, "usedOut": 700, "forfeited": 0, "reserved": 0,
        "cap": 1_000, "remaining": 0, "nextFreeAt": "2026-11-23T08:05:00.000Z", "windowSeconds": 86_400,
    });
    assert_eq!(after, expected);
    app.step(Duration::from_secs(30));
    app.until(&session, "RECYCLING").await; // asking for usage was no presence
}

#[tokio::test]
async fn the_live_list_begins_with_all_and_follows_changes() {
    let app = TestApp::start().await;
    let mut stream = app.client(2).open("/renter/sessions/events").await;
    assert!(stream.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert_eq!(stream.headers()["cache-control"], "no-store");
    assert_eq!(next_list(&mut stream).await, json!([]));
    let session = app.register().await;
    assert_eq!(next_list(&mut stream).await[0]["sessionId"], session.id);
    app.claim(&session.token, 2, None).await.unwrap();
    assert_eq!(next_list(&mut stream).await, json!([]));
    let mut late = app.client(2).open("/renter/sessions/events").await;
    assert_eq!(next_list(&mut late).await, json!([]));

    drop((stream, late));
    let unseen = app.register().await;
    let mut again = app.client(2).open("/renter/sessions/events").await;
    let mut list = next_list(&mut again).await;
    if list == json!([]) {
        list = next_list(&mut again).await; // it was not made anew before somebody watched
    }
    assert_eq!(list[0]["sessionId"], unseen.id);
}

#[tokio::test]
async fn the_stream_of_usage_follows_the_ledger_and_ends_with_the_lock() {
    let app = TestApp::with(|settings| settings.quota.cap_bytes = 1_000).await;
    let session = app.register().await;
    let path = format!("/renter/usage/{}/events", session.token);
    let mut stream = app.client(2).open(&path).await;
    assert_eq!(next_event(&mut stream, "usage").await["status"], "READY");
    app.claim(&session.token, 2, None).await.unwrap();
    let locked = next_event(&mut stream, "usage").await;
    assert_eq!((&locked["status"], &locked["usedOut"]), (&json!("LOCKED"), &json!(0)));
    spend(&app, &session, 300, 700).await;
    let used = next_event(&mut stream, "usage").await;
    assert_eq!((&used["usedIn"], &used["usedOut"]), (&json!(300), &json!(700)));
    let asked = app.client(2).get(&format!("/renter/usage/{}", session.token)).await.expect(200);
    assert_eq!(used, asked, "the stream says what the call says");

    app.client(3).get(&path).await.expect_problem(403, "IP mismatch - access denied", "ip_mismatch");
    app.client(3).get(&format!("/renter/usage/{UNKNOWN}/events")).await.expect_problem(
        404,
        "Invalid or expired token",
        "unknown_token",
    );
    let release = format!("/renter/release/{}", session.token);
    app.client(2).send(Method::POST, &release, &[], None).await.expect(200);
    let refused = next_event(&mut stream, "refused").await;
    assert_eq!(refused, json!({ "error": "Invalid or expired token", "code": "unknown_token" }));
    assert!(stream.chunk().await.unwrap().is_none(), "nothing follows a refusal");
}

#[tokio::test]
async fn open_streams_are_bounded_and_end_when_the_server_stops() {
    let mut app = TestApp::start().await;
    let client = app.client(2);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client.open("/renter/sessions/events").await;
        next_list(&mut stream).await;
        streams.push(stream);
    }
    let refused = client.get("/renter/sessions/events").await;
    refused.expect_problem(429, "too many open event streams", "too_many_streams");
    next_list(&mut app.client(3).open("/renter/sessions/events").await).await;
    app.stop().await;
    for stream in &mut streams {
        while let Ok(Some(_)) = stream.chunk().await {}
    }
}

/// As a node does: leases bytes, and reports how many of them were used.
async fn spend(app: &TestApp, rented: &Registered, bytes_in: u64, bytes_out: u64) {
    let (session, lock) = (rented.id.parse().unwrap(), LockId::of(SecretHash::of(&rented.token)));
    let lease = LeaseId::from_uuid(Uuid::from_u128(1));
    let request = LeaseRequest { lease, node: NodeId::from_uuid(Uuid::from_u128(2)), session, lock, want: 1_000 };
    app.authority().lease(request).await.unwrap();
    let report = LeaseReport { lease, session, sequence: 1, bytes_in, bytes_out, closing: true };
    app.authority().settle(vec![report]).await.unwrap();
}

/// The data of the next event `sessions`.
async fn next_list(stream: &mut reqwest::Response) -> Value {
    next_event(stream, "sessions").await
}

/// The data of the next event, which has to be of this name.
async fn next_event(stream: &mut reqwest::Response, name: &str) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), stream.chunk()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&chunk.unwrap().expect("an open stream")).unwrap());
    }
    let data = text.strip_prefix(&format!("event: {name}\ndata: ")).expect(&text);
    serde_json::from_str(data.trim()).unwrap()
}

#[tokio::test]
async fn what_a_provider_says_is_handed_on_as_it_is_or_not_at_all() {
    let app = TestApp::start().await;
    let client = app.client(1);
    client.post("/provider/session", offer_with(json!({ "hardware": null, "pricing": "free" }))).await.expect(200);
    let list = client.get("/renter/sessions").await.expect(200);
    assert_eq!((&list[0]["hardware"], &list[0]["pricing"]), (&Value::Null, &json!("free")));
    app.step(Duration::from_secs(1));
    let spread = offer().to_string().replace("{\"gpu\":", "{\r\n\n  \"gpu\"\n:");
    client.send(Method::POST, "/provider/session", &[json_type()], Some(spread)).await.expect(200);
    let mut stream = client.open("/renter/sessions/events").await;
    let mut list = next_list(&mut stream).await;
    if list.as_array().unwrap().len() < 2 {
        list = next_list(&mut stream).await; // the first one may be 100 ms old
    }
    assert_eq!(list[1]["hardware"], json!({ "gpu": "A100" }), "line breaks end no event");
}

#[tokio::test]
async fn a_description_too_deep_for_readers_is_refused_and_spoils_no_list() {
    let app = TestApp::start().await;
    let client = app.client(1);
    let nested = |depth: usize| {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        offer().to_string().replace("{\"gpu\":\"A100\"}", &deep)
    };
    let register =
        async |depth| client.send(Method::POST, "/provider/session", &[json_type()], Some(nested(depth))).await;
    let refused = register(1_000).await;
    refused.expect_problem(400, "invalid payload", "invalid_payload");
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("hardware:"));
    register(100).await.expect(200);
    client.post("/renter/request", json!({})).await.expect(200);
    client.get("/renter/sessions").await.expect(200);
}
