//! No secret is on disk in the clear, or comes back to who should not have it.

use std::fs;

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn neither_tokens_nor_secrets_nor_credentials_are_on_disk() {
    let mut app = TestApp::start().await;
    let session = app.register().await;
    let asked = app.client(2).post("/renter/request", json!({})).await.expect(200);
    let unused = asked["accessToken"].as_str().unwrap().to_owned();
    app.claim(&session.token, 2, Some("the-cookie")).await.unwrap();
    app.stop().await;
    let canaries = [&*session.token, &unused, &session.secret, "jupyter-secret", "the-cookie"];
    let mut files = 0;
    for file in fs::read_dir(app.data_dir()).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for canary in canaries {
            let found = content.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary.as_bytes()));
            let raw = uuid::Uuid::parse_str(canary).ok();
            let found_raw = raw.is_some_and(|raw| content.windows(16).any(|window| window == raw.as_bytes()));
            assert!(!found && !found_raw, "{canary}");
        }
    }
    assert!(files >= 2, "the database and the key");
}

#[tokio::test]
async fn public_answers_hold_no_secret_url_or_address() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&app.register().await.token, 2, None).await.unwrap();
    let texts = [
        app.client(3).get("/renter/sessions").await.text,
        app.client(3).get(&format!("/provider/session/{}", session.id)).await.text,
        app.client(3).get(&format!("/renter/usage/{}", session.id)).await.text,
    ];
    for text in texts {
        for secret in [&*session.token, &session.secret, "jupyter-secret", "trycloudflare", "127.0.0."] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
