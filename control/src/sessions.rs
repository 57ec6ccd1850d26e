//! Changes to sessions: the store first, then the directory.
//!
//! Invariant: whatever the store commits is published, also when the one who asked has gone in the meantime (a client
//! that disconnects cancels its handler): commit and publication run in a task of their own.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt;
use runit_core::session::{Change, Session};
use runit_core::store::{ChangeError, Elsewhere, Registration, Store, StoreError};
use runit_core::time::Clock;
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{Secret, SecretHash, SessionId};

use crate::directory::Directory;
use crate::random::NoRandomness;
use crate::sealer::Sealer;

/// Changes elsewhere that are read at once.
const CHANGES: usize = 512;
/// When the store fails: how soon it is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// The sessions as the store keeps them and as the directory shows them.
pub(crate) struct Sessions {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) clock: Arc<dyn Clock>,
    sealer: Sealer,
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn Store>, sealer: Sealer, clock: Arc<dyn Clock>) -> Self {
        Self { store, directory: Arc::new(Directory::new()), clock, sealer }
    }

    /// Publishes what the store holds. Answers the sessions that cannot be served any more: their host is not allowed
    /// by `policy` now, their credential cannot be opened since the key has changed, or they may not stay.
    pub(crate) async fn load(
        &self,
        policy: &UpstreamPolicy,
        may_stay: impl Fn(&Session) -> bool,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut lost = Vec::new();
        for session in self.store.live_sessions().await? {
            let allowed = UpstreamUrl::parse(&session.offer.upstream.to_string(), policy).is_ok();
            match self.open(&session) {
                Some(credential) if allowed && may_stay(&session) => self.directory.publish(session, Some(credential)),
                _ => lost.push(session.id),
            }
        }
        Ok(lost)
    }

    /// Publishes what another process has changed: during an upgrade the old one and the new one share the store.
    /// Answers whether there was anything.
    pub(crate) async fn catch_up(&self) -> Result<bool, StoreError> {
        let changed = self.store.changed_elsewhere().await?;
        if changed {
            self.reload().await?;
        }
        Ok(changed)
    }

    /// Publishes what the store tells of by itself, for ever. `reload_keys` is called when it may be those.
    pub(crate) async fn follow_store<F: Future<Output = Result<(), StoreError>>>(&self, reload_keys: impl Fn() -> F) {
        let mut changes = self.store.changes().ready_chunks(CHANGES);
        while let Some(changes) = changes.next().await {
            let mut ids = HashSet::new();
            let (mut anything, mut keys) = (false, false);
            for change in changes {
                match change {
                    Elsewhere::Session(id) => drop(ids.insert(id)),
                    Elsewhere::Keys => keys = true,
                    Elsewhere::Anything => anything = true,
                }
            }
            let named = !anything && (!keys || reload_keys().await.is_ok());
            if named && self.publish_all(ids).await.is_ok() {
                continue;
            }
            // What was missed must not stay missed; the store has logged why it failed.
            while self.reload().await.is_err() || reload_keys().await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn publish_all(&self, ids: HashSet<SessionId>) -> Result<(), StoreError> {
        let changed = self.store.sessions(ids.into_iter().collect()).await?;
        changed.iter().for_each(|session| self.publish(session));
        Ok(())
    }

    /// Publishes all that the store has, and what it has no more.
    async fn reload(&self) -> Result<(), StoreError> {
        let live = self.store.live_sessions().await?;
        let live_ids: HashSet<SessionId> = live.iter().map(|session| session.id).collect();
        live.iter().for_each(|session| self.publish(session));
        let known = self.directory.sessions();
        // Tombstones, or those that came after the list was read; the revision tells.
        let others = known.iter().map(|known| known.id).filter(|id| !live_ids.contains(id)).collect();
        self.publish_all(others).await
    }

    /// Registers and publishes.
    pub(crate) async fn register(self: &Arc<Self>, registration: Registration) -> Result<Session, ChangeError> {
        let sessions = Arc::clone(self);
        detached(async move {
            let session = sessions.store.register(registration, sessions.clock.now()).await?;
            sessions.publish(&session);
            Ok(session)
        })
        .await?
    }

    /// Applies one change and publishes.
    pub(crate) async fn change(self: &Arc<Self>, id: SessionId, change: Change) -> Result<Session, ChangeError> {
        let sessions = Arc::clone(self);
        detached(async move {
            let session = sessions.store.change(id, change, sessions.clock.now()).await?;
            sessions.publish(&session);
            Ok(session)
        })
        .await?
    }

    /// The session that a token opens.
    pub(crate) async fn by_token(&self, token: SecretHash) -> Result<Option<Session>, StoreError> {
        self.store.session_by_token(token).await
    }

    /// Seals a credential for a session's offer.
    pub(crate) fn seal(&self, id: SessionId, credential: &Secret) -> Result<Vec<u8>, NoRandomness> {
        self.sealer.seal(id, credential)
    }

    /// Opens a session's credential; the log says why when that fails.
    pub(crate) fn open(&self, session: &Session) -> Option<Secret> {
        let opened = self.sealer.open(session.id, &session.offer.sealed_credential);
        opened.inspect_err(|error| tracing::error!(session = %session.id, %error, "a session is not served")).ok()
    }

    fn publish(&self, session: &Session) {
        self.directory.publish(session.clone(), self.open(session));
    }
}

/// Runs to its end, even when the caller is dropped.
///
/// # Errors
/// When the task was stopped before its end, with the runtime.
pub(crate) async fn detached<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(future).await.map_err(|error| StoreError(Box::new(error)))
}
