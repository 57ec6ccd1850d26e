//! The system's clock: the one place where this crate asks for the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use runit_core::time::{Clock, Timestamp, millis};

/// The time of day as the operating system has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(millis(since_epoch))
    }
}
