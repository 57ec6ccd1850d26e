//! Ledgers as rows: closed usage by bucket, and open leases.

use std::collections::{BTreeMap, BTreeSet};

use runit_core::ledger::{Ledger, OpenLease, Settled, Usage};
use runit_core::{LockId, NodeId, SessionId, Timestamp};
use rusqlite::{Connection, named_params, params};

use super::rows::{Columns, id, integer, time};
use super::usage_rows;
use super::worker::DbError;

/// None for a session that never leased a byte.
pub(super) fn load(db: &Connection, session: SessionId) -> Result<Option<Ledger>, DbError> {
    let mut statement =
        db.prepare_cached("SELECT latest, total_in, total_out, total_forfeited FROM ledgers WHERE session = ?")?;
    let mut rows = statement.query([id(session)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let latest = row.time("latest")?;
    let total = Usage {
        bytes_in: row.unsigned("total_in")?,
        bytes_out: row.unsigned("total_out")?,
        forfeited: row.unsigned("total_forfeited")?,
    };
    let (closed, open, settled) = (closed(db, session)?, open(db, session)?, settled(db, session)?);
    Ok(Some(Ledger { closed, open, settled, latest, total, bookings: BTreeMap::new() }))
}

/// Not `DISTINCT`: for its order SQLite goes through all leases, and this is asked with each sweep.
pub(super) const EXPIRED: &str = "SELECT session FROM leases WHERE expires_at <= ? LIMIT 500";

/// Sessions with leases that are past their time, some of them.
pub(super) fn with_expired_leases(db: &Connection, now: Timestamp) -> Result<BTreeSet<SessionId>, DbError> {
    let mut statement = db.prepare_cached(EXPIRED)?;
    let mut rows = statement.query([time(now)])?;
    let mut sessions = BTreeSet::new();
    while let Some(row) = rows.next()? {
        sessions.insert(row.session("session")?);
    }
    Ok(sessions)
}

/// Writes back what `after` has different from `before`; answers how many bytes were forfeited in between.
pub(super) fn save(
    db: &Connection,
    session: SessionId,
    before: Option<&Ledger>,
    after: &Ledger,
) -> Result<u64, DbError> {
    if before.is_none_or(|before| before.latest != after.latest || before.total != after.total) {
        db.prepare_cached(
            "INSERT INTO ledgers (session, latest, total_in, total_out, total_forfeited) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (session) DO UPDATE SET latest = excluded.latest, total_in = excluded.total_in,
                 total_out = excluded.total_out, total_forfeited = excluded.total_forfeited",
        )?
        .execute(params![
            id(session),
            time(after.latest),
            integer(after.total.bytes_in),
            integer(after.total.bytes_out),
            integer(after.total.forfeited),
        ])?;
    }
    for (&lock, booked) in &after.bookings {
        usage_rows::add(db, session, lock, booked)?;
    }
    let empty = Ledger::default();
    let before = before.unwrap_or(&empty);
    save_closed(db, session, &before.closed, &after.closed)?;
    save_open(db, session, &before.open, &after.open)?;
    save_settled(db, session, &before.settled, &after.settled)?;
    let forfeited_before = |bucket| before.closed.get(bucket).map_or(0, |usage| usage.forfeited);
    let growth = |(bucket, usage): (_, &Usage)| usage.forfeited.saturating_sub(forfeited_before(bucket));
    Ok(after.closed.iter().map(growth).sum())
}

fn closed(db: &Connection, session: SessionId) -> Result<BTreeMap<u64, Usage>, DbError> {
    let mut statement =
        db.prepare_cached("SELECT bucket, bytes_in, bytes_out, forfeited FROM usage WHERE session = ?")?;
    let mut rows = statement.query([id(session)])?;
    let mut closed = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let usage = Usage {
            bytes_in: row.unsigned("bytes_in")?,
            bytes_out: row.unsigned("bytes_out")?,
            forfeited: row.unsigned("forfeited")?,
        };
        closed.insert(row.unsigned("bucket")?, usage);
    }
    Ok(closed)
}

fn open(db: &Connection, session: SessionId) -> Result<Vec<OpenLease>, DbError> {
    let mut statement = db.prepare_cached(
        "SELECT id, node, lock, granted, bytes_in, bytes_out, sequence, expires_at FROM leases
         WHERE session = ? ORDER BY place",
    )?;
    let mut rows = statement.query([id(session)])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        open.push(OpenLease {
            id: row.lease("id")?,
            node: row.node("node")?,
            lock: row.optional_lock("lock")?.unwrap_or(LockId::from_uuid(session.as_uuid())),
            granted: row.unsigned("granted")?,
            used: Usage { bytes_in: row.unsigned("bytes_in")?, bytes_out: row.unsigned("bytes_out")?, forfeited: 0 },
            sequence: row.unsigned("sequence")?,
            expires_at: row.time("expires_at")?,
        });
    }
    Ok(open)
}

