//! What the gateway is meant to reach, as ratios of medians in one run.

use crate::measure::{Metric, Samples};
use crate::peer::Kind;
use crate::scenario::Scenario;

/// Which way a number has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) scenario: Scenario,
    pub(crate) metric: Metric,
    pub(crate) of: &'static str,
    /// Divided by this one's, or less this one's for a latency; none: as it stands.
    pub(crate) against: Option<&'static str>,
    pub(crate) bound: Bound,
}

/// What was reached.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) target: Target,
    pub(crate) reached: f64,
    pub(crate) holds: bool,
}

const RUNIT: &str = Kind::Runit.name();
const BARE: &str = Kind::BarePingora.name();
const NGINX: &str = Kind::Nginx.name();
const HAPROXY: &str = Kind::Haproxy.name();
const CHP: &str = Kind::Chp.name();
const DIRECT: &str = Kind::Direct.name();

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ratio(Scenario::Small, Metric::CpuMicros, BARE, Bound::AtMost(1.05)),
    ratio(Scenario::Small, Metric::CpuMicros, NGINX, Bound::AtMost(0.95)),
    ratio(Scenario::Small, Metric::CpuMicros, HAPROXY, Bound::AtMost(1.1)),
    ratio(Scenario::Small, Metric::CpuMicros, CHP, Bound::AtMost(0.15)),
    ratio(Scenario::Download, Metric::PerCpu, HAPROXY, Bound::AtLeast(1.0)),
    ratio(Scenario::Download, Metric::PerCpu, NGINX, Bound::AtLeast(1.5)),
    ratio(Scenario::Download, Metric::PerCpu, CHP, Bound::AtLeast(2.5)),
    ratio(Scenario::Echo, Metric::CpuMicros, BARE, Bound::AtMost(1.05)),
    ratio(Scenario::Echo, Metric::CpuMicros, CHP, Bound::AtMost(0.6)),
    ratio(Scenario::Echo, Metric::CpuMicros, HAPROXY, Bound::AtMost(1.2)),
    plain(Scenario::Idle, Metric::Memory, RUNIT, Bound::AtMost(40.0)),
    ratio(Scenario::Page, Metric::Load, DIRECT, Bound::AtMost(1.05)),
    Target {
        of: "100000 sessions",
        ..ratio(Scenario::Sessions, Metric::CpuMicros, "1000 sessions", Bound::AtMost(1.03))
    },
    plain(Scenario::Sessions, Metric::Memory, "100000 sessions", Bound::AtMost(1.0)),
    ratio(Scenario::Latency, Metric::Median, DIRECT, Bound::AtMost(150.0)),
    ratio(Scenario::Latency, Metric::P99, DIRECT, Bound::AtMost(1_000.0)),
    plain(Scenario::Idle, Metric::Held, RUNIT, Bound::AtLeast(100.0)),
    plain(Scenario::Cap, Metric::Overshoot, RUNIT, Bound::AtMost(0.0)),
    plain(Scenario::Fleet, Metric::P99, "heartbeats beside requests, one core", Bound::AtMost(50_000.0)),
    plain(Scenario::Fleet, Metric::P99, "heartbeats beside requests, two cores, shared", Bound::AtMost(50_000.0)),
    plain(Scenario::Fleet, Metric::P99, "heartbeats beside requests, two cores, apart", Bound::AtMost(50_000.0)),
    plain(Scenario::Fleet, Metric::Held, "requests beside heartbeats, one core", Bound::AtLeast(95.0)),
    plain(Scenario::Fleet, Metric::Held, "requests beside heartbeats, two cores, shared", Bound::AtLeast(95.0)),
    plain(Scenario::Fleet, Metric::Held, "requests beside heartbeats, two cores, apart", Bound::AtLeast(95.0)),
    plain(Scenario::Fleet, Metric::Memory, "heartbeats alone, two cores, apart", Bound::AtMost(1.5)),
];

const fn ratio(scenario: Scenario, metric: Metric, against: &'static str, bound: Bound) -> Target {
    Target { scenario, metric, of: RUNIT, against: Some(against), bound }
}

const fn plain(scenario: Scenario, metric: Metric, of: &'static str, bound: Bound) -> Target {
    Target { scenario, metric, of, against: None, bound }
}

impl Target {
    /// What is compared, in words.
    pub(crate) fn what(&self) -> String {
        let Self { metric, of, against, .. } = self;
        let (metric, scenario) = (metric.name(), self.scenario.name());
        match against {
            None => format!("{scenario}: {metric}, {of}"),
            Some(against) if self.is_difference() => format!("{scenario}: {metric}, {of} less {against}"),
            Some(against) => format!("{scenario}: {metric}, {of} to {against}"),
        }
    }

    fn is_difference(&self) -> bool {
        matches!(self.metric, Metric::Median | Metric::P99)
    }

    /// Looks it up in a scenario's numbers; none if they are not there.
    pub(crate) fn judge(self, measured: &[Samples]) -> Option<Verdict> {
        let median = |name: &str| measured.iter().find(|samples| samples.of == name)?.median(self.metric);
        let of = median(self.of)?;
        let reached = match self.against {
            None => of,
            Some(against) if self.is_difference() => of - median(against)?,
            Some(against) => of / median(against)?,
        };
        let holds = match self.bound {
            Bound::AtMost(most) => reached <= most,
            Bound::AtLeast(least) => reached >= least,
        };
        Some(Verdict { target: self, reached, holds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(of: &str, metric: Metric, value: f64) -> Samples {
        let mut samples = Samples::of(of);
        samples.note(metric, value);
        samples
    }

    #[test]
    fn ratios_differences_and_plain_numbers_are_judged_by_their_bounds() {
        let cpu = |of, value| measured(of, Metric::CpuMicros, value);
        let small = [cpu(RUNIT, 52.0), cpu(BARE, 50.0), cpu(CHP, 400.0)];
        let verdict = TARGETS[0].judge(&small).expect("both are there");
        assert!(verdict.holds && (verdict.reached - 1.04).abs() < 1e-9);
        assert!(TARGETS[1].judge(&small).is_none(), "nginx was not measured");
        let p50 = |of, value| measured(of, Metric::Median, value);
        let added = ratio(Scenario::Latency, Metric::Median, DIRECT, Bound::AtMost(150.0));
        assert!(!added.judge(&[p50(RUNIT, 260.0), p50(DIRECT, 100.0)]).expect("both are there").holds);
        assert!(
            plain(Scenario::Idle, Metric::Held, RUNIT, Bound::AtLeast(100.0))
                .judge(&[measured(RUNIT, Metric::Held, 99.9)])
                .is_some_and(|verdict| !verdict.holds)
        );
    }
}
