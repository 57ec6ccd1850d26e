//! What operators ask: see sessions, providers and events, end locks, remove sessions, make and revoke keys.
//!
//! Invariant: whatever an operator changes is followed by an event that names the operator, in a transaction of its own; who asks is decided before ([`Operator`]
//! comes from [`crate::keys::Keys`] only).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::{Key, KeyHolder, Operator, Role};
use runit_core::ledger::Ledger;
use runit_core::session::{Change, Refusal, Session};
use runit_core::store::{ChangeError, StoreError};
use runit_core::time::millis;
use runit_core::{KeyId, RenterAddress, Secret, SecretHash, SessionId, Timestamp};

use crate::api::problem::Problem;
use crate::control::{Control, removed};
use crate::keys::{Denied, MakeError};

/// Sessions that one question to the store is about: others who ask it wait no longer than for so many.
const AT_ONCE: usize = 256;
/// Rounds that may fail or be late before this process counts as not ready, and no less than so long.
const LATE_ROUNDS: u32 = 20;
const LATE: Duration = Duration::from_secs(10);

/// When this process last took over what others have changed, in ms since 1970. Relaxed: it guards nothing.
#[derive(Default)]
pub(crate) struct Swept(AtomicU64);

impl Swept {
    pub(crate) fn note(&self, now: Timestamp) {
        self.0.store(now.unix_ms(), Ordering::Relaxed);
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::Relaxed))
    }
}

impl Control {
    /// The operator who presents `key` and may do what takes `role`.
    pub(crate) async fn operator(
        &self,
        key: Option<&Secret>,
        role: Role,
        from: RenterAddress,
    ) -> Result<Operator, Problem> {
        let now = self.sessions.clock.now();
        match self.keys.operator(key, role, from.network(), now) {
            Ok(operator) => Ok(operator),
            Err(denied) => Err(self.deny(denied, from, now).await),
        }
    }

    /// The operator who has signed in with the key of that hash, if it still stands and may do what takes `role`.
    pub(crate) async fn signed_in_operator(
        &self,
        key: SecretHash,
        role: Role,
        from: RenterAddress,
    ) -> Result<Operator, Problem> {
        match self.keys.holder(key) {
            Some((operator, granted)) if granted >= role => Ok(operator),
            Some((operator, _)) => Err(self.deny(Denied::Role(operator), from, self.sessions.clock.now()).await),
            None => Err(Problem::OperatorKeyRequired),
        }
    }

    async fn deny(&self, denied: Denied, from: RenterAddress, now: Timestamp) -> Problem {
        let event = SecurityEvent::new(EventKind::OperatorDenied, now).address(from);
        match denied {
            Denied::NoKey { presented: false } => Problem::OperatorKeyRequired,
            Denied::NoKey { presented: true } => {
                self.note(event).await;
                Problem::OperatorKeyRequired
            }
            Denied::Role(operator) => {
                self.note(event.operator(operator)).await;
                Problem::RoleRequired
            }
            Denied::TooManyGuesses(wait) => Problem::TooManyGuesses(millis(wait).div_ceil(1000).max(1)),
        }
    }

    /// A session with its ledger, also one that was removed.
    pub(crate) async fn record(&self, id: SessionId) -> Result<(Session, Ledger), Problem> {
        self.records(vec![id]).await?.pop().ok_or(Problem::UnknownSession)
    }

