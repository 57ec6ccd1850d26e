//! The embedded store: SQLite in WAL mode, each answer durable.
//!
//! One writer thread owns the only connection that writes, and shares one fsync between all the commands that wait at
//! that moment (see `worker`); a second thread reads. There are no rules here: a command loads a row, calls the method
//! of `runit-core`, and writes back what differs.
//!
//! Invariant: a method answers after its transaction is on disk, or answers an error and has changed nothing.

mod care;
mod contents;
mod event_rows;
mod key_rows;
mod ledger_rows;
mod migrations;
mod queries;
mod rows;
mod schema;
mod session_rows;
mod usage_rows;
mod worker;

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::Key;
use runit_core::ledger::{Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Spent};
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use runit_core::session::{Change, Refusal, Session, SessionStatus};
use runit_core::store::{ChangeError, GrantError, Registration, Store, StoreError};
use runit_core::trail::{Link, TrailKey, TrailMarks};
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use runit_core::{KeyId, LockId, NodeId, SecretHash, SessionId, Timestamp};
use rusqlite::Connection;

pub use care::{CareError, backup, check, restore};
pub use contents::{Contents, contents};
pub use migrations::SCHEMA_VERSION;
pub use schema::OpenError;
use worker::{Mode, Worker};

/// The store of one node, in one file; of two while one process takes over from another.
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
    /// A reader of its own for operators, whose questions may take long: claims wait for the other one.
    operators: Worker,
    key: TrailKey,
    /// `data_version` of the writing connection: SQLite changes it when somebody else commits. Relaxed, since it guards
    /// nothing: a commit that two askers see is read twice.
    version: AtomicI64,
    /// Relaxed: a count for operators.
    forfeited: AtomicU64,
}

impl SqliteStore {
    /// Opens the database at `path`; creates it, readable by this user only, where there is none. `key` seals the ends of
    /// the audit trail.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used, or was written by a newer version.
    pub fn open(path: &Path, key: TrailKey) -> Result<Self, OpenError> {
        let mut writing = schema::connect(path)?;
        migrations::migrate(&mut writing)?;
        Self::start(path, writing, key)
    }

    /// Opens a database that is there, as a node has left it, for a command beside that node.
    ///
    /// # Errors
    /// [`CareError`] also when it is of an older version: only a node migrates.
    pub fn open_existing(path: &Path, key: TrailKey) -> Result<Self, CareError> {
        care::require_newest(&care::existing(path)?)?;
        Ok(Self::start(path, schema::connect(path)?, key)?)
    }

