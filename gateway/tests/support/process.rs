//! The real `runit-gateway` as a process, with its store in a directory of the test's.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use runit_core::{AccessToken, SessionId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use super::tls::Issuer;
use super::{Client, PATIENCE, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_runit-gateway");

/// Addresses and settings that all processes of one test share.
pub struct Installation {
    directory: tempfile::TempDir,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    pub admin: SocketAddr,
}

/// One process; killed when it is dropped.
pub struct Process {
    child: Child,
}

/// A session that was registered over the API.
pub struct Rented {
    pub id: SessionId,
    pub token: AccessToken,
}

impl Installation {
    pub fn new(more: &str) -> Self {
        Self::with("", more)
    }

    /// With further lines for `[gateway]`, and further sections.
    pub fn with(gateway_more: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [gateway, control, admin] = free_addresses();
        let settings = format!(
            "[gateway]\nlisten = \"{gateway}\"\npublic_url = \"http://{gateway}\"\nadmin_listen = \"{admin}\"\n\
             {gateway_more}[control]\nlisten = \"{control}\"\npublic_url = \"http://{control}\"\n\
             general_limit = {{ requests = 1000000, seconds = 1 }}\ndata_dir = \"{}\"\n\
             [upstream]\nplain_http_hosts = [\"127.0.0.1\"]\n{more}",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("runit.toml"), settings).expect("written");
        Self { directory, gateway, control, admin }
    }

    /// The same with TLS at the gateway; control, on the same host, stays plain.
    pub fn over_tls(issuer: &Issuer, gateway_more: &str, more: &str) -> Self {
        let house = Self::with(&format!("{}hsts_seconds = 0\n{gateway_more}", issuer.setting()), more);
        house.edit(
            &format!("public_url = \"http://{}", house.gateway),
            &format!("public_url = \"https://{}", house.gateway),
        );
        house
    }

    /// Changes the settings file, for the next reload or start.
    pub fn edit(&self, from: &str, to: &str) {
        let file = self.path().join("runit.toml");
        let settings = std::fs::read_to_string(&file).expect("written");
        assert!(settings.contains(from), "{settings}");
        std::fs::write(file, settings.replace(from, to)).expect("written");
    }

    /// Waits until the log says it so often.
    pub async fn logged(&self, text: &str, times: usize) {
        eventually(text, || {
            let log = self.log();
            if log.matches(text).count() >= times { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Waits until a metric has that value.
    pub async fn until(&self, name: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.metric(name).await;
            if seen == value {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {seen} in place of {value}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a process and waits until it answers.
    pub async fn start(&self) -> Process {
        self.start_with(&[]).await
    }

    pub async fn start_with(&self, arguments: &[&str]) -> Process {
        self.start_as(Command::new(PROGRAM), arguments).await
    }

    /// Starts a process that may open no more than `files` files.
    pub async fn start_with_files(&self, files: u32) -> Process {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), PROGRAM]);
        self.start_as(shell, &[]).await
    }

    async fn start_as(&self, mut command: Command, arguments: &[&str]) -> Process {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("log")).expect("a log");
        let child = command
            .arg("--config")
            .arg(self.path().join("runit.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let mut process = Process { child };
        let claimed = format!("{}\n", process.id());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let claim = std::fs::read_to_string(self.path().join("data/gateway.pid")).unwrap_or_default();
            if claim == claimed && is_up(self.gateway).await && is_up(self.admin).await {
                return process;
            }
            let ended = process.child.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}, log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Registers a session at `upstream` and asks for a token.
    pub async fn rent(&self, upstream: SocketAddr) -> Rented {
        self.rent_with(upstream, "secret").await
    }

    /// The same, with a credential of the provider's.
    pub async fn rent_with(&self, upstream: SocketAddr, credential: &str) -> Rented {
        let body = json!({ "providerId": "p", "publicUrl": format!("http://{upstream}"), "token": credential });
        let (status, session) = self.call("POST", "/provider/session", Some(body)).await;
        assert_eq!(status, 200, "{session}");
        let text = |name: &str| session[name].as_str().expect("a text").to_owned();
        let token = AccessToken::parse(&text("accessToken")).expect("a token");
        Rented { id: text("sessionId").parse().expect("an id"), token }
    }

    /// Bytes that the renter is told were used: in, out and forfeited together.
    pub async fn used(&self, rented: &Rented) -> u64 {
        let (status, usage) = self.call("GET", &format!("/renter/usage/{}", rented.token.expose()), None).await;
        assert_eq!(status, 200, "{usage}");
        ["usedIn", "usedOut", "forfeited"].iter().map(|name| usage[name].as_u64().expect("a number")).sum()
    }

    /// Waits until the renter is told of that many bytes: nodes report twice a second.
    pub async fn used_at_least(&self, rented: &Rented, bytes: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let used = self.used(rented).await;
            if used >= bytes {
                return;
            }
            assert!(Instant::now() < deadline, "{used} of at least {bytes}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.control).await.expect("control listens");
        stream.write_all(head.as_bytes()).await.expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// The status of `/readyz`.
    pub async fn ready(&self) -> u16 {
        let mut stream = TcpStream::connect(self.admin).await.expect("the admin listener");
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// A metric of the node, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).await.expect("the admin listener");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("taken");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("metrics");
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub async fn connect(&self) -> Client {
        self.connect_from([127, 0, 0, 1]).await
    }

    pub async fn connect_from(&self, ip: [u8; 4]) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((ip, 0))).expect("loopback has this address");
        let stream = socket.connect(self.gateway).await.expect("the gateway listens");
        Client { stream, sent: 0, received: Vec::new() }
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our child");
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} does not end", self.id());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_up(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Ports that were free a moment ago: all are held at once, so that they differ. They are below those that the kernel gives to
/// connections (`ip_local_port_range`), which tests beside this one open all the time.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let free = || loop {
        let port = 10_000 + u16::try_from(Uuid::new_v4().as_u128() % 20_000).expect("it fits");
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound.expect("a free port"),
        }
    };
    [(); N].map(|()| free()).map(|listener| listener.local_addr().expect("bound"))
}
