//! The program itself, as a process, with a stand-in for control and a real Docker engine.

use std::collections::HashMap;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures::StreamExt;
use runit_agent::engine::INSTANCE_LABEL;
use runit_agent::instance::Instance;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::eventually;
use super::private_engine::PrivateEngine;
use super::server::{Answer, Call, Server};
use super::world::run;

/// A cold image is built, a Jupyter started, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(600);
pub(crate) const ACCESS_TOKEN: &str = "11111111-2222-4333-8444-555555555555";
pub(crate) const PROVIDER_SECRET: &str = "provider-secret-of-the-test";

/// What the stand-in for control answers to heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Content,
    Recycling,
    Forgetful,
}

/// A control API that registers anybody.
pub(crate) struct Control {
    server: Server,
    mood: Arc<Mutex<Mood>>,
}

impl Control {
    pub(crate) async fn start() -> Self {
        let mood = Arc::new(Mutex::new(Mood::Content));
        let shared = Arc::clone(&mood);
        let server = Server::start(move |call| answer(call, &mut shared.lock().expect("no panic"))).await;
        Self { server, mood }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.url().port().expect("a port")
    }

    /// Calls so far whose method is `method`, but no heartbeats.
    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.server.calls().into_iter();
        calls.filter(|call| call.line.starts_with(method) && !call.line.ends_with("/heartbeat")).collect()
    }

    /// What heartbeats told so far; not those that wait for a change.
    pub(crate) fn beats(&self) -> Vec<Value> {
        let calls = self.server.calls().into_iter().filter(|call| call.line.ends_with("/heartbeat"));
        calls.map(|call| call.body).filter(|body| body.get("waitSeconds").is_none()).collect()
    }

    /// Waits for the `count`th call with `method`.
    pub(crate) async fn nth(&self, method: &str, count: usize) -> Call {
        let find = async || self.calls(method).get(count - 1).cloned();
        eventually(PATIENCE, find, || self.server.calls()).await
    }
}

/// As control does: a changed token while recycling, or a registration, makes the session ready again.
fn answer(call: &Call, mood: &mut Mood) -> Answer {
    match call.line.split(' ').next() {
        Some("GET") => Answer::text(200, "RUNIT control plane running"),
        Some("DELETE") => Answer::text(204, ""),
        Some("PUT") => {
            *mood = Mood::Content;
            Answer::json(200, &json!({}))
        }
        _ if call.line.ends_with("/heartbeat") => match mood {
            Mood::Content => Answer::json(200, &json!({ "ok": true, "status": "READY" })),
            Mood::Recycling => Answer::json(200, &json!({ "ok": true, "status": "RECYCLING", "command": "recycle" })),
            Mood::Forgetful => Answer::json(404, &json!({ "error": "unknown session - re-register required" })),
        },
        _ => {
            *mood = Mood::Content;
            let id = &call.body["sessionId"];
            Answer::json(
                200,
                &json!({ "sessionId": id, "accessToken": ACCESS_TOKEN, "providerSecret": PROVIDER_SECRET }),
            )
        }
    }
}

/// Where an agent keeps its state, and the settings it is started with.
pub(crate) struct Home {
    directory: TempDir,
    pub(crate) container: String,
    docker: Docker,
    /// Beside the test's own.
    environment: Vec<(String, String)>,
}

impl Home {
    /// Settings for one machine; `more` begins with those of the tunnel, and ends with
    /// those of the container where it has some.
    pub(crate) async fn new(control: &Control, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().canonicalize().expect("a directory").display().to_string();
        let container = format!("runit-test-{}", place.rsplit(['/', '.']).next().unwrap_or("x"));
        let ca_bundle =
            std::env::var("SSL_CERT_FILE").map(|path| format!("ca_bundle = {path:?}\n")).unwrap_or_default();
        let container_section = if more.contains("[container]") { "" } else { "[container]\n" };
        let settings = format!(
            "[agent]\nprovider_id = \"test\"\ncontrol_url = \"{}\"\nstate_dir = \"{place}/state\"\nheartbeat_seconds = 1\n\
             [hardware]\ngpu = \"none\"\n[tunnel]\n{more}\n{container_section}name = \"{container}\"\n{ca_bundle}",
            control.server.url().origin().ascii_serialization(),
        );
        std::fs::write(directory.path().join("agent.toml"), settings).expect("written");
        let docker = Docker::connect_with_defaults().expect("a docker engine");
        let docker = docker.negotiate_version().await.expect("a docker engine answers");
        Self { directory, container, docker, environment: Vec::new() }
    }

    /// The same with an engine of the test's own.
    pub(crate) async fn in_engine(control: &Control, engine: &PrivateEngine, more: &str) -> Self {
        let docker = engine.client().negotiate_version().await.expect("a docker engine answers");
        let environment = vec![("DOCKER_HOST".to_owned(), engine.host())];
        let mut home = Self::new(control, more).await;
        (home.docker, home.environment) = (docker, environment);
        home
    }

    /// Settings that name no container.
    pub(crate) async fn unnamed(control: &Control, more: &str) -> Self {
        let home = Self::new(control, more).await;
        let name = format!("name = {:?}\n", home.container);
        let mut home = home.with_settings(&name, "");
        home.container = Instance::new(Path::new(&home.instance()), None).container().to_owned();
        home
    }

