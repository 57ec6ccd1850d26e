//! Takes over all that another store held, in one transaction.

use deadpool_postgres::Client;
use runit_core::ledger::Ledger;
use runit_core::trail::{Link, SealedMark};
use runit_core::usage::{CarriedUsage, UsageRecord};
use runit_core::{KeyId, SessionId};
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::{DbError, document, integer, key_rows, queries, session_rows, time};
use crate::sqlite::Contents;

/// A store could not be taken over; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is something in it already.
    #[error("the database is not empty")]
    Occupied,
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DbError> for ImportError {
    fn from(error: DbError) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for ImportError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

/// All or nothing. Nodes that run already wait meanwhile.
pub(super) async fn import(db: &Client, store: Uuid, contents: &Contents) -> Result<(), ImportError> {
    db.batch_execute("BEGIN; LOCK TABLE sessions, usage_records, trail_marks, keys IN EXCLUSIVE MODE").await?;
    let imported = put(db, store, contents).await;
    db.batch_execute(if imported.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    imported
}

async fn put(db: &Client, store: Uuid, contents: &Contents) -> Result<(), ImportError> {
    let tables = ["sessions", "events", "keys", "usage_records"].map(|table| format!("EXISTS (SELECT FROM {table})"));
    if db.query_one(&format!("SELECT {}", tables.join(" OR ")), &[]).await?.try_get(0)? {
        return Err(ImportError::Occupied);
    }
    for (session, ledger) in &contents.sessions {
        session_rows::insert(db, store, session).await?;
        if let Some(ledger) = ledger {
            put_ledger(db, session.id, ledger).await?;
        }
    }
    for record in &contents.records {
        put_record(db, record).await?;
    }
    for carried in &contents.carried {
        put_carried(db, carried).await?;
    }
    for link in &contents.events {
        put_event(db, link).await?;
    }
    for (name, mark) in [("base", &contents.marks.base), ("head", &contents.marks.head)] {
        put_mark(db, name, mark).await?;
    }
    for key in &contents.keys {
        key_rows::insert(db, store, key).await?;
    }
    for (target, place) in &contents.webhook_cursors {
        queries::save_webhook_cursor(db, target, *place).await?;
    }
    Ok(())
}

async fn put_ledger(db: &Client, session: SessionId, ledger: &Ledger) -> Result<(), DbError> {
    let sql = "INSERT INTO ledgers (session, version, latest, open, settled, total, expires, closed)
         VALUES ($1, 1, $2, $3, $4, $5, $6, $7)";
    let statement = db.prepare_cached(sql).await?;
    let (open, settled) = (Json(document::open_leases(ledger)), Json(document::settled(ledger)));
    let (total, closed) = (Json(document::total(ledger)), Json(document::closed(ledger)));
    let expires = ledger.open.iter().map(|lease| time(lease.expires_at)).min();
    let (session, latest) = (session.as_uuid(), time(ledger.latest));
    db.execute(&statement, &[&session, &latest, &open, &settled, &total, &expires, &closed]).await?;
    Ok(())
}

async fn put_record(db: &Client, record: &UsageRecord) -> Result<(), DbError> {
    let sql = "INSERT INTO usage_records
         (lock, session, provider, pricing, started_at, ended_at, bytes_in, bytes_out, forfeited)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let statement = db.prepare_cached(sql).await?;
    let (lock, session) = (record.lock.as_uuid(), record.session.as_uuid());
    let (started_at, ended_at) = (time(record.started_at), record.ended_at.map(time));
    let [bytes_in, bytes_out, forfeited] =
        [record.used.bytes_in, record.used.bytes_out, record.used.forfeited].map(integer);
    let provider = record.provider.as_str();
    db.execute(
        &statement,
        &[&lock, &session, &provider, &record.pricing, &started_at, &ended_at, &bytes_in, &bytes_out, &forfeited],
    )
    .await?;
    Ok(())
}

async fn put_carried(db: &Client, carried: &CarriedUsage) -> Result<(), DbError> {
    let sql = "INSERT INTO usage_carried
         (session, provider, registered_at, records, seconds, started_at, ended_at, bytes_in, bytes_out, forfeited)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let statement = db.prepare_cached(sql).await?;
    let (session, provider) = (carried.session.as_uuid(), carried.provider.as_str());
    let [registered_at, started_at, ended_at] = [carried.registered_at, carried.started_at, carried.ended_at].map(time);
    let used = &carried.used;
    let [records, seconds, bytes_in, bytes_out, forfeited] =
        [carried.records, carried.seconds, used.bytes_in, used.bytes_out, used.forfeited].map(integer);
    db.execute(
        &statement,
        &[
            &session,
            &provider,
            &registered_at,
            &records,
            &seconds,
            &started_at,
            &ended_at,
            &bytes_in,
            &bytes_out,
            &forfeited,
        ],
    )
    .await?;
    Ok(())
}

async fn put_event(db: &Client, link: &Link) -> Result<(), DbError> {
    let sql = "INSERT INTO events (place, hash, at, kind, session, provider, address, operator, key)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let statement = db.prepare_cached(sql).await?;
    let event = &link.event;
    let hash = link.hash.as_ref().map(|hash| hash.0.as_slice());
    let (place, at, kind) = (integer(link.place), time(event.at), event.kind.as_str());
    let (session, key) = (event.session.map(SessionId::as_uuid), event.key.map(KeyId::as_uuid));
    let provider = event.provider.as_ref().map(ToString::to_string);
    let address = event.address.map(|address| address.to_string());
    let operator = event.operator.map(|operator| operator.to_string());
    db.execute(&statement, &[&place, &hash, &at, &kind, &session, &provider, &address, &operator, &key]).await?;
    Ok(())
}

async fn put_mark(db: &Client, name: &str, sealed: &SealedMark) -> Result<(), DbError> {
    let sql = "UPDATE trail_marks SET place = $2, hash = $3, seal = $4 WHERE name = $1";
    let statement = db.prepare_cached(sql).await?;
    let (hash, seal) = (sealed.mark.hash.0.as_slice(), sealed.seal.0.as_slice());
    db.execute(&statement, &[&name, &integer(sealed.mark.place), &hash, &seal]).await?;
    Ok(())
}
