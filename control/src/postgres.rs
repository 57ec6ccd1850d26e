//! The store of many nodes: PostgreSQL, the only thing that they share.
//!
//! Sessions and ledgers are replaced by compare-and-set: read, changed by a method of `runit-core`, and written in one
//! statement that does nothing if another node was faster; then it is done again. So no lock is held between two
//! statements, and a node that stops in the middle stops nobody else.
//!
//! Invariants: a method answers after its statement is committed (`synchronous_commit` is on), or answers an error. An
//! error does not say that nothing was changed: a statement whose answer was lost may have been committed. For a lease
//! that means that it is charged and never spent; for a claim, that its renter holds the lock already.

mod care;
mod connect;
mod document;
mod event_rows;
mod import;
mod key_rows;
mod ledger_changes;
mod ledger_rows;
mod listening;
mod queries;
mod rates;
mod schema;
mod session_rows;
mod turns;
mod usage_rows;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Pool};
use futures::stream::BoxStream;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::Key;
use runit_core::ledger::{Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Spent};
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use runit_core::session::{Change, Refusal, Session};
use runit_core::store::{
    ChangeError, Elsewhere, GrantError, Registration, SharedRate, SharedVerdict, Store, StoreError, Turn,
};
use runit_core::trail::{Link, TrailKey, TrailMarks};
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use runit_core::{KeyId, LockId, NodeId, SecretHash, SessionId, Timestamp};
use uuid::Uuid;

pub use connect::PostgresSettings;
use connect::{Connector, in_time};
pub use import::ImportError;
use ledger_rows::Memory;
use listening::Heard;
use session_rows::Versioned;

use crate::sqlite::Contents;

/// How often a change is tried again because another node was faster.
const ATTEMPTS: usize = 50;

/// Sessions that one statement reads, so that each is answered in time however many there are.
const LIVE_AT_ONCE: u32 = 2_000;

