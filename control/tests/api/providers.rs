//! `/provider/...`

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{Registered, TestApp, json_type, offer, offer_with};
use reqwest::Method;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

#[tokio::test]
async fn a_registration_is_answered_with_id_token_secret_and_path() {
    let app = TestApp::start().await;
    let answer = app.client(1).post("/provider/session", offer()).await.expect(200);
    let id = answer["sessionId"].as_str().unwrap();
    let token: Uuid = answer["accessToken"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 4);
    assert_eq!(token.get_version_num(), 4);
    assert_eq!(answer["basePath"], format!("/s/{id}/"));
    assert_eq!(answer["providerSecret"].as_str().unwrap().len(), 64);
    assert_eq!(app.events(&["NEW_PROVIDER_REGISTERED"]).await.len(), 1);
}

#[tokio::test]
async fn the_agent_may_choose_the_id_and_its_base_path_must_fit() {
    let app = TestApp::start().await;
    let with_path = |path: &str| offer_with(json!({ "sessionId": ID, "basePath": path }));
    let other = app.client(1).post("/provider/session", with_path("/")).await;
    other.expect_problem(400, "invalid payload", "invalid_payload");
    assert!(other.json()["detail"].as_str().unwrap().starts_with("basePath:"));
    let answer = app.client(1).post("/provider/session", with_path(&format!("/s/{ID}/"))).await.expect(200);
    assert_eq!(answer["sessionId"], ID);
}

#[tokio::test]
async fn malformed_registrations_name_the_field() {
    let app = TestApp::start().await;
    let long = "x".repeat(5_000);
    for (fields, detail) in [
        (json!({ "providerId": null }), "providerId"),
        (json!({ "publicUrl": null }), "publicUrl"),
        (json!({ "token": null }), "token"),
        (json!({ "providerId": 5 }), "providerId"),
        (json!({ "providerId": "" }), "providerId"),
        (json!({ "providerId": "new\nline" }), "providerId"),
        (json!({ "publicUrl": ["https://x"] }), "publicUrl"),
        (json!({ "token": {} }), "token"),
        (json!({ "token": "" }), "token"),
        (json!({ "token": "with space" }), "token"),
        (json!({ "token": long }), "token"),
        (json!({ "sessionId": 7 }), "sessionId"),
        (json!({ "sessionId": ID.to_uppercase() }), "sessionId"),
        (json!({ "basePath": "/s/other/" }), "basePath"),
        (json!({ "hardware": { "gpu": long } }), "hardware"),
        (json!({ "pricing": long }), "pricing"),
    ] {
        let answer = app.client(1).post("/provider/session", offer_with(fields.clone())).await;
        answer.expect_problem(400, "invalid payload", "invalid_payload");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{fields}: {}", answer.text);
    }
    assert!(!app.events(&["INVALID_PROVIDER_REGISTRATION"]).await.is_empty());
}

#[tokio::test]
async fn foreign_urls_are_refused_and_told_of() {
    let app = TestApp::start().await;
    for url in [
        "http://calm-red-fox.trycloudflare.com",
        "https://evil.example",
        "https://calm-red-fox.trycloudflare.com.evil.example",
        "https://calm-red-fox.trycloudflare.com@evil.example",
        "https://calm-red-fox.trycloudflare.com:8443",
        "http://127.0.0.1:8888",
        "http://169.254.169.254",
        "https://localhost",
        "file:///etc/passwd",
        "",
    ] {
        let answer = app.client(1).post("/provider/session", offer_with(json!({ "publicUrl": url }))).await;
        answer.expect_problem(400, "invalid public URL", "invalid_public_url");
    }
    assert_eq!(app.events(&["SUSPICIOUS_PROVIDER_URL"]).await.len(), 10);
}

#[tokio::test]
async fn listed_hosts_may_be_registered() {
    let app = TestApp::with(|settings| settings.upstream.plain_http_hosts = vec!["127.0.0.1".into()]).await;
    let local = offer_with(json!({ "publicUrl": "http://127.0.0.1:8888" }));
    app.client(1).post("/provider/session", local).await.expect(200);
}

