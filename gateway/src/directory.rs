//! The sessions that this node knows, kept up to date by the authority.
//!
//! Most sessions of a large table are waiting for a renter, or have one at another node: of those only the view is kept, and
//! the rest is made when somebody wants one here. Looking up one that was wanted before takes no lock; any other, known or not,
//! takes one that is held for one change at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use runit_core::session::SessionStatus;
use runit_core::{DirectoryChange, HostLabel, SecretHash, SessionId, SessionView};
use runit_spent::SpentFile;
use tokio::sync::{Notify, mpsc};

use crate::counters::Counters;
use crate::live::LiveSession;

/// How long a node may lag behind an authority that has just answered with a session.
const LAG: Duration = Duration::from_secs(1);

/// All sessions by id, and the locked ones by the label of their rental.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Those that were wanted here since they came.
    live: papaya::HashMap<SessionId, Arc<LiveSession>>,
    sessions_by_label: papaya::HashMap<HostLabel, SessionId>,
    /// Held while a change is applied, so that two changes to a session do not cross.
    others: Mutex<Others>,
    changed: Notify,
    loaded: AtomicBool,
    spent: Arc<SpentFile>,
    refills: mpsc::UnboundedSender<Arc<LiveSession>>,
}

/// Sessions that are not live.
#[derive(Debug, Default)]
struct Others {
    /// Nobody has wanted these yet.
    idle: HashMap<SessionId, Box<SessionView>>,
    /// These are in the directory no more, for as long as their leases are not settled. One that comes back is the same one,
    /// with the same counters.
    gone: HashMap<SessionId, Weak<LiveSession>>,
}

