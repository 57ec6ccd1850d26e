//! The control plane's Prometheus metrics, all of them.
//!
//! Labels come from closed sets: route templates, event kinds, names of limits and store operations; never an id, a
//! token, an address or a path that somebody sent.

use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use runit_core::Timestamp;
use runit_core::event::EventKind;
use runit_core::session::SessionStatus;
use runit_listener::places::Full;

use crate::directory::Counts;

/// Why a connection was closed before its first request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TurnedAway {
    /// It got no place.
    Full(Full),
    /// Another took its place.
    GaveWay,
    /// No request's head came in time.
    NoHead,
}

impl From<Full> for TurnedAway {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl TurnedAway {
    fn all() -> impl Iterator<Item = Self> {
        Full::ALL.into_iter().map(Self::Full).chain([Self::GaveWay, Self::NoHead])
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Full(full) => full.label(),
            Self::GaveWay => "gave_way",
            Self::NoHead => "no_head",
        }
    }
}

/// The metrics and the registry that they are in.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    problems: IntCounterVec,
    rate_limited: IntCounterVec,
    turned_away: IntCounterVec,
    events: IntCounterVec,
    sessions: IntGaugeVec,
    store_seconds: HistogramVec,
    store_errors: IntCounterVec,
    store_silence: Gauge,
    forfeited: IntCounter,
    webhooks: IntCounterVec,
    webhooks_missed: IntCounterVec,
    webhook_lag: GaugeVec,
    certificates: IntCounterVec,
    certificate_expiry: Gauge,
}

