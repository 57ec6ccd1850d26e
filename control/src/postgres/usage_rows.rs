//! Usage records as rows. What is added to them is part of the statement that books it: see `ledger_rows` and
//! `session_rows`.

use deadpool_postgres::Client;
use runit_core::ledger::Usage;
use runit_core::usage::{UsageFilter, UsageRecord};
use runit_core::{LockId, ProviderId, SessionId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{DbError, time, unsigned};

/// Nothing is added any more when the lock has ended and the ledger has no lease of it.
const COLUMNS: &str = "*, ended_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM ledgers WHERE ledgers.session = usage_records.session
            AND open @> jsonb_build_array(jsonb_build_object('lock', lock))
    ) AS is_final";

pub(super) async fn by_lock(db: &Client, lock: LockId) -> Result<Option<UsageRecord>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM usage_records WHERE lock = $1");
    Ok(several(db, &sql, &[&lock.as_uuid()]).await?.pop())
}

/// Those that pass the filter, by their start, beginning after `after`.
pub(super) async fn find(
    db: &Client,
    filter: &UsageFilter,
    after: Option<(Timestamp, LockId)>,
    limit: u32,
) -> Result<Vec<UsageRecord>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM usage_records
         WHERE ($1::uuid IS NULL OR session = $1) AND ($2::text IS NULL OR provider = $2)
             AND ($3::bigint IS NULL OR ended_at >= $3) AND ($4::bigint IS NULL OR ended_at < $4)
             AND ($5::bigint IS NULL OR (started_at, lock) > ($5, $6::uuid))
         ORDER BY started_at, lock LIMIT $7"
    );
    let session = filter.session.map(SessionId::as_uuid);
    let provider = filter.provider.as_ref().map(ProviderId::as_str);
    let (since, before) = (filter.ended_since.map(time), filter.ended_before.map(time));
    let (started_at, lock) = (after.map(|(started_at, _)| time(started_at)), after.map(|(_, lock)| lock.as_uuid()));
    let limit = i64::from(limit);
    several(db, &sql, &[&session, &provider, &since, &before, &started_at, &lock, &limit]).await
}

async fn several(db: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<UsageRecord>, DbError> {
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, parameters).await?.iter().map(record).collect()
}

fn record(row: &Row) -> Result<UsageRecord, DbError> {
    let at = |ms: i64| unsigned(ms).map(Timestamp::from_unix_ms);
    let bytes = |column| unsigned(row.try_get(column)?);
    Ok(UsageRecord {
        lock: LockId::from_uuid(row.try_get("lock")?),
        session: SessionId::from_uuid(row.try_get("session")?),
        provider: row.try_get::<_, &str>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))?,
        pricing: row.try_get("pricing")?,
        started_at: at(row.try_get("started_at")?)?,
        ended_at: row.try_get::<_, Option<i64>>("ended_at")?.map(at).transpose()?,
        used: Usage { bytes_in: bytes("bytes_in")?, bytes_out: bytes("bytes_out")?, forfeited: bytes("forfeited")? },
        is_final: row.try_get("is_final")?,
    })
}