impl Directory {
    /// An empty directory, whose sessions count in `spent` and ask for bytes through `refills`.
    pub(crate) fn new(spent: Arc<SpentFile>, refills: mpsc::UnboundedSender<Arc<LiveSession>>) -> Self {
        Self {
            live: papaya::HashMap::new(),
            sessions_by_label: papaya::HashMap::new(),
            others: Mutex::default(),
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
        self.known_live(id).or_else(|| self.enliven(id, &mut self.others()))
    }

    fn known_live(&self, id: SessionId) -> Option<Arc<LiveSession>> {
        self.live.pin().get(&id).cloned()
    }

    /// Makes an idle session a live one. Whoever was faster has made it one already.
    fn enliven(&self, id: SessionId, others: &mut Others) -> Option<Arc<LiveSession>> {
        let Some(view) = others.idle.remove(&id) else { return self.known_live(id) };
        let counters = Counters::new(Arc::clone(&self.spent), id);
        let session = Arc::new(LiveSession::new(*view, counters, self.refills.clone()));
        self.live.pin().insert(id, Arc::clone(&session));
        Some(session)
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

    /// Does something with each session that was ever wanted here, between two awaits.
    pub(crate) fn for_each_live(&self, with: impl FnMut(&Arc<LiveSession>)) {
        self.live.pin().values().for_each(with);
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        let others = self.others();
        others.idle.len() + self.live.len()
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
        let _changing = self.others();
        self.update(&session, view);
        Some(session)
    }

    fn apply(&self, change: DirectoryChange) {
        match change {
            DirectoryChange::Snapshot(views) => {
                let listed: HashSet<SessionId> = views.iter().map(|view| view.id).collect();
                self.unlisted(&listed)
                    .into_iter()
                    .for_each(|(id, known)| self.remove(id, known + 1, &mut self.others()));
                // The lock anew for each: a request for a session that is not live waits for it.
                views.into_iter().for_each(|view| self.upsert(view, &mut self.others()));
                // Pairs with the Acquire of `is_loaded`: whoever sees it set finds the sessions.
                self.loaded.store(true, Ordering::Release);
            }
            DirectoryChange::Upsert(view) if view.status == SessionStatus::Removed => {
                self.remove_at(view.id, view.revision, &mut self.others());
            }
            DirectoryChange::Upsert(view) => self.upsert(view, &mut self.others()),
            DirectoryChange::Remove(id, revision) => self.remove_at(id, revision, &mut self.others()),
        }
        self.changed.notify_waiters();
    }

    /// Those that are known and not listed, with the revision that is known. What removed them has made it a greater one.
    fn unlisted(&self, listed: &HashSet<SessionId>) -> Vec<(SessionId, u64)> {
        let others = self.others();
        let live = self.live.pin();
        let live = live.iter().map(|(&id, session)| (id, session.view().revision));
        let idle = others.idle.iter().map(|(&id, view)| (id, view.revision));
        live.chain(idle).filter(|(id, _)| !listed.contains(id)).collect()
    }

    fn upsert(&self, view: SessionView, others: &mut Others) {
        if let Some(session) = self.known_live(view.id) {
            return self.update(&session, view);
        }
        let known = others.idle.get(&view.id);
        if known.is_some_and(|known| view.revision <= known.revision) {
            return;
        }
        self.relabel(known.and_then(|known| known.label()), &view);
        match others.gone.remove(&view.id).and_then(|session| session.upgrade()) {
            Some(session) => {
                session.update(view);
                self.live.pin().insert(session.id(), session);
            }
            None => drop(others.idle.insert(view.id, Box::new(view))),
        }
    }

    fn update(&self, session: &Arc<LiveSession>, view: SessionView) {
        let old = session.view();
        if view.revision > old.revision {
            self.relabel(old.label(), &view);
            session.update(view);
        }
    }

    fn relabel(&self, old: Option<HostLabel>, view: &SessionView) {
        let labels = self.sessions_by_label.pin();
        if let Some(label) = old {
            labels.remove(&label);
        }
        if let Some(label) = view.label() {
            labels.insert(label, view.id);
        }
    }

    /// Removes a session that is not known to have come back since.
    fn remove_at(&self, id: SessionId, revision: u64, others: &mut Others) {
        let live = self.known_live(id).map(|session| session.view().revision);
        let known = live.or_else(|| others.idle.get(&id).map(|view| view.revision));
        if known.is_some_and(|known| known < revision) {
            self.remove(id, revision, others);
        }
    }

    fn remove(&self, id: SessionId, revision: u64, others: &mut Others) {
        let idle = others.idle.remove(&id);
        let live = self.live.pin().remove(&id).cloned();
        let label = live.as_ref().map_or_else(|| idle.and_then(|view| view.label()), |session| session.view().label());
        if let Some(label) = label {
            self.sessions_by_label.pin().remove(&label);
        }
        if let Some(session) = live {
            // The view is seen by who has found the session before and is about to bind to it; a lock that stood ends by it.
            let view = SessionView::clone(&session.view());
            session.update(SessionView { revision, status: SessionStatus::Removed, ending: None, lock: None, ..view });
            others.gone.retain(|_, session| session.strong_count() > 0);
            others.gone.insert(id, Arc::downgrade(&session));
        }
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(unsettled.view().status, SessionStatus::Removed, "who has found it before is told");
        directory.apply(DirectoryChange::Upsert(view(id, 3)));
        let back = directory.session(id).expect("there again");
        assert!(Arc::ptr_eq(&unsettled, &back), "two counters would settle each other's leases after a crash");
        assert_eq!(back.view().revision, 3);
    }

    #[test]
    fn a_session_that_nobody_wants_is_a_view_alone_and_kept_up_to_date() {
        let (_data, file) = spent_file();
        let (refills, _asked) = mpsc::unbounded_channel();
        let directory = Directory::new(file, refills);
        let (wanted, idle) = (SessionId::from_uuid(Uuid::new_v4()), SessionId::from_uuid(Uuid::new_v4()));
        directory.apply(DirectoryChange::Snapshot(vec![view(wanted, 1), view(idle, 1)]));
        let live = || {
            let mut live = Vec::new();
            directory.for_each_live(|session| live.push(session.id()));
            live
        };
        assert_eq!((directory.len(), live()), (2, Vec::new()));
        let session = directory.session(wanted).expect("there");
        assert!(Arc::ptr_eq(&session, &directory.session(wanted).expect("still there")));
        for revision in [3, 2] {
            directory.apply(DirectoryChange::Upsert(view(wanted, revision)));
            directory.apply(DirectoryChange::Upsert(view(idle, revision)));
        }
        assert_eq!((directory.len(), live()), (2, vec![wanted]));
        assert_eq!(session.view().revision, 3);
        assert_eq!(directory.session(idle).expect("there").view().revision, 3);
        directory.apply(DirectoryChange::Snapshot(Vec::new()));
        assert_eq!((directory.len(), live()), (0, Vec::new()));
        assert!(directory.session(idle).is_none() && directory.session(wanted).is_none());
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