impl Metrics {
    /// # Errors
    /// When two metrics have one name: a mistake in this file.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            requests: counter(
                "runit_control_requests_total",
                "Requests answered by the control API, by route template and class of status",
                &["route", "status"],
            )?,
            problems: counter("runit_control_problems_total", "Requests refused, by code of the problem", &["code"])?,
            rate_limited: counter(
                "runit_control_rate_limited_total",
                "Requests refused with 429, by limit",
                &["limit"],
            )?,
            turned_away: counter(
                "runit_control_turned_away_total",
                "Connections closed before their first request or between two, by the limit that they ran into",
                &["limit"],
            )?,
            events: counter("runit_security_events_total", "Security events, by kind, also those not kept", &["kind"])?,
            sessions: IntGaugeVec::new(Opts::new("runit_sessions", "Live sessions, by state"), &["state"])?,
            store_seconds: HistogramVec::new(
                HistogramOpts::new("runit_store_seconds", "Time until the store answered, by operation")
                    .buckets(vec![0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
                &["operation"],
            )?,
            store_errors: counter("runit_store_errors_total", "Failures of the store, by operation", &["operation"])?,
            store_silence: Gauge::new(
                "runit_store_silence_seconds",
                "For how long the shared store has told of nothing, not even that nothing has changed; 0 for a node's own",
            )?,
            webhooks: counter(
                "runit_webhook_attempts_total",
                "Attempts to deliver webhooks, by target and outcome",
                &["receiver", "outcome"],
            )?,
            webhooks_missed: counter(
                "runit_webhook_missed_events_total",
                "Events that retention removed before a webhook's receiver had taken them",
                &["receiver"],
            )?,
            webhook_lag: GaugeVec::new(
                Opts::new("runit_webhook_lag_seconds", "Age of the event that a webhook's receiver has not taken yet"),
                &["receiver"],
            )?,
            forfeited: IntCounter::new(
                "runit_quota_forfeited_bytes_total",
                "Leased bytes charged without knowing that they moved: of nodes that died",
            )?,
            certificates: counter(
                "runit_control_tls_certificate_changes_total",
                "Changes of the certificate's files, by outcome",
                &["outcome"],
            )?,
            certificate_expiry: Gauge::new(
                "runit_control_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, as Unix time; 0 without TLS",
            )?,
        };
        metrics.registry.register(Box::new(metrics.certificates.clone()))?;
        metrics.registry.register(Box::new(metrics.certificate_expiry.clone()))?;
        metrics.registry.register(Box::new(metrics.webhooks.clone()))?;
        metrics.registry.register(Box::new(metrics.webhooks_missed.clone()))?;
        metrics.registry.register(Box::new(metrics.webhook_lag.clone()))?;
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.problems.clone()))?;
        metrics.registry.register(Box::new(metrics.rate_limited.clone()))?;
        metrics.registry.register(Box::new(metrics.turned_away.clone()))?;
        metrics.registry.register(Box::new(metrics.events.clone()))?;
        metrics.registry.register(Box::new(metrics.sessions.clone()))?;
        metrics.registry.register(Box::new(metrics.store_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.store_errors.clone()))?;
        metrics.registry.register(Box::new(metrics.store_silence.clone()))?;
        metrics.registry.register(Box::new(metrics.forfeited.clone()))?;
        for outcome in ["replaced", "broken"] {
            metrics.certificates.with_label_values(&[outcome]);
        }
        for why in TurnedAway::all() {
            metrics.turned_away.with_label_values(&[why.label()]);
        }
        for kind in EventKind::ALL {
            metrics.events.with_label_values(&[kind.as_str()]);
        }
        Ok(metrics)
    }

    /// One answer. `route` is a template such as `/renter/usage/{token}`.
    pub(crate) fn request(&self, route: &str, status: u16) {
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[route, class]).inc();
    }

    /// One refusal, by its code in the table of problems.
    pub(crate) fn problem(&self, code: &'static str) {
        self.problems.with_label_values(&[code]).inc();
    }

    /// One refusal for coming too often.
    pub(crate) fn rate_limited(&self, limit: &'static str) {
        self.rate_limited.with_label_values(&[limit]).inc();
    }

    /// One connection closed before its first request.
    pub(crate) fn turned_away(&self, why: TurnedAway) {
        self.turned_away.with_label_values(&[why.label()]).inc();
    }

    /// One security event.
    pub(crate) fn event(&self, kind: EventKind) {
        self.events.with_label_values(&[kind.as_str()]).inc();
    }

    /// How many of a kind there were.
    #[cfg(test)]
    pub(crate) fn events_of(&self, kind: EventKind) -> u64 {
        self.events.with_label_values(&[kind.as_str()]).get()
    }

    /// Which certificate is in use.
    pub(crate) fn certificate(&self, expires_at: Timestamp) {
        self.certificate_expiry.set(Duration::from_millis(expires_at.unix_ms()).as_secs_f64());
    }

    /// The certificate's files have changed.
    pub(crate) fn certificate_change(&self, replaced: bool) {
        self.certificates.with_label_values(&[if replaced { "replaced" } else { "broken" }]).inc();
    }

    /// Events that a receiver will not hear of.
    pub(crate) fn webhook_missed(&self, receiver: &str, events: u64) {
        self.webhooks_missed.with_label_values(&[receiver]).inc_by(events);
    }

    /// One attempt to deliver a webhook.
    pub(crate) fn webhook(&self, receiver: &str, outcome: &'static str) {
        self.webhooks.with_label_values(&[receiver, outcome]).inc();
    }

    /// How old the event is that a receiver has not taken yet.
    pub(crate) fn webhook_lag(&self, receiver: &str, lag: Duration) {
        self.webhook_lag.with_label_values(&[receiver]).set(lag.as_secs_f64());
    }

    /// One answer of the store. Its failures are counted from 0 on, or a first burst would be no increase.
    pub(crate) fn store(&self, operation: &'static str, took: Duration, failed: bool) {
        self.store_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
        self.store_errors.with_label_values(&[operation]).inc_by(failed.into());
    }

    /// All metrics, with the sessions counted now, the bytes forfeited so far, and how long the store has been silent.
    pub(crate) fn gather(&self, counts: Counts, forfeited: u64, silence: Duration) -> Vec<MetricFamily> {
        self.store_silence.set(silence.as_secs_f64());
        self.forfeited.inc_by(forfeited.saturating_sub(self.forfeited.get()));
        for (status, count) in [
            (SessionStatus::Ready, counts.ready),
            (SessionStatus::Locked, counts.locked),
            (SessionStatus::Recycling, counts.recycling),
        ] {
            self.sessions.with_label_values(&[status.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.registry.gather()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_an_operation_are_there_before_the_first_one() {
        let metrics = Metrics::new().expect("no name twice");
        let failures = || {
            let families = metrics.gather(Counts::default(), 0, Duration::ZERO);
            let errors = families.iter().find(|family| family.name() == "runit_store_errors_total")?;
            Some(errors.get_metric()[0].get_counter().get_value())
        };
        metrics.store("grant", Duration::ZERO, false);
        assert_eq!(failures(), Some(0.0));
        metrics.store("grant", Duration::ZERO, true);
        assert_eq!(failures(), Some(1.0));
    }
}
