//! Rounds, and what becomes of their numbers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::peer::Peer;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds that count; one more before them does not.
    pub(crate) rounds: usize,
    /// Of one peer's turn.
    pub(crate) turn: Duration,
    /// By what sizes and numbers are divided.
    pub(crate) shrink: u64,
}

impl Effort {
    /// What a result that is to be kept is made with.
    pub(crate) const FULL: Self = Self { rounds: 7, turn: Duration::from_secs(1), shrink: 1 };
    /// For a look: its numbers say little.
    pub(crate) const QUICK: Self = Self { rounds: 3, turn: Duration::from_millis(400), shrink: 8 };
}

/// A number that a scenario measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Processor time of the proxy for one unit of work, in µs.
    CpuMicros,
    /// Units of work in a second.
    Rate,
    /// Bytes (in 10^9) that move in a second.
    Throughput,
    /// Bytes (in 10^9) that move for each second of the proxy's processor time.
    PerCpu,
    /// Latency in µs: half of all are faster.
    Median,
    /// Latency in µs: 99 of 100 are faster.
    P99,
    /// Milliseconds from the first request of a page load to its last answer.
    Load,
    /// Resident memory, in KiB, for each thing that is held.
    Memory,
    /// Share of things that were held, or that stayed, in percent.
    Held,
    /// Bytes beyond the cap (or short of it, if negative), in KiB.
    Overshoot,
    /// Milliseconds until everything was cut.
    CutAfter,
}

impl Metric {
    /// With its unit.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CpuMicros => "CPU, µs",
            Self::Rate => "per second",
            Self::Throughput => "GB/s",
            Self::PerCpu => "GB per CPU second",
            Self::Median => "p50, µs",
            Self::P99 => "p99, µs",
            Self::Load => "load, ms",
            Self::Memory => "KiB each",
            Self::Held => "held, %",
            Self::Overshoot => "beyond the cap, KiB",
            Self::CutAfter => "until cut, ms",
        }
    }
}

/// What one turn did.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Units of work.
    pub(crate) done: u64,
    pub(crate) bytes: u64,
    /// In ns.
    pub(crate) latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("bounds that it takes");
        Self { done: 0, bytes: 0, latency }
    }
}

impl Tally {
    /// Counts one unit that began at `start`.
    pub(crate) fn count(&mut self, start: Instant, bytes: u64) {
        self.done += 1;
        self.bytes += bytes;
        self.latency.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// A quantile of the latency, in µs.
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        nanos(self.latency.value_at_quantile(quantile)) / 1e3
    }
}

/// One peer's numbers: for each metric one of each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Samples {
    /// A peer, or a variant of RUNIT.
    pub(crate) of: String,
    pub(crate) by_metric: BTreeMap<Metric, Vec<f64>>,
}

impl Samples {
    /// None yet.
    pub(crate) fn of(name: impl Into<String>) -> Self {
        Self { of: name.into(), by_metric: BTreeMap::new() }
    }

    /// Notes a number of the current round.
    pub(crate) fn note(&mut self, metric: Metric, value: f64) {
        self.by_metric.entry(metric).or_default().push(value);
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, metric: Metric) -> Option<f64> {
        self.by_metric.get(&metric).and_then(|values| quantile(values, 0.5))
    }

    /// Between these lie the middle half of the rounds.
    pub(crate) fn spread(&self, metric: Metric) -> Option<(f64, f64)> {
        let values = self.by_metric.get(&metric)?;
        Some((quantile(values, 0.25)?, quantile(values, 0.75)?))
    }
}

fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = at * (sorted.len().checked_sub(1)? as f64);
    let (low, high) = (sorted.get(position.floor() as usize)?, sorted.get(position.ceil() as usize)?);
    Some(low + (high - low) * position.fract())
}

/// Gives each peer its turn, round after round, the first of which does not count; `note` takes the numbers of a turn.
///
/// # Errors
/// When a turn fails: a result with holes is none.
pub(crate) async fn rounds(
    peers: &mut [Peer],
    effort: Effort,
    mut turn: impl AsyncFnMut(&mut Peer) -> Result<Tally>,
    note: impl Fn(&mut Samples, &Tally, &Turn),
) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = peers.iter().map(|peer| Samples::of(peer.kind.name())).collect();
    for round in 0..=effort.rounds {
        for (peer, samples) in peers.iter_mut().zip(&mut samples) {
            let (cpu, start) = (peer.cpu(), Instant::now());
            let tally = turn(peer).await.with_context(|| format!("{}, round {round}", peer.kind.name()))?;
            let took = start.elapsed();
            let cpu = peer.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
            if round > 0 {
                note(samples, &tally, &Turn { took, cpu });
            }
        }
    }
    Ok(samples)
}

/// How long a turn took, by the clock and of the proxy's processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) took: Duration,
    pub(crate) cpu: Option<Duration>,
}

/// Rate, latency and processor time of units of work.
pub(crate) fn note_units(samples: &mut Samples, tally: &Tally, turn: &Turn) {
    let done = tally.done as f64;
    samples.note(Metric::Rate, done / turn.took.as_secs_f64());
    samples.note(Metric::Median, tally.micros(0.5));
    samples.note(Metric::P99, tally.micros(0.99));
    if let Some(cpu) = turn.cpu {
        samples.note(Metric::CpuMicros, cpu.as_secs_f64() * 1e6 / done);
    }
}

/// Throughput by the clock and by processor time.
pub(crate) fn note_bytes(samples: &mut Samples, tally: &Tally, turn: &Turn) {
    let gigabytes = tally.bytes as f64 / 1e9;
    samples.note(Metric::Throughput, gigabytes / turn.took.as_secs_f64());
    if let Some(cpu) = turn.cpu {
        samples.note(Metric::PerCpu, gigabytes / cpu.as_secs_f64());
    }
}

fn nanos(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_a_spread_the_middle_half() {
        let mut samples = Samples::of("x");
        for value in [9.0, 1.0, 2.0, 100.0, 3.0] {
            samples.note(Metric::Rate, value);
        }
        assert_eq!(samples.median(Metric::Rate), Some(3.0));
        assert_eq!(samples.spread(Metric::Rate), Some((2.0, 9.0)));
        assert_eq!(samples.median(Metric::Load), None);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
    }
}