    /// The same settings with one text replaced by another.
    pub(crate) fn with_settings(self, from: &str, to: &str) -> Self {
        let path = self.directory.path().join("agent.toml");
        let settings = std::fs::read_to_string(&path).expect("settings");
        assert!(settings.contains(from), "{settings}");
        std::fs::write(&path, settings.replace(from, to)).expect("written");
        self
    }

    /// A program that the agent finds before all others of its name.
    pub(crate) fn with_program(mut self, name: &str, script: &str) -> Self {
        let path = self.directory.path().join(name);
        std::fs::write(&path, script).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        let others = std::env::var("PATH").unwrap_or_default();
        self.environment.push(("PATH".to_owned(), format!("{}:{others}", self.directory.path().display())));
        self
    }

    /// Runs one command of the agent's to its end.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runit-agent"));
        command.args(arguments).arg("--config").arg(self.directory.path().join("agent.toml"));
        let ended = command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true).output();
        tokio::time::timeout(PATIENCE, ended).await.expect("in time").expect("it ran")
    }

    /// The table of this agent's rules.
    pub(crate) fn table(&self) -> String {
        Instance::new(Path::new(&self.instance()), None).table()
    }

    pub(crate) fn start(&self) -> Agent {
        let mut child = Command::new(env!("CARGO_BIN_EXE_runit-agent"))
            .arg("--config")
            .arg(self.directory.path().join("agent.toml"))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the agent starts");
        let said = follow(child.stdout.take().expect("piped"));
        let logged = follow(child.stderr.take().expect("piped"));
        Agent { child, said, logged }
    }

    pub(crate) async fn inspect(&self) -> ContainerInspectResponse {
        self.docker.inspect_container(&self.container, None::<InspectContainerOptions>).await.expect("the container")
    }

    /// What the engine says the container was made with.
    pub(crate) async fn made_with(&self) -> Value {
        serde_json::to_value(self.inspect().await).expect("JSON")
    }

    pub(crate) async fn jupyter_token(&self) -> String {
        let env = self.inspect().await.config.and_then(|config| config.env).expect("an environment");
        env.iter().find_map(|v| v.strip_prefix("RUNIT_JUPYTER_TOKEN=")).expect("a token").to_owned()
    }

    /// Runs a shell command in the container; output and errors as one text.
    pub(crate) async fn shell(&self, command: &str) -> String {
        let options = CreateExecOptions {
            cmd: Some(vec!["sh", "-c", command]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker.create_exec(&self.container, options).await.expect("an exec");
        match self.docker.start_exec(&exec.id, None).await.expect("started") {
            StartExecResults::Attached { output, .. } => {
                let chunks: Vec<_> = output.filter_map(|chunk| async { chunk.ok() }).collect().await;
                chunks.iter().map(ToString::to_string).collect::<String>().trim().to_owned()
            }
            StartExecResults::Detached => String::new(),
        }
    }

    pub(crate) async fn kill_container(&self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&self.container, Some(options)).await.expect("removed");
    }

    /// The agent's name for itself on everything that it makes.
    fn instance(&self) -> String {
        self.directory.path().canonicalize().expect("a directory").join("state").display().to_string()
    }

    /// Containers, volumes and networks with this agent's label, and its rules.
    pub(crate) async fn left_behind(&self) -> Vec<String> {
        let label = format!("{INSTANCE_LABEL}={}", self.instance());
        let ours = HashMap::from([("label".to_owned(), vec![label])]);
        let containers = ListContainersOptionsBuilder::default().all(true).filters(&ours).build();
        let containers = self.docker.list_containers(Some(containers)).await.expect("listed");
        let volumes = ListVolumesOptionsBuilder::default().filters(&ours).build();
        let volumes = self.docker.list_volumes(Some(volumes)).await.expect("listed").volumes.unwrap_or_default();
        let networks = ListNetworksOptionsBuilder::default().filters(&ours).build();
        let networks = self.docker.list_networks(Some(networks)).await.expect("listed");
        let networks = networks.into_iter().filter_map(|network| network.name);
        let tables = run("nft", &["list", "tables"]);
        let table = self.table();
        let table = tables.lines().any(|line| line.ends_with(&table)).then_some(table);
        let ids = containers.into_iter().filter_map(|container| container.id);
        ids.chain(volumes.into_iter().map(|volume| volume.name)).chain(networks).chain(table).collect()
    }
}

/// A test that failed half-way leaves nothing on the machine either.
impl Drop for Home {
    fn drop(&mut self) {
        let down = std::process::Command::new(env!("CARGO_BIN_EXE_runit-agent"))
            .args(["down", "--config"])
            .arg(self.directory.path().join("agent.toml"))
            .envs(self.environment.iter().cloned())
            .output()
            .expect("the agent starts");
        assert!(std::thread::panicking() || down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    }
}

/// Takes down every line, and shows it where the test fails.
#[expect(clippy::print_stderr, reason = "for whoever reads why a test failed")]
fn follow(output: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{line}");
            heard.lock().expect("no panic").push(line);
        }
    });
    lines
}

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("no panic").clone()
    }

    /// What it wrote to standard error.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.logged.lock().expect("no panic").clone()
    }

    /// Waits for the `count`th line that starts with `text`.
    pub(crate) async fn says(&self, text: &str, count: usize) {
        let enough = async || (self.said().iter().filter(|line| line.starts_with(text)).count() >= count).then_some(());
        eventually(PATIENCE, enough, || self.said()).await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), signal).expect("signalled");
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await.expect("in time").expect("a status")
    }
}
