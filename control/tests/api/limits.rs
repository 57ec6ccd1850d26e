//! How often one address may call, and how it is told.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::app::{TestApp, offer};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

#[tokio::test]
async fn of_twelve_registrations_in_a_row_ten_pass() {
    let app = TestApp::limited(|_| {}).await;
    let client = app.client(1);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(client.post("/provider/session", offer()).await.status.as_u16());
    }
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 2]].concat());
    let refused = client.post("/provider/session", offer()).await;
    refused.expect_problem(429, "too many requests", "rate_limited");
    assert_eq!(refused.header("retry-after"), "300");
    assert_eq!(refused.header("ratelimit-policy"), "\"general\";q=100;w=900, \"creation\";q=10;w=300");
    assert_eq!(refused.header("ratelimit"), "\"general\";r=87;t=900, \"creation\";r=0;t=300");
    assert_eq!(app.events(&["RATE_LIMITED"]).await.len(), 1, "once in a window");
    app.client(2).post("/provider/session", offer()).await.expect(200);

    app.step(FIVE_MINUTES - Duration::from_millis(1));
    let early = client.post("/provider/session", offer()).await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (429, "1"));
    app.step(Duration::from_millis(1));
    client.post("/provider/session", offer()).await.expect(200);
}

#[tokio::test]
async fn the_window_slides_and_does_not_start_anew() {
    let app = TestApp::limited(|_| {}).await;
    let client = app.client(1);
    for _ in 0..5 {
        client.post("/provider/session", offer()).await.expect(200);
    }
    app.step(FIVE_MINUTES - Duration::from_secs(1));
    for _ in 0..5 {
        client.post("/provider/session", offer()).await.expect(200);
    }
    app.step(Duration::from_secs(1));
    let mut passed = 0;
    while client.post("/provider/session", offer()).await.status == 200 {
        passed += 1;
    }
    assert_eq!(passed, 5, "five are a second old, so five more fill the window");
}

#[tokio::test]
async fn all_calls_share_the_general_limit_and_say_so() {
    let app = TestApp::limited(|_| {}).await;
    let client = app.client(1);
    for n in 1..=100_u32 {
        let answer = match n % 3 {
            0 => client.get("/renter/sessions").await,
            1 => client.post("/renter/request", json!({})).await,
            _ => client.get("/access/nonsense").await,
        };
        assert_ne!(answer.status, 429, "{n}");
        assert_eq!(answer.header("ratelimit-policy"), "\"general\";q=100;w=900");
        assert_eq!(answer.header("ratelimit"), format!("\"general\";r={};t=900", 100 - n));
    }
    for path in ["/renter/sessions", "/renter/sessions/events", "/renter/usage/x", "/provider/session/x"] {
        let refused = client.get(path).await;
        refused.expect_problem(429, "too many requests", "rate_limited");
        assert_eq!(refused.header("retry-after"), "900");
    }
    client.get("/renter/").await.expect_status(200);
    client.get("/").await.expect_status(200);
}

#[tokio::test]
async fn heartbeats_have_a_limit_of_their_own() {
    let app = TestApp::limited(|settings| settings.control.general_limit.requests = 1).await;
    let session = app.register().await;
    let client = app.client(1);
    let beat = json!({ "sessionId": session.id });
    for _ in 0..100 {
        client.post_as("/provider/heartbeat", &session.secret, beat.clone()).await.expect(200);
    }
    let refused = client.post_as("/provider/heartbeat", &session.secret, beat.clone()).await;
    refused.expect_problem(429, "too many requests", "rate_limited");
    assert_eq!(refused.header("retry-after"), "60");
    assert_eq!(refused.header("ratelimit-policy"), "\"heartbeat\";q=100;w=60");
    let renter = client.send(Method::POST, "/renter/heartbeat/x", &[], None).await;
    assert_eq!(renter.status, 429, "renters' heartbeats count with them");
    app.step(Duration::from_secs(60));
    client.post_as("/provider/heartbeat", &session.secret, beat).await.expect(200);
}

#[tokio::test]
async fn forwarding_headers_do_not_make_somebody_else() {
    let app = TestApp::limited(|settings| settings.control.general_limit.requests = 2).await;
    let client = app.client(1);
    let spoofed = |n: u8| [("x-forwarded-for", format!("10.0.0.{n}")), ("forwarded", format!("for=10.0.0.{n}"))];
    for n in 0..4 {
        let answer = client.send(Method::GET, "/renter/sessions", &spoofed(n), None).await;
        assert_eq!(answer.status, if n < 2 { 200 } else { 429 });
    }
}