fn settled(db: &Connection, session: SessionId) -> Result<BTreeMap<NodeId, Settled>, DbError> {
    let mut statement = db.prepare_cached("SELECT node, since, bytes_in, bytes_out FROM settled WHERE session = ?")?;
    let mut rows = statement.query([id(session)])?;
    let mut settled = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (bytes_in, bytes_out) = (row.unsigned("bytes_in")?, row.unsigned("bytes_out")?);
        settled.insert(row.node("node")?, Settled { since: row.lease("since")?, bytes_in, bytes_out });
    }
    Ok(settled)
}

fn save_closed(
    db: &Connection,
    session: SessionId,
    before: &BTreeMap<u64, Usage>,
    after: &BTreeMap<u64, Usage>,
) -> Result<(), DbError> {
    for &bucket in before.keys().filter(|bucket| !after.contains_key(bucket)) {
        db.prepare_cached("DELETE FROM usage WHERE session = ?1 AND bucket = ?2")?
            .execute(params![id(session), integer(bucket)])?;
    }
    for (bucket, usage) in after.iter().filter(|&(bucket, usage)| before.get(bucket) != Some(usage)) {
        db.prepare_cached(
            "INSERT OR REPLACE INTO usage (session, bucket, bytes_in, bytes_out, forfeited)
             VALUES (:session, :bucket, :bytes_in, :bytes_out, :forfeited)",
        )?
        .execute(named_params! {
            ":session": id(session),
            ":bucket": integer(*bucket),
            ":bytes_in": integer(usage.bytes_in),
            ":bytes_out": integer(usage.bytes_out),
            ":forfeited": integer(usage.forfeited),
        })?;
    }
    Ok(())
}

fn save_open(db: &Connection, session: SessionId, before: &[OpenLease], after: &[OpenLease]) -> Result<(), DbError> {
    // One that expired and was granted anew under its name is another one.
    let same = |one: &OpenLease, other: &OpenLease| one.id == other.id && one.expires_at == other.expires_at;
    for lease in before.iter().filter(|lease| !after.iter().any(|other| same(other, lease))) {
        db.prepare_cached("DELETE FROM leases WHERE session = ?1 AND id = ?2")?
            .execute(params![id(session), lease.id.as_uuid().into_bytes()])?;
    }
    for lease in after.iter().filter(|lease| !before.contains(lease)) {
        // A known lease keeps its place; only what its node reported can have changed.
        db.prepare_cached(
            "INSERT INTO leases (session, id, node, lock, granted, bytes_in, bytes_out, sequence, expires_at)
             VALUES (:session, :id, :node, :lock, :granted, :bytes_in, :bytes_out, :sequence, :expires_at)
             ON CONFLICT (session, id) DO UPDATE SET bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
                 sequence = excluded.sequence",
        )?
        .execute(named_params! {
            ":session": id(session),
            ":id": lease.id.as_uuid().into_bytes(),
            ":node": lease.node.as_uuid().into_bytes(),
            ":lock": lease.lock.as_uuid().into_bytes(),
            ":granted": integer(lease.granted),
            ":bytes_in": integer(lease.used.bytes_in),
            ":bytes_out": integer(lease.used.bytes_out),
            ":sequence": integer(lease.sequence),
            ":expires_at": time(lease.expires_at),
        })?;
    }
    Ok(())
}

fn save_settled(
    db: &Connection,
    session: SessionId,
    before: &BTreeMap<NodeId, Settled>,
    after: &BTreeMap<NodeId, Settled>,
) -> Result<(), DbError> {
    for node in before.keys().filter(|node| !after.contains_key(node)) {
        db.prepare_cached("DELETE FROM settled WHERE session = ?1 AND node = ?2")?
            .execute(params![id(session), node.as_uuid().into_bytes()])?;
    }
    for (node, settled) in after.iter().filter(|&(node, settled)| before.get(node) != Some(settled)) {
        db.prepare_cached(
            "INSERT OR REPLACE INTO settled (session, node, since, bytes_in, bytes_out)
             VALUES (:session, :node, :since, :bytes_in, :bytes_out)",
        )?
        .execute(named_params! {
            ":session": id(session),
            ":node": node.as_uuid().into_bytes(),
            ":since": settled.since.as_uuid().into_bytes(),
            ":bytes_in": integer(settled.bytes_in),
            ":bytes_out": integer(settled.bytes_out),
        })?;
    }
    Ok(())
}
