//! A store that measures another one, and logs what it fails at: the one place where a store's error is logged.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::Key;
use runit_core::ledger::{Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Spent};
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use runit_core::session::{Change, Session};
use runit_core::store::{
    ChangeError, Elsewhere, GrantError, Registration, SharedRate, SharedVerdict, Store, StoreError, Turn,
};
use runit_core::trail::{Link, TrailMarks};
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use runit_core::{KeyId, LockId, NodeId, SecretHash, SessionId, Timestamp};

use crate::metrics::Metrics;

/// Any store, measured.
pub(crate) struct MeteredStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
}

/// An error that may be the store's own rather than a decision.
trait MaybeFailure {
    fn failure(&self) -> Option<&StoreError>;
}

impl MaybeFailure for StoreError {
    fn failure(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl MaybeFailure for ChangeError {
    fn failure(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl MaybeFailure for GrantError {
    fn failure(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl MeteredStore {
    async fn metered<T, E: MaybeFailure>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked = Instant::now();
        let answer = answer.await;
        let failure = answer.as_ref().err().and_then(MaybeFailure::failure);
        if let Some(error) = failure {
            let cause: &dyn Error = &*error.0;
            tracing::error!(operation, error = cause, "the store failed");
        }
        self.metrics.store(operation, asked.elapsed(), failure.is_some());
        answer
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn register(&self, registration: Registration, now: Timestamp) -> Result<Session, ChangeError> {
        self.metered("register", self.inner.register(registration, now)).await
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.metered("session", self.inner.session(id)).await
    }

    async fn sessions(&self, ids: Vec<SessionId>) -> Result<Vec<Session>, StoreError> {
        self.metered("sessions", self.inner.sessions(ids)).await
    }

    async fn session_by_token(&self, token: SecretHash) -> Result<Option<Session>, StoreError> {
        self.metered("session_by_token", self.inner.session_by_token(token)).await
    }

    async fn live_sessions(&self) -> Result<Vec<Session>, StoreError> {
        self.metered("live_sessions", self.inner.live_sessions()).await
    }

    async fn due(&self, silent_since: Timestamp, absent_since: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        self.metered("due", self.inner.due(silent_since, absent_since)).await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn changed_elsewhere(&self) -> Result<bool, StoreError> {
        self.metered("changed_elsewhere", self.inner.changed_elsewhere()).await
    }

    fn changes(&self) -> BoxStream<'static, Elsewhere> {
        self.inner.changes()
    }

    fn silence(&self) -> Duration {
        self.inner.silence()
    }

    async fn has_turn(&self, turn: Turn) -> Result<bool, StoreError> {
        self.metered("has_turn", self.inner.has_turn(turn)).await
    }

    async fn admit(&self, rate: &SharedRate, now: Timestamp) -> Result<SharedVerdict, StoreError> {
        self.metered("admit", self.inner.admit(rate, now)).await
    }

    async fn forgive(&self, rate: &SharedRate, admitted_at: Timestamp) -> Result<(), StoreError> {
        self.metered("forgive", self.inner.forgive(rate, admitted_at)).await
    }

    async fn change(&self, id: SessionId, change: Change, now: Timestamp) -> Result<Session, ChangeError> {
        self.metered("change", self.inner.change(id, change, now)).await
    }

    async fn forget_removed(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.metered("forget_removed", self.inner.forget_removed(before)).await
    }

    async fn providers_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        self.metered("providers_seen", self.inner.providers_seen(ids, now)).await
    }

    async fn renters_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        self.metered("renters_seen", self.inner.renters_seen(ids, now)).await
    }

    async fn grant(&self, request: LeaseRequest, policy: LeasePolicy, now: Timestamp) -> Result<Lease, GrantError> {
        self.metered("grant", self.inner.grant(request, policy, now)).await
    }

    async fn settle(&self, reports: Vec<LeaseReport>, now: Timestamp) -> Result<(), StoreError> {
        self.metered("settle", self.inner.settle(reports, now)).await
    }

    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>, now: Timestamp) -> Result<(), StoreError> {
        self.metered("recover", self.inner.recover(node, spent, now)).await
    }

    fn forfeited_bytes(&self) -> u64 {
        self.inner.forfeited_bytes()
    }

    async fn ledger(&self, id: SessionId, now: Timestamp) -> Result<Ledger, StoreError> {
        self.metered("ledger", self.inner.ledger(id, now)).await
    }

    async fn append_events(&self, events: Vec<SecurityEvent>) -> Result<bool, StoreError> {
        self.metered("append_events", self.inner.append_events(events)).await
    }

    async fn find_events(
        &self,
        filter: EventFilter,
        from: EventsFrom,
        limit: u32,
    ) -> Result<Vec<PlacedEvent>, StoreError> {
        self.metered("find_events", self.inner.find_events(filter, from, limit)).await
    }

    async fn count_events(
        &self,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<(Timestamp, EventKind, u64)>, StoreError> {
        self.metered("count_events", self.inner.count_events(since, step)).await
    }

    async fn records(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<Vec<(Session, Ledger)>, StoreError> {
        self.metered("records", self.inner.records(ids, now)).await
    }

    async fn sessions_with_ledgers(&self) -> Result<Vec<SessionId>, StoreError> {
        self.metered("sessions_with_ledgers", self.inner.sessions_with_ledgers()).await
    }

    async fn providers(&self) -> Result<Vec<ProviderRecord>, StoreError> {
        self.metered("providers", self.inner.providers()).await
    }

    async fn add_key(&self, key: Key) -> Result<(), StoreError> {
        self.metered("add_key", self.inner.add_key(key)).await
    }

    async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<Key>, StoreError> {
        self.metered("revoke_key", self.inner.revoke_key(id, now)).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.metered("keys", self.inner.keys()).await
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.metered("probe", self.inner.probe(now)).await
    }

    async fn events(&self, limit: u32) -> Result<Vec<SecurityEvent>, StoreError> {
        self.metered("events", self.inner.events(limit)).await
    }

    async fn events_after(&self, place: u64, limit: u32) -> Result<Vec<Link>, StoreError> {
        self.metered("events_after", self.inner.events_after(place, limit)).await
    }

    async fn expire_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.metered("expire_leases", self.inner.expire_leases(now)).await
    }

    async fn usage_record(&self, lock: LockId) -> Result<Option<UsageRecord>, StoreError> {
        self.metered("usage_record", self.inner.usage_record(lock)).await
    }

    async fn usage_records(
        &self,
        filter: UsageFilter,
        after: Option<(Timestamp, LockId)>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        self.metered("usage_records", self.inner.usage_records(filter, after, limit)).await
    }

    async fn prune_usage(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.metered("prune_usage", self.inner.prune_usage(before)).await
    }

    async fn carried_usage(&self, after: Option<CarriedUsage>, limit: u32) -> Result<Vec<CarriedUsage>, StoreError> {
        self.metered("carried_usage", self.inner.carried_usage(after, limit)).await
    }

    async fn webhook_cursor(&self, target: String) -> Result<Option<u64>, StoreError> {
        self.metered("webhook_cursor", self.inner.webhook_cursor(target)).await
    }

    async fn save_webhook_cursor(&self, target: String, place: u64) -> Result<(), StoreError> {
        self.metered("save_webhook_cursor", self.inner.save_webhook_cursor(target, place)).await
    }

    async fn trail_marks(&self) -> Result<TrailMarks, StoreError> {
        self.metered("trail_marks", self.inner.trail_marks()).await
    }

    async fn prune_events(&self, keep: u64, before: Timestamp) -> Result<u64, StoreError> {
        self.metered("prune_events", self.inner.prune_events(keep, before)).await
    }
}
