//! Sessions as rows. Each function is one statement.
//!
//! Every change of a row of `sessions` is notified, in the statement that makes it, as `<store>:<session>`: the store that
//! made it knows already, all others read the session.

use deadpool_postgres::Client;
use runit_core::session::{Session, SessionState};
use runit_core::usage::{RecordChange, record_change};
use runit_core::{SecretHash, SessionId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::document::{SessionDocument, SessionRow, tokens_of};
use super::{DbError, integer, time, unsigned};

/// Where changes are notified.
pub(super) const CHANNEL: &str = "runit_sessions";

const SELECT: &str = "SELECT sessions.*, provider_seen_at, renter_seen_at
     FROM sessions JOIN presence ON presence.session = sessions.id";

/// A session with the version of the row that it was read from.
pub(super) struct Versioned {
    pub(super) session: Session,
    pub(super) version: i64,
}

pub(super) async fn by_id(db: &Client, id: SessionId) -> Result<Option<Versioned>, DbError> {
    first(db, &format!("{SELECT} WHERE id = $1"), &[&id.as_uuid()]).await
}

pub(super) async fn by_token(db: &Client, token: SecretHash) -> Result<Option<Versioned>, DbError> {
    first(db, &format!("{SELECT} WHERE tokens @> ARRAY[$1::bytea]"), &[&token.as_bytes().as_slice()]).await
}

pub(super) async fn by_ids(db: &Client, ids: &[SessionId]) -> Result<Vec<Session>, DbError> {
    several(db, &format!("{SELECT} WHERE id = ANY($1)"), &[&uuids(ids)]).await
}

/// Those that are not removed, by id, beginning after `after`.
pub(super) async fn live(db: &Client, after: Option<SessionId>, limit: u32) -> Result<Vec<Session>, DbError> {
    let (live, limit) = (format!("{SELECT} WHERE status <> 'REMOVED'"), i64::from(limit));
    match after {
        None => several(db, &format!("{live} ORDER BY id LIMIT $1"), &[&limit]).await,
        // A statement of its own: one that bears with no `after` would not be looked up by index.
        Some(id) => several(db, &format!("{live} AND id > $2 ORDER BY id LIMIT $1"), &[&limit, &id.as_uuid()]).await,
    }
}

/// Sessions by id, beginning after `after`, each as far as it can be read.
pub(super) async fn page(
    db: &Client,
    after: Option<SessionId>,
    limit: u32,
) -> Result<Vec<(SessionId, Result<Session, DbError>)>, DbError> {
    let sql = "SELECT sessions.*, provider_seen_at, renter_seen_at, presence.session IS NOT NULL AS has_presence
         FROM sessions LEFT JOIN presence ON presence.session = sessions.id
         WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2";
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, &[&after.map(SessionId::as_uuid), &i64::from(limit)]).await?;
    let read = |row: &Row| {
        if !row.try_get("has_presence")? {
            return Err(DbError::Damaged("a session without its presence"));
        }
        versioned(row).map(|read| read.session)
    };
    rows.iter().map(|row| Ok((SessionId::from_uuid(row.try_get("id")?), read(row)))).collect()
}

pub(super) async fn due(db: &Client, silent: Timestamp, absent: Timestamp) -> Result<Vec<SessionId>, DbError> {
    let sql = "SELECT session FROM presence WHERE provider_seen_at <= $1 OR renter_seen_at <= $2";
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, &[&time(silent), &time(absent)]).await?;
    rows.iter().map(|row| Ok(SessionId::from_uuid(row.try_get(0)?))).collect()
}

pub(super) async fn forget_removed(db: &Client, before: Timestamp) -> Result<u64, DbError> {
    let statement = db.prepare_cached("DELETE FROM sessions WHERE removed_at < $1").await?;
    Ok(db.execute(&statement, &[&time(before)]).await?)
}

/// Whether it was inserted; it is not when somebody else has inserted one of this name.
pub(super) async fn insert(db: &Client, store: Uuid, session: &Session) -> Result<bool, DbError> {
    let sql = "WITH inserted AS (
             INSERT INTO sessions (id, version, status, tokens, cap_bytes, removed_at, sealed_credential, document)
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id
         ), present AS (
             INSERT INTO presence (session, provider_seen_at, renter_seen_at) SELECT id, $8, $9 FROM inserted
         )
         SELECT pg_notify('runit_sessions', $10 || ':' || id) FROM inserted";
    let columns = Columns::of(session);
    let statement = db.prepare_cached(sql).await?;
    let [id, status, tokens, cap, removed_at, sealed, document, provider_seen, renter_seen] = columns.parameters();
    let notifier = store.to_string();
    let parameters = [id, status, tokens, cap, removed_at, sealed, document, provider_seen, renter_seen, &notifier];
    Ok(!db.query(&statement, &parameters).await?.is_empty())
}

