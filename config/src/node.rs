//! `runit.toml`: the gateway with its control API.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use runit_core::{LockMode, Secret};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::check::Checks;
use crate::limits::Limits;
use crate::store::Store;
use crate::traces::Traces;
use crate::webhooks::Webhooks;
use crate::{origins, secret};

/// Everything a node can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The data plane: what renters connect to.
    pub gateway: Gateway,
    /// What the data plane lets one renter, one session and all of them take.
    pub limits: Limits,
    /// Which providers' servers may be dialled, and how.
    pub upstream: Upstream,
    /// The control API and its sweeper.
    pub control: Control,
    /// Where the control plane keeps what it knows.
    pub store: Store,
    /// The byte cap and how it is leased.
    pub quota: Quota,
    /// How a session is bound to its renter's address.
    pub lock: Lock,
    /// The audit trail.
    pub audit: Audit,
    /// Who is told of events.
    pub webhooks: Webhooks,
    /// Logging.
    pub log: Log,
    /// Spans of requests for a collector.
    pub traces: Traces,
}

/// `[gateway]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Address and port that renters connect to.
    pub listen: SocketAddr,
    /// The gateway as renters' browsers name it: scheme, host and port, nothing after them.
    pub public_url: Url,
    /// Where every rental has a host name of its own, `<label>.<sessions_host>`, with the scheme and port of
    /// `public_url`: the name that they are under. None: all rentals share the origin of `public_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_host: Option<String>,
    /// Certificate and key of the listener. None: it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// For a connection's TLS handshake, and the PROXY protocol's header before it, in ms; 100 to 60,000.
    pub handshake_timeout_ms: u64,
    /// Address and port where plain HTTP is answered with a redirect to `public_url`, and with nothing else.
    pub redirect_listen: Option<SocketAddr>,
    /// For how long browsers are told to use `https://` for the gateway's host only (RFC 6797), in seconds; 0 (not at all)
    /// to 63,072,000. Said only where `public_url` is `https://`, by control too for its own.
    pub hsts_seconds: u64,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks of load balancers. If there are any, each connection has to come from one of them and to begin with a
    /// header of the PROXY protocol, version 2.
    pub proxy_protocol: Vec<IpNet>,
    /// Address and port of metrics and operator calls. Other than loopback only with `operator_key`.
    pub admin_listen: SocketAddr,
    /// What the admin listener demands as `Authorization: Bearer`; at least 16 characters. None: it demands nothing,
    /// which is allowed on loopback only.
    #[serde(default, skip_serializing, deserialize_with = "secret::deserialize")]
    pub operator_key: Option<Secret>,
    /// Longest request head, in bytes; 1,024 to 1,048,576.
    pub head_max_bytes: usize,
    /// From a connection's start to its first byte, in ms; 100 to 600,000.
    pub first_byte_timeout_ms: u64,
    /// From a head's first byte to its last, in ms; 100 to 600,000.
    pub head_timeout_ms: u64,
    /// How long an idle keep-alive connection stays open, in seconds; 1 to 3,600.
    pub keepalive_seconds: u64,
    /// How long a WebSocket may be silent both ways, in seconds; 1 to 604,800.
    pub websocket_idle_seconds: u64,
    /// After a successor took over: how long open connections may stay, in seconds; 0 to 604,800.
    pub drain_seconds: u64,
    /// Time for TCP and TLS to a provider, in ms; 100 to 600,000.
    pub upstream_connect_timeout_ms: u64,
    /// Time for a provider's first byte, in ms; 100 to 3,600,000.
    pub upstream_first_byte_timeout_ms: u64,
    /// How long a provider may be silent within an answer, or take nothing of a request, in ms; 100 to
    /// `upstream_first_byte_timeout_ms`.
    pub upstream_silence_timeout_ms: u64,
    /// Worker threads; 0 (one for each core, or for each of `cores`) to 1,024.
    pub threads: usize,
    /// The processor cores that the proxy's threads keep to, as the kernel numbers them, 0 to 1,023; everything else keeps
    /// off them, where the process may use others. None: all run on any.
    pub cores: BTreeSet<usize>,
}

