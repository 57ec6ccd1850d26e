//! What a node brings along to a store that others use: its key has to be theirs, its settings need not.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::postgres::Postgres;
use crate::program::{Program, command_with};

const TUNNEL: &str = "https://a-b-c.trycloudflare.com";

/// Runs a command; its exit code, and what it says.
fn run(directory: &Path, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command_with(directory, &[("RUNIT_STORE__URL", url)], arguments);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

async fn register(program: &Program, url: &str) -> Value {
    program.post("/provider/session", json!({ "providerId": "p", "publicUrl": url, "token": "t" })).await
}

/// Which sessions are there and how they are, and the kinds of the events, oldest first.
async fn written(by_hand: &Client) -> (Vec<String>, Vec<String>) {
    let all = async |sql: &str| {
        let rows = by_hand.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    (
        all("SELECT id || ' ' || status FROM sessions ORDER BY 1").await,
        all("SELECT kind FROM events ORDER BY place").await,
    )
}

#[tokio::test]
async fn a_node_with_another_key_does_not_start_and_leaves_everything_as_it_was() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let postgres = Postgres::start();
    let url = postgres.settings().url.expose().to_owned();
    let program = Program::start_with(ours.path(), &[("RUNIT_STORE__URL", &url)]);
    let session = register(&program, TUNNEL).await;
    let by_hand = postgres.by_hand().await;
    let before = written(&by_hand).await;

    let (code, said) = run(theirs.path(), &url, &["serve"]);
    assert_eq!((code, said.contains("sealed with another key")), (Some(1), true), "{said}");
    assert_eq!(written(&by_hand).await, before);
    assert_eq!(program.post("/renter/request", json!({})).await["sessionId"], session["sessionId"]);

    // The others' key is lost: the operator says that this one is to be gone on with.
    drop(program);
    let (code, said) = run(theirs.path(), &url, &["events", "reseal"]);
    assert_eq!(code, Some(0), "{said}");
    let (sessions, mut events) = written(&by_hand).await;
    assert_eq!((sessions, events.pop().as_deref()), (before.0, Some("TRAIL_TAMPERED")));
    assert_eq!(events, before.1, "and it is said once");
    let program = Program::start_with(theirs.path(), &[("RUNIT_STORE__URL", &url)]);
    let (id, secret) = (session["sessionId"].as_str().unwrap(), session["providerSecret"].as_str());
    let (status, answer) = program.call("/provider/heartbeat", &json!({ "sessionId": id }), secret).await;
    assert_eq!((status, &answer["code"]), (404, &json!("re_register_required")));
    let again = json!({ "providerId": "p", "publicUrl": TUNNEL, "token": "t", "sessionId": id });
    assert_eq!(program.call("/provider/session", &again, secret).await.0, 200);
    assert_eq!(program.post("/renter/request", json!({})).await["sessionId"], *id);
    assert_eq!(run(ours.path(), &url, &["serve"]).0, Some(1), "now it is the other one that is refused");
}

#[tokio::test]
async fn sessions_that_only_a_nodes_settings_refuse_are_left_to_the_others() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let postgres = Postgres::start();
    let url = postgres.settings().url.expose().to_owned();
    let listing = [("RUNIT_STORE__URL", &*url), ("RUNIT_UPSTREAM__HOSTS", "[\"gpu.example.org\"]")];
    let program = Program::start_with(ours.path(), &listing);
    let listed = register(&program, "https://gpu.example.org").await;
    fs::create_dir(theirs.path().join("data")).unwrap();
    fs::copy(ours.path().join("data/credential.key"), theirs.path().join("data/credential.key")).unwrap();
    let by_hand = postgres.by_hand().await;
    let before = written(&by_hand).await;

    let other = Program::start_with(theirs.path(), &[("RUNIT_STORE__URL", &url)]);
    assert_eq!(written(&by_hand).await, before, "nothing was removed");
    let wanted = json!({ "sessionId": listed["sessionId"] });
    assert_eq!(other.call("/renter/request", &wanted, None).await.0, 404);

    // Nor does it serve it because it hears of a change: what comes later it has heard of already.
    assert_eq!(program.post("/renter/request", wanted.clone()).await["sessionId"], listed["sessionId"]);
    let later = json!({ "sessionId": register(&program, TUNNEL).await["sessionId"] });
    while other.call("/renter/request", &later, None).await.0 != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(other.call("/renter/request", &wanted, None).await.0, 404);
    assert_eq!(program.call("/renter/request", &wanted, None).await.0, 200);
}
