//! Changes to sessions: the store first, then the directory.
//!
//! Invariant: whatever the store commits is published, also when the one who asked has gone in the meantime (a client
//! that disconnects cancels its handler): commit and publication run in a task of their own.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt;
use runit_config::{LiveSettings, Registration as Registering};
use runit_core::session::{Change, Session};
use runit_core::store::{ChangeError, Elsewhere, Registration, Store, StoreError};
use runit_core::time::Clock;
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{KeyId, Secret, SecretHash, SessionId};

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
    settings: LiveSettings,
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn Store>, sealer: Sealer, clock: Arc<dyn Clock>, settings: LiveSettings) -> Self {
        Self { store, directory: Arc::new(Directory::new()), clock, sealer, settings }
    }

    /// Publishes what the store holds. Answers the sessions that nobody can serve any more: their key does not stand
    /// (`stands` is asked after they were read), or, in a store that is this node's own, the settings refuse them or their
    /// credential cannot be opened since the sealing key has changed.
    pub(crate) async fn load(
        &self,
        stands: impl AsyncFnOnce(Vec<KeyId>) -> Result<HashSet<KeyId>, StoreError>,
    ) -> Result<Vec<SessionId>, StoreError> {
        let live = self.store.live_sessions().await?;
        let standing = stands(live.iter().filter_map(|session| session.provider_key).collect()).await?;
        let mut lost = Vec::new();
        for session in live {
            let is_revoked = session.provider_key.is_some_and(|key| !standing.contains(&key));
            let credential = if is_revoked { None } else { self.open(&session).filter(|_| self.admits(&session)) };
            match credential {
                Some(credential) => self.directory.publish(session, Some(credential)),
                None if is_revoked || !self.store.is_shared() => lost.push(session.id),
                None => {
                    let (session, provider) = (session.id, &session.provider);
                    tracing::warn!(%session, %provider, "left to other nodes: these settings or this key do not serve it");
                }
            }
        }
        Ok(lost)
    }

    /// Which servers may be registered now.
    pub(crate) fn upstream_policy(&self) -> UpstreamPolicy {
        let settings = self.settings.load();
        UpstreamPolicy {
            hosts: settings.upstream.hosts.clone(),
            plain_http_hosts: settings.upstream.plain_http_hosts.clone(),
        }
    }

    /// Whether the session is another node's to serve: the settings here, which may differ, would not have it registered.
    /// One that is served already stays until it is registered again.
    pub(crate) fn is_left_to_others(&self, session: &Session) -> bool {
        self.store.is_shared() && self.directory.session(session.id).is_none() && !self.admits(session)
    }

    fn admits(&self, session: &Session) -> bool {
        let keyed = self.settings.load().control.registration == Registering::Key;
        let may_register = session.provider_key.is_some() || !keyed;
        may_register && UpstreamUrl::parse(&session.offer.upstream.to_string(), &self.upstream_policy()).is_ok()
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
        let credential = if self.is_left_to_others(session) { None } else { self.open(session) };
        self.directory.publish(session.clone(), credential);
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
