//! The program itself: what it has answered survives `kill -9`, and SIGTERM ends it in an orderly way.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod audit;
mod care;
mod joining;
mod moving;
#[path = "../support/postgres.rs"]
mod postgres;
mod program;
mod shared;

use std::fs;
use std::process::Command;

use serde_json::json;

use program::Program;

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start(directory.path());
    let offer = json!({ "providerId": "p", "publicUrl": "https://a-b-c.trycloudflare.com", "token": "t" });
    let registered = program.post("/provider/session", offer).await;
    program.child.kill().unwrap();
    program.child.wait().unwrap();

    let program = Program::start(directory.path());
    let given = program.post("/renter/request", json!({})).await;
    assert_eq!(given["sessionId"], registered["sessionId"]);
}

#[tokio::test]
async fn sigterm_ends_it_without_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start(directory.path());
    let killed = Command::new("kill").args(["-TERM", &program.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn bad_settings_are_an_error_with_their_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("runit.toml");
    fs::write(&config, "[control]\nlistn = \"127.0.0.1:0\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runit-control"));
    let output = command.args(["serve", "--config"]).arg(config).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("control.listn"), "{text}");
}
