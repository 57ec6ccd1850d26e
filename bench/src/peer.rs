//! What is measured side by side: each a program of its own, or none, in front of the same upstream.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::machine::{Allowed, Cores, version};
use crate::process::{Process, free_addresses};
use crate::runit::Runit;
use crate::tls::Certificate;

/// Tokens that nginx and HAProxy know: one for each round that needs a fresh count.
const TOKENS: usize = 64;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The upstream itself.
    Direct,
    Runit,
    BarePingora,
    Nginx,
    Haproxy,
    Chp,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Direct, Self::Runit, Self::BarePingora, Self::Nginx, Self::Haproxy, Self::Chp];

    /// As tables and plots have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Runit => "RUNIT",
            Self::BarePingora => "bare Pingora",
            Self::Nginx => "nginx + Lua",
            Self::Haproxy => "HAProxy",
            Self::Chp => "configurable-http-proxy",
        }
    }

    /// What it says its version is.
    pub(crate) fn version(self) -> String {
        let beside = |name| beside_us(name).map(|path| path.display().to_string()).unwrap_or_default();
        match self {
            Self::Direct => "none".to_owned(),
            Self::Runit => version(&beside("runit-gateway"), "--version"),
            Self::BarePingora => "Pingora 0.9.1".to_owned(),
            Self::Nginx => version("nginx", "-v"),
            Self::Haproxy => version("haproxy", "-v"),
            Self::Chp => version(&chp_program().display().to_string(), "--version"),
        }
    }
}

/// Where peers are started, and what in front of.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) cores: Cores,
    pub(crate) upstream: SocketAddr,
    /// For configurations, logs and stores; gone at the end.
    pub(crate) directory: tempfile::TempDir,
    pub(crate) certificate: Certificate,
    /// Those to be measured.
    pub(crate) kinds: Vec<Kind>,
}

/// What clients need to know to get through one peer.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    /// None where there is no TLS.
    pub(crate) tls_address: Option<SocketAddr>,
    /// Before each path.
    pub(crate) prefix: String,
    /// In each request, with its end of line.
    pub(crate) credential: String,
}

/// A peer that runs.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) way: Way,
    pub(crate) process: Option<Process>,
    /// The control API of RUNIT.
    pub(crate) runit: Option<Runit>,
    tokens: Vec<String>,
}

/// What is asked of a peer beside being there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    /// Bytes of one session.
    pub(crate) cap_bytes: u64,
    /// Whether clients come over TLS: where one process serves one protocol only, this says which.
    pub(crate) tls: bool,
    /// Where it runs; on both cores the proxy of RUNIT has one thread all the same.
    pub(crate) cores: Allowed,
}

impl Default for Demands {
    fn default() -> Self {
        Self { cap_bytes: 1 << 50, tls: false, cores: Allowed::default() }
    }
}

impl Peer {
    /// Starts one.
    ///
    /// # Errors
    /// When its program is not there, or does not listen.
    pub(crate) async fn start(kind: Kind, house: &House, demands: Demands) -> Result<Self> {
        match kind {
            Kind::Direct => {
                let way = Way {
                    address: house.upstream,
                    tls_address: None,
                    prefix: String::new(),
                    credential: String::new(),
                };
                Ok(Self { kind, way, process: None, runit: None, tokens: Vec::new() })
            }
            Kind::Runit => {
                let (runit, process) = Runit::start(house, demands)?;
                let way = runit.rent(house.upstream).await?.way;
                Ok(Self { kind, way, process: Some(process), runit: Some(runit), tokens: Vec::new() })
            }
            Kind::BarePingora | Kind::Nginx | Kind::Haproxy | Kind::Chp => Self::start_other(kind, house, demands),
        }
    }

