//! Providers' heartbeats, gathered in memory and written together.
//!
//! An agent is answered from the directory at once. What a crash loses is a sweep's interval of heartbeats, and silence
//! counts from the start of the process at the earliest, so nobody is removed for it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runit_core::store::{Store, StoreError};
use runit_core::{SessionId, Timestamp};

/// Who was heard of since the last write.
#[derive(Default)]
pub(crate) struct Heartbeats {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    sessions: HashSet<SessionId>,
    latest: Timestamp,
}

impl Heartbeats {
    /// This session's agent was heard of.
    pub(crate) fn note(&self, session: SessionId, now: Timestamp) {
        let mut heard = self.heard();
        heard.sessions.insert(session);
        heard.latest = heard.latest.max(now);
    }

    /// Whether it was heard of since the last write.
    pub(crate) fn is_noted(&self, session: SessionId) -> bool {
        self.heard().sessions.contains(&session)
    }

    /// Writes what was noted, all with the time of the latest one; what cannot be written is kept for the next time.
    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (sessions, latest) = {
            let mut heard = self.heard();
            (std::mem::take(&mut heard.sessions), heard.latest)
        };
        if sessions.is_empty() {
            return Ok(());
        }
        let written = store.providers_seen(sessions.iter().copied().collect(), latest).await;
        if written.is_err() {
            self.heard().sessions.extend(sessions);
        }
        written
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