/// The store of one of many nodes.
pub struct PostgresStore {
    connector: Connector,
    pool: Pool,
    /// Seals both ends of the audit trail.
    key: TrailKey,
    appending: tokio::sync::Mutex<()>,
    /// Tells this store's notifications from those of others.
    id: Uuid,
    ledgers: Memory,
    heard: Heard,
    /// Relaxed: a count for operators.
    forfeited: AtomicU64,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one.
    #[error("the database's URL cannot be read")]
    Url(#[source] tokio_postgres::Error),
    /// TLS is asked for without roots to trust.
    #[error("the database's URL asks for TLS, so a file of roots to trust is needed")]
    NoRoots,
    /// The roots cannot be used.
    #[error("the roots to trust for the database cannot be used")]
    Roots(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The pool's settings contradict each other.
    #[error("the pool of connections cannot be made")]
    Pool,
    /// It cannot be reached, or refuses.
    #[error("the database cannot be used")]
    Database(#[from] StoreError),
    /// Written by an older version of this program, and not to be changed now.
    #[error("the database has schema version {found}, not {known}: a start of a node brings it there")]
    Older {
        /// Version of the database.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// Written by a newer version of this program.
    #[error("the database has schema version {found}, written by a newer program; this one knows up to {known}")]
    Newer {
        /// Version of the database.
        found: i64,
        /// Version of this program.
        known: i64,
    },
}

/// What a row or the database did wrong; only ever wrapped into a [`StoreError`].
#[derive(Debug, thiserror::Error)]
enum DbError {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Pool(#[from] deadpool_postgres::PoolError),
    #[error("no answer in time")]
    TooSlow,
    #[error("damaged row: {0}")]
    Damaged(&'static str),
    #[error("other nodes were faster, again and again")]
    Contended,
}

impl From<DbError> for StoreError {
    fn from(error: DbError) -> Self {
        Self(Box::new(error))
    }
}

impl From<DbError> for OpenError {
    fn from(error: DbError) -> Self {
        Self::Database(error.into())
    }
}

impl PostgresStore {
    /// Connects, and brings the schema to the newest version; nodes that start together take turns. `key` seals the ends of
    /// the audit trail.
    ///
    /// # Errors
    /// [`OpenError`] when the database cannot be reached or used, or was written by a newer version.
    pub async fn connect(settings: &PostgresSettings, key: TrailKey) -> Result<Self, OpenError> {
        let store = Self::new(settings, key)?;
        schema::migrate(&mut store.pool.get().await.map_err(DbError::from)?).await?;
        Ok(store)
    }

    /// Connects to a database as nodes have left it, for a command beside them.
    ///
    /// # Errors
    /// [`OpenError`] also when it is of an older version: only a node migrates.
    pub async fn connect_existing(settings: &PostgresSettings, key: TrailKey) -> Result<Self, OpenError> {
        let store = Self::new(settings, key)?;
        schema::require_newest(&store.pool.get().await.map_err(DbError::from)?).await?;
        Ok(store)
    }

    fn new(settings: &PostgresSettings, key: TrailKey) -> Result<Self, OpenError> {
        let connector = Connector::new(settings)?;
        Ok(Self {
            pool: connector.pool()?,
            connector,
            key,
            appending: tokio::sync::Mutex::default(),
            id: Uuid::new_v4(),
            ledgers: Memory::new(),
            heard: Heard::now(),
            forfeited: AtomicU64::new(0),
        })
    }

    /// The database's time, which all nodes count from.
    ///
    /// # Errors
    /// When the database does not tell.
    pub async fn time(&self) -> Result<Timestamp, StoreError> {
        Ok(in_time(connect::time(&self.pool)).await?)
    }

    /// Everything that is wrong with what is stored, which may be in use; nothing when it is whole. It takes as long as
    /// reading all of it takes.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        let db = self.pool.get().await.map_err(DbError::from)?;
        Ok(care::problems(&db).await?)
    }

    /// Takes over all that another store held. Nothing may be here yet.
    ///
    /// # Errors
    /// [`ImportError`]; then nothing is here that was not here before.
    pub async fn import(&self, contents: &Contents) -> Result<(), ImportError> {
        let db = self.pool.get().await.map_err(DbError::from)?;
        import::import(&db, self.id, contents).await
    }

    /// Asks the database for something, on a connection of the pool.
    async fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        in_time(async { question(self.pool.get().await?).await }).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn register(&self, registration: Registration, now: Timestamp) -> Result<Session, ChangeError> {
        let Registration { id, provider, provider_secret, provider_key, offer, cap_bytes } = registration;
        for _ in 0..ATTEMPTS {
            let Some(known) =
                self.ask(async |db| session_rows::by_id(&db, id).await).await.map_err(StoreError::from)?
            else {
                let session = Session::register(
                    id,
                    provider.clone(),
                    provider_secret,
                    provider_key,
                    offer.clone(),
                    cap_bytes,
                    now,
                );
                let inserted = self.ask(async |db| session_rows::insert(&db, self.id, &session).await).await;
                if inserted.map_err(StoreError::from)? {
                    return Ok(session);
                }
                continue;
            };
            let mut session = known.session.clone();
            session.register_again(&provider, provider_secret, provider_key, offer.clone(), now)?;
            if self.replace(&known, &session, now).await? {
                return Ok(session);
            }
        }
        Err(StoreError::from(DbError::Contended).into())
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let read = self.ask(async |db| session_rows::by_id(&db, id).await).await?;
        Ok(read.map(|read| read.session))
    }

    async fn session_by_token(&self, token: SecretHash) -> Result<Option<Session>, StoreError> {
        let read = self.ask(async |db| session_rows::by_token(&db, token).await).await?;
        Ok(read.map(|read| read.session))
    }

    async fn sessions(&self, ids: Vec<SessionId>) -> Result<Vec<Session>, StoreError> {
        Ok(self.ask(async |db| session_rows::by_ids(&db, &ids).await).await?)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn changes(&self) -> BoxStream<'static, Elsewhere> {
        listening::changes(self.connector.clone(), self.id, self.heard.clone())
    }

    fn silence(&self) -> Duration {
        self.heard.silence()
    }

    async fn has_turn(&self, turn: Turn) -> Result<bool, StoreError> {
        Ok(self.ask(async |db| turns::take(&db, &turn, self.id).await).await?)
    }

    async fn admit(&self, rate: &SharedRate, _now: Timestamp) -> Result<SharedVerdict, StoreError> {
        Ok(self.ask(async |db| rates::admit(&db, rate).await).await?)
    }

    async fn forgive(&self, rate: &SharedRate, admitted_at: Timestamp) -> Result<(), StoreError> {
        Ok(self.ask(async |db| rates::forgive(&db, rate, admitted_at).await).await?)
    }

    async fn live_sessions(&self) -> Result<Vec<Session>, StoreError> {
        // What changes between two pages is notified, as what changes after the last one.
        let mut live: Vec<Session> = Vec::new();
        loop {
            let after = live.last().map(|session| session.id);
            let page = self.ask(async |db| session_rows::live(&db, after, LIVE_AT_ONCE).await).await?;
            if page.is_empty() {
                return Ok(live);
            }
            live.extend(page);
        }
    }

    async fn due(&self, silent_since: Timestamp, absent_since: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.ask(async |db| session_rows::due(&db, silent_since, absent_since).await).await?)
    }

    async fn change(&self, id: SessionId, change: Change, now: Timestamp) -> Result<Session, ChangeError> {
        for _ in 0..ATTEMPTS {
            let read = self.ask(async |db| session_rows::by_id(&db, id).await).await.map_err(StoreError::from)?;
            let known = read.ok_or(ChangeError::Unknown)?;
            let mut session = known.session.clone();
            session.apply(change.clone(), now)?;
            if let Some(lock) = session.lock_taken_since(&known.session) {
                // Asked after the session, which is free: so no lease is added any more.
                if self.ledger(id, now).await?.is_leased_for_another(lock) {
                    return Err(Refusal::StillLeased.into());
                }
            }
            let kept = match change {
                // Presence is no version of its own: it comes often, and goes forward only.
                Change::RenterHeartbeat { .. } => self.renters_seen(vec![id], now).await.map(|()| true)?,
                _ => self.replace(&known, &session, now).await?,
            };
            if kept {
                return Ok(session);
            }
        }
        Err(StoreError::from(DbError::Contended).into())
    }

    async fn forget_removed(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.ask(async |db| rates::forget_old(&db).await).await?;
        Ok(self.ask(async |db| session_rows::forget_removed(&db, before).await).await?)
    }

    async fn providers_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        Ok(self.ask(async |db| session_rows::providers_seen(&db, &ids, now).await).await?)
    }

    async fn renters_seen(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<(), StoreError> {
        Ok(self.ask(async |db| session_rows::renters_seen(&db, &ids, now).await).await?)
    }

    async fn grant(&self, request: LeaseRequest, policy: LeasePolicy, now: Timestamp) -> Result<Lease, GrantError> {
        let granted = self.grant_once(request, policy, now).await;
        if !matches!(granted, Err(GrantError::NoLock | GrantError::Short(_))) {
            return granted;
        }
        // What is known here may be of an earlier lock, or from before another node gave bytes back.
        self.ledgers.forget(request.session).await;
        self.grant_once(request, policy, now).await
    }

    async fn settle(&self, reports: Vec<LeaseReport>, now: Timestamp) -> Result<(), StoreError> {
        let sessions = reports.iter().map(|report| report.session).collect();
        let settled = self.change_ledgers(sessions, |session, known| {
            let mut ledger = (known.version > 0).then(|| known.ledger.clone())?;
            for report in reports.iter().filter(|report| report.session == session) {
                ledger.report(report, now);
            }
            Some((ledger, ()))
        });
        settled.await?;
        Ok(())
    }

    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>, now: Timestamp) -> Result<(), StoreError> {
        let sessions = spent.iter().map(|&(session, _)| session).collect();
        let recovered = self.change_ledgers(sessions, |session, known| {
            let mut ledger = (known.version > 0).then(|| known.ledger.clone())?;
            for (_, spent) in spent.iter().filter(|&&(of, _)| of == session) {
                ledger.recover(node, spent, now);
            }
            Some((ledger, ()))
        });
        recovered.await?;
        Ok(())
    }

    async fn expire_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        let sessions = self.ask(async |db| ledger_rows::with_expired_leases(&db, now).await).await?;
        let count = sessions.len() as u64;
        if count > 0 {
            let expired = self.change_ledgers(sessions, |_, known| {
                let mut ledger = known.ledger.clone();
                ledger.advance(now);
                Some((ledger, ()))
            });
            expired.await?;
        }
        Ok(count)
    }

    async fn usage_record(&self, lock: LockId) -> Result<Option<UsageRecord>, StoreError> {
        Ok(self.ask(async |db| usage_rows::by_lock(&db, lock).await).await?)
    }

    async fn usage_records(
        &self,
        filter: UsageFilter,
        after: Option<(Timestamp, LockId)>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        Ok(self.ask(async |db| usage_rows::find(&db, &filter, after, limit).await).await?)
    }

    async fn prune_usage(&self, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.ask(async |db| usage_rows::prune(&db, before).await).await?)
    }

    async fn carried_usage(&self, after: Option<CarriedUsage>, limit: u32) -> Result<Vec<CarriedUsage>, StoreError> {
        Ok(self.ask(async |db| usage_rows::carried(&db, after.as_ref(), limit).await).await?)
    }

    async fn webhook_cursor(&self, target: String) -> Result<Option<u64>, StoreError> {
        Ok(self.ask(async |db| queries::webhook_cursor(&db, &target).await).await?)
    }

    async fn save_webhook_cursor(&self, target: String, place: u64) -> Result<(), StoreError> {
        Ok(self.ask(async |db| queries::save_webhook_cursor(&db, &target, place).await).await?)
    }

    fn forfeited_bytes(&self) -> u64 {
        self.forfeited.load(Ordering::Relaxed)
    }

    async fn ledger(&self, id: SessionId, now: Timestamp) -> Result<Ledger, StoreError> {
        let read = self.ask(async |db| ledger_rows::load(&db, &[id]).await).await?;
        let mut ledger = read.into_iter().next().map(|(_, known)| known.ledger).unwrap_or_default();
        ledger.advance(now);
        Ok(ledger)
    }

    async fn append_events(&self, events: Vec<SecurityEvent>) -> Result<bool, StoreError> {
        // One of this node's at a time; others' are found out by the statement.
        let _appending = self.appending.lock().await;
        for _ in 0..ATTEMPTS {
            if let Some(tampered) = self.ask(async |db| event_rows::append(&db, &self.key, &events).await).await? {
                return Ok(tampered);
            }
        }
        Err(DbError::Contended.into())
    }

    async fn events(&self, limit: u32) -> Result<Vec<SecurityEvent>, StoreError> {
        Ok(self.ask(async |db| event_rows::last(&db, limit).await).await?)
    }

    async fn find_events(
        &self,
        filter: EventFilter,
        from: EventsFrom,
        limit: u32,
    ) -> Result<Vec<PlacedEvent>, StoreError> {
        Ok(self.ask(async |db| queries::find_events(&db, &filter, from, limit).await).await?)
    }

    async fn count_events(
        &self,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<(Timestamp, EventKind, u64)>, StoreError> {
        Ok(self.ask(async |db| queries::count_events(&db, since, step).await).await?)
    }

    async fn records(&self, ids: Vec<SessionId>, now: Timestamp) -> Result<Vec<(Session, Ledger)>, StoreError> {
        let sessions = self.ask(async |db| session_rows::by_ids(&db, &ids).await).await?;
        let known = self.ask(async |db| ledger_rows::load(&db, &ids).await).await?;
        let mut ledgers: HashMap<_, _> = known.into_iter().map(|(id, known)| (id, known.ledger)).collect();
        let record = |session: Session| {
            let mut ledger = ledgers.remove(&session.id).unwrap_or_default();
            ledger.advance(now);
            (session, ledger)
        };
        Ok(sessions.into_iter().map(record).collect())
    }

    async fn sessions_with_ledgers(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.ask(async |db| queries::sessions_with_ledgers(&db).await).await?)
    }

    async fn providers(&self) -> Result<Vec<ProviderRecord>, StoreError> {
        Ok(self.ask(async |db| queries::providers(&db).await).await?)
    }

    async fn add_key(&self, key: Key) -> Result<(), StoreError> {
        Ok(self.ask(async |db| key_rows::insert(&db, self.id, &key).await).await?)
    }

    async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<Key>, StoreError> {
        Ok(self.ask(async |db| key_rows::revoke(&db, self.id, id, now).await).await?)
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        Ok(self.ask(async |db| key_rows::all(&db).await).await?)
    }

    async fn events_after(&self, place: u64, limit: u32) -> Result<Vec<Link>, StoreError> {
        Ok(self.ask(async |db| event_rows::after(&db, place, limit).await).await?)
    }

    async fn trail_marks(&self) -> Result<TrailMarks, StoreError> {
        Ok(self.ask(async |db| event_rows::marks(&db).await).await?)
    }

    async fn prune_events(&self, keep: u64, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.ask(async |db| event_rows::prune(&db, &self.key, keep, before).await).await?)
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        Ok(self.ask(async |db| queries::probe(&db, now).await).await?)
    }
}

impl PostgresStore {
    async fn replace(&self, known: &Versioned, session: &Session, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.ask(async |db| session_rows::replace(&db, self.id, known, session, now).await).await?)
    }
}

/// PostgreSQL's integers are signed: what is beyond 2^63 is kept as 2^63 - 1, which no time or byte count reaches.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(value: Timestamp) -> i64 {
    integer(value.unix_ms())
}

fn unsigned(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::Damaged("a negative number"))
}
