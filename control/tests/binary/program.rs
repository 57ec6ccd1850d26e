//! The program itself, as a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// A control plane that runs; it is killed when this is dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    url: String,
}

impl Program {
    /// Starts it on a port of the kernel's choice, which its log tells.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same with these in its environment.
    pub(crate) fn start_with(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let config = config(directory);
        let mut child = Command::new(env!("CARGO_BIN_EXE_runit-control"))
            .args(["serve", "--config"])
            .arg(config)
            .env("RUNIT_LOG__FORMAT", "json")
            .envs(environment.iter().copied())
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

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&self) {
        let killed = Command::new("kill").args(["-KILL", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Registers a session, if it still answers.
    pub(crate) async fn try_register(&self, number: usize) -> Result<(), reqwest::Error> {
        let offer =
            json!({ "providerId": format!("p-{number}"), "publicUrl": "https://a-b.trycloudflare.com", "token": "t" });
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.post(format!("{}/provider/session", self.url)).header("content-type", "application/json");
        request.body(offer.to_string()).send().await.map(drop)
    }

    /// A call that has to succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(path, &body, None).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) async fn call(&self, path: &str, body: &Value, bearer: Option<&str>) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(json!(null)))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command with the settings of the program in that directory.
pub(crate) fn command(directory: &Path, arguments: &[&str]) -> Output {
    command_with(directory, &[], arguments)
}

/// The same with these in its environment.
pub(crate) fn command_with(directory: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runit-control"));
    command.args(arguments).arg("--config").arg(config(directory)).envs(environment.iter().copied()).output().unwrap()
}

/// The same with its standard output there.
pub(crate) fn command_into(directory: &Path, output: Stdio, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runit-control"));
    command.args(arguments).arg("--config").arg(config(directory)).stdout(output);
    command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

/// Settings on a port of the kernel's choice, with limits that no test runs into.
fn config(directory: &Path) -> PathBuf {
    let (config, data_dir) = (directory.join("runit.toml"), directory.join("data"));
    let limits =
        "creation_limit = { requests = 1000000, seconds = 1 }\ngeneral_limit = { requests = 1000000, seconds = 1 }\n";
    fs::write(&config, format!("[gateway]\nadmin_listen = \"127.0.0.1:0\"\n[control]\nlisten = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n{limits}")).unwrap();
    config
}
