//! A PostgreSQL server of a test's own: made with `initdb` in a folder of its own, on a free port, ended with the test.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runit_control::postgres::PostgresSettings;
use runit_core::Secret;
use tempfile::TempDir;
use uuid::Uuid;

/// The server refuses to run as root: Debian's package brings this user.
const USER: &str = "postgres";
const START: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Postgres {
    directory: TempDir,
    server: Child,
    port: u16,
}

impl Postgres {
    /// Starts a server with an empty database.
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a folder");
        chown(directory.path());
        let data = directory.path().join("data");
        let made = as_user(&program("initdb"))
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let server = as_user(&program("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
            .args(["-c", &format!("unix_socket_directories={}", directory.path().display())])
            // Nothing here asks what survives a power cut.
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=100"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).expect("a log"))
            .spawn()
            .expect("postgres runs");
        let postgres = Self { directory, server, port };
        postgres.wait();
        postgres
    }

    /// Where it is.
    pub(crate) fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            url: Secret::new(format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)),
            ca_file: None,
        }
    }

    /// A connection beside all stores, for what is done by hand.
    pub(crate) async fn by_hand(&self) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(self.settings().url.expose(), tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        client
    }

    fn wait(&self) {
        let deadline = Instant::now() + START;
        let ready = || {
            let asked = Command::new(program("pg_isready"))
                .args(["--host=127.0.0.1", &format!("--port={}", self.port)])
                .stdout(Stdio::null())
                .status();
            asked.is_ok_and(|status| status.success())
        };
        while !ready() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no PostgreSQL within {START:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A program of the newest version that Debian has installed.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Debian's postgresql is installed");
    let mut found: Vec<PathBuf> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("there is no {name}: install Debian's postgresql"))
}

fn as_user(program: &Path) -> Command {
    // `setpriv` replaces itself, so that the child is the server.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL"]).arg(program);
    command
}

fn chown(directory: &Path) {
    let changed = Command::new("chown").arg(USER).arg(directory).status().expect("chown runs");
    assert!(changed.success(), "the folder cannot be given to {USER}");
}

/// Below those that the kernel gives to connections (`ip_local_port_range`), which tests beside this one open all the time.
fn free_port() -> u16 {
    loop {
        let port = 10_000 + u16::try_from(Uuid::new_v4().as_u128() % 20_000).expect("it fits");
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound.map(|_| port).expect("a free port"),
        }
    }
}
