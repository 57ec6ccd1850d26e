//! Every metric of the data plane. Labels come from closed sets; none is an id, a token, an address or a path.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use runit_core::Timestamp;

use crate::answer::Refusal;
use crate::connection::Cut;
use crate::places::Full;
use crate::reception::Unwelcome;

/// The data plane's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) refusals: IntCounterVec,
    pub(crate) cuts: IntCounterVec,
    pub(crate) turned_away: IntCounterVec,
    pub(crate) bytes_in: IntCounter,
    pub(crate) bytes_out: IntCounter,
    pub(crate) leased_bytes: IntCounter,
    pub(crate) leases_failed: IntCounter,
    pub(crate) caps_reached: IntCounter,
    pub(crate) refunded_bytes: IntCounter,
    pub(crate) overshoot_bytes: IntCounter,
    pub(crate) audit_difference: IntCounter,
    pub(crate) settlement_lag: Gauge,
    pub(crate) connections: IntGauge,
    pub(crate) websockets: IntGauge,
    pub(crate) websocket_waits: IntCounter,
    pub(crate) sessions: IntGauge,
    pub(crate) unwelcome: IntCounterVec,
    certificates: IntCounterVec,
    certificate_expiry: Gauge,
    reload_successful: IntGauge,
    reloaded_at: Gauge,
}

impl Metrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// If two metrics had the same name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        // Each is there from 0 on: a first one that comes with its counter is no increase to Prometheus.
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| -> Result<_, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let bytes = IntCounterVec::new(
            Opts::new("runit_quota_spent_bytes_total", "Bytes charged to sessions, by direction."),
            &["direction"],
        )?;
        registry.register(Box::new(bytes.clone()))?;
        Ok(Self {
            requests: counters(
                "runit_gateway_requests_total",
                "Requests passed to providers, by the class of the answer's status.",
                "status_class",
                &["1xx", "2xx", "3xx", "4xx", "5xx"],
            )?,
            refusals: counters(
                "runit_gateway_refusals_total",
                "Requests that the gateway answered itself, by reason.",
                "reason",
                &Refusal::ALL.map(|refusal| refusal.row().1),
            )?,
            cuts: counters(
                "runit_gateway_cuts_total",
                "Connections that the gateway ended, by reason.",
                "reason",
                &Cut::ALL.map(Cut::label),
            )?,
            turned_away: counters(
                "runit_gateway_turned_away_total",
                "Connections that were closed before a byte was read, by the limit that they ran into.",
                "limit",
                &Full::ALL.map(Full::label),
            )?,
            bytes_in: bytes.with_label_values(&["in"]),
            bytes_out: bytes.with_label_values(&["out"]),
            leased_bytes: counter("runit_quota_leased_bytes_total", "Bytes leased from the ledger.")?,
            leases_failed: counter("runit_gateway_lease_failures_total", "Leases that could not be had in time.")?,
            caps_reached: counter("runit_gateway_caps_reached_total", "Sessions that ran into their byte cap.")?,
            refunded_bytes: counter("runit_quota_refunded_bytes_total", "Leased bytes given back unspent.")?,
            overshoot_bytes: counter(
                "runit_quota_overshoot_bytes_total",
                "Bytes spent that no lease covered; anything but zero is a bug.",
            )?,
            audit_difference: counter(
                "runit_quota_audit_difference_bytes_total",
                "Bytes by which what sockets saw and what was accounted for differ; anything but zero is a bug.",
            )?,
            settlement_lag: {
                let lag = Gauge::new(
                    "runit_quota_settlement_lag_seconds",
                    "For how long usage has not been reported to the ledger; zero when the last report arrived.",
                )?;
                registry.register(Box::new(lag.clone()))?;
                lag
            },
            connections: gauge("runit_gateway_connections", "Open connections of renters.")?,
            websockets: gauge("runit_gateway_websockets", "Open WebSockets of renters.")?,
            websocket_waits: counter(
                "runit_gateway_websocket_waits_total",
                "Times that a WebSocket had to wait, since its session's small parts came too fast.",
            )?,
            sessions: gauge("runit_gateway_sessions", "Sessions in this node's directory.")?,
            unwelcome: counters(
                "runit_gateway_handshakes_failed_total",
                "Connections that were closed before their first request, by reason.",
                "reason",
                &Unwelcome::ALL.map(Unwelcome::label),
            )?,
            certificates: counters(
                "runit_gateway_tls_certificate_changes_total",
                "Changes of the certificate's files, by outcome.",
                "outcome",
                &["replaced", "broken"],
            )?,
            certificate_expiry: {
                let expiry = Gauge::new(
                    "runit_gateway_tls_certificate_expiry_timestamp_seconds",
                    "When the certificate in use ends, as Unix time; 0 without TLS.",
                )?;
                registry.register(Box::new(expiry.clone()))?;
                expiry
            },
            reload_successful: {
                let successful = gauge(
                    "runit_gateway_settings_reload_successful",
                    "1 unless the last SIGHUP found broken settings.",
                )?;
                successful.set(1);
                successful
            },
            reloaded_at: {
                let at = Gauge::new(
                    "runit_gateway_settings_loaded_timestamp_seconds",
                    "When the settings in force were read, as Unix time.",
                )?;
                registry.register(Box::new(at.clone()))?;
                at.set(unix_seconds());
                at
            },
            registry,
        })
    }

    /// Which certificate is in use.
    pub(crate) fn note_certificate(&self, expires_at: Timestamp) {
        self.certificate_expiry.set(Duration::from_millis(expires_at.unix_ms()).as_secs_f64());
    }

    /// The certificate's files have changed.
    pub(crate) fn note_certificate_change(&self, replaced: bool) {
        self.certificates.with_label_values(&[if replaced { "replaced" } else { "broken" }]).inc();
    }

    /// The settings were read again, or were broken.
    pub fn note_reload(&self, successful: bool) {
        self.reload_successful.set(i64::from(successful));
        if successful {
            self.reloaded_at.set(unix_seconds());
        }
    }

    /// All that there is to scrape.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

/// For timestamps that are only shown.
fn unix_seconds() -> f64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_convention() {
        let metrics = Metrics::new().expect("no name twice");
        for family in metrics.gather() {
            let name = family.name();
            assert!(name.starts_with("runit_gateway_") || name.starts_with("runit_quota_"), "{name}");
            assert!(!family.help().is_empty() && !family.get_metric().is_empty(), "{name}");
        }
    }
}
