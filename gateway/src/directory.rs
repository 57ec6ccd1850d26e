//! The sessions that this node knows, kept up to date by the authority. Looking one up takes no lock.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use runit_core::session::SessionStatus;
use runit_core::{DirectoryChange, HostLabel, SecretHash, SessionId, SessionView};
use runit_spent::SpentFile;
use tokio::sync::{Notify, mpsc};

use crate::connection::Cut;
use crate::counters::Counters;
use crate::live::LiveSession;

/// How long a node may lag behind an authority that has just answered with a session.
const LAG: Duration = Duration::from_secs(1);

/// Sessions that are not in the directory any more.
type Gone = HashMap<SessionId, Weak<LiveSession>>;

/// All sessions by id, and the locked ones by the label of their rental.
#[derive(Debug)]
pub(crate) struct Directory {
    sessions: papaya::HashMap<SessionId, Arc<LiveSession>>,
    sessions_by_label: papaya::HashMap<HostLabel, SessionId>,
    /// Held while a change is applied, so that two changes to a session do not cross. In it: sessions that are gone, for
    /// as long as their leases are not settled. One that comes back is the same one, with the same counters.
    changing: Mutex<Gone>,
    changed: Notify,
    loaded: AtomicBool,
    spent: Arc<SpentFile>,
    refills: mpsc::UnboundedSender<Arc<LiveSession>>,
}

impl Directory {
    /// An empty directory, whose sessions count in `spent` and ask for bytes through `refills`.
    pub(crate) fn new(spent: Arc<SpentFile>, refills: mpsc::UnboundedSender<Arc<LiveSession>>) -> Self {
        Self {
            sessions: papaya::HashMap::new(),
            sessions_by_label: papaya::HashMap::new(),
            changing: Mutex::default(),
            changed: Notify::new(),
            loaded: AtomicBool::new(false),
            spent,
            refills,
        }
    }

    /// Applies changes for as long as they come.
    pub(crate) async fn follow(&self, mut changes: BoxStream<'static, DirectoryChange>) {
        while let Some(change) = changes.next().await {
            self.apply(change);
        }
    }

    /// Whether the first snapshot has come; waits for it for a while. Without it, "unknown" would mean nothing.
    pub(crate) async fn is_loaded(&self) -> bool {
        if self.loaded.load(Ordering::Acquire) {
            return true;
        }
        let loaded = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.loaded.load(Ordering::Acquire) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(LAG, loaded).await.is_ok()
    }

    /// A session by its id.
    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<LiveSession>> {
        self.sessions.pin().get(&id).cloned()
    }

    /// The session whose lock was taken with this token.
    pub(crate) fn session_locked_by(&self, token: SecretHash) -> Option<Arc<LiveSession>> {
        let session = self.session_with_label(HostLabel::of(token))?;
        session.view().lock.as_ref().is_some_and(|lock| lock.token == token).then_some(session)
    }

    /// The session whose rental has this label.
    pub(crate) fn session_with_label(&self, label: HostLabel) -> Option<Arc<LiveSession>> {
        let id = *self.sessions_by_label.pin().get(&label)?;
        // Between two changes the map may be behind the session.
        self.session(id).filter(|session| session.view().label() == Some(label))
    }

