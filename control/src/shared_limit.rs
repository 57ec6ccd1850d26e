//! A limit that this process counts by itself, and then together with all that share its store.
//!
//! The own count comes first: whoever is over the limit here costs the store nothing.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runit_core::Timestamp;
use runit_core::limit::{Limit, SlidingLog, Verdict};
use runit_core::store::{SharedRate, SharedVerdict, Store, StoreError};

/// One limit and all that count under it.
pub(crate) struct SharedLimit<K> {
    name: &'static str,
    log: Mutex<SlidingLog<K>>,
}

impl<K: Hash + Eq + Clone + Display> SharedLimit<K> {
    /// Nothing counted yet. Limits with different names are different limits.
    pub(crate) fn new(name: &'static str, limit: Limit) -> Self {
        Self { name, log: Mutex::new(SlidingLog::new(limit)) }
    }

    /// The name that it has in the store and in answers.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// The limit itself.
    pub(crate) fn limit(&self) -> Limit {
        self.log().limit()
    }

    /// Decides on one request of `key` in this process alone.
    pub(crate) fn admit_here(&self, key: &K, now: Timestamp) -> Verdict {
        self.log().admit(key, now)
    }

    /// Decides on one request of `key`, for all that share the store. What is left is told of this process only.
    pub(crate) async fn admit(&self, store: &dyn Store, key: &K, now: Timestamp) -> Result<Verdict, StoreError> {
        let verdict = self.admit_here(key, now);
        if !verdict.admitted {
            return Ok(verdict);
        }
        let rate = SharedRate { name: self.name, whom: key.to_string(), limit: self.limit() };
        let shared = store.admit(&rate, now).await;
        if !matches!(shared, Ok(SharedVerdict::Admitted(_))) {
            self.log().forgive(key, verdict.at);
        }
        Ok(match shared? {
            SharedVerdict::Admitted(_) => verdict,
            SharedVerdict::TooMany { next_free, first } => {
                Verdict { admitted: false, remaining: 0, next_free, first_refusal: first, ..verdict }
            }
        })
    }

    /// Whole values only, so a panic elsewhere has not harmed them.
    fn log(&self) -> MutexGuard<'_, SlidingLog<K>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
