//! The operator's page: what it is made of, and a cookie in the place of the key.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::app::{Answer, OPERATOR_KEY, TestApp, bearer};

const PAGE: (&str, &str) = ("runit-operator-page", "1");
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn send(app: &TestApp, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    app.operator().send(method, path, &headers, None).await
}

/// The cookie that a key is exchanged for.
async fn sign_in(app: &TestApp, key: &str) -> String {
    let answer = app.operator().send(Method::POST, "/admin/v1/sign-in", &[bearer(key)], None).await;
    answer.expect(200);
    let line = answer.header("set-cookie");
    assert!(line.contains("; HttpOnly; SameSite=Strict"), "{line}");
    line.split(';').next().unwrap().to_owned()
}

async fn reads(app: &TestApp, cookie: &str) -> u16 {
    let answer = send(app, Method::GET, "/admin/v1/sessions", &[("cookie", cookie), SAME_ORIGIN]).await;
    answer.status.as_u16()
}

#[tokio::test]
async fn the_operators_page_is_served_with_tags_and_a_strict_policy() {
    let app = TestApp::start().await;
    let operator = app.operator();
    let redirect = operator.get("/").await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (307, "/dashboard/"));
    let mut bytes = 0;
    for name in [
        "",
        "style.css",
        "dashboard.css",
        "dashboard.js",
        "admin.js",
        "counts.js",
        "events.js",
        "fleet.js",
        "format.js",
        "plot.js",
    ] {
        let answer = operator.get(&format!("/dashboard/{name}")).await;
        answer.expect_status(200);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!answer.text.contains("innerHTML") && !answer.text.contains("style=\""), "{name}");
        let known = [("if-none-match", answer.header("etag"))];
        send(&app, Method::GET, &format!("/dashboard/{name}"), &known).await.expect_status(304);
        bytes += answer.text.len();
    }
    assert!(bytes < 100_000, "{bytes}");
    operator.get("/dashboard/rental.js").await.expect_status(404);
}

#[tokio::test]
async fn a_cookie_does_what_its_key_does_until_the_operator_signs_out() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let cookie = sign_in(&app, OPERATOR_KEY).await;
    let ours = [("cookie", cookie.as_str()), SAME_ORIGIN, PAGE];
    let who = send(&app, Method::GET, "/admin/v1/sign-in", &ours).await.expect(200);
    assert_eq!(who, json!({ "operator": "configured", "name": null, "role": "operate" }));
    let other = sign_in(&app, OPERATOR_KEY).await;
    assert_ne!(cookie, other);

    let path = format!("/admin/v1/sessions/{}/cut", session.id);
    send(&app, Method::POST, &path, &ours).await.expect(200);
    let cleared = send(&app, Method::DELETE, "/admin/v1/sign-in", &ours).await;
    cleared.expect_status(204);
    assert!(cleared.header("set-cookie").contains("Max-Age=0"), "{cleared:?}");
    assert_eq!((reads(&app, &cookie).await, reads(&app, &other).await), (401, 200));
    app.step(Duration::from_secs(12 * 60 * 60));
    assert_eq!(reads(&app, &other).await, 401);
}

#[tokio::test]
async fn a_foreign_page_cannot_use_the_cookie() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    let cookie = sign_in(&app, OPERATOR_KEY).await;
    let path = format!("/admin/v1/sessions/{}/cut", session.id);
    for foreign in [
        &[("sec-fetch-site", "cross-site"), PAGE][..],
        &[("sec-fetch-site", "same-site"), PAGE], // another port of this host
        &[("origin", "http://evil.example"), PAGE],
        &[("origin", "null"), PAGE],
        &[SAME_ORIGIN], // a form
        &[PAGE],
    ] {
        let headers = [&[("cookie", cookie.as_str())], foreign].concat();
        let answer = send(&app, Method::POST, &path, &headers).await;
        answer.expect_problem(403, "cross-origin request refused", "foreign_origin");
    }
    let from_elsewhere = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-site")];
    send(&app, Method::GET, "/admin/v1/events/live", &from_elsewhere).await.expect_status(403);
    assert_eq!(app.status(&session).await, "LOCKED");
}

#[tokio::test]
async fn a_cookie_ends_with_its_key_and_may_no_more_than_it() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let body = json!({ "name": "night shift", "role": "read" });
    let made = app.operator().post_as("/admin/v1/keys", OPERATOR_KEY, body).await.expect(201);
    let cookie = sign_in(&app, made["key"].as_str().unwrap()).await;
    let ours = [("cookie", cookie.as_str()), SAME_ORIGIN, PAGE];
    let who = send(&app, Method::GET, "/admin/v1/sign-in", &ours).await.expect(200);
    assert_eq!((who["name"].as_str(), who["role"].as_str()), (Some("night shift"), Some("read")));
    let path = format!("/admin/v1/sessions/{}", session.id);
    send(&app, Method::DELETE, &path, &ours).await.expect_problem(403, "this key may only read", "role_required");
    let path = format!("/admin/v1/keys/{}", made["keyId"].as_str().unwrap());
    app.operator().delete_as(&path, OPERATOR_KEY).await.expect(200);
    assert_eq!(reads(&app, &cookie).await, 401);
}

#[tokio::test]
async fn nobody_signs_in_without_a_key_and_a_cookie_is_no_key() {
    let app = TestApp::start().await;
    let client = app.operator();
    client.send(Method::POST, "/admin/v1/sign-in", &[], None).await.expect_status(401);
    client.send(Method::POST, "/admin/v1/sign-in", &[bearer("a guess")], None).await.expect_status(401);
    assert_eq!(reads(&app, "runit-operator=").await, 401);
    assert_eq!(reads(&app, &format!("runit-operator={OPERATOR_KEY}")).await, 401);
    let cookie = sign_in(&app, OPERATOR_KEY).await;
    let value = cookie.split_once('=').unwrap().1;
    client.get_as("/admin/v1/sessions", value).await.expect_status(401);
    client.send(Method::POST, "/admin/v1/sign-in", &[("cookie", cookie)], None).await.expect_status(401);
}
