//! `[webhooks]`: who is told of events.

use std::collections::BTreeSet;

use runit_core::Secret;
use serde::{Deserialize, Serialize};

use crate::check::Checks;
use crate::secret;

/// `[webhooks]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Receivers; at most 16.
    pub targets: Vec<WebhookTarget>,
    /// How long an attempt may take, in ms; 100 to 60,000.
    pub timeout_ms: u64,
    /// About how long to wait after the first failure, in ms, doubled with each further one; 10 to 60,000.
    pub first_retry_ms: u64,
    /// Receivers' hosts that may be inside, and be spoken to without TLS.
    pub plain_http_hosts: Vec<String>,
}

/// One receiver of events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTarget {
    /// What metrics, log and commands call it; another name is another receiver, that begins with the next event.
    pub name: String,
    /// Where to.
    pub url: String,
    /// What messages are signed with: `whsec_` and base64.
    #[serde(skip_serializing, deserialize_with = "secret::required")]
    pub secret: Secret,
    /// Kinds of events; none: all.
    #[serde(default)]
    pub kinds: Vec<String>,
}

impl Webhooks {
    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        let names: BTreeSet<&str> = self.targets.iter().map(|target| &*target.name).collect();
        let distinct = names.len() == self.targets.len() && !names.contains("");
        checks.require("webhooks.targets", distinct, "each target needs a name of its own");
        checks.require("webhooks.targets", self.targets.len() <= 16, "must not be more than 16");
        checks.range("webhooks.timeout_ms", self.timeout_ms, 100..=60_000);
        checks.range("webhooks.first_retry_ms", self.first_retry_ms, 10..=60_000);
        checks.hosts("webhooks.plain_http_hosts", &self.plain_http_hosts);
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { targets: Vec::new(), timeout_ms: 5_000, first_retry_ms: 1_000, plain_http_hosts: Vec::new() }
    }
}
