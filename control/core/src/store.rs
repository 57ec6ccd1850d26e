//! What the control plane keeps. One contract suite runs against every implementation.
//!
//! A store adds durability and atomicity, no rules: it loads a [`Session`] or a [`Ledger`], calls its method, and
//! keeps the outcome in one transaction. When a method answers, its effect survives the process.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use crate::event::{EventKind, SecurityEvent};
use crate::id::{KeyId, LockId, NodeId, ProviderId, SessionId};
use crate::key::Key;
use crate::ledger::{Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Shortage, Spent};
use crate::limit::Limit;
use crate::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use crate::secret::SecretHash;
use crate::session::{Change, Offer, Refusal, Session, SessionStatus};
use crate::time::Timestamp;
use crate::trail::{Link, TrailMarks};
use crate::usage::{CarriedUsage, UsageFilter, UsageRecord};

/// The store could not do it: disk, lock, or damage. The chain is for the log.
#[derive(Debug, thiserror::Error)]
#[error("the store failed")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A change to a session that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such session, not even a tombstone.
    #[error("unknown session")]
    Unknown,
    /// The session's rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A lease that was not granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is no such session, or it is removed.
    #[error("unknown session")]
    Unknown,
    /// The lock that asks does not stand, or not any more.
    #[error("the lock does not stand")]
    NoLock,
    /// The ledger has nothing to give.
    #[error("no bytes left to lease")]
    Short(Shortage),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session to be registered, or registered again by the same agent.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of the session.
    pub id: SessionId,
    /// Who registers.
    pub provider: ProviderId,
    /// Hash of the secret that proves it; for a new session, the one just issued.
    pub provider_secret: SecretHash,
    /// The key that the provider presented, if it did.
    pub provider_key: Option<KeyId>,
    /// What is offered.
    pub offer: Offer,
    /// The cap of a new session; one that is known keeps its own.
    pub cap_bytes: u64,
}

/// What another process has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// This session.
    Session(SessionId),
    /// The keys of operators and providers.
    Keys,
    /// Nobody knows what: whoever has a copy makes it anew.
    Anything,
}

/// What one process does for all that share a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Removing and ending what is due.
    Sweep,
    /// Sending events to this receiver.
    Webhook(String),
}

/// A limit that holds for all processes together that share a store, and who counts under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRate {
    /// Which limit.
    pub name: &'static str,
    /// Whose requests: a network or a session, as text.
    pub whom: String,
    /// How many, in how long.
    pub limit: Limit,
}

/// What became of one request under a [`SharedRate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedVerdict {
    /// It was counted, at this time.
    Admitted(Timestamp),
    /// It is one too many, and was not counted.
    TooMany {
        /// How long until one more comes free.
        next_free: Duration,
        /// The first refusal in a window, of all processes: worth an event.
        first: bool,
    },
}