    fn start_other(kind: Kind, house: &House, demands: Demands) -> Result<Self> {
        let directory = house.directory.path().join(format!("{}-{}", kind.name(), Uuid::new_v4()).replace(' ', ""));
        std::fs::create_dir(&directory)?;
        let [http, https, api] = free_addresses()?;
        let tokens: Vec<String> = (0..TOKENS).map(|_| Uuid::new_v4().to_string()).collect();
        let list: String = tokens.iter().map(|token| format!("{token} 127.0.0.1\n")).collect();
        std::fs::write(directory.join("tokens"), list)?;
        let fill = |template: &str| {
            let path = |path: &Path| path.display().to_string();
            let words = [
                ("directory", path(&directory)),
                ("tokens", path(&directory.join("tokens"))),
                ("http", http.to_string()),
                ("https", https.to_string()),
                ("upstream", house.upstream.to_string()),
                ("cap", demands.cap_bytes.to_string()),
                ("cap_kib", (demands.cap_bytes / 1024).to_string()),
                ("certificate", path(&house.certificate.chain)),
                ("key", path(&house.certificate.key)),
                ("both", path(&house.certificate.both)),
            ];
            words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
        };
        let configuration = directory.join("configuration");
        let command = match kind {
            Kind::Nginx => {
                std::fs::write(&configuration, fill(include_str!("../peers/nginx.conf")))?;
                command("nginx", &[&"-c", &configuration, &"-p", &directory])
            }
            Kind::Haproxy => {
                std::fs::write(&configuration, fill(include_str!("../peers/haproxy.cfg")))?;
                command("haproxy", &[&"-f", &configuration])
            }
            Kind::Chp => {
                let mut chp = command(chp_program(), &[&"--ip=127.0.0.1", &"--api-ip=127.0.0.1", &"--log-level=error"]);
                chp.arg(format!("--port={}", http.port())).arg(format!("--api-port={}", api.port()));
                chp.arg(format!("--default-target=http://{}", house.upstream));
                if demands.tls {
                    chp.arg("--ssl-cert").arg(&house.certificate.chain).arg("--ssl-key").arg(&house.certificate.key);
                }
                chp
            }
            _ => {
                let mut bare = command(beside_us("bare-pingora")?, &[]);
                bare.args([http.to_string(), https.to_string(), house.upstream.to_string()]);
                bare.args([&house.certificate.chain, &house.certificate.key]);
                bare
            }
        };
        let process = Process::start((&house.cores, demands.cores), command, &directory.join("log"), http)?;
        let tls_address = if kind == Kind::Chp { demands.tls.then_some(http) } else { Some(https) };
        let checks = matches!(kind, Kind::Nginx | Kind::Haproxy);
        let credential = if checks { credential(&tokens[0]) } else { String::new() };
        let way = Way { address: http, tls_address, prefix: String::new(), credential };
        Ok(Self { kind, way, process: Some(process), runit: None, tokens })
    }

    /// A way through it under a token that was not used before, and the bytes that setting it up took of its cap.
    ///
    /// # Errors
    /// When there are no more.
    pub(crate) async fn fresh_way(&mut self, upstream: SocketAddr) -> Result<(Way, u64)> {
        if let Some(runit) = &self.runit {
            let rented = runit.rent(upstream).await?;
            return Ok((rented.way, rented.lock_bytes));
        }
        let token = self.tokens.pop().context("no token left")?;
        Ok((Way { credential: credential(&token), ..self.way.clone() }, 0))
    }

    /// Processor time so far; none if it has no process.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.process.as_ref().map(Process::cpu)
    }
}

pub(crate) fn credential(token: &str) -> String {
    format!("Authorization: token {token}\r\n")
}

fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command
}

/// A program that was built together with this one.
///
/// # Errors
/// When it was not.
pub(crate) fn beside_us(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is missing: cargo build --release -p runit-gateway -p runit-bench",
        path.display()
    );
    Ok(path)
}

/// Where `bench/setup.sh` installs it.
fn chp_program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-peers/node_modules/.bin/configurable-http-proxy")
}
