//! The banner, the renter's pages, and the headers of every answer.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::json;

use crate::app::{TestApp, json_type, offer, offer_with};

#[tokio::test]
async fn the_banner_is_the_predecessors() {
    let app = TestApp::start().await;
    let answer = app.client(1).get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.text), (200, "RUNIT control plane running ✅"));
}

#[tokio::test]
async fn the_pages_are_served_with_tags_and_a_strict_policy() {
    let app = TestApp::start().await;
    let client = app.client(1);
    for (path, media_type) in [
        ("/renter/", "text/html; charset=utf-8"),
        ("/renter/app.js", "text/javascript; charset=utf-8"),
        ("/renter/rental.js", "text/javascript; charset=utf-8"),
        ("/renter/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = client.get(path).await;
        answer.expect_status(200);
        assert_eq!(answer.header("content-type"), media_type);
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        let tag = answer.header("etag").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let cached = client.send(Method::GET, path, &[("if-none-match", known)], None).await;
            cached.expect_status(304);
            assert_eq!((cached.header("etag"), &*cached.text), (&*tag, ""));
        }
        client.send(Method::GET, path, &[("if-none-match", "\"other\"".into())], None).await.expect_status(200);
    }
    let redirect = client.get("/renter").await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (308, "/renter/"));
}

#[tokio::test]
async fn the_pages_load_nothing_that_is_not_served_and_stay_small() {
    let app = TestApp::start().await;
    let client = app.client(1);
    let index = client.get("/renter/").await.text;
    let mut bytes = index.len();
    let mut open: Vec<String> = quoted(&index);
    let mut seen = HashSet::new();
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            let file = client.get(&format!("/renter/{name}")).await;
            file.expect_status(200);
            bytes += file.text.len();
            open.extend(quoted(&file.text));
        }
    }
    assert!(seen.contains("pulse.js") && seen.len() >= 7, "{seen:?}");
    assert!(bytes < 100_000, "{bytes} bytes");
    client.get("/renter/missing.js").await.expect_problem(404, "not found", "not_found");
}

/// File names in quotes, with or without `./` before them.
fn quoted(text: &str) -> Vec<String> {
    let words = text.split('"').map(|word| word.strip_prefix("./").unwrap_or(word));
    words
        .filter(|word| !word.contains(['/', ' ', '\n']) && (word.ends_with(".js") || word.ends_with(".css")))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn without_javascript_sessions_are_listed_and_connected() {
    let app = TestApp::start().await;
    let client = app.client(1);
    let empty = client.get("/renter/plain").await;
    assert_eq!(empty.header("content-type"), "text/html; charset=utf-8");
    assert!(empty.text.contains("No session is free"), "{}", empty.text);
    let hostile = json!({ "hardware": { "gpu": "<script>alert(1)</script>" }, "pricing": "\"><img src=x>" });
    let session = client.post("/provider/session", offer_with(hostile)).await.expect(200);
    let id = session["sessionId"].as_str().unwrap();
    let list = client.get("/renter/plain").await;
    assert!(list.text.contains("&lt;script&gt;alert(1)") && list.text.contains(id), "{}", list.text);
    assert!(!list.text.contains("<script") && !list.text.contains("<img"), "{}", list.text);
    assert!(list.header("content-security-policy").contains("form-action 'self'"));
    assert_eq!(list.header("cache-control"), "no-store");
    assert_eq!(list.header("referrer-policy"), "same-origin", "else browsers send forms with `Origin: null`");

    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let connect = async |headers: &[(&'static str, String)]| {
        client.send(Method::POST, "/renter/plain", headers, Some(format!("sessionId={id}"))).await
    };
    let foreign = connect(&[form.clone(), ("origin", "https://evil.example".into())]).await;
    foreign.expect_problem(403, "cross-origin request refused", "foreign_origin");
    let given = connect(std::slice::from_ref(&form)).await;
    given.expect_status(200);
    let link =
        given.text.split("href=\"https://gateway.example/access/").nth(1).expect("a link").split('"').next().unwrap();
    app.claim(link, 1, None).await.expect("the link's token takes the session");
    let late = connect(&[form]).await;
    assert!(late.text.contains("Somebody was faster"), "{}", late.text);
}

#[tokio::test]
async fn api_answers_are_neither_stored_nor_sniffed_nor_framed() {
    let app = TestApp::start().await;
    let client = app.client(1);
    for answer in [
        client.get("/renter/sessions").await,
        client.get("/nothing").await,
        client.post("/provider/session", offer()).await,
        client.post("/provider/session", json!({})).await,
    ] {
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn without_listed_origins_there_is_no_cors_and_foreign_pages_change_nothing() {
    let app = TestApp::start().await;
    let client = app.client(1);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"] {
        let origin = ("origin", origin.to_owned());
        let post = client.send(Method::POST, "/renter/request", std::slice::from_ref(&origin), None).await;
        post.expect_problem(403, "cross-origin request refused", "foreign_origin");
        let read = client.send(Method::GET, "/renter/sessions", std::slice::from_ref(&origin), None).await;
        assert!(!read.headers.contains_key("access-control-allow-origin"));
        let asked = [origin, ("access-control-request-method", "POST".into())];
        let preflight = client.send(Method::OPTIONS, "/renter/request", &asked, None).await;
        assert!(!preflight.headers.contains_key("access-control-allow-origin"));
    }
    let own = ("origin", format!("http://{}", app.address()));
    app.register().await;
    client.send(Method::POST, "/renter/request", &[own], None).await.expect(200);
}

#[tokio::test]
async fn a_listed_origin_gets_cors_without_credentials() {
    let app = TestApp::with(|settings| {
        settings.control.cors_origins = vec!["https://rent.example".parse().unwrap()];
    })
    .await;
    app.register().await;
    let client = app.client(1);
    let listed = ("origin", "https://rent.example".to_owned());
    let asked = [
        listed.clone(),
        ("access-control-request-method", "POST".into()),
        ("access-control-request-headers", "content-type".into()),
    ];
    let preflight = client.send(Method::OPTIONS, "/renter/request", &asked, None).await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://rent.example");
    assert!(!preflight.headers.contains_key("access-control-allow-credentials"));
    let post = client.send(Method::POST, "/renter/request", &[listed, json_type()], Some("{}".into())).await;
    post.expect(200);
    assert_eq!(post.header("access-control-allow-origin"), "https://rent.example");
    assert!(post.header("vary").to_lowercase().contains("origin"));
    let other = ("origin", "https://evil.example".to_owned());
    let foreign = client.send(Method::GET, "/renter/sessions", &[other], None).await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn metrics_name_routes_and_never_what_somebody_sent() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.client(1).get(&format!("/renter/usage/{}", session.token)).await.expect(200);
    app.client(1).get("/some/strange/path").await.expect_status(404);
    let text = prometheus::TextEncoder::new().encode_to_string(&app.control.gather()).unwrap();
    for line in [
        "runit_control_requests_total{route=\"/renter/usage/{token}\",status=\"2xx\"} 1",
        "runit_control_requests_total{route=\"unknown\",status=\"4xx\"} 1",
        "runit_control_problems_total{code=\"not_found\"} 1",
        "runit_sessions{state=\"READY\"} 1",
        "runit_sessions{state=\"LOCKED\"} 0",
        "runit_security_events_total{kind=\"NEW_PROVIDER_REGISTERED\"} 1",
        "runit_security_events_total{kind=\"SESSION_HIJACK_ATTEMPT\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(&session.token) && !text.contains(&session.id) && !text.contains("strange"));
}