    /// Does something with each session, between two awaits.
    pub(crate) fn for_each(&self, with: impl FnMut(&Arc<LiveSession>)) {
        self.sessions.pin().values().for_each(with);
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Takes a view that the authority has just answered with; the session itself must come (or have come) by the watch,
    /// so that an answer that was overtaken by a removal brings nothing back.
    pub(crate) async fn learn(&self, view: SessionView) -> Option<Arc<LiveSession>> {
        let known = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = self.session(view.id) {
                    return session;
                }
                changed.await;
            }
        };
        let session = tokio::time::timeout(LAG, known).await.ok()?;
        let _changing = self.changing();
        self.update(&session, view);
        Some(session)
    }

    fn apply(&self, change: DirectoryChange) {
        let mut gone = self.changing();
        let gone = &mut *gone;
        match change {
            DirectoryChange::Snapshot(views) => {
                let listed: HashSet<SessionId> = views.iter().map(|view| view.id).collect();
                let unlisted: Vec<SessionId> =
                    self.sessions.pin().keys().filter(|id| !listed.contains(id)).copied().collect();
                unlisted.into_iter().for_each(|id| self.remove(id, gone));
                views.into_iter().for_each(|view| self.upsert(view, gone));
                // Pairs with the Acquire of `is_loaded`: whoever sees it set finds the sessions.
                self.loaded.store(true, Ordering::Release);
            }
            DirectoryChange::Upsert(view) if view.status == SessionStatus::Removed => {
                self.remove_at(view.id, view.revision, gone);
            }
            DirectoryChange::Upsert(view) => self.upsert(view, gone),
            DirectoryChange::Remove(id, revision) => self.remove_at(id, revision, gone),
        }
        self.changed.notify_waiters();
    }

    fn upsert(&self, view: SessionView, gone: &mut Gone) {
        match self.session(view.id) {
            Some(session) => self.update(&session, view),
            None => {
                if let Some(label) = view.label() {
                    self.sessions_by_label.pin().insert(label, view.id);
                }
                if let Some(session) = gone.remove(&view.id).and_then(|session| session.upgrade()) {
                    session.update(view);
                    self.sessions.pin().insert(session.id(), session);
                    return;
                }
                let counters = Counters::new(Arc::clone(&self.spent), view.id);
                let session = Arc::new(LiveSession::new(view, counters, self.refills.clone()));
                self.sessions.pin().insert(session.id(), session);
            }
        }
    }

    fn update(&self, session: &Arc<LiveSession>, view: SessionView) {
        let old = session.view();
        if view.revision <= old.revision {
            return;
        }
        let labels = self.sessions_by_label.pin();
        if let Some(label) = old.label() {
            labels.remove(&label);
        }
        if let Some(label) = view.label() {
            labels.insert(label, view.id);
        }
        session.update(view);
    }

    /// Removes a session that is not known to have come back since.
    fn remove_at(&self, id: SessionId, revision: u64, gone: &mut Gone) {
        if self.session(id).is_some_and(|session| session.view().revision < revision) {
            self.remove(id, gone);
        }
    }

    fn remove(&self, id: SessionId, gone: &mut Gone) {
        if let Some(session) = self.sessions.pin().remove(&id).cloned() {
            if let Some(label) = session.view().label() {
                self.sessions_by_label.pin().remove(&label);
            }
            session.cut_all(Cut::LockedOut);
            gone.retain(|_, session| session.strong_count() > 0);
            gone.insert(id, Arc::downgrade(&session));
        }
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, Gone> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{spent_file, view};
    use uuid::Uuid;

    #[test]
    fn a_session_that_comes_back_before_its_leases_are_settled_has_the_same_counters() {
        let (_data, file) = spent_file();
        let (refills, _asked) = mpsc::unbounded_channel();
        let directory = Directory::new(file, refills);
        let id = SessionId::from_uuid(Uuid::new_v4());
        directory.apply(DirectoryChange::Upsert(view(id, 1)));
        let unsettled = directory.session(id).expect("there");
        directory.apply(DirectoryChange::Remove(id, 2));
        assert!(directory.session(id).is_none());
        directory.apply(DirectoryChange::Upsert(view(id, 3)));
        let back = directory.session(id).expect("there again");
        assert!(Arc::ptr_eq(&unsettled, &back), "two counters would settle each other's leases after a crash");
        assert_eq!(back.view().revision, 3);
    }

    #[test]
    fn a_removal_that_comes_late_removes_no_session_that_is_back() {
        let (_data, file) = spent_file();
        let (refills, _asked) = mpsc::unbounded_channel();
        let directory = Directory::new(file, refills);
        let id = SessionId::from_uuid(Uuid::new_v4());
        directory.apply(DirectoryChange::Upsert(view(id, 3)));
        let removed = SessionView { status: SessionStatus::Removed, ..view(id, 2) };
        for late in [DirectoryChange::Remove(id, 2), DirectoryChange::Upsert(removed)] {
            directory.apply(late);
            assert!(directory.session(id).is_some());
        }
        directory.apply(DirectoryChange::Remove(id, 4));
        assert!(directory.session(id).is_none());
    }
}
