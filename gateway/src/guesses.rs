//! Tokens that open nothing: how many of them one network may have the authority asked about.
//!
//! A guess is counted before the authority is asked, so that a volley counts as much as a sequence, and forgiven when the
//! token was right or nobody could say. Requests that a session's view admits never come here: who holds a lock is not
//! hurt by a neighbour who guesses.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runit_core::limit::{Limit, SlidingLog};
use runit_core::{NetworkKey, Timestamp};

/// The guesses of the last window.
pub(crate) struct Guesses {
    log: Mutex<SlidingLog<NetworkKey>>,
}

/// A guess that was counted, and whose answer is not known yet.
#[must_use]
#[derive(Debug)]
pub(crate) struct Guess {
    network: NetworkKey,
    at: Timestamp,
}

/// No more guesses for now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// When the next one comes free.
    pub(crate) retry_after: Duration,
    /// The first in this window: worth an event.
    pub(crate) first: bool,
}

impl Guesses {
    /// None yet.
    pub(crate) fn new(limit: runit_config::Limit) -> Self {
        Self { log: Mutex::new(SlidingLog::new(of(limit))) }
    }

    /// Counts a guess from `network`.
    ///
    /// # Errors
    /// [`Spent`] when the network has none left.
    pub(crate) fn count(
        &self,
        network: NetworkKey,
        limit: runit_config::Limit,
        now: Timestamp,
    ) -> Result<Guess, Spent> {
        let mut log = self.log();
        log.set_limit(of(limit));
        let verdict = log.admit(&network, now);
        if verdict.admitted {
            Ok(Guess { network, at: verdict.at })
        } else {
            Err(Spent { retry_after: verdict.next_free, first: verdict.first_refusal })
        }
    }

    /// It was none: the token was right, or nobody could say.
    pub(crate) fn forgive(&self, guess: &Guess) {
        self.log().forgive(&guess.network, guess.at);
    }

    fn log(&self) -> MutexGuard<'_, SlidingLog<NetworkKey>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(limit: runit_config::Limit) -> Limit {
    Limit { requests: limit.requests, window: Duration::from_secs(limit.seconds) }
}
