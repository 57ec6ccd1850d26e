//! A node's store is moved to the shared one by a command, and the next program goes on there.

use std::process::{Command, Output};

use serde_json::json;

use crate::postgres::Postgres;
use crate::program::Program;

#[tokio::test]
async fn a_store_is_moved_when_no_program_uses_it_and_the_next_one_goes_on_there() {
    let (directory, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let url = postgres.settings().url.expose().to_owned();
    let move_store = || -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runit-control"));
        let config = directory.path().join("runit.toml");
        command.args(["migrate-store", "--config"]).arg(config).env("RUNIT_STORE__URL", &url).output().unwrap()
    };
    let mut program = Program::start(directory.path());
    let offer = json!({ "providerId": "p", "publicUrl": "https://a-b-c.trycloudflare.com", "token": "t" });
    let registered = program.post("/provider/session", offer).await;
    let refused = move_store();
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("a program uses"), "{why}");

    program.kill();
    program.child.wait().unwrap();
    let moved = move_store();
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert_eq!(moved.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&moved.stderr));
    assert!(said.starts_with("1 sessions, 0 usage records, "), "{said}");

    let mut exporting = Command::new(env!("CARGO_BIN_EXE_runit-control"));
    let config = directory.path().join("runit.toml");
    let exported = exporting.args(["events", "export", "--config"]).arg(config).env("RUNIT_STORE__URL", &url).output();
    let events = String::from_utf8(exported.unwrap().stdout).unwrap();
    assert!(events.lines().any(|line| line.contains("NEW_PROVIDER_REGISTERED")), "{events}");

    let program = Program::start_with(directory.path(), &[("RUNIT_STORE__URL", &url)]);
    let given = program.post("/renter/request", json!({})).await;
    assert_eq!(given["sessionId"], registered["sessionId"]);
}
