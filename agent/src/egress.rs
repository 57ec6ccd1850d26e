//! What the notebook itself may send to the world, which never crosses the gateway: rules, and how much it was.
//!
//! The rules are one nftables table of this agent's own, tied to its network's bridge. They are set before a container
//! starts, looked at while it runs (whoever reloads a firewall flushes everybody's), and removed with it. They come as
//! one transaction: there is no moment with half of them.
//!
//! Invariant: where rules are wanted and cannot be set, no container is started.

pub mod meter;
pub mod ruleset;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use runit_config::EgressMode;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::instance::Instance;
use ruleset::{Flow, Ruleset};

const NFT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where nft is on most systems, and where the `PATH` of a user often does not look.
const SYSTEM_PATH: &str = "/usr/sbin:/sbin:/usr/local/sbin";
/// What the engine reads name servers from; the second where the first names only systemd-resolved.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The program is not there.
    #[error(
        "the container's traffic cannot be restricted: {} was not found. Install nftables, or set [egress] nft_bin, or \
         let the container reach your network with [egress] mode = \"unrestricted\"",
        .0.display()
    )]
    Missing(PathBuf),
    /// The kernel refused.
    #[error(
        "the container's traffic cannot be restricted: {0}. Rules need root or CAP_NET_ADMIN, and nf_tables in the \
         kernel; without them set [egress] mode = \"unrestricted\", which lets the container reach your network"
    )]
    Refused(String),
    /// The network's bridge is on another machine than the rules.
    #[error(
        "the container's traffic cannot be restricted: the engine's networks are not in this agent's network namespace \
         (a rootless or remote engine, or an agent in a container without the host's network)"
    )]
    Elsewhere,
    /// The program could not be run.
    #[error("cannot run nft")]
    Io(#[from] std::io::Error),
}

/// The rules of one agent, and the program that sets them.
#[derive(Debug)]
pub struct Firewall {
    nft: PathBuf,
    table: String,
    bridge: String,
    /// None: the provider wants none. Without name servers: those of this machine, as they are when the rules are set.
    rules: Option<Ruleset>,
    /// The table as nft lists it, from when it was set.
    set: Mutex<Option<String>>,
}

impl Firewall {
    /// The rules that `settings` ask for. Nothing is set yet.
    pub fn new(settings: &runit_config::Egress, instance: &Instance) -> Self {
        let rules = (settings.mode == EgressMode::Restricted).then(|| Ruleset {
            table: instance.table(),
            bridge: instance.bridge(),
            exceptions: settings.exceptions.clone(),
            resolvers: settings.dns.clone(),
        });
        Self {
            nft: settings.nft_bin.clone(),
            table: instance.table(),
            bridge: instance.bridge(),
            rules,
            set: Mutex::default(),
        }
    }

    /// Whether there are rules at all.
    pub fn restricts(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether rules can be set on this machine: sets them under another name, for nothing, and removes them.
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn check(&self) -> Result<(), EgressError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let table = format!("{}_check", self.table);
        let text = Ruleset { table: table.clone(), ..rules.clone() }.text(Flow::Open);
        self.nft(&["-f", "-"], &text).await?;
        self.nft(&["delete", "table", "inet", &table], "").await.map(drop)
    }

    /// Sets the rules, in place of those that are there.
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn set(&self, flow: Flow) -> Result<(), EgressError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let mut set = self.set.lock().await;
        *set = None;
        self.nft(&["-f", "-"], &with_resolvers(rules).text(flow)).await?;
        *set = Some(self.list().await?);
        Ok(())
    }

    /// Whether the rules are as they were set; true where there are to be none.
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn holds(&self) -> Result<bool, EgressError> {
        if self.rules.is_none() {
            return Ok(true);
        }
        let set = self.set.lock().await;
        match self.list().await {
            Ok(now) => Ok(set.as_ref() == Some(&now)),
            Err(EgressError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the rules, also those that an earlier run left.
    ///
    /// # Errors
    /// See [`EgressError`]. Where no rules are wanted, a missing program and missing rights are none: nothing was set.
    pub async fn remove(&self) -> Result<(), EgressError> {
        let table = &self.table;
        *self.set.lock().await = None;
        // nft 1.0.6 has no `destroy`: this adds what is there already, and then deletes it.
        let removed = self.nft(&["-f", "-"], &format!("table inet {table}\ndelete table inet {table}\n")).await;
        match removed {
            Err(EgressError::Missing(_) | EgressError::Refused(_)) if self.rules.is_none() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whether the network's bridge is where the rules are.
    ///
    /// # Errors
    /// [`EgressError::Elsewhere`] if it is not, and there are to be rules.
    pub fn meets_the_bridge(&self) -> Result<(), EgressError> {
        let is_here = read("/proc/thread-self/net/dev")
            .lines()
            .any(|line| line.trim_start().strip_prefix(&self.bridge).is_some_and(|rest| rest.starts_with(':')));
        if is_here || self.rules.is_none() { Ok(()) } else { Err(EgressError::Elsewhere) }
    }

    async fn list(&self) -> Result<String, EgressError> {
        self.nft(&["--stateless", "list", "table", "inet", &self.table], "").await
    }

    async fn nft(&self, arguments: &[&str], input: &str) -> Result<String, EgressError> {
        let path = std::env::var("PATH").unwrap_or_default();
        let spawned = Command::new(&self.nft)
            .args(arguments)
            .env("PATH", format!("{path}:{SYSTEM_PATH}"))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EgressError::Missing(self.nft.clone()));
            }
            other => other?,
        };
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(NFT_TIMEOUT, talk).await.map_err(std::io::Error::from)??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("nft gave no reason").trim_end_matches(['.', ':']);
        Err(EgressError::Refused(first.escape_debug().to_string()))
    }
}

/// A container gets its name servers when it is started, which is when its rules are set.
fn with_resolvers(rules: &Ruleset) -> Ruleset {
    let mut rules = rules.clone();
    if rules.resolvers.is_empty() {
        rules.resolvers = RESOLVERS.iter().flat_map(|path| ruleset::resolvers(&read(path))).collect();
    }
    rules
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