/// A certificate with its key, as PEM files. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The chain, the listener's own certificate first.
    pub certificate: PathBuf,
    /// The private key; not for everybody to read.
    pub key: PathBuf,
}

/// `[upstream]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Exact host names that a provider may register beside `<label>.trycloudflare.com`.
    pub hosts: Vec<String>,
    /// Names or addresses that may be registered with plain `http://`, and with loopback or private addresses:
    /// for use on one machine.
    pub plain_http_hosts: Vec<String>,
    /// PEM file of the roots that are trusted for providers' certificates, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Whether `runit-gateway` serves the control API. Without it, it is a data plane only, and another process that
    /// shares the store serves the API.
    pub enabled: bool,
    /// Address and port of the control API and the renter's pages.
    pub listen: SocketAddr,
    /// The control API as providers and renters name it: scheme, host and port, nothing after them.
    pub public_url: Url,
    /// Directory of the embedded store and of the sealing key; created at the first start.
    pub data_dir: PathBuf,
    /// Certificate and key of the listener. None: it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may register sessions.
    pub registration: Registration,
    /// A provider that sends no heartbeat for this long is removed, in seconds; 1 to 86,400.
    pub provider_silent_seconds: u64,
    /// A renter who is absent for this long loses the lock, in seconds; 1 to 86,400.
    pub renter_absent_seconds: u64,
    /// How often the sweeper looks for either, in ms; 10 to 60,000.
    pub sweep_interval_ms: u64,
    /// Longest request body, in bytes; 1,024 to 1,073,741,824.
    pub body_max_bytes: usize,
    /// Calls for each address, whatever they are.
    pub general_limit: Limit,
    /// Sessions created for each address.
    pub creation_limit: Limit,
    /// Heartbeats for each address.
    pub heartbeat_limit: Limit,
    /// Tries of renters to go on from another address, for each address; and moves of a session's lock.
    pub reconnect_limit: Limit,
    /// Origins of renter's pages that are hosted elsewhere; they get CORS, without credentials.
    pub cors_origins: Vec<Url>,
}

/// Who may register sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody.
    #[default]
    Open,
    /// Providers with a key that an operator has made for their name.
    Key,
}

/// At most `requests` in any `seconds`, wherever that window starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// 1 to 1,000,000.
    pub requests: u32,
    /// 1 to 86,400.
    pub seconds: u64,
}

/// `[quota]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes in and out, for each session, in any 24 hours; 1 to 2^50.
    pub cap_bytes: u64,
    /// Smallest lease away from the cap, in bytes; 1 to `lease_max_bytes`.
    pub lease_min_bytes: u64,
    /// Largest lease, in bytes; up to 2^30.
    pub lease_max_bytes: u64,
    /// How long a lease may be spent from, in seconds; 1 to 3,600.
    pub lease_ttl_seconds: u64,
    /// How long a stream waits for a lease before it is cut, in ms; 10 to 60,000 and shorter than a lease.
    pub renewal_wait_ms: u64,
}

