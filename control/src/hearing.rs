//! Since when this process can hear of providers and renters: who was not heard of before that was not silent.
//!
//! A process that was stopped, or whose store was away, begins anew: heartbeats of that time went unheard, or wait in the
//! memory of other nodes. For as long as the store is away, whoever tells this process that he is there must be told that
//! nobody else hears it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runit_core::Timestamp;

/// A round that comes so long after the last good one comes after a gap, or more than two rounds later.
const GAP: Duration = Duration::from_secs(10);

/// Since when.
pub(crate) struct Hearing {
    gap: Duration,
    times: Mutex<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    since: Timestamp,
    last_good: Instant,
    last_reached: Instant,
}

impl Hearing {
    /// From now on; a round is to come at each `interval`.
    pub(crate) fn new(now: Timestamp, instant: Instant, interval: Duration) -> Self {
        let times = Times { since: now, last_good: instant, last_reached: instant };
        Self { gap: GAP.max(interval * 2), times: Mutex::new(times) }
    }

    /// The store has taken what was heard, or had nothing to take and answered: in the midst of a round, which may be long.
    pub(crate) fn reached(&self, instant: Instant) {
        self.times().last_reached = instant;
    }

    /// A round of the sweeper ended well.
    pub(crate) fn heard(&self, now: Timestamp, instant: Instant) {
        let mut times = self.times();
        if self.is_over(times.last_good, instant) {
            times.since = now;
        }
        times.last_good = instant;
    }

    /// From when on silence counts.
    pub(crate) fn since(&self, now: Timestamp, instant: Instant) -> Timestamp {
        let times = self.times();
        if self.is_over(times.last_good, instant) { now } else { times.since }
    }

    /// Whether the store has been away for so long that what is heard here may not count.
    pub(crate) fn is_cut_off(&self, instant: Instant) -> bool {
        self.is_over(self.times().last_reached, instant)
    }

    fn is_over(&self, last: Instant, instant: Instant) -> bool {
        instant.saturating_duration_since(last) > self.gap
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_start_and_anew_after_a_gap() {
        let start = Instant::now();
        let at = |seconds| (Timestamp::from_unix_ms(seconds * 1000), start + Duration::from_secs(seconds));
        let since = |hearing: &Hearing, (now, instant)| hearing.since(now, instant).unix_ms() / 1000;
        let (now, instant) = at(0);
        let hearing = Hearing::new(now, instant, Duration::from_secs(1));
        for (now, instant) in (1..=60).map(at) {
            hearing.heard(now, instant);
        }
        assert_eq!(since(&hearing, at(70)), 0, "a hiccup is no gap");
        assert_eq!(since(&hearing, at(71)), 71, "stopped, or without a store, and not swept since");
        let (now, instant) = at(80);
        hearing.heard(now, instant);
        assert_eq!(since(&hearing, at(81)), 80);
    }

    #[test]
    fn a_process_is_cut_off_when_its_store_is_not_reached_for_longer_than_rounds_take() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let hearing = Hearing::new(Timestamp::default(), start, Duration::from_secs(1));
        assert!(!hearing.is_cut_off(after(10)) && hearing.is_cut_off(after(11)));
        hearing.reached(after(11));
        assert!(!hearing.is_cut_off(after(21)) && hearing.is_cut_off(after(22)));
        let slow = Hearing::new(Timestamp::default(), start, Duration::from_secs(60));
        assert!(!slow.is_cut_off(after(120)) && slow.is_cut_off(after(121)));
    }
}