    fn start(path: &Path, writing: Connection, key: TrailKey) -> Result<Self, OpenError> {
        let version = schema::data_version(&writing)?.into();
        let reading = schema::connect(path)?;
        let writer = Worker::start("runit-store-writer", writing, Mode::Write).map_err(OpenError::Thread)?;
        let asking = schema::connect(path)?;
        let operators = Worker::start("runit-store-operators", asking, Mode::Read).map_err(OpenError::Thread)?;
        let reader = Worker::start("runit-store-reader", reading, Mode::Read).map_err(OpenError::Thread)?;
        Ok(Self { writer, reader, operators, key, version, forfeited: AtomicU64::new(0) })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn register(&self, registration: Registration, now: Timestamp) -> Result<Session, ChangeError> {
        let Registration { id, provider, provider_secret, provider_key, offer, cap_bytes } = registration;
        self.writer
            .run(move |db| {
                let Some(known) = session_rows::by_id(db, id)? else {
                    let session = Session::register(id, provider, provider_secret, provider_key, offer, cap_bytes, now);
                    session_rows::insert(db, &session)?;
                    return Ok(Ok(session));
                };
                let mut session = known.clone();
                if let Err(refusal) = session.register_again(&provider, provider_secret, provider_key, offer, now) {
                    return Ok(Err(refusal.into()));
                }
                session_rows::update(db, &known, &session)?;
                Ok(Ok(session))
            })
            .await?
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.reader.run(move |db| session_rows::by_id(db, id)).await
    }

    async fn session_by_token(&self, token: SecretHash) -> Result<Option<Session>, StoreError> {
        self.reader.run(move |db| session_rows::by_token(db, token)).await
    }

    async fn live_sessions(&self) -> Result<Vec<Session>, StoreError> {
        self.reader.run(session_rows::live).await
    }

    async fn change(&self, id: SessionId, change: Change, now: Timestamp) -> Result<Session, ChangeError> {
        self.writer
            .run(move |db| {
                let Some(known) = session_rows::by_id(db, id)? else { return Ok(Err(ChangeError::Unknown)) };
                let mut session = known.clone();
                match session.apply(change, now) {
                    Ok(()) => {
                        if let Some(lock) = session.lock_taken_since(&known) {
                            let mut ledger = ledger_rows::load(db, id)?.unwrap_or_default();
                            ledger.advance(now);
                            if ledger.is_leased_for_another(lock) {
                                return Ok(Err(Refusal::StillLeased.into()));
                            }
                        }
                        session_rows::update(db, &known, &session)?;
                        usage_rows::follow(db, &known, &session, now)?;
                        Ok(Ok(session))
                    }
                    Err(refusal) => Ok(Err(refusal.into())),
                }
            })
            .await?
    }

    async fn forget_removed(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.writer.run(move |db| session_rows::forget_removed(db, before)).await
    }

    async fn providers_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| session_rows::providers_seen(db, &ids, now)).await
    }

    async fn renters_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| session_rows::renters_seen(db, &ids, now)).await
    }

    async fn grant(&self, request: LeaseRequest, policy: LeasePolicy, now: Timestamp) -> Result<Lease, GrantError> {
        self.writer
            .run(move |db| {
                let session = session_rows::by_id(db, request.session)?;
                let live = session.filter(|session| session.status() != SessionStatus::Removed);
                let Some(session) = live else { return Ok(Err(GrantError::Unknown)) };
                let Some(cap) = session.cap_of(request.lock) else { return Ok(Err(GrantError::NoLock)) };
                let known = ledger_rows::load(db, request.session)?;
                let mut ledger = known.clone().unwrap_or_default();
                let granted = ledger.grant(&request, cap, &policy, now);
                let forfeited = ledger_rows::save(db, request.session, known.as_ref(), &ledger)?;
                Ok(granted.map(|lease| (lease, forfeited)).map_err(GrantError::Short))
            })
            .await?
            .map(|(lease, forfeited)| {
                self.forfeited.fetch_add(forfeited, Ordering::Relaxed);
                lease
            })
    }

    async fn settle(&self, reports: Vec<LeaseReport>, now: Timestamp) -> Result<(), StoreError> {
        let reported = self.writer.run(move |db| {
            let mut forfeited = 0;
            for report in &reports {
                let Some(known) = ledger_rows::load(db, report.session)? else { continue };
                let mut ledger = known.clone();
                ledger.report(report, now);
                forfeited += ledger_rows::save(db, report.session, Some(&known), &ledger)?;
            }
            Ok(forfeited)
        });
        self.forfeited.fetch_add(reported.await?, Ordering::Relaxed);
        Ok(())
    }

    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>, now: Timestamp) -> Result<(), StoreError> {
        let recovered = self.writer.run(move |db| {
            let mut forfeited = 0;
            for (session, spent) in &spent {
                let Some(known) = ledger_rows::load(db, *session)? else { continue };
                let mut ledger = known.clone();
                ledger.recover(node, spent, now);
                forfeited += ledger_rows::save(db, *session, Some(&known), &ledger)?;
            }
            Ok(forfeited)
        });
        self.forfeited.fetch_add(recovered.await?, Ordering::Relaxed);
        Ok(())
    }

    fn forfeited_bytes(&self) -> u64 {
        self.forfeited.load(Ordering::Relaxed)
    }

    async fn ledger(&self, id: SessionId, now: Timestamp) -> Result<Ledger, StoreError> {
        let mut ledger = self.reader.run(move |db| ledger_rows::load(db, id)).await?.unwrap_or_default();
        ledger.advance(now);
        Ok(ledger)
    }

    async fn append_events(&self, events: Vec<SecurityEvent>) -> Result<bool, StoreError> {
        let key = self.key.clone();
        self.writer.run(move |db| event_rows::append(db, &key, &events)).await
    }

    async fn events(&self, limit: u32) -> Result<Vec<SecurityEvent>, StoreError> {
        self.reader.run(move |db| event_rows::last(db, limit)).await
    }

    async fn find_events(
        &self,
        filter: EventFilter,
        from: EventsFrom,
        limit: u32,
    ) -> Result<Vec<PlacedEvent>, StoreError> {
        self.operators.run(move |db| queries::find_events(db, &filter, from, limit)).await
    }

    async fn count_events(
        &self,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<(Timestamp, EventKind, u64)>, StoreError> {
        self.operators.run(move |db| queries::count_events(db, since, step)).await
    }

    async fn records(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<Vec<(Session, Ledger)>, StoreError> {
        self.operators.run(move |db| queries::records(db, &ids, now)).await
    }

    async fn sessions_with_ledgers(&self) -> Result<Vec<SessionId>, StoreError> {
        self.operators.run(queries::sessions_with_ledgers).await
    }

    async fn providers(&self) -> Result<Vec<ProviderRecord>, StoreError> {
        self.operators.run(queries::providers).await
    }

    async fn add_key(&self, key: Key) -> Result<(), StoreError> {
        self.writer.run(move |db| key_rows::insert(db, &key)).await
    }

    async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<Key>, StoreError> {
        self.writer
            .run(move |db| {
                let Some(mut key) = key_rows::by_id(db, id)? else { return Ok(None) };
                key.revoke(now);
                key_rows::update_revocation(db, &key)?;
                Ok(Some(key))
            })
            .await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.reader.run(key_rows::all).await
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| queries::probe(db, now)).await
    }

    async fn events_after(&self, place: u64, limit: u32) -> Result<Vec<Link>, StoreError> {
        self.operators.run(move |db| event_rows::after(db, place, limit)).await
    }

    async fn expire_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        let sessions = self.reader.run(move |db| ledger_rows::with_expired_leases(db, now)).await?;
        let count = sessions.len() as u64;
        if count > 0 {
            let booked = self.writer.run(move |db| {
                let mut forfeited = 0;
                for session in sessions {
                    let Some(known) = ledger_rows::load(db, session)? else { continue };
                    let mut ledger = known.clone();
                    ledger.advance(now);
                    forfeited += ledger_rows::save(db, session, Some(&known), &ledger)?;
                }
                Ok(forfeited)
            });
            self.forfeited.fetch_add(booked.await?, Ordering::Relaxed);
        }
        Ok(count)
    }

    async fn usage_record(&self, lock: LockId) -> Result<Option<UsageRecord>, StoreError> {
        self.reader.run(move |db| usage_rows::by_lock(db, lock)).await
    }

    async fn usage_records(
        &self,
        filter: UsageFilter,
        after: Option<(Timestamp, LockId)>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        self.operators.run(move |db| usage_rows::find(db, &filter, after, limit)).await
    }

    async fn prune_usage(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.writer.run(move |db| usage_rows::prune(db, before)).await
    }

    async fn carried_usage(&self, after: Option<CarriedUsage>, limit: u32) -> Result<Vec<CarriedUsage>, StoreError> {
        self.operators.run(move |db| usage_rows::carried(db, after.as_ref(), limit)).await
    }

    async fn webhook_cursor(&self, target: String) -> Result<Option<u64>, StoreError> {
        self.operators.run(move |db| queries::webhook_cursor(db, &target)).await
    }

    async fn save_webhook_cursor(&self, target: String, place: u64) -> Result<(), StoreError> {
        self.writer.run(move |db| queries::save_webhook_cursor(db, &target, place)).await
    }

    async fn trail_marks(&self) -> Result<TrailMarks, StoreError> {
        self.reader.run(event_rows::marks).await
    }

    async fn prune_events(&self, keep: u64, before: Timestamp) -> Result<u64, StoreError> {
        let key = self.key.clone();
        self.writer.run(move |db| event_rows::prune(db, &key, keep, before)).await
    }

    async fn changed_elsewhere(&self) -> Result<bool, StoreError> {
        let version = self.writer.run(|db| Ok(schema::data_version(db)?)).await?;
        Ok(self.version.swap(version, Ordering::Relaxed) != version)
    }

    async fn due(&self, silent_since: Timestamp, absent_since: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        self.reader.run(move |db| session_rows::due(db, silent_since, absent_since)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, params_from_iter};

    #[test]
    fn no_sweep_goes_through_a_whole_table() {
        let mut db = Connection::open_in_memory().expect("in memory");
        migrations::migrate(&mut db).expect("the newest schema");
        for sql in [session_rows::DUE, ledger_rows::EXPIRED] {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it is SQL");
            let parameters = vec![0; statement.parameter_count()];
            let steps = statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>("detail"));
            let steps: Vec<String> = steps.expect("a plan").map(|step| step.expect("a text")).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
        }
    }
}