#[tokio::test]
async fn only_its_secret_registers_a_known_id_again() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let again = offer_with(json!({ "sessionId": session.id }));
    let client = app.client(1);
    for refused in [
        client.post("/provider/session", again.clone()).await,
        client.post_as("/provider/session", "guess", again.clone()).await,
        client
            .post_as(
                "/provider/session",
                &session.secret,
                offer_with(json!({ "sessionId": session.id, "providerId": "else" })),
            )
            .await,
    ] {
        refused.expect_problem(409, "session belongs to another provider", "session_taken");
    }
    let answer = client.post_as("/provider/session", &session.secret, again).await.expect(200);
    assert_eq!(answer["providerSecret"], session.secret);
    assert_ne!(answer["accessToken"], session.token);
    let kinds = ["NEW_PROVIDER_REGISTERED", "INVALID_PROVIDER_REGISTRATION"];
    assert_eq!(app.events(&kinds).await, [kinds[0], kinds[1], kinds[1], kinds[1]], "the second time is not new");
}

#[tokio::test]
async fn registering_again_while_rented_leaves_the_lock_and_issues_no_token() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 1, None).await.unwrap();
    let again = offer_with(json!({ "sessionId": session.id }));
    let answer = app.client(1).post_as("/provider/session", &session.secret, again).await.expect(200);
    assert!(answer["accessToken"].is_null());
    assert_eq!(app.status(&session).await, "LOCKED");
}

#[tokio::test]
async fn a_session_is_shown_to_its_provider_only() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let path = format!("/provider/session/{}", session.id);
    let shown = app.client(1).get_as(&path, &session.secret).await.expect(200);
    assert_eq!((shown["status"].as_str(), shown["cap"].as_u64()), (Some("READY"), Some(10_737_418_240)));
    let unproven = app.client(1).get(&path).await;
    unproven.expect_problem(401, "wrong provider secret", "wrong_provider_secret");
    assert_eq!(unproven.header("www-authenticate"), "Bearer");
    app.client(1).get_as(&path, "guess").await.expect_problem(401, "wrong provider secret", "wrong_provider_secret");
    for unknown in [ID, "nonsense"] {
        let answer = app.client(1).get_as(&format!("/provider/session/{unknown}"), &session.secret).await;
        answer.expect_problem(404, "unknown session", "unknown_session");
    }
}

#[tokio::test]
async fn a_new_credential_after_recycling_makes_the_session_free_and_the_old_one_does_not() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 1, None).await.unwrap();
    app.client(1).post(&format!("/renter/release/{}", session.token), json!({})).await.expect(200);
    assert_eq!(app.status(&session).await, "RECYCLING");
    let path = format!("/provider/session/{}/tunnel", session.id);
    let tunnel = |token: &str| json!({ "publicUrl": "https://new-blue-owl.trycloudflare.com", "token": token });
    let client = app.client(1);
    let same = client.put_as(&path, &session.secret, tunnel("jupyter-secret")).await.expect(200);
    assert_eq!(same["status"], "RECYCLING", "the same workspace");
    client.put_as(&path, "guess", tunnel("fresh")).await.expect_problem(
        401,
        "wrong provider secret",
        "wrong_provider_secret",
    );
    let fresh = client.put_as(&path, &session.secret, tunnel("fresh")).await.expect(200);
    assert_eq!(fresh["status"], "READY");
    let foreign = json!({ "publicUrl": "https://evil.example", "token": "x" });
    client.put_as(&path, &session.secret, foreign).await.expect_problem(
        400,
        "invalid public URL",
        "invalid_public_url",
    );
}

#[tokio::test]
async fn a_deregistered_session_is_gone_with_its_tokens() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let path = format!("/provider/session/{}", session.id);
    app.client(1).delete_as(&path, "guess").await.expect_problem(401, "wrong provider secret", "wrong_provider_secret");
    app.client(1).delete_as(&path, &session.secret).await.expect(204);
    app.client(1).delete_as(&path, &session.secret).await.expect_problem(404, "unknown session", "unknown_session");
    assert!(app.claim(&session.token, 1, None).await.is_err());
    assert_eq!(app.client(1).get("/renter/sessions").await.expect(200), json!([]));
    assert_eq!(app.events(&["SESSION_REMOVED"]).await.len(), 1);
}

