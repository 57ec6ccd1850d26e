//! The whole agent with a real Docker engine and the real Jupyter image, from its start to nothing left.
//!
//! A missing engine fails these tests; a missing image is built by the agent.

use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::agent::{ACCESS_TOKEN, Control, Home, Mood, PROVIDER_SECRET};
use crate::support::cloudflared::{Cloudflared, is_alive};
use crate::support::eventually;
use crate::support::jupyter::read_head;
use crate::support::server::Call;

const DIRECT: &str = "kind = \"direct\"";

/// A registered session as the gateway would use it.
struct Session {
    client: Client,
    url: String,
    token: String,
}

impl Session {
    fn of(call: &Call, base_path: &str) -> Self {
        let text = |key: &str| call.body[key].as_str().expect("text").to_owned();
        let url = format!("{}{base_path}", text("publicUrl"));
        Self { client: Client::builder().no_proxy().build().expect("a client"), url, token: text("token") }
    }

    async fn status_of(&self, path: &str, token: &str) -> StatusCode {
        let call = self.client.get(format!("{}{path}", self.url)).header("Authorization", format!("token {token}"));
        call.send().await.expect("an answer").status()
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let call = self.client.post(format!("{}{path}", self.url)).body(body.to_string());
        let answer = call.header("Authorization", format!("token {}", self.token)).send().await.expect("an answer");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    async fn delete(&self, path: &str) {
        let call = self.client.delete(format!("{}{path}", self.url));
        let call = call.header("Authorization", format!("token {}", self.token));
        assert_eq!(call.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    }

    /// A notebook's kernel in an endless loop, of which nothing is written; answers its id.
    async fn start_busy_kernel(&self) -> String {
        let started = self.post("api/kernels", &json!({ "name": "python3" })).await;
        let id = started["id"].as_str().expect("an id").to_owned();
        let socket = format!("{}api/kernels/{id}/channels?session_id=s", self.url);
        let mut stream = upgraded(&socket, &self.token).await;
        let message = json!({
            "channel": "shell",
            "header": { "msg_id": "m", "msg_type": "execute_request", "username": "", "session": "s", "date": "", "version": "5.3" },
            "parent_header": {}, "metadata": {}, "buffers": [],
            "content": { "code": "while True: pass", "silent": false, "store_history": false, "allow_stdin": false },
        });
        send_text(&mut stream, &message.to_string()).await;
        // The tab dies; the kernel goes on.
        let mut answer = [0; 1024];
        let answered = stream.read(&mut answer).await.expect("an answer");
        assert!(answered > 0);
        id
    }

    async fn save(&self, name: &str) {
        let body = json!({ "type": "file", "format": "text", "content": "mine" });
        let call = self.client.put(format!("{}api/contents/{name}", self.url)).body(body.to_string());
        let answer = call.header("Authorization", format!("token {}", self.token)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn a_session_lives_from_start_to_stop_and_comes_back_clean() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let mut agent = home.start();

    // Registered, with Jupyter behind the gate.
    let registered = control.nth("POST", 1).await;
    agent.says("[agent] heartbeat updated for: ", 1).await;
    let id = registered.body["sessionId"].as_str().expect("an id").to_owned();
    let base_path = registered.body["basePath"].as_str().expect("a path").to_owned();
    assert_eq!(base_path, format!("/s/{id}/"));
    let hardware = &registered.body["hardware"];
    assert_eq!(
        (&hardware["gpu"], &hardware["cores"], &hardware["workspace"]),
        (&json!("none"), &json!(2.0), &json!("ephemeral"))
    );
    let said = agent.said();
    let workspace = said.iter().find(|line| line.starts_with("[agent] workspace directory: ")).expect("a directory");
    let from_here = said.iter().position(|line| line == workspace).expect("it is there");
    let url = registered.body["publicUrl"].as_str().expect("a URL");
    let expected = [
        workspace.clone(),
        "[agent] starting dockerized jupyter...".to_owned(),
        "[docker] Running as: jupyteruser".to_owned(),
        format!("[agent] detected public URL: {url}"),
        "=== SESSION READY ===".to_owned(),
        format!("[agent] session registered: {id}"),
        format!("[agent] heartbeat updated for: {id}"),
    ];
    assert_eq!(said[0], "[agent] checking docker image: runit-jupyter");
    assert!(
        ["[agent] docker image exists", "[agent] building docker image: runit-jupyter"].contains(&said[1].as_str())
    );
    assert_eq!(said[from_here..][..expected.len()], expected);

    // Only the gate's secret opens it.
    let first = Session::of(&registered, &base_path);
    let jupyter_token = home.jupyter_token().await;
    assert_eq!(first.status_of("api/status", &first.token).await, StatusCode::OK);
    assert_eq!(first.status_of("api/status", &jupyter_token).await, StatusCode::FORBIDDEN);
    assert_eq!(first.status_of("api/status", "").await, StatusCode::FORBIDDEN);
    assert_in_its_box(&home).await;
    assert!(!home.shell("cat /proc/*/environ; grep -rs . /workspace /tmp").await.contains(&first.token));

    // The renter leaves: another workspace, another Jupyter token, another secret; nothing of the old.
    first.save("marker").await;
    control.set(Mood::Recycling);
    let second = Session::of(&control.nth("PUT", 1).await, &base_path);
    assert_eq!(second.url, first.url);
    assert_ne!(second.token, first.token);
    assert_ne!(home.jupyter_token().await, jupyter_token);
    assert_eq!(second.status_of("api/status", &first.token).await, StatusCode::FORBIDDEN);
    assert_eq!(second.status_of("api/contents/marker", &second.token).await, StatusCode::NOT_FOUND);
    assert_eq!(home.left_behind().await.len(), 4, "a container, a volume, a network, rules");

    // The container dies under the renter: the same files, the same secret.
    second.save("kept").await;
    home.kill_container().await;
    agent.says("[docker] Running as: ", 3).await;
    let is_back = async || (second.status_of("api/contents/kept", &second.token).await == StatusCode::OK).then_some(());
    eventually(Duration::from_secs(60), is_back, || agent.said()).await;

    // Control forgets: the same session id and secret, a fresh workspace.
    control.set(Mood::Forgetful);
    let again = control.nth("POST", 2).await;
    assert_eq!(again.body["sessionId"], registered.body["sessionId"]);
    assert_eq!(again.authorization, Some(format!("Bearer {PROVIDER_SECRET}")));
    let third = Session::of(&again, &base_path);
    assert_ne!(third.token, second.token);
    assert_eq!(third.status_of("api/contents/kept", &third.token).await, StatusCode::NOT_FOUND);

    // Told to stop: taken back, and nothing left.
    let last_token = home.jupyter_token().await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(control.nth("DELETE", 1).await.line, format!("DELETE /provider/session/{id}"));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
    let said = agent.said().join("\n");
    for secret in
        [&first.token, &second.token, &third.token, &jupyter_token, &last_token, ACCESS_TOKEN, PROVIDER_SECRET]
    {
        assert!(!said.contains(secret), "a secret was said");
    }
}

/// A WebSocket by hand: nothing but its handshake and one frame is needed.
async fn upgraded(url: &str, token: &str) -> TcpStream {
    let (authority, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(authority).await.expect("connected");
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let answer = read_head(&mut stream).await.expect("a head");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

/// A text frame (RFC 6455, 5.2) of 126 to 65,535 bytes, masked with nothing.
async fn send_text(stream: &mut TcpStream, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text").to_be_bytes();
    let head = [0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
    stream.write_all(&[&head[..], text.as_bytes()].concat()).await.expect("written");
}

/// As the engine tells it, and as it is seen from inside.
async fn assert_in_its_box(home: &Home) {
    let made = home.made_with().await;
    let host = &made["HostConfig"];
    assert_eq!(host["Memory"], 4_294_967_296_u64);
    assert_eq!(host["MemorySwap"], 4_294_967_296_u64);
    assert_eq!(host["NanoCpus"], 2_000_000_000_u64);
    assert_eq!(host["PidsLimit"], 100);
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Privileged"], false);
    assert_eq!(made["Mounts"].as_array().map(Vec::len), Some(1), "{}", made["Mounts"]);

    assert_eq!(home.shell("whoami; id -u").await, "jupyteruser\n1000");
    assert!(home.shell("touch /etc/x").await.contains("Read-only file system"));
    let status = home.shell("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status | tr -d '\\t'").await;
    let none = "0000000000000000";
    let expected =
        format!("CapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nCapBnd:{none}\nCapAmb:{none}\nNoNewPrivs:1\nSeccomp:2");
    assert_eq!(status, expected);
    let tmp = home.shell("grep ' /tmp ' /proc/mounts").await;
    assert!(["noexec", "nosuid", "nodev"].iter().all(|option| tmp.contains(option)), "{tmp}");
    assert!(home.shell("ls /var/run/docker.sock /run/docker.sock 2>&1").await.contains("No such file"));
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_and_its_session_continues() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let mut killed = home.start();
    let before = control.nth("POST", 1).await;
    killed.says("[agent] session registered: ", 1).await;
    killed.signal(Signal::KILL);
    killed.ends().await;
    let left = home.left_behind().await;
    assert_eq!(left.len(), 4, "a container, a volume, a network, rules");

    let mut agent = home.start();
    let after = control.nth("POST", 2).await;
    assert_eq!(after.body["sessionId"], before.body["sessionId"]);
    assert_eq!(after.authorization, Some(format!("Bearer {PROVIDER_SECRET}")));
    assert!(home.left_behind().await[..2].iter().all(|now| !left.contains(now)), "container and volume are new");

    agent.signal(Signal::INT);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_tunnel_that_dies_is_replaced_and_only_the_url_changes() {
    let control = Control::start().await;
    let cloudflared = Cloudflared::install("good");
    let home = Home::new(&control, &format!("cloudflared_bin = {:?}", cloudflared.program())).await;
    let mut agent = home.start();
    let registered = control.nth("POST", 1).await;
    let first = cloudflared.pid().expect("started");
    assert_eq!(registered.body["publicUrl"], format!("https://stand-in-{first}.trycloudflare.com"));
    assert!(agent.said().contains(&"[agent] starting cloudflared...".to_owned()));

    kill_process(Pid::from_raw(first).expect("a pid"), Signal::KILL).expect("killed");
    let told = control.nth("PUT", 1).await;
    let second = cloudflared.pid().expect("started again");
    assert_ne!(first, second);
    let expected = json!({
        "publicUrl": format!("https://stand-in-{second}.trycloudflare.com"), "token": registered.body["token"],
    });
    assert_eq!(told.body, expected);

    // Killed, the agent takes its tunnel with it.
    agent.signal(Signal::KILL);
    agent.ends().await;
    eventually(Duration::from_secs(10), async || (!is_alive(second)).then_some(()), || second).await;

    let mut agent = home.start();
    control.nth("POST", 2).await;
    let third = cloudflared.pid().expect("started again");
    agent.signal(Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert!(!is_alive(third));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn stopping_while_jupyter_starts_leaves_nothing() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let mut agent = home.start();
    agent.says("[agent] starting dockerized jupyter...", 1).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
    assert!(control.calls("POST").is_empty());
}

#[tokio::test]
async fn what_is_missing_is_said_with_what_to_do() {
    let control = Control::start().await;
    let home = Home::new(&control, "cloudflared_bin = \"/nonexistent/cloudflared\"").await;
    let mut agent = home.start();
    assert_eq!(agent.ends().await.code(), Some(1));

    let run = |variables: &[(&str, &str)]| {
        let state = tempfile::tempdir().expect("a directory");
        Command::new(env!("CARGO_BIN_EXE_runit-agent"))
            .env("RUNIT_AGENT__STATE_DIR", state.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
    };
    let output = run(&[]).await.expect("it ran");
    assert_eq!(output.status.code(), Some(2), "the provider's name is missing");
    let no_engine = [("RUNIT_AGENT__PROVIDER_ID", "me"), ("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let output = run(&no_engine).await.expect("it ran");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no docker engine answers: is it installed"), "{text}");
}

#[tokio::test]
async fn a_container_that_nobody_uses_sleeps_and_the_next_request_wakes_it() {
    let control = Control::start().await;
    let more = format!("{DIRECT}\n[container]\nsleep_after_seconds = 15");
    let home = Home::new(&control, &more).await;
    let agent = home.start();
    let registered = control.nth("POST", 1).await;
    let base_path = registered.body["basePath"].as_str().expect("a path").to_owned();
    let session = Session::of(&registered, &base_path);
    let token = home.jupyter_token().await;

    // A kernel that computes keeps it awake, and the provider can see why.
    let kernel = session.start_busy_kernel().await;
    let heard = async || control.beats().into_iter().find(|beat| beat["report"]["busy"] == "a kernel is busy");
    eventually(Duration::from_secs(120), heard, || control.beats().last().cloned()).await;
    assert!(!agent.said().iter().any(|line| line.contains("nobody uses it")));
    session.delete(&format!("api/kernels/{kernel}")).await;

    agent.says("[agent] jupyter stopped, since nobody uses it", 1).await;
    assert_eq!(home.inspect().await.state.and_then(|state| state.running), Some(false));
    assert!(control.calls("DELETE").is_empty(), "it stays listed");

    assert_eq!(session.status_of("api/status", &session.token).await, StatusCode::OK);
    agent.says("[agent] jupyter is wanted, starting it", 1).await;
    assert_eq!(home.jupyter_token().await, token);
    assert_eq!(control.calls("POST").len() + control.calls("PUT").len(), 1, "control need not know");
}
