//! `[traces]`: where spans of requests go.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::check::Checks;

/// `[traces]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// A collector of OpenTelemetry, by OTLP over HTTP: `http://127.0.0.1:4318`; spans are sent to `/v1/traces` below it. None:
    /// no spans are made.
    pub otlp_url: Option<Url>,
    /// How many requests have a span; 0 to 1.
    pub ratio: f64,
}

impl Traces {
    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        if let Some(url) = &self.otlp_url {
            checks.base("traces.otlp_url", url);
        }
        checks.range("traces.ratio", self.ratio, 0.0..=1.0);
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self { otlp_url: None, ratio: 1.0 }
    }
}