#[tokio::test]
async fn heartbeats_tell_the_state_and_ask_to_recycle() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let client = app.client(1);
    let beat =
        async || client.post_as("/provider/heartbeat", &session.secret, json!({ "sessionId": session.id })).await;
    assert_eq!(beat().await.expect(200), json!({ "ok": true, "status": "READY" }));
    app.claim(&session.token, 1, None).await.unwrap();
    assert_eq!(beat().await.expect(200), json!({ "ok": true, "status": "LOCKED" }));
    client.post(&format!("/renter/release/{}", session.token), json!({})).await.expect(200);
    assert_eq!(beat().await.expect(200), json!({ "ok": true, "status": "RECYCLING", "command": "recycle" }));
}

#[tokio::test]
async fn a_heartbeat_of_an_unknown_session_asks_to_register_again() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let beat = |id: &str| json!({ "sessionId": id });
    for unknown in [ID, "nonsense"] {
        let answer = app.client(1).post_as("/provider/heartbeat", &session.secret, beat(unknown)).await;
        answer.expect_problem(404, "unknown session - re-register required", "re_register_required");
    }
    let forged = app.client(1).post("/provider/heartbeat", beat(&session.id)).await;
    forged.expect_problem(401, "wrong provider secret", "wrong_provider_secret");
}

#[tokio::test]
async fn bodies_that_are_not_json_too_long_or_compressed_are_refused() {
    let app = TestApp::with(|settings| settings.control.body_max_bytes = 2_000).await;
    let client = app.client(1);
    let post = async |headers: &[(&str, String)], body: String| {
        client.send(Method::POST, "/provider/session", headers, Some(body)).await
    };
    let text = ("content-type", "text/plain".to_owned());
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let refused = "content type must be application/json";
    for headers in [&[text][..], &[form], &[], &[json_type(), ("content-encoding", "gzip".into())]] {
        post(headers, offer().to_string()).await.expect_problem(415, refused, "unsupported_media_type");
    }
    let long = offer_with(json!({ "hardware": "x".repeat(2_000) })).to_string();
    post(&[json_type()], long).await.expect_problem(413, "payload too large", "payload_too_large");
    for broken in ["", "{", "[]", "null", "{} {}", "\u{0}"] {
        let answer = post(&[json_type()], broken.to_owned()).await;
        answer.expect_problem(400, "invalid payload", "invalid_payload");
    }
    let with_charset = ("content-type", "Application/JSON; charset=utf-8".to_owned());
    post(&[with_charset], offer().to_string()).await.expect(200);
}

