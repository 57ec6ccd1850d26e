//! Usage records as rows.

use runit_core::ledger::Usage;
use runit_core::session::Session;
use runit_core::usage::{RecordChange, UsageFilter, UsageRecord, record_change};
use runit_core::{LockId, SessionId, Timestamp};
use rusqlite::{Connection, Row, named_params, params};

use super::rows::{Columns, id, integer, time};
use super::worker::DbError;

const COLUMNS: &str = "*, (ended_at IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM leases WHERE leases.lock = usage_records.lock)) AS is_final";

/// Follows a change to a session.
pub(super) fn follow(db: &Connection, before: &Session, after: &Session, now: Timestamp) -> Result<(), DbError> {
    let (record, on_conflict) = match record_change(before, after, now) {
        None => return Ok(()),
        Some(RecordChange::Began(record)) => (record, "DO NOTHING"),
        Some(RecordChange::Ended(record)) => (record, "DO UPDATE SET ended_at = excluded.ended_at"),
    };
    db.prepare_cached(&format!(
        "INSERT INTO usage_records (lock, session, provider, pricing, started_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (lock) {on_conflict}"
    ))?
    .execute(params![
        record.lock.as_uuid().into_bytes(),
        id(record.session),
        record.provider.as_str(),
        record.pricing,
        time(record.started_at),
        record.ended_at.map(time),
    ])?;
    Ok(())
}

/// Adds what was booked. A lock that was taken before records were kept gets one from what its session is now.
pub(super) fn add(db: &Connection, session: SessionId, lock: LockId, booked: &Usage) -> Result<(), DbError> {
    let changed = db
        .prepare_cached(
            "INSERT INTO usage_records (lock, session, provider, pricing, started_at, ended_at, bytes_in, bytes_out, forfeited)
             SELECT :lock, id, provider, pricing, coalesce(taken_at, since, registered_at),
                 CASE status WHEN 'LOCKED' THEN NULL ELSE coalesce(since, registered_at) END,
                 :bytes_in, :bytes_out, :forfeited
             FROM sessions WHERE id = :session
             ON CONFLICT (lock) DO UPDATE SET bytes_in = bytes_in + excluded.bytes_in,
                 bytes_out = bytes_out + excluded.bytes_out, forfeited = forfeited + excluded.forfeited",
        )?
        .execute(named_params! {
            ":lock": lock.as_uuid().into_bytes(),
            ":session": id(session),
            ":bytes_in": integer(booked.bytes_in),
            ":bytes_out": integer(booked.bytes_out),
            ":forfeited": integer(booked.forfeited),
        })?;
    if changed == 1 { Ok(()) } else { Err(DbError::Damaged("a ledger without its session")) }
}

pub(super) fn by_lock(db: &Connection, lock: LockId) -> Result<Option<UsageRecord>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM usage_records WHERE lock = ?1");
    Ok(several(db, &sql, params![lock.as_uuid().into_bytes()])?.pop())
}

/// Those that pass the filter, by their start, beginning after `after`.
pub(super) fn find(
    db: &Connection,
    filter: &UsageFilter,
    after: Option<(Timestamp, LockId)>,
    limit: u32,
) -> Result<Vec<UsageRecord>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM usage_records
         WHERE (?1 IS NULL OR session = ?1) AND (?2 IS NULL OR provider = ?2)
             AND (?3 IS NULL OR ended_at >= ?3) AND (?4 IS NULL OR ended_at < ?4)
             AND (?5 IS NULL OR (started_at, lock) > (?5, ?6))
         ORDER BY started_at, lock LIMIT ?7"
    );
    several(
        db,
        &sql,
        params![
            filter.session.map(id),
            filter.provider.as_ref().map(|provider| provider.as_str()),
            filter.ended_since.map(time),
            filter.ended_before.map(time),
            after.map(|(started_at, _)| time(started_at)),
            after.map(|(_, lock)| lock.as_uuid().into_bytes()),
            limit,
        ],
    )
}

/// The sum of a session's records since it was first registered.
pub(super) fn sum(db: &Connection, session: &Session) -> Result<Usage, DbError> {
    let sql = "SELECT coalesce(sum(bytes_in), 0) AS bytes_in, coalesce(sum(bytes_out), 0) AS bytes_out,
        coalesce(sum(forfeited), 0) AS forfeited FROM usage_records WHERE session = ?1 AND started_at >= ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![id(session.id), time(session.registered_at)])?;
    let row = rows.next()?.ok_or(DbError::Damaged("a sum"))?;
    usage(row)
}

fn several(db: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<UsageRecord>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn record(row: &Row<'_>) -> Result<UsageRecord, DbError> {
    Ok(UsageRecord {
        lock: row.optional_lock("lock")?.ok_or(DbError::Damaged("a lock's name"))?,
        session: row.session("session")?,
        provider: row.get::<_, String>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))?,
        pricing: row.get("pricing")?,
        started_at: row.time("started_at")?,
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(|_| row.time("ended_at")).transpose()?,
        used: usage(row)?,
        is_final: row.get("is_final")?,
    })
}

fn usage(row: &Row<'_>) -> Result<Usage, DbError> {
    Ok(Usage {
        bytes_in: row.unsigned("bytes_in")?,
        bytes_out: row.unsigned("bytes_out")?,
        forfeited: row.unsigned("forfeited")?,
    })
}
