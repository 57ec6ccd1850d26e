//! The system's clock: the one place where this crate asks for the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use runit_core::time::{Clock, SteadyTime, Timestamp, millis};

/// The time of day, taken once (from the operating system, or from the database that nodes share) and counted on
/// from there.
///
/// Whoever sets the system's clock while this process runs moves nothing here: no byte comes free early, no limit opens,
/// no provider seems silent. The next start takes the new time.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(SteadyTime);

impl SystemClock {
    /// Takes the time of day from the operating system now.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from(Timestamp::from_unix_ms(millis(since_epoch)))
    }

    /// Takes a time of day that somebody else has told just now.
    pub fn from(now: Timestamp) -> Self {
        Self(SteadyTime::new(now, Instant::now()))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.0.at(Instant::now())
    }
}
