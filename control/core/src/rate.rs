//! So many a second, and a burst at once: one number for each key, decided without a lock.
//!
//! The generic cell rate algorithm (ITU-T I.371): the number says until when the past is paid for. An event moves it on by
//! one interval and is refused where that would be more than a burst ahead of now. Unlike [`crate::limit`] this does not
//! bound each window exactly: in a window of `t` seconds at most `burst + t * per_second` pass.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `burst` at once, and `per_second` after that; zeros count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second, in the long run.
    pub per_second: u32,
    /// How many at once, after a pause.
    pub burst: u32,
}

/// What one key has used.
#[derive(Debug, Default)]
pub struct RateCell {
    /// Nanoseconds of the caller's clock. A word of its own: nothing else is read or published through it, so relaxed
    /// order is enough, and the compare-and-set makes each event count once.
    paid_until: AtomicU64,
}

impl Rate {
    /// When the past is paid for after one more event at `now`, both in nanoseconds.
    ///
    /// # Errors
    /// How long to wait before it may pass.
    fn advance(self, paid_until: u64, now: u64) -> Result<u64, Duration> {
        let next = paid_until.max(now).saturating_add(self.interval());
        let latest = self.latest(now);
        if next <= latest { Ok(next) } else { Err(Duration::from_nanos(next - latest)) }
    }

    /// Between two events in the long run, in nanoseconds.
    fn interval(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.max(1))
    }

    /// How far ahead of `now` the past may be paid for.
    fn latest(self, now: u64) -> u64 {
        now.saturating_add(self.interval().saturating_mul(u64::from(self.burst.max(1))))
    }
}

impl RateCell {
    /// One event at `now` that has happened: how long the next one is to wait, so that all together keep to the rate.
    pub fn note(&self, rate: Rate, now: Duration) -> Duration {
        let now = nanos(now);
        let paid = |seen: u64| seen.max(now).saturating_add(rate.interval());
        let before = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| Some(paid(seen)));
        let paid_until = paid(before.unwrap_or_else(|never| never));
        Duration::from_nanos(paid_until.saturating_sub(rate.latest(now)))
    }

    /// One event at `now`, which is the time since some fixed point.
    ///
    /// # Errors
    /// How long to wait before it may pass.
    pub fn admit(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut seen = self.paid_until.load(Ordering::Relaxed);
        loop {
            let next = rate.advance(seen, now)?;
            match self.paid_until.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
    }

    /// Whether nothing of the past counts any more at `now`: a new cell would decide the same.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.paid_until.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let cell = RateCell::default();
        assert!((0..3).all(|_| cell.admit(RATE, at(1_000)).is_ok()));
        assert_eq!(cell.admit(RATE, at(1_000)), Err(at(100)));
        assert_eq!(cell.admit(RATE, at(1_060)), Err(at(40)));
        assert!(cell.admit(RATE, at(1_100)).is_ok());
        assert!(cell.admit(RATE, at(1_100)).is_err());
    }

    #[test]
    fn a_pause_gives_the_burst_back_and_no_more() {
        let cell = RateCell::default();
        assert!((0..3).all(|_| cell.admit(RATE, at(0)).is_ok()));
        assert!(!cell.is_idle(at(299)) && cell.is_idle(at(300)));
        let passed = (0..9).filter(|_| cell.admit(RATE, at(60_000)).is_ok()).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn refusals_cost_nothing_and_a_clock_that_steps_back_admits_nobody() {
        let cell = RateCell::default();
        assert!((0..3).all(|_| cell.admit(RATE, at(1_000)).is_ok()));
        assert!((0..99).all(|_| cell.admit(RATE, at(500)).is_err()));
        assert!(cell.admit(RATE, at(1_100)).is_ok());
    }

    #[test]
    fn what_happened_too_fast_is_waited_for_by_what_comes_after_it() {
        let cell = RateCell::default();
        let waits: Vec<_> = (0..5).map(|_| cell.note(RATE, at(1_000))).collect();
        assert_eq!(waits, [at(0), at(0), at(0), at(100), at(200)]);
        assert_eq!(cell.note(RATE, at(1_200)), at(100));
        assert_eq!(cell.note(RATE, at(5_000)), at(0));
    }

    #[test]
    fn the_ends_of_the_clock_do_not_panic() {
        let cell = RateCell::default();
        let rate = Rate { per_second: 0, burst: u32::MAX };
        assert!(cell.admit(rate, Duration::MAX).is_ok());
        assert!(cell.admit(rate, Duration::ZERO).is_err());
    }

    #[test]
    fn of_many_threads_at_once_exactly_a_burst_passes() {
        let (cell, passed) = (RateCell::default(), AtomicUsize::new(0));
        let rate = Rate { per_second: 1, burst: 1_000 };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mine = (0..1_000).filter(|_| cell.admit(rate, at(5)).is_ok()).count();
                    passed.fetch_add(mine, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 1_000);
    }
}
