//! A clock that can be looked at for each chunk: monotonic time to a few milliseconds, for a few nanoseconds.
//!
//! It is the kernel's coarse one: behind the exact one by a tick at the most (10 ms at 100 Hz), and it goes on while the
//! process is stopped.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// So much the coarse clock may be behind, and more.
const GRAIN_MS: Millis = 20;

/// A moment, in milliseconds of this host's monotonic clock.
pub(crate) type Millis = u64;

/// Now, or a tick ago.
pub(crate) fn coarse_now() -> Millis {
    millis(clock_gettime(ClockId::MonotonicCoarse))
}

/// The same as the time since some fixed point.
pub(crate) fn coarse() -> Duration {
    Duration::from_millis(coarse_now())
}

/// When the coarse clock has to be at the latest for `instant` to lie ahead: a little before it.
pub(crate) fn just_before(instant: Instant) -> Millis {
    let until = runit_core::time::millis(instant.saturating_duration_since(Instant::now()));
    millis(clock_gettime(ClockId::Monotonic)).saturating_add(until).saturating_sub(GRAIN_MS)
}

fn millis(time: Timespec) -> Millis {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_is_past_for_the_coarse_clock_too() {
        for _ in 0..1_000 {
            assert!(coarse_now() >= just_before(Instant::now()));
        }
        assert!(coarse_now() < just_before(Instant::now() + Duration::from_secs(3_600)));
    }
}