#[tokio::test]
async fn a_body_over_ten_megabytes_is_refused_by_default() {
    let app = TestApp::start().await;
    let body = format!("{{\"providerId\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let answer = app.client(1).send(Method::POST, "/provider/session", &[json_type()], Some(body)).await;
    answer.expect_problem(413, "payload too large", "payload_too_large");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_json_too() {
    let app = TestApp::start().await;
    app.client(1).get("/nothing/here").await.expect_problem(404, "not found", "not_found");
    let answer = app.client(1).send(Method::DELETE, "/renter/request", &[], None).await;
    answer.expect_problem(405, "method not allowed", "method_not_allowed");
    assert!(answer.header("allow").contains("POST"));
}

#[tokio::test]
async fn a_session_whose_agent_says_that_it_cannot_be_reached_is_not_handed_out() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let client = app.client(1);
    let beat = async |fields: Value| {
        let mut body = json!({ "sessionId": session.id });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        client.post_as("/provider/heartbeat", &session.secret, body).await.expect(200)
    };
    let listed = async || client.get("/renter/sessions").await.expect(200).as_array().unwrap().len();

    beat(json!({ "reachable": false, "report": { "egressBytes": 7, "busy": "a kernel is busy" } })).await;
    assert_eq!(listed().await, 0);
    client.post("/renter/request", json!({})).await.expect_problem(
        404,
        "no sessions available",
        "no_sessions_available",
    );
    let shown = client.get_as(&format!("/provider/session/{}", session.id), &session.secret).await.expect(200);
    assert_eq!((&shown["status"], &shown["reachable"]), (&json!("READY"), &json!(false)));
    assert_eq!(shown["report"]["egressBytes"], 7);

    // A heartbeat that says nothing of it changes nothing; neither does one with another's secret.
    beat(json!({})).await;
    let body = json!({ "sessionId": session.id, "reachable": true });
    client.post_as("/provider/heartbeat", "guess", body).await.expect_problem(
        401,
        "wrong provider secret",
        "wrong_provider_secret",
    );
    assert_eq!(listed().await, 0);
    beat(json!({ "reachable": true })).await;
    assert_eq!(listed().await, 1);

    beat(json!({ "reachable": false })).await;
    let tunnel = json!({ "publicUrl": "https://new-blue-owl.trycloudflare.com", "token": "fresh" });
    client.put_as(&format!("/provider/session/{}/tunnel", session.id), &session.secret, tunnel).await.expect(200);
    assert_eq!(listed().await, 1, "whoever brings a new tunnel can be reached");

    beat(json!({ "report": "x".repeat(5_000) })).await;
    let shown = client.get_as(&format!("/provider/session/{}", session.id), &session.secret).await.expect(200);
    assert!(shown["report"].is_null(), "what is too long is not kept");
}

/// A heartbeat's report is there before it waits.
async fn until_it_waits(app: &TestApp, session: &Registered) {
    let path = format!("/provider/session/{}", session.id);
    let deadline = Instant::now() + Duration::from_secs(20);
    while app.client(1).get_as(&path, &session.secret).await.expect(200)["report"] != "waits" {
        assert!(Instant::now() < deadline, "the heartbeat has not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_waiting_heartbeat_is_answered_when_the_renter_leaves() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 1, None).await.unwrap();
    let waiting = tokio::spawn({
        let (client, session) = (app.client(1), session.clone());
        let body = json!({ "sessionId": session.id, "knownStatus": "LOCKED", "waitSeconds": 60, "report": "waits" });
        async move { client.post_as("/provider/heartbeat", &session.secret, body).await.expect(200) }
    });
    until_it_waits(&app, &session).await;
    assert!(!waiting.is_finished(), "there is nothing to say yet");
    app.client(1).post(&format!("/renter/release/{}", session.token), json!({})).await.expect(200);
    let answer = waiting.await.unwrap();
    assert_eq!((&answer["status"], &answer["command"]), (&json!("RECYCLING"), &json!("recycle")));
}

#[tokio::test]
async fn a_waiting_heartbeat_whose_status_is_another_already_does_not_wait() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let body = json!({ "sessionId": session.id, "knownStatus": "LOCKED", "waitSeconds": 60 });
    let answer = app.client(1).post_as("/provider/heartbeat", &session.secret, body).await.expect(200);
    assert_eq!(answer["status"], "READY");
}

#[tokio::test]
async fn a_waiting_heartbeat_does_not_keep_the_control_plane_from_stopping() {
    let mut app = TestApp::start().await;
    let session = app.register().await;
    let body = json!({ "sessionId": session.id, "knownStatus": "READY", "waitSeconds": 60, "report": "waits" });
    let (client, secret) = (app.client(1), session.secret.clone());
    let waiting = tokio::spawn(async move { client.post_as("/provider/heartbeat", &secret, body).await.expect(200) });
    until_it_waits(&app, &session).await;
    app.stop().await;
    assert_eq!(waiting.await.unwrap()["status"], "READY");
}

#[tokio::test]
async fn heartbeats_that_nobody_else_would_hear_of_are_refused_until_they_can_be_written_again() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let client = app.client(1);
    let beat = async || {
        let body = json!({ "sessionId": session.id });
        client.post_as("/provider/heartbeat", &session.secret, body).await
    };
    let until = async |status: u16| {
        let started = Instant::now();
        while beat().await.status != status {
            assert!(started.elapsed() < Duration::from_secs(60), "no {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let db = rusqlite::Connection::open(app.data_dir().join("runit.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    beat().await.expect(200);
    until(503).await;
    beat().await.expect_problem(503, "temporarily unavailable", "unavailable");
    db.execute_batch("ROLLBACK").unwrap();
    until(200).await;
    assert_eq!(app.status(&session).await, "READY");
}
