//! How often somebody may come: the exact log of a sliding window, per key, in bounded memory.
//!
//! Invariant: in no half-open window `[s, s + window)`, wherever it starts, are more than `requests` of one key admitted.
//!
//! Memory is bounded without ever forgetting who is over the limit. A key has a log of its own while it has admissions
//! in the window. When there are as many such keys as the table holds, further keys share *overflow logs*, chosen by a
//! secret hash, and each shared log admits `requests` for all of its keys together: that can only refuse too much. A
//! key goes on with its overflow log until that log is empty, so it never gets a fresh one early. A flood from many
//! networks thus costs newcomers their ease, never the limit its meaning; keys that were there before notice nothing.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::time::{Timestamp, millis};

/// Admissions that all logs of one limit together can hold: 8 bytes each.
const ADMISSIONS: u32 = 4_000_000;
const MOST_KEYS: u32 = 65_536;
const FEWEST_KEYS: u32 = 16;

/// At most `requests` in any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub requests: u32,
    /// In how long a time.
    pub window: Duration,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub admitted: bool,
    /// When it was decided, as the log has it.
    pub at: Timestamp,
    /// How many more would pass right now.
    pub remaining: u32,
    /// How long until one more comes free than `remaining` says.
    pub next_free: Duration,
    /// The first refusal of this key in a window: worth an event.
    pub first_refusal: bool,
}

/// The logs of one limit.
pub struct SlidingLog<K> {
    limit: Limit,
    capacity: usize,
    logs: HashMap<K, Log>,
    overflow: Vec<Log>,
    overflow_hash: RandomState,
    /// The latest time seen: a clock that steps back admits nobody.
    latest: u64,
    /// Before this looking for empty logs is not worth it.
    purge_at: u64,
}

/// Admissions of the last window, oldest first, in milliseconds.
#[derive(Clone, Debug, Default)]
struct Log {
    admitted: VecDeque<u64>,
    reported: Option<u64>,
}

impl<K: Hash + Eq + Clone> SlidingLog<K> {
    /// No requests yet. A limit of none at all refuses everybody.
    pub fn new(limit: Limit) -> Self {
        let keys = (ADMISSIONS / limit.requests.max(1)).clamp(FEWEST_KEYS, MOST_KEYS);
        Self::with_capacity(limit, keys as usize)
    }

    /// With room for so many keys with a log of their own, and as many overflow logs as a sixteenth of it.
    pub fn with_capacity(limit: Limit, keys: usize) -> Self {
        Self {
            limit,
            capacity: keys,
            logs: HashMap::new(),
            overflow: vec![Log::default(); (keys / 16).max(1)],
            overflow_hash: RandomState::new(),
            latest: 0,
            purge_at: 0,
        }
    }

    /// The limit itself.
    pub const fn limit(&self) -> Limit {
        self.limit
    }

    /// Another limit from here on. What was admitted under the old one and is still remembered counts.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Takes back what was admitted for `key` at `admitted_at`, as if it had not been asked for.
    pub fn forgive(&mut self, key: &K, admitted_at: Timestamp) {
        let shared = self.overflow_hash.hash_one(key) as usize % self.overflow.len();
        let own = self.logs.get_mut(key);
        if !own.is_some_and(|log| log.forgive(admitted_at.unix_ms())) {
            self.overflow[shared].forgive(admitted_at.unix_ms());
        }
    }

    /// Decides on one request of `key`, and remembers it if it is admitted.
    pub fn admit(&mut self, key: &K, now: Timestamp) -> Verdict {
        self.latest = self.latest.max(now.unix_ms());
        let (now, limit) = (self.latest, self.limit);
        self.log(key).admit(limit, now)
    }

    fn log(&mut self, key: &K) -> &mut Log {
        let now = self.latest;
        let window = millis(self.limit.window);
        if !self.logs.contains_key(key) {
            let shared = self.overflow_hash.hash_one(key) as usize % self.overflow.len();
            self.overflow[shared].forget(window, now);
            if !self.overflow[shared].is_empty() || !self.has_room(window) {
                return &mut self.overflow[shared];
            }
        }
        self.logs.entry(key.clone()).or_default()
    }

    /// Whether one more key can have a log of its own; drops empty ones first, when some may have become empty.
    fn has_room(&mut self, window: u64) -> bool {
        let now = self.latest;
        if self.logs.len() >= self.capacity && self.purge_at <= now {
            self.logs.retain(|_, log| {
                log.forget(window, now);
                !log.is_empty()
            });
            // Not at every request while the table stays full: a scan costs about a millisecond.
            self.purge_at = now.saturating_add((window / 256).max(1));
        }
        self.logs.len() < self.capacity
    }
}

impl Log {
    fn admit(&mut self, limit: Limit, now: u64) -> Verdict {
        let window = millis(limit.window);
        self.forget(window, now);
        let most = limit.requests as usize;
        let admitted = self.admitted.len() < most;
        if admitted {
            self.admitted.push_back(now);
        }
        let first_refusal = !admitted && self.reported.is_none();
        if first_refusal {
            self.reported = Some(now);
        }
        let oldest = self.admitted.front().copied().unwrap_or(now);
        Verdict {
            admitted,
            at: Timestamp::from_unix_ms(now),
            remaining: u32::try_from(most.saturating_sub(self.admitted.len())).unwrap_or(u32::MAX),
            next_free: Duration::from_millis(oldest.saturating_add(window).saturating_sub(now)),
            first_refusal,
        }
    }

    /// Whether there was such an admission.
    fn forgive(&mut self, admitted_at: u64) -> bool {
        let found = self.admitted.iter().rposition(|&at| at == admitted_at);
        found.and_then(|index| self.admitted.remove(index)).is_some()
    }

    /// Drops what is a whole window old.
    fn forget(&mut self, window: u64, now: u64) {
        let gone = |at: u64| at.saturating_add(window) <= now;
        while self.admitted.front().is_some_and(|&at| gone(at)) {
            self.admitted.pop_front();
        }
        self.reported = self.reported.filter(|&at| !gone(at));
    }

    fn is_empty(&self) -> bool {
        self.admitted.is_empty() && self.reported.is_none()
    }
}

#[cfg(test)]
mod tests;
