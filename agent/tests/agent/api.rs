//! The client of the control API over real sockets.

use std::time::Duration;

use runit_agent::Report;
use runit_agent::api::{Api, ApiError, Beat, Registration};
use runit_agent::state::Identity;
use runit_core::{Secret, SessionId};
use serde_json::{Value, json};

use crate::support::server::{Answer, Server};

const ID: &str = "6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11";

fn identity() -> Identity {
    Identity { session: ID.parse().expect("an id"), secret: Some(Secret::new("provider-secret")) }
}

fn api(server: &Server) -> Api {
    Api::new(server.url()).expect("a client")
}

async fn register(api: &Api, secret: Option<&Secret>) -> Result<Secret, ApiError> {
    let session: SessionId = ID.parse().expect("an id");
    let registration = Registration {
        provider_id: "me",
        public_url: "http://127.0.0.1:4000",
        token: &Secret::new("gate-secret"),
        hardware: &json!({ "gpu": "none" }),
        pricing: &Value::Object(serde_json::Map::default()),
        session_id: session,
        base_path: &format!("/s/{ID}/"),
    };
    api.register(&registration, secret).await
}

fn registered() -> Answer {
    let body = json!({ "sessionId": ID, "accessToken": "a", "providerSecret": "provider-secret", "basePath": "/" });
    Answer::json(200, &body)
}

#[tokio::test]
async fn registration_sends_the_session_and_takes_the_secret() {
    let control = Server::start(|_| registered()).await;
    let secret = register(&api(&control), None).await.expect("registered");
    assert_eq!(secret.expose(), "provider-secret");
    let [call] = &control.calls()[..] else { panic!("one call") };
    assert_eq!(call.line, "POST /provider/session");
    assert_eq!(call.authorization, None);
    let expected = json!({
        "providerId": "me",
        "publicUrl": "http://127.0.0.1:4000",
        "token": "gate-secret",
        "hardware": { "gpu": "none" },
        "pricing": {},
        "sessionId": ID,
        "basePath": format!("/s/{ID}/"),
    });
    assert_eq!(call.body, expected);
}

#[tokio::test]
async fn a_providers_key_is_shown_at_registration_and_its_refusal_keeps_the_identity() {
    let control =
        Server::start(|_| Answer::json(403, &json!({ "error": "a key for this provider is required" }))).await;
    let api = api(&control).with_provider_key(Some(Secret::new("provider-key")));
    let refused = register(&api, identity().secret.as_ref()).await.expect_err("403");
    assert!(matches!(refused, ApiError::Refused { .. }), "{refused:?}: the session and its cap stay the agent's");
    let [call] = &control.calls()[..] else { panic!("one call") };
    assert_eq!(call.provider_key.as_deref(), Some("provider-key"));
}

#[tokio::test]
async fn a_session_that_is_known_shows_its_secret_on_every_call() {
    let control = Server::start(|call| match call.line.split(' ').next() {
        Some("DELETE") => Answer::text(204, ""),
        _ if call.line.ends_with("heartbeat") => Answer::json(200, &json!({ "ok": true, "status": "READY" })),
        _ => registered(),
    })
    .await;
    let api = api(&control);
    let identity = identity();
    register(&api, identity.secret.as_ref()).await.expect("registered");
    api.heartbeat(&identity, &Beat::default()).await.expect("answered");
    api.put_tunnel(&identity, "http://127.0.0.1:4001", &Secret::new("t")).await.expect("taken");
    api.deregister(&identity).await.expect("taken back");
    let calls = control.calls();
    let lines: Vec<&str> = calls.iter().map(|call| call.line.as_str()).collect();
    let session = format!("/provider/session/{ID}");
    let expected = [
        "POST /provider/session",
        "POST /provider/heartbeat",
        &format!("PUT {session}/tunnel"),
        &format!("DELETE {session}"),
    ];
    assert_eq!(lines, expected);
    assert!(calls.iter().all(|call| call.authorization.as_deref() == Some("Bearer provider-secret")), "{calls:?}");
    assert_eq!(calls[1].body, json!({ "sessionId": ID }));
    assert_eq!(calls[2].body, json!({ "publicUrl": "http://127.0.0.1:4001", "token": "t" }));
}

