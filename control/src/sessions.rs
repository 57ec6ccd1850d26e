//! Changes to sessions: the store first, then the directory.
//!
//! Invariant: whatever the store commits is published, also when the one who asked has gone in the meantime (a client
//! that disconnects cancels its handler): commit and publication run in a task of their own.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use runit_core::session::{Change, Session};
use runit_core::store::{ChangeError, Registration, Store, StoreError};
use runit_core::time::Clock;
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{Secret, SecretHash, SessionId};

use crate::directory::Directory;
use crate::random::NoRandomness;
use crate::sealer::Sealer;

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
        if !self.store.changed_elsewhere().await? {
            return Ok(false);
        }
        let live = self.store.live_sessions().await?;
        let live_ids: HashSet<SessionId> = live.iter().map(|session| session.id).collect();
        live.iter().for_each(|session| self.publish(session));
        for known in self.directory.sessions().iter().filter(|known| !live_ids.contains(&known.id)) {
            // A tombstone, or one that came after the list was read; the revision tells.
            if let Some(session) = self.store.session(known.id).await? {
                self.publish(&session);
            }
        }
        Ok(true)
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