/// What the control plane keeps.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Registers a session, or registers a known one again ([`Session::register_again`]).
    async fn register(&self, registration: Registration, now: Timestamp) -> Result<Session, ChangeError>;

    /// A session by its name, a tombstone too.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// These sessions, tombstones too, in no order. Names that are unknown are passed over.
    async fn sessions(&self, ids: Vec<SessionId>) -> Result<Vec<Session>, StoreError> {
        let mut sessions = Vec::with_capacity(ids.len());
        for id in ids {
            sessions.extend(self.session(id).await?);
        }
        Ok(sessions)
    }

    /// The session that a token opens: one that it was issued for, or whose lock it took.
    async fn session_by_token(&self, token: SecretHash) -> Result<Option<Session>, StoreError>;

    /// All sessions that are not removed. Where others use the store too, they are not of one moment: what [`Self::changes`] or
    /// [`Self::changed_elsewhere`] tells of counts.
    async fn live_sessions(&self) -> Result<Vec<Session>, StoreError>;

    /// Sessions for the sweeper to ask about: live ones whose provider was last seen at `silent_since` or before, and
    /// locked ones whose renter was last seen at `absent_since` or before.
    async fn due(&self, silent_since: Timestamp, absent_since: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        let is_due = |session: &Session| {
            session.status() != SessionStatus::Removed && session.provider_seen_at <= silent_since
                || session.lock().is_some_and(|lock| lock.renter_seen_at <= absent_since)
        };
        let sessions = self.live_sessions().await?;
        Ok(sessions.iter().filter(|session| is_due(session)).map(|session| session.id).collect())
    }

    /// Whether several nodes share it, each with settings of its own: what one of them cannot serve is another's to serve.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether another process may have changed sessions since this was last asked. Stores that tell of changes by
    /// themselves, or that one process has alone, never say so.
    async fn changed_elsewhere(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Changes by other processes, for ever, as far as the store tells of them by itself. They may come late or more than
    /// once; none is missing.
    fn changes(&self) -> BoxStream<'static, Elsewhere> {
        stream::pending().boxed()
    }

    /// For how long [`Self::changes`] has heard nothing from the store, not even that there is no change: what is known of
    /// others is that old. Nothing for a store that does not tell by itself.
    fn silence(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it is this process's turn; of several that share a store it is one's, for 10 s after it was last asked for.
    async fn has_turn(&self, _turn: Turn) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Counts a request that this process has admitted under a limit which holds for all that share the store. A store that one
    /// process has alone admits every one: that process has counted.
    async fn admit(&self, _rate: &SharedRate, now: Timestamp) -> Result<SharedVerdict, StoreError> {
        Ok(SharedVerdict::Admitted(now))
    }

    /// Takes back what was admitted at that time, as if it had not been asked for.
    async fn forgive(&self, _rate: &SharedRate, _admitted_at: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    /// Applies one change ([`Session::apply`]) and answers the session as it is then. No lock is taken while a lease of an
    /// earlier one is open ([`Refusal::StillLeased`]).
    async fn change(&self, id: SessionId, change: Change, now: Timestamp) -> Result<Session, ChangeError>;

    /// Forgets sessions that were removed before then, their ledgers with them; answers how many. A session that is gone
    /// for longer than a ledger's window has nothing in it any more.
    async fn forget_removed(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// These sessions' agents were heard of. Names that are unknown or removed are passed over.
    async fn providers_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError>;

    /// These sessions' renters were present. Names that are not locked are passed over.
    async fn renters_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError>;

    /// Leases bytes ([`Ledger::grant`]) for the lock that stands; durable before it answers.
    async fn grant(&self, request: LeaseRequest, policy: LeasePolicy, now: Timestamp) -> Result<Lease, GrantError>;

    /// Books reports ([`Ledger::report`]), in order.
    async fn settle(&self, reports: Vec<LeaseReport>, now: Timestamp) -> Result<(), StoreError>;

    /// Settles what a node that died has left open ([`Ledger::recover`]). Doing it again changes nothing.
    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>, now: Timestamp) -> Result<(), StoreError>;

    /// Books leases that are past their time ([`Ledger::advance`]) of some sessions that have any; answers how many
    /// sessions. A ledger that nobody asks for would not book them by itself.
    async fn expire_leases(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// The usage record of a lock ([`crate::usage`]): each change to a session and each booking goes into one in the same
    /// transaction.
    async fn usage_record(&self, lock: LockId) -> Result<Option<UsageRecord>, StoreError>;

    /// At most `limit` usage records that pass the filter, by start and lock, beginning after `after`.
    async fn usage_records(
        &self,
        filter: UsageFilter,
        after: Option<(Timestamp, LockId)>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError>;

    /// Deletes final records of locks that ended before then, and carries on what they add up to, in one transaction.
    /// Answers how many it deleted, at most some thousand: ask again until none are left.
    async fn prune_usage(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// At most `limit` sums of deleted records, by session, provider and registration, beginning after those of `after`.
    async fn carried_usage(&self, after: Option<CarriedUsage>, limit: u32) -> Result<Vec<CarriedUsage>, StoreError>;

    /// The place of the last event that a webhook's receiver has taken; none for a target that was never served.
    async fn webhook_cursor(&self, target: String) -> Result<Option<u64>, StoreError>;

    /// Keeps that place, unless a later one is kept.
    async fn save_webhook_cursor(&self, target: String, place: u64) -> Result<(), StoreError>;

    /// Bytes that this store has seen charged without knowing that they moved ([`crate::ledger::Usage::forfeited`]),
    /// since it was opened.
    fn forfeited_bytes(&self) -> u64 {
        0
    }

    /// A session's ledger, brought to `now`; an empty one for a session that never moved a byte.
    async fn ledger(&self, id: SessionId, now: Timestamp) -> Result<Ledger, StoreError>;

    /// Appends to the audit trail, in order, and moves its sealed head ([`Mark::followed_by`](crate::trail::Mark)): both or
    /// neither. A head without a valid seal is gone on from, with [`EventKind::TrailTampered`](crate::EventKind) first if the
    /// first of `events` is none. Answers whether it put that one there.
    async fn append_events(&self, events: Vec<SecurityEvent>) -> Result<bool, StoreError>;

    /// The last `limit` events, oldest first.
    async fn events(&self, limit: u32) -> Result<Vec<SecurityEvent>, StoreError>;

    /// At most `limit` events that pass the filter, in the order that `from` says.
    async fn find_events(
        &self,
        filter: EventFilter,
        from: EventsFrom,
        limit: u32,
    ) -> Result<Vec<PlacedEvent>, StoreError>;

    /// How many events of each kind there were since then, in steps of so long; each step by its beginning.
    async fn count_events(
        &self,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<(Timestamp, EventKind, u64)>, StoreError>;

    /// These sessions, tombstones too, with their ledgers brought to `now`. Names that are unknown are passed over.
    async fn records(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<Vec<(Session, Ledger)>, StoreError>;

    /// The sessions that ever leased a byte and are not forgotten.
    async fn sessions_with_ledgers(&self) -> Result<Vec<SessionId>, StoreError>;

    /// What is known of each provider, by name.
    async fn providers(&self) -> Result<Vec<ProviderRecord>, StoreError>;

    /// Keeps a new key.
    async fn add_key(&self, key: Key) -> Result<(), StoreError>;

    /// Revokes a key ([`Key::revoke`]) and answers it as it is then.
    async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<Key>, StoreError>;

    /// All keys, revoked ones too, oldest first.
    async fn keys(&self) -> Result<Vec<Key>, StoreError>;

    /// Writes something of no consequence, to see whether the store can be written to.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;
    /// The first `limit` events after a place, with their places and hashes, as they stand.
    async fn events_after(&self, place: u64, limit: u32) -> Result<Vec<Link>, StoreError>;

    /// Both ends of the audit trail, as they stand.
    async fn trail_marks(&self) -> Result<TrailMarks, StoreError>;

    /// Removes the oldest events: those beyond the last `keep`, and those from before `before`; moves the trail's sealed
    /// base after them. Answers how many it removed, at most some thousand: ask again until none are left.
    async fn prune_events(&self, keep: u64, before: Timestamp) -> Result<u64, StoreError>;
}