    /// These sessions with their ledgers, in this order; those that are gone are left out.
    pub(crate) async fn records(&self, ids: Vec<SessionId>) -> Result<Vec<(Session, Ledger)>, StoreError> {
        let mut records = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            records.extend(self.sessions.store.records(some.to_vec(), self.sessions.clock.now()).await?);
        }
        Ok(records)
    }

    /// Ends a lock in its renter's name: the workspace is made anew, connections are told that it was given back.
    pub(crate) async fn release_by(&self, operator: Operator, id: SessionId) -> Result<Session, Problem> {
        self.end_lock(operator, id, Change::ReleaseByOperator, EventKind::SessionReleased).await
    }

    /// Takes a session away from its renter.
    pub(crate) async fn cut_by(&self, operator: Operator, id: SessionId) -> Result<Session, Problem> {
        self.end_lock(operator, id, Change::Cut, EventKind::SessionCut).await
    }

    /// Removes a session. Its agent is told to register again, and comes back unless something keeps it out.
    pub(crate) async fn remove_by(&self, operator: Operator, id: SessionId) -> Result<(), Problem> {
        let session = self.sessions.change(id, Change::Remove).await?;
        self.note(removed(&session, self.sessions.clock.now()).operator(operator)).await;
        Ok(())
    }

    /// Makes a key; its text is in this answer and nowhere else.
    pub(crate) async fn make_key(&self, operator: Operator, holder: KeyHolder) -> Result<(Key, Secret), Problem> {
        let now = self.sessions.clock.now();
        let (key, secret) = self.keys.make(holder, now).await.map_err(|error| match error {
            MakeError::Store(error) => Problem::from(error),
            MakeError::Random(error) => error.into(),
        })?;
        let kind = match key.holder {
            KeyHolder::Operator { .. } => EventKind::OperatorKeyCreated,
            KeyHolder::Provider(_) => EventKind::ProviderKeyCreated,
        };
        self.note(about(kind, &key, now).operator(operator)).await;
        Ok((key, secret))
    }

    /// Revokes a key; the sessions that were last registered with it go too.
    pub(crate) async fn revoke_key(&self, operator: Operator, id: KeyId) -> Result<Key, Problem> {
        let now = self.sessions.clock.now();
        let already = self.keys.all().iter().any(|key| key.id == id && key.revoked_at.is_some());
        let key = self.keys.revoke(id, now).await?.ok_or(Problem::UnknownKey)?;
        let kind = match key.holder {
            KeyHolder::Operator { .. } => EventKind::OperatorKeyRevoked,
            KeyHolder::Provider(_) => EventKind::ProviderKeyRevoked,
        };
        if !already {
            self.note(about(kind, &key, now).operator(operator)).await;
        }
        self.remove_sessions_of(id, operator).await?;
        Ok(key)
    }

    async fn remove_sessions_of(&self, key: KeyId, operator: Operator) -> Result<(), Problem> {
        for known in self.sessions.directory.registered_with(&HashSet::from([key])) {
            match self.sessions.change(known.id, Change::KeyRevoked(key)).await {
                Ok(session) => self.note(removed(&session, self.sessions.clock.now()).operator(operator)).await,
                Err(ChangeError::Store(error)) => return Err(error.into()),
                // Somebody was faster, or its agent has registered it with another key meanwhile.
                Err(ChangeError::Refused(_) | ChangeError::Unknown) => {}
            }
        }
        Ok(())
    }

    /// Whether this process can serve: the store takes a write, and what others change is taken over.
    pub(crate) async fn is_ready(&self) -> Result<(), &'static str> {
        if self.is_leaving() {
            return Err("leaving");
        }
        let now = self.sessions.clock.now();
        let interval = Duration::from_millis(self.settings.load().control.sweep_interval_ms);
        if !keeps_up(now.since(self.swept.at()), self.sessions.store.silence(), interval) {
            return Err("directory");
        }
        self.sessions.store.probe(now).await.map_err(|_| "store")
    }

    async fn end_lock(
        &self,
        operator: Operator,
        id: SessionId,
        change: Change,
        kind: EventKind,
    ) -> Result<Session, Problem> {
        let session = self.sessions.change(id, change).await.map_err(|error| match error {
            ChangeError::Refused(Refusal::WrongState(status)) if status != runit_core::SessionStatus::Removed => {
                Problem::NotLocked
            }
            error => error.into(),
        })?;
        let event = SecurityEvent::new(kind, self.sessions.clock.now()).session(id).provider(session.provider.clone());
        self.note(event.operator(operator)).await;
        Ok(session)
    }
}

/// Whether what is known of others is not too old: by rounds that are to come at this interval, and by a store that tells of
/// changes itself.
fn keeps_up(since_round: Duration, silence: Duration, interval: Duration) -> bool {
    since_round <= LATE.max(interval.saturating_mul(LATE_ROUNDS)) && silence <= LATE
}

fn about(kind: EventKind, key: &Key, now: Timestamp) -> SecurityEvent {
    let event = SecurityEvent::new(kind, now).key(key.id);
    match &key.holder {
        KeyHolder::Provider(provider) => event.provider(provider.clone()),
        KeyHolder::Operator { .. } => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_up_while_rounds_come_and_the_store_is_not_silent() {
        let seconds = Duration::from_secs;
        assert!(keeps_up(seconds(10), seconds(10), seconds(1) / 2));
        assert!(!keeps_up(seconds(11), seconds(0), seconds(1) / 2));
        assert!(keeps_up(seconds(11), seconds(0), seconds(1)), "twenty rounds may be late");
        assert!(!keeps_up(seconds(0), seconds(11), seconds(1)), "whatever the rounds say");
    }
}
