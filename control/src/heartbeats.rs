//! Providers' heartbeats, gathered in memory and written together.
//!
//! An agent is answered from the directory at once. Where the store is this process's own, what it holds is only read again
//! at the next start, from which silence counts anyway, and a write for each heartbeat would be most of what heartbeats
//! cost: so a session's time is written again when the written one has grown old, and meanwhile the sweeper goes by what is
//! here. A store that nodes share is told with each round, because the others judge by it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runit_core::store::{Store, StoreError};
use runit_core::{SessionId, Timestamp};

/// Who was heard of, and when.
#[derive(Default)]
pub(crate) struct Heartbeats {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    by_session: HashMap<SessionId, Times>,
    /// To be written in the next round.
    due: Vec<SessionId>,
    latest: Timestamp,
}

#[derive(Default)]
struct Times {
    heard: Timestamp,
    written: Timestamp,
    is_due: bool,
}

impl Heartbeats {
    /// This session's agent was heard of. It is written unless that was done less than `refresh` ago.
    pub(crate) fn note(&self, session: SessionId, now: Timestamp, refresh: Duration) {
        let heard = &mut *self.heard();
        let times = heard.by_session.entry(session).or_default();
        times.heard = times.heard.max(now);
        if !times.is_due && now.since(times.written) >= refresh {
            times.is_due = true;
            heard.due.push(session);
        }
        heard.latest = heard.latest.max(now);
    }

    /// When it was last heard of here.
    pub(crate) fn heard_at(&self, session: SessionId) -> Option<Timestamp> {
        self.heard().by_session.get(&session).map(|times| times.heard)
    }

    /// Writes what is due, all with the time of the latest heartbeat; what cannot be written is kept for the next round.
    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (sessions, latest) = {
            let mut heard = self.heard();
            (std::mem::take(&mut heard.due), heard.latest)
        };
        if sessions.is_empty() {
            return Ok(());
        }
        let written = store.providers_seen(sessions.clone(), latest).await;
        let mut heard = self.heard();
        match &written {
            Ok(()) => sessions.iter().for_each(|session| heard.wrote(*session, latest)),
            Err(_) => heard.due.extend(sessions),
        }
        written
    }

    /// Forgets all but the `live` sessions.
    pub(crate) fn retain(&self, live: &HashSet<SessionId>) {
        self.heard().by_session.retain(|session, _| live.contains(session));
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn wrote(&mut self, session: SessionId, at: Timestamp) {
        if let Some(times) = self.by_session.get_mut(&session) {
            (times.written, times.is_due) = (at, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1_000)
    }

    fn written(heartbeats: &Heartbeats) -> Vec<SessionId> {
        let mut heard = heartbeats.heard();
        let (due, latest) = (std::mem::take(&mut heard.due), heard.latest);
        due.iter().for_each(|session| heard.wrote(*session, latest));
        due
    }

    #[test]
    fn a_heartbeat_is_written_at_first_and_when_the_written_one_is_old() {
        let (heartbeats, session) = (Heartbeats::default(), SessionId::from_uuid(Uuid::from_u128(1)));
        let refresh = Duration::from_secs(90);
        let beats: Vec<u64> = (0..10)
            .map(|beat| 1_000 + 30 * beat)
            .filter(|&second| {
                heartbeats.note(session, at(second), refresh);
                heartbeats.note(session, at(second), refresh);
                assert_eq!(heartbeats.heard_at(session), Some(at(second)));
                let written = written(&heartbeats);
                assert!(written.len() <= 1, "once in a round");
                !written.is_empty()
            })
            .collect();
        assert_eq!(beats, [1_000, 1_090, 1_180, 1_270]);
        heartbeats.note(session, at(1_271), Duration::ZERO);
        assert_eq!(written(&heartbeats), [session], "each round, where others judge by it");
    }
}
