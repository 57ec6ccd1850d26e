//! This process's copy of all live sessions, and the broadcast of its changes to the data plane.
//!
//! A change is published after the store has committed it. Two changes of one session may come here in either order, so
//! the revision decides: what is not newer than the known one is dropped.
//!
//! Invariant: a watcher that applies a snapshot and then each change has, at every moment, a state that the directory
//! had; per session revisions only go up. A removed session leaves its revision behind (40 bytes; the store keeps a
//! tombstone of it too), so that a late older change cannot bring it back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use runit_core::authority::DirectoryChange;
use runit_core::session::{Session, SessionStatus, SessionView};
use runit_core::{KeyId, Secret, SessionId};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

/// Changes that a watcher may be behind before it gets a new snapshot instead.
const BACKLOG: usize = 1024;

/// All live sessions, as the store has committed them.
pub(crate) struct Directory {
    entries: Mutex<Entries>,
    changes: broadcast::Sender<DirectoryChange>,
    /// For those who only want to know that there was one.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<SessionId, Entry>,
    counts: Counts,
}

/// How many live sessions are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u64,
    pub(crate) locked: u64,
    pub(crate) recycling: u64,
}

impl Counts {
    fn moved(&mut self, from: Option<SessionStatus>, to: SessionStatus) {
        if let Some(count) = from.and_then(|from| self.of(from)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.of(to) {
            *count += 1;
        }
    }

    fn of(&mut self, status: SessionStatus) -> Option<&mut u64> {
        match status {
            SessionStatus::Ready => Some(&mut self.ready),
            SessionStatus::Locked => Some(&mut self.locked),
            SessionStatus::Recycling => Some(&mut self.recycling),
            SessionStatus::Removed => None,
        }
    }
}

struct Entry {
    revision: u64,
    live: Option<Live>,
    /// For those who wait for it to change; none until somebody does, since it takes some hundred bytes.
    status: Option<Box<watch::Sender<SessionStatus>>>,
}

struct Live {
    session: Arc<Session>,
    credential: Secret,
}

impl Directory {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), changes: broadcast::Sender::new(BACKLOG), changed: watch::Sender::new(()) }
    }

    /// Takes a session as it was committed, with its credential opened; without one it cannot be reached and is
    /// treated as gone.
    pub(crate) fn publish(&self, mut session: Session, credential: Option<Secret>) {
        session.shrink_to_fit();
        let mut entries = self.entries();
        let known = entries.by_id.get(&session.id).map_or(0, |entry| entry.revision);
        if session.revision <= known {
            return;
        }
        let id = session.id;
        let revision = session.revision;
        let live = credential
            .filter(|_| session.status() != SessionStatus::Removed)
            .map(|credential| Live { session: Arc::new(session), credential });
        let change = match &live {
            Some(live) => DirectoryChange::Upsert(live.view()),
            None => DirectoryChange::Remove(id, revision),
        };
        let now = live.as_ref().map_or(SessionStatus::Removed, |live| live.session.status());
        let known = entries.by_id.remove(&id);
        let was = known.as_ref().and_then(|entry| entry.live.as_ref()).map(|live| live.session.status());
        entries.counts.moved(was, now);
        let status = known.and_then(|entry| entry.status).filter(|status| status.receiver_count() > 0);
        if let Some(status) = &status {
            status.send_if_modified(|status| std::mem::replace(status, now) != now);
        }
        entries.by_id.insert(id, Entry { revision, live, status });
        // Under the lock, so that changes are sent in the order in which they were applied. No watcher is no error.
        let _ = self.changes.send(change);
        self.changed.send_replace(());
    }

    /// Tells of changes without saying which.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The session as it was last published.
    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.entries().by_id.get(&id)?.live.as_ref().map(|live| Arc::clone(&live.session))
    }

    /// Ends when a live session's status is another than `known`, or the session is gone.
    pub(crate) async fn leaves(&self, id: SessionId, known: SessionStatus) {
        let status = self.entries().by_id.get_mut(&id).map(|entry| {
            let now = entry.live.as_ref().map_or(SessionStatus::Removed, |live| live.session.status());
            entry.status.get_or_insert_with(|| Box::new(watch::Sender::new(now))).subscribe()
        });
        if let Some(mut status) = status {
            // An entry that is forgotten is a session that is gone.
            let _ = status.wait_for(|status| *status != known).await;
        }
    }

    /// All live sessions, in no order.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let entries = self.entries();
        entries.by_id.values().filter_map(|entry| entry.live.as_ref()).map(|live| Arc::clone(&live.session)).collect()
    }

    /// Those that were last registered with one of these keys.
    pub(crate) fn registered_with(&self, keys: &HashSet<KeyId>) -> Vec<Arc<Session>> {
        let entries = self.entries();
        let live = entries.by_id.values().filter_map(|entry| entry.live.as_ref());
        live.filter(|live| live.session.provider_key.is_some_and(|key| keys.contains(&key)))
            .map(|live| Arc::clone(&live.session))
            .collect()
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> Counts {
        self.entries().counts
    }

    /// A snapshot, then each change, for ever; after a gap another snapshot.
    pub(crate) fn watch(self: &Arc<Self>) -> BoxStream<'static, DirectoryChange> {
        let directory = Arc::clone(self);
        stream::unfold((directory, None), |(directory, receiver)| async move {
            let Some(mut receiver): Option<broadcast::Receiver<DirectoryChange>> = receiver else {
                let (snapshot, receiver) = directory.snapshot();
                return Some((snapshot, (directory, Some(receiver))));
            };
            match receiver.recv().await {
                Ok(change) => Some((change, (directory, Some(receiver)))),
                Err(RecvError::Lagged(_)) => {
                    let (snapshot, receiver) = directory.snapshot();
                    Some((snapshot, (directory, Some(receiver))))
                }
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    /// Snapshot and subscription of one moment: no change falls between them.
    fn snapshot(&self) -> (DirectoryChange, broadcast::Receiver<DirectoryChange>) {
        let entries = self.entries();
        let views = entries.by_id.values().filter_map(|entry| entry.live.as_ref()).map(Live::view).collect();
        (DirectoryChange::Snapshot(views), self.changes.subscribe())
    }

    /// The map is whole between statements, so one who panicked while holding it left it usable.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn view(&self) -> SessionView {
        self.session.view(self.credential.clone())
    }
}

#[cfg(test)]
mod tests;
