//! `agent.toml`: a provider's agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::check::Checks;

/// Everything an agent can be told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Who the provider is, and which control API it serves.
    pub agent: Agent,
    /// How the gateway reaches this machine.
    pub tunnel: Tunnel,
    /// The gate between tunnel and container.
    pub gate: Gate,
    /// The container that a renter works in.
    pub container: Container,
    /// What the container may reach by itself.
    pub egress: Egress,
    /// What renters are told about the machine: any keys, as they stand.
    pub hardware: toml::Table,
    /// What renters are told about the price: any keys, as they stand.
    pub pricing: toml::Table,
}

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The provider's name for itself; required, 1 to 128 characters.
    pub provider_id: String,
    /// File with the key that control's operator has made for `provider_id`, where control demands one.
    pub provider_key_file: Option<PathBuf>,
    /// The control API: scheme, host and port, nothing after them.
    pub control_url: Url,
    /// Directory where the session's id and secret survive a restart; created at the first start.
    pub state_dir: PathBuf,
    /// How often the agent says that it is there, in seconds; 1 to 60.
    pub heartbeat_seconds: u64,
}

/// `[tunnel]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// What carries the gateway's requests to the gate.
    pub kind: TunnelKind,
    /// The cloudflared program: a path, or a name that is looked up in `PATH`.
    pub cloudflared_bin: PathBuf,
    /// How cloudflared reaches its edge; none: its own choice (QUIC, without a fallback for quick tunnels).
    pub protocol: Option<TunnelProtocol>,
    /// A named tunnel's public host name, which leads to the gate's address; needed for `kind = "named"` only.
    pub hostname: Option<String>,
    /// The file with a named tunnel's token; needed for `kind = "named"` only.
    pub token_file: Option<PathBuf>,
}

/// What carries the gateway's requests to the gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// A cloudflared quick tunnel.
    #[default]
    Cloudflared,
    /// A cloudflared tunnel of the provider's own account, with a name that stays.
    Named,
    /// None: the gateway runs on this machine and dials the gate on loopback.
    Direct,
}

/// How cloudflared reaches its edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelProtocol {
    /// QUIC over UDP.
    Quic,
    /// HTTP/2 over TCP: where UDP is blocked.
    Http2,
}

/// `[gate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Address and port that the tunnel connects to: loopback; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// `[container]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Image to run; built when it is missing.
    pub image: String,
    /// The container's name, and the stem of its volume's and network's; none: `runit-session-` and digits that are
    /// this agent's own.
    pub name: Option<String>,
    /// Directory with the image's Dockerfile; none: the one that the agent carries.
    pub build_context: Option<PathBuf>,
    /// Memory, in bytes; 268,435,456 (256 MiB) to 2^50.
    pub memory_bytes: u64,
    /// Processor time, in cores; 0.1 to 1,024.
    pub cpus: f64,
    /// Processes and threads; 32 to 1,000,000. The server takes 3, each kernel 12.
    pub pids: u64,
    /// A container that nobody holds and that does nothing is stopped after so many seconds; 0: never; to 604,800.
    pub sleep_after_seconds: u64,
    /// GPUs that the container gets: none; `all`; or indices or UUIDs, as nvidia-smi lists them.
    pub gpus: Vec<String>,
    /// Whether the agent refuses to start with a runtime that is known to let code out, instead of warning.
    pub require_patched_runtime: bool,
    /// What becomes of the renter's files.
    pub workspace: Workspace,
    /// PEM file of roots that the image's build trusts, where its downloads pass an inspecting proxy. Not kept in the image.
    pub ca_bundle: Option<PathBuf>,
    /// `--build-arg` values for the image's build. The image's history shows them: no secrets here.
    pub build_args: BTreeMap<String, String>,
}

/// What becomes of the renter's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workspace {
    /// A new volume for each renter, destroyed afterwards.
    #[default]
    Ephemeral,
    /// One volume, which every renter finds as the last one left it.
    Persistent,
}

/// `[egress]`: what the notebook itself sends to the world, which never crosses the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Whether there are rules at all.
    pub mode: EgressMode,
    /// Networks that the container may reach although they are private or this machine's; CIDR.
    pub exceptions: Vec<IpNet>,
    /// Name servers for the container; none: those that the engine takes from this machine.
    pub dns: Vec<IpAddr>,
    /// Bytes in and out, for each session, in any 24 hours; none: no limit. 1 to 2^50.
    pub daily_cap_bytes: Option<u64>,
    /// The nft program: a path, or a name that is looked up in `PATH`.
    pub nft_bin: PathBuf,
}