/// `[lock]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// How closely an address must match the lock's.
    pub mode: LockMode,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Events that the store keeps at the most; 1,000 to 100,000,000.
    pub keep_events: u64,
    /// Days that the store keeps an event for; 1 to 36,500.
    pub keep_days: u64,
    /// Days that the store keeps the usage record of a lock for after its end, before it is added to a sum; 1 to 36,500.
    /// None: for ever.
    pub keep_usage_days: Option<u64>,
    /// Where the trail's last sealed head is written down outside of the store; none: beside it.
    pub anchor_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A `tracing` filter: a level, or `target=level` parts with commas between them.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: local_url(8080),
            sessions_host: None,
            tls: None,
            handshake_timeout_ms: 5_000,
            redirect_listen: None,
            hsts_seconds: 31_536_000,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9180)),
            operator_key: None,
            head_max_bytes: 32 * 1024,
            first_byte_timeout_ms: 10_000,
            head_timeout_ms: 3_000,
            keepalive_seconds: 75,
            websocket_idle_seconds: 3_600,
            drain_seconds: 3_600,
            upstream_connect_timeout_ms: 10_000,
            upstream_first_byte_timeout_ms: 100_000,
            upstream_silence_timeout_ms: 100_000,
            threads: 0,
            cores: BTreeSet::new(),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 10_000)),
            public_url: local_url(10_000),
            data_dir: PathBuf::from("/var/lib/runit"),
            tls: None,
            trusted_proxies: Vec::new(),
            registration: Registration::default(),
            provider_silent_seconds: 120,
            renter_absent_seconds: 60,
            sweep_interval_ms: 1_000,
            body_max_bytes: 10 * 1024 * 1024,
            general_limit: Limit { requests: 100, seconds: 900 },
            creation_limit: Limit { requests: 10, seconds: 300 },
            heartbeat_limit: Limit { requests: 100, seconds: 60 },
            reconnect_limit: Limit { requests: 5, seconds: 600 },
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            cap_bytes: 10 << 30,
            lease_min_bytes: 1 << 20,
            lease_max_bytes: 64 << 20,
            lease_ttl_seconds: 60,
            renewal_wait_ms: 5_000,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep_events: 1_000_000, keep_days: 365, keep_usage_days: None, anchor_file: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::default() }
    }
}

impl NodeSettings {
    pub(crate) const SECTIONS: [&str; 11] =
        ["gateway", "limits", "upstream", "control", "store", "quota", "lock", "audit", "webhooks", "log", "traces"];

    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        self.gateway.check(checks);
        self.limits.check(checks);
        self.control.check(checks);
        self.store.check(checks);
        let served = self.control.enabled || self.store.url.is_some();
        checks.require("control.enabled", served, "can only be false with store.url: nobody would serve the API");
        self.quota.check(checks);
        self.audit.check(checks);
        self.webhooks.check(checks);
        self.traces.check(checks);
        origins::check(&self.gateway, &self.control, checks);
        checks.hosts("upstream.hosts", &self.upstream.hosts);
        checks.hosts("upstream.plain_http_hosts", &self.upstream.plain_http_hosts);
        checks.not_empty("log.filter", &self.log.filter);
        let redirect = self.gateway.redirect_listen.map(|address| ("gateway.redirect_listen", address));
        let listeners = [
            ("gateway.listen", self.gateway.listen),
            ("gateway.admin_listen", self.gateway.admin_listen),
            ("control.listen", self.control.listen),
        ];
        checks.distinct(&listeners.into_iter().chain(redirect).collect::<Vec<_>>());
        let (gateway, control) = (&self.gateway.public_url, &self.control.public_url);
        let locks_out =
            self.gateway.hsts_seconds > 0 && gateway.scheme() != control.scheme() && gateway.host() == control.host();
        let message = "would lock browsers out: gateway.public_url and control.public_url have one host, and only one of \
                       them https://; set 0, or use it for both";
        checks.require("gateway.hsts_seconds", !locks_out, message);
    }
}

impl Gateway {
    const OPERATOR_KEY_MIN_CHARS: usize = 16;