/// Whether it was replaced; it is not when the row has changed since `known` was read.
pub(super) async fn replace(
    db: &Client,
    store: Uuid,
    known: &Versioned,
    session: &Session,
    now: Timestamp,
) -> Result<bool, DbError> {
    // Presence goes forward only; another node may have written a later one.
    let sql = "WITH replaced AS (
             UPDATE sessions SET version = version + 1, status = $2, tokens = $3, cap_bytes = $4, removed_at = $5,
                 sealed_credential = $6, document = $7
             WHERE id = $1 AND version = $11 RETURNING id
         ), present AS (
             UPDATE presence SET
                 provider_seen_at = CASE WHEN $8::bigint IS NOT NULL THEN greatest(provider_seen_at, $8) END,
                 renter_seen_at = CASE WHEN $9::bigint IS NOT NULL THEN greatest(renter_seen_at, $9) END
             FROM replaced WHERE presence.session = replaced.id
         )
         , recorded AS (
             INSERT INTO usage_records (lock, session, provider, pricing, started_at, ended_at)
             SELECT $12, id, $13, $14, $15, $16 FROM replaced WHERE $12::uuid IS NOT NULL
             ON CONFLICT (lock) DO UPDATE SET ended_at = coalesce(usage_records.ended_at, excluded.ended_at)
         )
         SELECT pg_notify('runit_sessions', $10 || ':' || id) FROM replaced";
    let columns = Columns::of(session);
    let statement = db.prepare_cached(sql).await?;
    let [id, status, tokens, cap, removed_at, sealed, document, provider_seen, renter_seen] = columns.parameters();
    let notifier = store.to_string();
    let record = match record_change(&known.session, session, now) {
        Some(RecordChange::Began(record) | RecordChange::Ended(record)) => Some(record),
        None => None,
    };
    let lock = record.as_ref().map(|record| record.lock.as_uuid());
    let provider = record.as_ref().map(|record| record.provider.as_str());
    let pricing = record.as_ref().and_then(|record| record.pricing.as_deref());
    let started_at = record.as_ref().map(|record| time(record.started_at));
    let ended_at = record.as_ref().and_then(|record| record.ended_at).map(time);
    let parameters: [&(dyn ToSql + Sync); 16] = [
        id,
        status,
        tokens,
        cap,
        removed_at,
        sealed,
        document,
        provider_seen,
        renter_seen,
        &notifier,
        &known.version,
        &lock,
        &provider,
        &pricing,
        &started_at,
        &ended_at,
    ];
    Ok(!db.query(&statement, &parameters).await?.is_empty())
}

pub(super) async fn providers_seen(db: &Client, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE presence SET provider_seen_at = $2 WHERE session = ANY($1) AND provider_seen_at < $2";
    seen(db, sql, ids, now).await
}

pub(super) async fn renters_seen(db: &Client, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE presence SET renter_seen_at = $2 WHERE session = ANY($1) AND renter_seen_at < $2";
    seen(db, sql, ids, now).await
}

async fn seen(db: &Client, sql: &str, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    // In one order everywhere, so that two nodes that write the same rows do not wait for each other.
    let mut ids = uuids(ids);
    ids.sort_unstable();
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&ids, &time(now)]).await?;
    Ok(())
}

/// A session's values, as parameters.
struct Columns<'a> {
    id: Uuid,
    status: &'static str,
    tokens: Vec<&'a [u8]>,
    cap_bytes: i64,
    removed_at: Option<i64>,
    sealed_credential: &'a [u8],
    document: Json<SessionDocument>,
    provider_seen_at: Option<i64>,
    renter_seen_at: Option<i64>,
}

impl<'a> Columns<'a> {
    fn of(session: &'a Session) -> Self {
        let removed_at = match session.state {
            SessionState::Removed { since, .. } => Some(time(since)),
            _ => None,
        };
        Self {
            id: session.id.as_uuid(),
            status: session.status().as_str(),
            tokens: tokens_of(session),
            cap_bytes: integer(session.cap_bytes),
            removed_at,
            sealed_credential: &session.offer.sealed_credential,
            document: Json(SessionDocument::of(session)),
            provider_seen_at: removed_at.is_none().then(|| time(session.provider_seen_at)),
            renter_seen_at: session.lock().map(|lock| time(lock.renter_seen_at)),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.id,
            &self.status,
            &self.tokens,
            &self.cap_bytes,
            &self.removed_at,
            &self.sealed_credential,
            &self.document,
            &self.provider_seen_at,
            &self.renter_seen_at,
        ]
    }
}

async fn first(db: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Versioned>, DbError> {
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, parameters).await?.first().map(versioned).transpose()
}

async fn several(db: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Session>, DbError> {
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, parameters).await?;
    rows.iter().map(|row| versioned(row).map(|read| read.session)).collect()
}

fn versioned(row: &Row) -> Result<Versioned, DbError> {
    let seen = |column| row.try_get::<_, Option<i64>>(column)?.map(unsigned).transpose();
    let columns = SessionRow {
        id: SessionId::from_uuid(row.try_get("id")?),
        status: row.try_get("status")?,
        tokens: row.try_get("tokens")?,
        cap_bytes: unsigned(row.try_get("cap_bytes")?)?,
        sealed_credential: row.try_get("sealed_credential")?,
        provider_seen_at: seen("provider_seen_at")?.map(Timestamp::from_unix_ms),
        renter_seen_at: seen("renter_seen_at")?.map(Timestamp::from_unix_ms),
    };
    let Json(document): Json<SessionDocument> = row.try_get("document")?;
    Ok(Versioned { session: document.into_session(columns)?, version: row.try_get("version")? })
}

fn uuids(ids: &[SessionId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.as_uuid()).collect()
}
