//! Providers that fall silent and renters that go away.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::app::{Registered, TestApp};

const SECOND: Duration = Duration::from_secs(1);

async fn beat(app: &TestApp, session: &Registered) {
    let body = json!({ "sessionId": session.id });
    app.client(1).post_as("/provider/heartbeat", &session.secret, body).await.expect(200);
}

#[tokio::test]
async fn a_silent_provider_is_removed_after_two_minutes_and_no_sooner() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.step(119 * SECOND);
    app.swept().await;
    assert_eq!(app.status(&session).await, "READY");
    app.step(SECOND);
    app.until(&session, "unknown session").await;
    let body = json!({ "sessionId": session.id });
    let answer = app.client(1).post_as("/provider/heartbeat", &session.secret, body).await;
    answer.expect_problem(404, "unknown session - re-register required", "re_register_required");
    app.swept().await; // the event follows the change
    assert_eq!(app.events(&["SESSION_REMOVED"]).await.len(), 1);
}

#[tokio::test]
async fn heartbeats_keep_a_session() {
    let app = TestApp::start().await;
    let session = app.register().await;
    for _ in 0..5 {
        app.step(100 * SECOND);
        beat(&app, &session).await;
        app.swept().await;
    }
    app.step(119 * SECOND);
    app.swept().await;
    assert_eq!(app.status(&session).await, "READY");
    app.step(SECOND);
    app.until(&session, "unknown session").await;
}

#[tokio::test]
async fn an_absent_renter_loses_the_lock_after_a_minute_and_no_sooner() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.step(100 * SECOND); // past the time in which nobody is swept after a start
    beat(&app, &session).await;
    app.claim(&session.token, 2, None).await.unwrap();
    app.step(59 * SECOND);
    app.swept().await;
    let heartbeat = format!("/renter/heartbeat/{}", session.token);
    app.client(2).send(Method::POST, &heartbeat, &[], None).await.expect(200);
    app.step(59 * SECOND);
    app.swept().await;
    assert_eq!(app.status(&session).await, "LOCKED");
    app.authority().present(vec![session.id.parse().unwrap()]).await.unwrap();
    beat(&app, &session).await;
    app.step(59 * SECOND);
    app.swept().await;
    assert_eq!(app.status(&session).await, "LOCKED", "the data plane has seen the renter");
    app.step(SECOND);
    app.until(&session, "RECYCLING").await;
    app.swept().await; // the event follows the change
    assert_eq!(app.events(&["SESSION_AUTO_UNLOCKED"]).await.len(), 1);
}

#[tokio::test]
async fn after_a_restart_silence_counts_from_the_start() {
    let mut app = TestApp::start().await;
    let (session, rented) = (app.register().await, app.register().await);
    app.claim(&rented.token, 2, None).await.unwrap();
    let clock = app.clock.clone();
    app.restart_with(|_| clock.step(3600 * SECOND)).await;
    app.step(59 * SECOND);
    app.swept().await;
    assert_eq!((&*app.status(&session).await, &*app.status(&rented).await), ("READY", "LOCKED"));
    app.step(SECOND);
    app.until(&rented, "RECYCLING").await;
    app.step(59 * SECOND);
    beat(&app, &session).await;
    app.step(SECOND);
    app.until(&rented, "unknown session").await;
    assert_eq!(app.status(&session).await, "READY");
}

#[tokio::test]
async fn usage_records_are_kept_unless_the_settings_say_for_how_long() {
    let mut app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let release = format!("/renter/release/{}", session.token);
    app.client(2).send(Method::POST, &release, &[], None).await.expect(200);
    let path = format!("/renter/statement/{}", session.token);
    app.step(Duration::from_secs(3 * 24 * 3_600));
    app.restart().await;
    app.swept().await;
    app.client(2).get(&path).await.expect(200);
    app.restart_with(|settings| settings.audit.keep_usage_days = Some(2)).await;
    let started = std::time::Instant::now();
    while app.client(2).get(&path).await.status != 404 {
        assert!(started.elapsed() < Duration::from_secs(20), "the record is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
