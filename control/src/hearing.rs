//! Since when this process can hear of providers and renters: who was not heard of before that was not silent.
//!
//! A process that was stopped, or whose store was away, begins anew: heartbeats of that time went unheard, or wait in the
//! memory of other nodes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runit_core::Timestamp;

/// A round that comes so long after the last good one comes after a gap.
const GAP: Duration = Duration::from_secs(10);

/// Since when.
pub(crate) struct Hearing(Mutex<Times>);

#[derive(Clone, Copy)]
struct Times {
    since: Timestamp,
    last_good: Instant,
}

impl Hearing {
    pub(crate) fn new(now: Timestamp, instant: Instant) -> Self {
        Self(Mutex::new(Times { since: now, last_good: instant }))
    }

    /// A round of the sweeper ended well.
    pub(crate) fn heard(&self, now: Timestamp, instant: Instant) {
        let mut times = self.times();
        if times.is_over(instant) {
            times.since = now;
        }
        times.last_good = instant;
    }

    /// From when on silence counts.
    pub(crate) fn since(&self, now: Timestamp, instant: Instant) -> Timestamp {
        let times = self.times();
        if times.is_over(instant) { now } else { times.since }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn is_over(&self, instant: Instant) -> bool {
        instant.saturating_duration_since(self.last_good) > GAP
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
        let hearing = Hearing::new(now, instant);
        for (now, instant) in (1..=60).map(at) {
            hearing.heard(now, instant);
        }
        assert_eq!(since(&hearing, at(70)), 0, "a hiccup is no gap");
        assert_eq!(since(&hearing, at(71)), 71, "stopped, or without a store, and not swept since");
        let (now, instant) = at(80);
        hearing.heard(now, instant);
        assert_eq!(since(&hearing, at(81)), 80);
    }
}
