//! cloudflared as a supervised child.
//!
//! The name comes from its metrics listener, readiness too: the banner on standard error comes before any connection.
//! A status of 0 is no success, it also ends so for an unknown flag.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use runit_config::{TunnelKind, TunnelProtocol};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::child::BoundChild;
use super::{OpenTunnel, RATE_LIMIT_PAUSE, TunnelError, rules};
use crate::jupyter::local_client;

const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(200);
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// What the child gets of our environment. Not the rest: cloudflared takes any flag from `TUNNEL_*`.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A cloudflared that may be used.
#[derive(Debug)]
pub struct Cloudflared {
    program: PathBuf,
    protocol: Option<TunnelProtocol>,
    named: Option<Named>,
    launcher: PathBuf,
    empty_home: PathBuf,
    client: reqwest::Client,
}

/// A tunnel of the provider's own account: its name stays, and its token is in a file.
#[derive(Debug, Clone)]
struct Named {
    hostname: String,
    token_file: PathBuf,
}

/// The version of a cloudflared that may be used.
///
/// # Errors
/// It is missing, does not tell its version, or must not be used; a named tunnel's token cannot be read.
pub async fn checked_version(settings: &runit_config::Tunnel) -> Result<String, TunnelError> {
    let version = version(&settings.cloudflared_bin).await?;
    if rules::is_broken(&version) {
        return Err(TunnelError::Broken(version));
    }
    if let Some(Named { token_file, .. }) = named(settings) {
        // cloudflared says no more of a missing file than its usage.
        std::fs::File::open(&token_file).map_err(|error| TunnelError::NoToken(token_file, error))?;
    }
    Ok(version)
}

fn named(settings: &runit_config::Tunnel) -> Option<Named> {
    let is_named = settings.kind == TunnelKind::Named;
    let (hostname, token_file) = (settings.hostname.clone()?, settings.token_file.clone()?);
    is_named.then_some(Named { hostname, token_file })
}

impl Cloudflared {
    pub(super) async fn check(
        settings: &runit_config::Tunnel,
        launcher: PathBuf,
        empty_home: PathBuf,
    ) -> Result<Self, TunnelError> {
        let program = settings.cloudflared_bin.clone();
        let version = checked_version(settings).await?;
        tracing::debug!(version, "cloudflared");
        let client = local_client().map_err(std::io::Error::other)?;
        Ok(Self { program, protocol: settings.protocol, named: named(settings), launcher, empty_home, client })
    }

    pub(super) async fn open(&self, gate: SocketAddr) -> Result<OpenTunnel, TunnelError> {
        let hostname = self.named.as_ref().map(|named| named.hostname.clone());
        let metrics = Metrics { address: free_address()?, client: self.client.clone(), hostname };
        let token_file = self.named.as_ref().map(|named| named.token_file.as_path());
        let arguments = rules::arguments(gate, metrics.address, self.protocol, token_file);
        let environment = environment(empty(&self.empty_home)?);
        let mut child = BoundChild::start(&self.launcher, &self.program, arguments, environment)?;

        let hostname = tokio::select! {
            hostname = metrics.hostname_when_ready() => hostname,
            status = child.ended() => return Err(why_ended(status, &child)),
            () = tokio::time::sleep(READY_TIMEOUT) => {
                let last_lines = child.output().last_lines();
                child.stop().await;
                return Err(TunnelError::NotReady { after: READY_TIMEOUT, last_lines });
            }
        };

        let (lost, close) = (CancellationToken::new(), CancellationToken::new());
        let url = format!("https://{hostname}");
        let keeper = tokio::spawn(keep(child, metrics, hostname, lost.clone(), close.clone()));
        Ok(OpenTunnel { url, lost, close, keeper: Some(keeper) })
    }
}

/// Watches the child until it ends, changes its name, or is to be closed.
async fn keep(
    mut child: BoundChild,
    metrics: Metrics,
    hostname: String,
    lost: CancellationToken,
    close: CancellationToken,
) {
    let renamed = async {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            if metrics.hostname().await.is_some_and(|now| now != hostname) {
                return;
            }
        }
    };
    tokio::select! {
        status = child.ended() => {
            tracing::warn!(status, last_lines = child.output().last_lines(), "cloudflared ended");
            lost.cancel();
            return;
        }
        () = renamed => {
            tracing::warn!("the tunnel changed its name");
            lost.cancel();
        }
        () = close.cancelled() => {}
    }
    child.stop().await;
}

fn why_ended(status: String, child: &BoundChild) -> TunnelError {
    if child.output().any(rules::is_rate_limit) {
        return TunnelError::RateLimited { pause: RATE_LIMIT_PAUSE };
    }
    TunnelError::Ended { status, last_lines: child.output().last_lines() }
}

/// cloudflared's own listener.
#[derive(Debug)]
struct Metrics {
    address: SocketAddr,
    client: reqwest::Client,
    /// A named tunnel's: it is not asked for.
    hostname: Option<String>,
}

impl Metrics {
    async fn hostname_when_ready(&self) -> String {
        loop {
            if let Some(hostname) = self.hostname().await
                && self.is_ready().await
            {
                return hostname;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The tunnel's name, if there is one and it can be a quick tunnel's.
    async fn hostname(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct QuickTunnel {
            hostname: String,
        }
        if self.hostname.is_some() {
            return self.hostname.clone();
        }
        let answer = self.client.get(format!("http://{}/quicktunnel", self.address)).send().await.ok()?;
        let tunnel: QuickTunnel = answer.error_for_status().ok()?.json().await.ok()?;
        rules::is_quick_tunnel(&tunnel.hostname).then_some(tunnel.hostname)
    }

    async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("http://{}/ready", self.address)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

async fn version(program: &Path) -> Result<String, TunnelError> {
    let unusable = |reason: String| TunnelError::Unusable { program: program.to_owned(), reason };
    let output =
        tokio::process::Command::new(program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(VERSION_TIMEOUT, output).await {
        Err(_) => Err(unusable("no answer".to_owned())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(TunnelError::Missing(program.to_owned())),
        Ok(Err(error)) => Err(unusable(error.to_string())),
        Ok(Ok(output)) => match rules::version(&String::from_utf8_lossy(&output.stdout)) {
            Some(version) => Ok(version.to_owned()),
            None => Err(unusable("it names no version".to_owned())),
        },
    }
}

/// A free port of the moment. Should another program take it before cloudflared does, cloudflared ends and is started
/// again with another.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// An empty home: a configuration file in the real one would turn quick tunnels off.
fn empty(home: &Path) -> std::io::Result<&Path> {
    match std::fs::remove_dir_all(home) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir(home)?;
    Ok(home)
}

fn environment(home: &Path) -> Vec<(OsString, OsString)> {
    let passed = ENVIRONMENT.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    passed.chain([("HOME".into(), home.into())]).collect()
}
