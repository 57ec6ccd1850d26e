//! How long to wait before something that failed is tried again. Pure: time and chance come in as values.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, and the time before which no further attempt is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Whether the next attempt may be made.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| now >= time)
    }

    /// One more failure. `chance` is drawn by the caller, uniformly from `0..=u16::MAX`.
    pub(crate) fn failed(&mut self, now: Instant, chance: u16) {
        self.failed_for_at_least(Duration::ZERO, now, chance);
    }

    /// One more failure, whose other side asked for a pause of at least `pause`.
    pub(crate) fn failed_for_at_least(&mut self, pause: Duration, now: Instant, chance: u16) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + delay(self.failures, chance).max(pause));
    }

    /// It worked: the next failure counts as the first.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// 1 s, doubled by each failure up to 60 s; of that a random half to whole, so that many agents do not return at once.
fn delay(failures: u32, chance: u16) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let whole = (FIRST * 2_u32.pow(doublings)).min(LONGEST);
    whole / 2 + whole / 2 * u32::from(chance) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let longest: Vec<u64> = (1..=9).map(|n| delay(n, u16::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(delay(u32::MAX, u16::MAX).as_secs(), 60);
    }

    #[test]
    fn chance_takes_off_at_most_half() {
        assert_eq!(delay(5, 0), Duration::from_secs(8));
        assert!(delay(5, 30_000) > Duration::from_secs(8));
        assert!(delay(5, 30_000) < Duration::from_secs(16));
    }

    #[test]
    fn success_ends_the_pause_and_starts_the_count_anew() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(now));
        backoff.failed(now, u16::MAX);
        backoff.failed(now, u16::MAX);
        assert!(!backoff.is_over(now + Duration::from_millis(1_999)));
        assert!(backoff.is_over(now + Duration::from_secs(2)));
        backoff.succeeded();
        assert!(backoff.is_over(now));
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.failed_for_at_least(Duration::from_secs(300), now, 0);
        assert!(!backoff.is_over(now + Duration::from_secs(299)));
        assert!(backoff.is_over(now + Duration::from_secs(300)));
    }
}
