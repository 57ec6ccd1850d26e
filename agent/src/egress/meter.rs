//! How much a session's container moved by itself in the last 24 hours. Pure: time comes in as a value.
//!
//! The engine counts a container's interfaces from the container's start; the gate counts what of that was the
//! renter's own traffic. The rest is egress. It is kept by the hour, and an hour counts until it is over for 24 hours:
//! the sum is never below that of the last 24 hours, and never above that of the last 25.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const HOUR_SECS: u64 = 60 * 60;
const WINDOW_HOURS: u64 = 24;

/// Bytes by the hour, kept with the session's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage {
    bytes_by_hour: BTreeMap<u64, u64>,
}

impl Usage {
    /// Books bytes at `unix_secs`. A clock that steps back books into the latest hour that is known.
    pub fn add(&mut self, bytes: u64, unix_secs: u64) {
        let hour = self.hour(unix_secs);
        self.bytes_by_hour.retain(|&then, _| then + WINDOW_HOURS >= hour);
        if bytes > 0 {
            let booked = self.bytes_by_hour.entry(hour).or_default();
            *booked = booked.saturating_add(bytes);
        }
    }

    /// What counts at `unix_secs`.
    pub fn bytes(&self, unix_secs: u64) -> u64 {
        let hour = self.hour(unix_secs);
        let counted = self.bytes_by_hour.iter().filter(|&(&then, _)| then + WINDOW_HOURS >= hour);
        counted.fold(0, |sum, (_, &bytes)| sum.saturating_add(bytes))
    }

    fn hour(&self, unix_secs: u64) -> u64 {
        (unix_secs / HOUR_SECS).max(self.bytes_by_hour.last_key_value().map_or(0, |(&last, _)| last))
    }
}

/// Turns the two running counters of a container into what is new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    engine: u64,
    gate: u64,
    /// The gate counted more than the engine so far: a sample was taken in between.
    ahead: u64,
}

impl Counters {
    /// What the container moved by itself since the last reading. A counter that is lower than it was belongs to a new
    /// container.
    pub fn read(&mut self, engine: u64, gate: u64) -> u64 {
        let since = |now: u64, last: u64| now.checked_sub(last).unwrap_or(now);
        let moved = since(engine, self.engine);
        let renters = since(gate, self.gate).saturating_add(self.ahead);
        (self.engine, self.gate) = (engine, gate);
        self.ahead = renters.saturating_sub(moved);
        moved.saturating_sub(renters)
    }

    /// A new container: its counters start at 0, the gate's go on.
    pub fn container_started(&mut self) {
        self.engine = 0;
        self.ahead = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR_SECS;

    #[test]
    fn an_hour_counts_until_it_is_over_for_a_day() {
        let mut usage = Usage::default();
        let start = 1_000 * HOUR_SECS;
        usage.add(5, start);
        usage.add(7, start + HOUR_SECS - 1);
        assert_eq!(usage.bytes(start + HOUR_SECS - 1 + DAY), 12);
        assert_eq!(usage.bytes(start + HOUR_SECS + DAY), 0);
        usage.add(1, start + HOUR_SECS + DAY);
        assert_eq!(usage.bytes(start + HOUR_SECS + DAY), 1);
    }

    #[test]
    fn a_clock_that_steps_back_frees_nothing() {
        let mut usage = Usage::default();
        usage.add(5, 10 * DAY);
        usage.add(7, 0);
        assert_eq!(usage.bytes(0), 12);
        assert_eq!(usage.bytes(10 * DAY), 12);
    }

    #[test]
    fn no_more_than_a_day_and_an_hour_is_kept() {
        let mut usage = Usage::default();
        (0..1_000).for_each(|hour| usage.add(1, hour * HOUR_SECS));
        assert_eq!(usage.bytes_by_hour.len(), 25);
    }

    #[test]
    fn only_what_the_gate_did_not_carry_is_the_containers_own() {
        let mut counters = Counters::default();
        assert_eq!(counters.read(1_000, 400), 600);
        assert_eq!(counters.read(1_500, 900), 0);
        assert_eq!(counters.read(1_500, 900), 0);
        assert_eq!(counters.read(2_000, 900), 500);
    }

    #[test]
    fn a_gate_that_counted_first_is_settled_with_the_next_reading() {
        let mut counters = Counters::default();
        assert_eq!(counters.read(100, 300), 0);
        assert_eq!(counters.read(400, 300), 100);
    }

    #[test]
    fn a_new_container_starts_at_nothing() {
        let mut counters = Counters::default();
        counters.read(1_000_000, 0);
        assert_eq!(counters.read(10, 0), 10);
        counters.container_started();
        assert_eq!(counters.read(2_000, 0), 2_000);
    }
}
