//! Usage records as rows. What is added to them is part of the statement that books it: see `ledger_rows` and
//! `session_rows`.

use std::collections::HashMap;

use deadpool_postgres::Client;
use runit_core::ledger::Usage;
use runit_core::session::Session;
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use runit_core::{LockId, ProviderId, SessionId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{DbError, time, unsigned};

/// Nothing is added any more when the lock has ended and the ledger has no lease of it.
const COLUMNS: &str = "*, ended_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM ledgers WHERE ledgers.session = usage_records.session
            AND open @> jsonb_build_array(jsonb_build_object('lock', lock))
    ) AS is_final";

pub(super) async fn by_lock(db: &Client, lock: LockId) -> Result<Option<UsageRecord>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM usage_records WHERE lock = $1");
    Ok(several(db, &sql, &[&lock.as_uuid()], record).await?.pop())
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
    several(db, &sql, &[&session, &provider, &since, &before, &started_at, &lock, &limit], record).await
}

/// Deletes final records of locks that ended before then, and adds them to what is carried on; in one statement.
pub(super) async fn prune(db: &Client, before: Timestamp) -> Result<u64, DbError> {
    let sql = "WITH old AS (
             DELETE FROM usage_records WHERE lock IN (
                 SELECT lock FROM usage_records WHERE ended_at < $1 AND NOT EXISTS (
                     SELECT FROM ledgers WHERE ledgers.session = usage_records.session
                         AND open @> jsonb_build_array(jsonb_build_object('lock', lock))
                 ) ORDER BY ended_at, lock LIMIT 1000
             ) RETURNING *
         ), carried AS (
             INSERT INTO usage_carried AS carried (session, provider, registered_at, records, seconds, started_at,
                 ended_at, bytes_in, bytes_out, forfeited)
             SELECT old.session, old.provider, coalesce((document ->> 'registered_at')::bigint, 0) AS registered,
                 count(*), sum(greatest(ended_at - started_at + 999, 0) / 1000)::bigint, min(started_at), max(ended_at),
                 sum(bytes_in)::bigint, sum(bytes_out)::bigint, sum(forfeited)::bigint
             FROM old LEFT JOIN sessions
                 ON sessions.id = old.session AND (document ->> 'registered_at')::bigint <= old.started_at
             GROUP BY old.session, old.provider, registered
             ON CONFLICT (session, provider, registered_at) DO UPDATE SET records = carried.records + excluded.records,
                 seconds = carried.seconds + excluded.seconds,
                 started_at = least(carried.started_at, excluded.started_at),
                 ended_at = greatest(carried.ended_at, excluded.ended_at),
                 bytes_in = carried.bytes_in + excluded.bytes_in, bytes_out = carried.bytes_out + excluded.bytes_out,
                 forfeited = carried.forfeited + excluded.forfeited
         )
         SELECT count(*) FROM old";
    let statement = db.prepare_cached(sql).await?;
    unsigned(db.query_one(&statement, &[&time(before)]).await?.try_get(0)?)
}

/// What is carried on, beginning after `after`.
pub(super) async fn carried(
    db: &Client,
    after: Option<&CarriedUsage>,
    limit: u32,
) -> Result<Vec<CarriedUsage>, DbError> {
    let sql = "SELECT * FROM usage_carried
         WHERE $1::uuid IS NULL OR (session, provider, registered_at) > ($1, $2::text, $3::bigint)
         ORDER BY session, provider, registered_at LIMIT $4";
    let session = after.map(|after| after.session.as_uuid());
    let (provider, registered_at) =
        (after.map(|after| after.provider.as_str()), after.map(|after| time(after.registered_at)));
    several(db, sql, &[&session, &provider, &registered_at, &i64::from(limit)], carried_row).await
}

/// The sum of each session's records since it was registered, and of what is carried on of them.
pub(super) async fn sums(db: &Client, sessions: &[Session]) -> Result<HashMap<Uuid, Result<Usage, DbError>>, DbError> {
    let sql = "SELECT asked.session, coalesce(sum(bytes_in), 0)::bigint AS bytes_in,
             coalesce(sum(bytes_out), 0)::bigint AS bytes_out, coalesce(sum(forfeited), 0)::bigint AS forfeited
         FROM unnest($1::uuid[], $2::bigint[]) AS asked (session, since) LEFT JOIN LATERAL (
             SELECT bytes_in, bytes_out, forfeited FROM usage_records AS record
             WHERE record.session = asked.session AND started_at >= since
             UNION ALL
             SELECT bytes_in, bytes_out, forfeited FROM usage_carried AS carried
             WHERE carried.session = asked.session AND registered_at = since
         ) AS used ON true GROUP BY asked.session";
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.id.as_uuid()).collect();
    let since: Vec<i64> = sessions.iter().map(|session| time(session.registered_at)).collect();
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, &[&ids, &since]).await?;
    rows.iter().map(|row| Ok((row.try_get("session")?, usage(row)))).collect()
}

async fn several<T>(
    db: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    read: fn(&Row) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, parameters).await?.iter().map(read).collect()
}

fn record(row: &Row) -> Result<UsageRecord, DbError> {
    Ok(UsageRecord {
        lock: LockId::from_uuid(row.try_get("lock")?),
        session: SessionId::from_uuid(row.try_get("session")?),
        provider: provider(row)?,
        pricing: row.try_get("pricing")?,
        started_at: at(row.try_get("started_at")?)?,
        ended_at: row.try_get::<_, Option<i64>>("ended_at")?.map(at).transpose()?,
        used: usage(row)?,
        is_final: row.try_get("is_final")?,
    })
}

fn carried_row(row: &Row) -> Result<CarriedUsage, DbError> {
    Ok(CarriedUsage {
        session: SessionId::from_uuid(row.try_get("session")?),
        provider: provider(row)?,
        registered_at: at(row.try_get("registered_at")?)?,
        records: unsigned(row.try_get("records")?)?,
        seconds: unsigned(row.try_get("seconds")?)?,
        started_at: at(row.try_get("started_at")?)?,
        ended_at: at(row.try_get("ended_at")?)?,
        used: usage(row)?,
    })
}

fn provider(row: &Row) -> Result<ProviderId, DbError> {
    row.try_get::<_, &str>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))
}

fn at(ms: i64) -> Result<Timestamp, DbError> {
    unsigned(ms).map(Timestamp::from_unix_ms)
}

fn usage(row: &Row) -> Result<Usage, DbError> {
    let bytes = |column| unsigned(row.try_get(column)?);
    Ok(Usage { bytes_in: bytes("bytes_in")?, bytes_out: bytes("bytes_out")?, forfeited: bytes("forfeited")? })
}
