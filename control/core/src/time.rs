//! Points in time as the ledger and the audit trail keep them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Arithmetic saturates, so that no clock value can panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// This point moved forward.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// ISO 8601 (RFC 3339 profile) in UTC with milliseconds: `2026-11-22T08:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        let instant = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{instant:.3}")
    }
}

/// Takes RFC 3339 with any offset; fractions of a millisecond are cut off.
impl FromStr for Timestamp {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| InvalidTime)?;
        u64::try_from(instant.as_millisecond()).map(Self).map_err(|_| InvalidTime)
    }
}

/// The text is no time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-11-22T08:00:00Z")]
pub struct InvalidTime;

/// Where the time comes from: the system at the edge, a stepped value in tests.
pub trait Clock: Send + Sync {
    /// The time of day now. It may step backwards; rules that mind take the latest that they have seen.
    fn now(&self) -> Timestamp;
}

/// Time of day that no step of the system's clock moves: where that stood once, and what a monotonic clock counted since.
///
/// A ledger that takes the latest time that it has seen is safe when the clock steps back, but a step forward (also the
/// one that undoes a step back) ages every byte by as much.
#[derive(Clone, Copy, Debug)]
pub struct SteadyTime {
    wall: Timestamp,
    then: Instant,
}

impl SteadyTime {
    /// The system's clock said `wall` at `then`.
    pub const fn new(wall: Timestamp, then: Instant) -> Self {
        Self { wall, then }
    }

    /// The time of day at `now`.
    pub fn at(&self, now: Instant) -> Timestamp {
        self.wall.plus(now.saturating_duration_since(self.then))
    }
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_iso_8601_in_utc() {
        assert_eq!(Timestamp::from_unix_ms(1_795_334_400_007).to_string(), "2026-11-22T08:00:00.007Z");
        assert_eq!(Timestamp::from_unix_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn times_that_were_written_can_be_read_and_others_are_refused() {
        let written = Timestamp::from_unix_ms(1_795_334_400_007);
        assert_eq!(written.to_string().parse(), Ok(written));
        assert_eq!("2026-11-22T09:00:00.007+01:00".parse(), Ok(written));
        for other in ["", "yesterday", "2026-11-22", "1969-12-31T23:59:59Z"] {
            assert_eq!(other.parse::<Timestamp>(), Err(InvalidTime), "{other}");
        }
    }

    #[test]
    fn steady_time_counts_on_from_where_it_began() {
        let start = Instant::now();
        let steady = SteadyTime::new(Timestamp::from_unix_ms(1000), start);
        assert_eq!(steady.at(start + Duration::from_millis(5)), Timestamp::from_unix_ms(1005));
        assert_eq!(steady.at(start - Duration::from_millis(5)), Timestamp::from_unix_ms(1000));
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let last = Timestamp::from_unix_ms(u64::MAX);
        assert_eq!(last.plus(Duration::from_secs(1)), last);
        assert_eq!(Timestamp::default().since(last), Duration::ZERO);
        assert!(!last.to_string().is_empty());
    }
}
