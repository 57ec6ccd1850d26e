//! A Docker engine of the test's own, in the test's own network: it may be stopped and restarted, and what its
//! containers send reaches nobody but the test.
//!
//! Its images are kept between tests, which therefore take turns.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::{API_DEFAULT_VERSION, Docker};
use tempfile::TempDir;

use super::world::run;

const IMAGE: &str = "runit-jupyter";
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running engine; ended with the value.
pub(crate) struct PrivateEngine {
    /// Sockets' paths must be short.
    place: TempDir,
    data: PathBuf,
    process: Option<Child>,
    _turn: File,
}

impl PrivateEngine {
    /// Starts it in the network of this thread, with the image of the machine's engine.
    pub(crate) async fn start() -> Self {
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("private-engine");
        std::fs::create_dir_all(&data).expect("made");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(data.join("turn")).expect("a file");
        lock.lock().expect("our turn");
        let place = tempfile::Builder::new().prefix("runit-engine").tempdir_in("/tmp").expect("a directory");
        let mut engine = Self { place, data, process: None, _turn: lock };
        engine.start_process().await;
        engine.load_image();
        engine
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.place.path().join("docker.sock").display())
    }

    pub(crate) fn client(&self) -> Docker {
        let socket = self.place.path().join("docker.sock");
        Docker::connect_with_unix(&socket.display().to_string(), 120, API_DEFAULT_VERSION).expect("a client")
    }

    /// As `systemctl stop docker` does: its containers end with it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            run("kill", &["-TERM", &process.id().to_string()]);
            process.wait().expect("it ends");
        }
    }

    pub(crate) async fn start_process(&mut self) {
        let path = |name: &str| self.place.path().join(name).display().to_string();
        let log = OpenOptions::new().append(true).create(true).open(self.data.join("log")).expect("a log");
        let process = Command::new("dockerd")
            .args(["--host", &self.host(), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--data-root", &self.data.join("root").display().to_string()])
            .args(["--bridge", "none", "--default-address-pool", "base=172.30.0.0/16,size=24"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dockerd");
        self.process = Some(process);
        let deadline = Instant::now() + STARTS_WITHIN;
        while !self.place.path().join("docker.sock").exists() || self.client().ping().await.is_err() {
            assert!(Instant::now() < deadline, "the engine does not start: see {}", self.data.join("log").display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The image as the machine's engine has it; there the tests that use that engine have the agent build it.
    fn load_image(&self) {
        let id = |host: &[&str]| {
            let asked =
                Command::new("docker").args(host).args(["image", "inspect", "--format", "{{.Id}}", IMAGE]).output();
            String::from_utf8_lossy(&asked.expect("docker").stdout).trim().to_owned()
        };
        let host = self.host();
        let wanted = id(&[]);
        assert!(!wanted.is_empty(), "the machine's engine has no image {IMAGE}: run docker/jupyter/build.sh");
        if wanted != id(&["--host", &host]) {
            run("sh", &["-c", "docker save \"$1\" | docker --host \"$2\" load", "sh", IMAGE, &host]);
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let host = self.host();
        if self.process.is_some() {
            let _ = Command::new("sh")
                .args([
                    "-c",
                    "docker ps -aq | xargs -r docker rm -f -v; docker volume prune -f; docker network prune -f",
                ])
                .env("DOCKER_HOST", host)
                .stdout(Stdio::null())
                .status();
        }
        self.stop();
    }
}