/// Whether the container's own traffic has rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// Public addresses only: no private, special-purpose, link-local or metadata address, and not this machine.
    #[default]
    Restricted,
    /// Whatever the engine lets through, the provider's own network included.
    Unrestricted,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            provider_id: String::new(),
            provider_key_file: None,
            control_url: Url::parse("http://127.0.0.1:10000").expect("a scheme, an address and a port"),
            state_dir: PathBuf::from("/var/lib/runit-agent"),
            heartbeat_seconds: 30,
        }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            kind: TunnelKind::default(),
            cloudflared_bin: PathBuf::from("cloudflared"),
            protocol: None,
            hostname: None,
            token_file: None,
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }
}

impl Default for Container {
    fn default() -> Self {
        Self {
            image: "runit-jupyter".to_owned(),
            name: None,
            build_context: None,
            memory_bytes: 4 << 30,
            cpus: 2.0,
            pids: 100,
            sleep_after_seconds: 600,
            gpus: Vec::new(),
            require_patched_runtime: false,
            workspace: Workspace::default(),
            ca_bundle: None,
            build_args: BTreeMap::new(),
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            mode: EgressMode::default(),
            exceptions: Vec::new(),
            dns: Vec::new(),
            daily_cap_bytes: None,
            nft_bin: PathBuf::from("nft"),
        }
    }
}

impl AgentSettings {
    pub(crate) const SECTIONS: [&str; 7] = ["agent", "tunnel", "gate", "container", "egress", "hardware", "pricing"];

    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        self.agent.check(checks);
        self.container.check(checks);
        self.egress.check(checks);
        self.tunnel.check(checks);
        let fixed = self.tunnel.kind != TunnelKind::Named || self.gate.listen.port() != 0;
        checks.require("gate.listen", fixed, "must have a port for kind = \"named\", whose service it is");
        checks.require("gate.listen", self.gate.listen.ip().is_loopback(), "must be a loopback address");
    }
}

impl Agent {
    fn check(&self, checks: &mut Checks<'_>) {
        let chars = self.provider_id.chars().count();
        checks.require("agent.provider_id", chars > 0, "is required");
        checks.require("agent.provider_id", chars <= 128, "must have at most 128 characters");
        checks.origin("agent.control_url", &self.control_url);
        checks.require("agent.state_dir", !self.state_dir.as_os_str().is_empty(), "must not be empty");
        checks.range("agent.heartbeat_seconds", self.heartbeat_seconds, 1..=60);
    }
}

impl Tunnel {
    fn check(&self, checks: &mut Checks<'_>) {
        let bin = &self.cloudflared_bin;
        checks.require("tunnel.cloudflared_bin", !bin.as_os_str().is_empty(), "must not be empty");
        let named = self.kind == TunnelKind::Named;
        let needed = "is required for kind = \"named\"";
        checks.require("tunnel.hostname", !named || self.hostname.is_some(), needed);
        checks.require("tunnel.token_file", !named || self.token_file.is_some(), needed);
        checks.hosts("tunnel.hostname", self.hostname.as_slice());
    }
}

impl Container {
    fn check(&self, checks: &mut Checks<'_>) {
        checks.not_empty("container.image", &self.image);
        let name = self.name.as_deref().is_none_or(is_container_name);
        checks.require("container.name", name, "must be letters, digits, '_', '.', '-'");
        checks.range("container.memory_bytes", self.memory_bytes, 256 << 20..=1 << 50);
        checks.range("container.cpus", self.cpus, 0.1..=1_024.0);
        checks.range("container.pids", self.pids, 32..=1_000_000);
        let is_plain = |gpu: &String| !gpu.is_empty() && gpu.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let gpus =
            self.gpus.iter().all(is_plain) && (self.gpus.len() == 1 || !self.gpus.iter().any(|gpu| gpu == "all"));
        checks.require("container.gpus", gpus, "must be [], [\"all\"], or indices or UUIDs");
        checks.range("container.sleep_after_seconds", self.sleep_after_seconds, 0..=604_800);
    }
}

impl Egress {
    fn check(&self, checks: &mut Checks<'_>) {
        let restricted = self.mode == EgressMode::Restricted;
        checks.require("egress.nft_bin", !self.nft_bin.as_os_str().is_empty(), "must not be empty");
        if let Some(cap_bytes) = self.daily_cap_bytes {
            checks.range("egress.daily_cap_bytes", cap_bytes, 1..=1 << 50);
            checks.require(
                "egress.daily_cap_bytes",
                restricted,
                "needs mode = \"restricted\": rules are what ends traffic",
            );
        }
    }
}

/// What Docker takes: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn is_container_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first_is_plain = chars.next().is_some_and(|first| first.is_ascii_alphanumeric());
    let rest = chars.as_str();
    first_is_plain && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}