    fn check(&self, checks: &mut Checks<'_>) {
        checks.origin("gateway.public_url", &self.public_url);
        match &self.operator_key {
            Some(key) => {
                let enough = key.expose().chars().count() >= Self::OPERATOR_KEY_MIN_CHARS;
                checks.require("gateway.operator_key", enough, "must have at least 16 characters");
            }
            None => {
                let loopback = self.admin_listen.ip().is_loopback();
                checks.require("gateway.admin_listen", loopback, "needs gateway.operator_key unless it is loopback");
            }
        }
        let is_https = self.public_url.scheme() == "https";
        checks.require("gateway.tls", is_https || self.tls.is_none(), "needs an https:// gateway.public_url");
        let message = "needs an https:// gateway.public_url to redirect to";
        checks.require("gateway.redirect_listen", is_https || self.redirect_listen.is_none(), message);
        checks.range("gateway.handshake_timeout_ms", self.handshake_timeout_ms, 100..=60_000);
        checks.range("gateway.hsts_seconds", self.hsts_seconds, 0..=63_072_000);
        checks.some_networks("gateway.trusted_proxies", &self.trusted_proxies);
        checks.some_networks("gateway.proxy_protocol", &self.proxy_protocol);
        checks.range("gateway.head_max_bytes", self.head_max_bytes, 1_024..=1 << 20);
        checks.range("gateway.first_byte_timeout_ms", self.first_byte_timeout_ms, 100..=600_000);
        checks.range("gateway.head_timeout_ms", self.head_timeout_ms, 100..=600_000);
        checks.range("gateway.keepalive_seconds", self.keepalive_seconds, 1..=3_600);
        checks.range("gateway.websocket_idle_seconds", self.websocket_idle_seconds, 1..=604_800);
        checks.range("gateway.drain_seconds", self.drain_seconds, 0..=604_800);
        checks.range("gateway.upstream_connect_timeout_ms", self.upstream_connect_timeout_ms, 100..=600_000);
        checks.range("gateway.upstream_first_byte_timeout_ms", self.upstream_first_byte_timeout_ms, 100..=3_600_000);
        let longest_silence = self.upstream_first_byte_timeout_ms;
        checks.range("gateway.upstream_silence_timeout_ms", self.upstream_silence_timeout_ms, 100..=longest_silence);
        checks.range("gateway.threads", self.threads, 0..=1_024);
        self.cores.iter().for_each(|&core| checks.range("gateway.cores", core, 0..=1_023));
    }
}

impl Control {
    fn check(&self, checks: &mut Checks<'_>) {
        checks.origin("control.public_url", &self.public_url);
        let is_https = self.public_url.scheme() == "https";
        checks.require("control.tls", is_https || self.tls.is_none(), "needs an https:// control.public_url");
        checks.some_networks("control.trusted_proxies", &self.trusted_proxies);
        checks.require("control.data_dir", !self.data_dir.as_os_str().is_empty(), "must not be empty");
        checks.range("control.provider_silent_seconds", self.provider_silent_seconds, 1..=86_400);
        checks.range("control.renter_absent_seconds", self.renter_absent_seconds, 1..=86_400);
        checks.range("control.sweep_interval_ms", self.sweep_interval_ms, 10..=60_000);
        checks.range("control.body_max_bytes", self.body_max_bytes, 1_024..=1 << 30);
        for (key, limit) in [
            ("control.general_limit", self.general_limit),
            ("control.creation_limit", self.creation_limit),
            ("control.heartbeat_limit", self.heartbeat_limit),
            ("control.reconnect_limit", self.reconnect_limit),
        ] {
            checks.limit(key, limit);
        }
        for origin in &self.cors_origins {
            checks.origin("control.cors_origins", origin);
        }
    }
}

impl Quota {
    fn check(&self, checks: &mut Checks<'_>) {
        checks.range("quota.cap_bytes", self.cap_bytes, 1..=1 << 50);
        checks.range("quota.lease_min_bytes", self.lease_min_bytes, 1..=1 << 30);
        checks.range("quota.lease_max_bytes", self.lease_max_bytes, 1..=1 << 30);
        checks.range("quota.lease_ttl_seconds", self.lease_ttl_seconds, 1..=3_600);
        checks.range("quota.renewal_wait_ms", self.renewal_wait_ms, 10..=60_000);
        checks.require(
            "quota.lease_min_bytes",
            self.lease_min_bytes <= self.lease_max_bytes,
            "must not be more than quota.lease_max_bytes",
        );
        checks.require(
            "quota.renewal_wait_ms",
            self.renewal_wait_ms < self.lease_ttl_seconds.saturating_mul(1_000),
            "must be shorter than quota.lease_ttl_seconds",
        );
    }
}

impl Audit {
    fn check(&self, checks: &mut Checks<'_>) {
        checks.range("audit.keep_events", self.keep_events, 1_000..=100_000_000);
        checks.range("audit.keep_days", self.keep_days, 1..=36_500);
        if let Some(days) = self.keep_usage_days {
            checks.range("audit.keep_usage_days", days, 1..=36_500);
        }
    }
}

fn local_url(port: u16) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}")).expect("a scheme, an address and a port")
}
