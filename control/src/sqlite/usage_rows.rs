//! Usage records as rows.

use runit_core::ledger::Usage;
use runit_core::session::Session;
use runit_core::usage::{CarriedUsage, RecordChange, UsageFilter, UsageRecord, record_change};
use runit_core::{LockId, ProviderId, SessionId, Timestamp};
use rusqlite::{Connection, Row, ToSql, named_params, params};

use super::rows::{Columns, id, integer, time};
use super::worker::DbError;

const COLUMNS: &str = "*, (ended_at IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM leases WHERE leases.lock = usage_records.lock)) AS is_final";
/// Records that are deleted at one time: others wait no longer than for so many.
const PRUNED_AT_ONCE: u32 = 1_000;

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
    Ok(several(db, &sql, params![lock.as_uuid().into_bytes()], record)?.pop())
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
        record,
    )
}

/// Deletes final records of locks that ended before then, and adds them to what is carried on.
pub(super) fn prune(db: &Connection, before: Timestamp) -> Result<u64, DbError> {
    // The same ones for both statements.
    let old = "SELECT lock FROM usage_records WHERE ended_at < ?1
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.lock = usage_records.lock) ORDER BY ended_at, lock LIMIT ?2";
    let parameters = params![time(before), PRUNED_AT_ONCE];
    db.prepare_cached(&format!(
        "INSERT INTO usage_carried
             (session, provider, registered_at, records, seconds, started_at, ended_at, bytes_in, bytes_out, forfeited)
         SELECT session, record.provider, coalesce(sessions.registered_at, 0) AS registered, count(*),
             sum(max(ended_at - started_at + 999, 0) / 1000), min(started_at), max(ended_at), sum(bytes_in),
             sum(bytes_out), sum(forfeited)
         FROM usage_records AS record
             LEFT JOIN sessions ON sessions.id = session AND sessions.registered_at <= started_at
         WHERE lock IN ({old}) GROUP BY session, record.provider, registered
         ON CONFLICT (session, provider, registered_at) DO UPDATE SET records = records + excluded.records,
             seconds = seconds + excluded.seconds, started_at = min(started_at, excluded.started_at),
             ended_at = max(ended_at, excluded.ended_at), bytes_in = bytes_in + excluded.bytes_in,
             bytes_out = bytes_out + excluded.bytes_out, forfeited = forfeited + excluded.forfeited"
    ))?
    .execute(parameters)?;
    let deleted =
        db.prepare_cached(&format!("DELETE FROM usage_records WHERE lock IN ({old})"))?.execute(parameters)?;
    Ok(deleted as u64)
}

/// What is carried on, beginning after `after`.
pub(super) fn carried(db: &Connection, after: Option<&CarriedUsage>, limit: u32) -> Result<Vec<CarriedUsage>, DbError> {
    let sql = "SELECT * FROM usage_carried WHERE ?1 IS NULL OR (session, provider, registered_at) > (?1, ?2, ?3)
        ORDER BY session, provider, registered_at LIMIT ?4";
    let parameters = params![
        after.map(|after| id(after.session)),
        after.map(|after| after.provider.as_str()),
        after.map(|after| time(after.registered_at)),
        limit,
    ];
    several(db, sql, parameters, carried_row)
}

/// The sum of a session's records since it was registered, and of what is carried on of them.
pub(super) fn sum(db: &Connection, session: &Session) -> Result<Usage, DbError> {
    let sql = "SELECT coalesce(sum(bytes_in), 0) AS bytes_in, coalesce(sum(bytes_out), 0) AS bytes_out,
        coalesce(sum(forfeited), 0) AS forfeited FROM (
            SELECT bytes_in, bytes_out, forfeited FROM usage_records WHERE session = ?1 AND started_at >= ?2
            UNION ALL
            SELECT bytes_in, bytes_out, forfeited FROM usage_carried WHERE session = ?1 AND registered_at = ?2
        )";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![id(session.id), time(session.registered_at)])?;
    let row = rows.next()?.ok_or(DbError::Damaged("a sum"))?;
    usage(row)
}

fn several<T>(
    db: &Connection,
    sql: &str,
    parameters: &[&dyn ToSql],
    read: fn(&Row<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn record(row: &Row<'_>) -> Result<UsageRecord, DbError> {
    Ok(UsageRecord {
        lock: row.optional_lock("lock")?.ok_or(DbError::Damaged("a lock's name"))?,
        session: row.session("session")?,
        provider: provider(row)?,
        pricing: row.get("pricing")?,
        started_at: row.time("started_at")?,
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(|_| row.time("ended_at")).transpose()?,
        used: usage(row)?,
        is_final: row.get("is_final")?,
    })
}

fn carried_row(row: &Row<'_>) -> Result<CarriedUsage, DbError> {
    Ok(CarriedUsage {
        session: row.session("session")?,
        provider: provider(row)?,
        registered_at: row.time("registered_at")?,
        records: row.unsigned("records")?,
        seconds: row.unsigned("seconds")?,
        started_at: row.time("started_at")?,
        ended_at: row.time("ended_at")?,
        used: usage(row)?,
    })
}

fn provider(row: &Row<'_>) -> Result<ProviderId, DbError> {
    row.get::<_, String>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))
}

fn usage(row: &Row<'_>) -> Result<Usage, DbError> {
    Ok(Usage {
        bytes_in: row.unsigned("bytes_in")?,
        bytes_out: row.unsigned("bytes_out")?,
        forfeited: row.unsigned("forfeited")?,
    })
}