#[tokio::test]
async fn a_heartbeat_tells_what_the_agent_knows_and_may_wait_for_a_change() {
    let control = Server::start(|_| Answer::json(200, &json!({ "ok": true, "status": "READY" }))).await;
    let report = Report { egress_bytes: 7, busy: Some("a kernel is busy".to_owned()), ..Report::default() };
    let told = Beat { reachable: Some(false), report: Some(&report), ..Beat::default() };
    let waiting = Beat { known_status: Some("LOCKED"), wait_seconds: Some(25), ..Beat::default() };
    api(&control).heartbeat(&identity(), &told).await.expect("answered");
    api(&control).heartbeat(&identity(), &waiting).await.expect("answered");
    let calls = control.calls();
    let expected = json!({
        "sessionId": ID,
        "reachable": false,
        "report": {
            "egressBytes": 7, "egressCut": false, "busy": "a kernel is busy", "idleSeconds": 0, "memoryBytes": 0,
            "processes": 0, "limits": { "millicores": 0, "memoryBytes": 0, "processes": 0 }, "killedForMemory": 0,
        },
    });
    assert_eq!(calls[0].body, expected);
    assert_eq!(calls[1].body, json!({ "sessionId": ID, "knownStatus": "LOCKED", "waitSeconds": 25 }));
}

#[tokio::test]
async fn a_heartbeat_may_ask_for_a_fresh_workspace() {
    let recycle = json!({ "ok": true, "status": "RECYCLING", "command": "recycle" });
    let control = Server::start(move |_| Answer::json(200, &recycle)).await;
    assert!(api(&control).heartbeat(&identity(), &Beat::default()).await.expect("answered").wants_recycle());
    let ready = json!({ "ok": true, "status": "READY" });
    let control = Server::start(move |_| Answer::json(200, &ready)).await;
    assert!(!api(&control).heartbeat(&identity(), &Beat::default()).await.expect("answered").wants_recycle());
}

#[tokio::test]
async fn each_refusal_is_told_apart() {
    let answering = async |status: u16| {
        Server::start(move |_| {
            Answer::json(status, &json!({ "error": "because\u{1b}[2J", "code": "x", "detail": "of it" }))
        })
        .await
    };
    let control = answering(404).await;
    assert!(matches!(api(&control).heartbeat(&identity(), &Beat::default()).await, Err(ApiError::Unknown)));
    assert!(matches!(api(&control).put_tunnel(&identity(), "u", &Secret::new("t")).await, Err(ApiError::Unknown)));
    api(&control).deregister(&identity()).await.expect("gone is as good as taken back");

    let control = answering(401).await;
    assert!(matches!(api(&control).heartbeat(&identity(), &Beat::default()).await, Err(ApiError::Unknown)));
    assert!(matches!(register(&api(&control), Some(&Secret::new("s"))).await, Err(ApiError::IdentityRefused(_))));
    assert!(matches!(register(&api(&control), None).await, Err(ApiError::Refused { .. })));

    let control = answering(409).await;
    assert!(matches!(register(&api(&control), None).await, Err(ApiError::IdentityRefused(_))));

    let control = answering(400).await;
    let text = register(&api(&control), None).await.expect_err("refused").to_string();
    assert_eq!(text, "control answered 400 Bad Request: because[2J: of it");
}

#[tokio::test]
async fn a_pause_that_control_asks_for_is_known_and_bounded() {
    for (asked, kept) in [("7", Some(7)), ("999999999", Some(900)), ("soon", None)] {
        let control = Server::start(move |_| Answer::text(429, "").with("Retry-After", asked)).await;
        let Err(ApiError::Refused { pause, .. }) = register(&api(&control), None).await else { panic!("refused") };
        assert_eq!(pause, kept.map(Duration::from_secs));
    }
}

#[tokio::test]
async fn secrets_do_not_follow_a_redirect() {
    let elsewhere = Server::start(|_| registered()).await;
    let target = elsewhere.url().to_string();
    let control = Server::start(move |_| Answer::text(307, "").with("Location", target.clone())).await;
    assert!(matches!(register(&api(&control), Some(&Secret::new("s"))).await, Err(ApiError::Refused { .. })));
    assert!(elsewhere.calls().is_empty());
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let control = Server::start(|_| Answer::text(200, "<html>")).await;
    assert!(matches!(register(&api(&control), None).await, Err(ApiError::Malformed(_))));
    let control = Server::start(|_| Answer::text(200, " ".repeat(100_000))).await;
    assert!(matches!(register(&api(&control), None).await, Err(ApiError::TooLong)));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let api = Api::new(format!("http://{nobody}").parse().expect("a URL")).expect("a client");
    let error = register(&api, None).await.expect_err("nobody there");
    assert!(matches!(error, ApiError::Unreachable(_)));
    assert!(!format!("{error:?}").contains("/provider/session"), "{error:?}");
}
