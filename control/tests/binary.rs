//! The program itself: what it has answered survives `kill -9`, and SIGTERM ends it in an orderly way.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

struct Program {
    child: Child,
    url: String,
}

impl Program {
    /// Starts it on a port of the kernel's choice, which its log tells.
    fn start(directory: &Path) -> Self {
        let config = directory.join("runit.toml");
        let data_dir = directory.join("data");
        fs::write(&config, format!("[control]\nlisten = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_runit-control"))
            .args(["serve", "--config"])
            .arg(config)
            .env("RUNIT_LOG__FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = |line: String| {
            let line: Value = serde_json::from_str(&line).ok()?;
            line["fields"]["listen"].as_str().map(str::to_owned)
        };
        let address = log.find_map(|line| listens(line.unwrap())).expect("it listens before it ends");
        // The rest of the log has to be read, or the program would stand still when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, url: format!("http://{address}") }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
