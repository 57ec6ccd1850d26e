//! The audit trail as rows, the oldest of which go when there are too many.

use runit_core::event::{EventKind, SecurityEvent};
use rusqlite::{Connection, Row, params};

use super::rows::{Columns, id, key, time};
use super::worker::DbError;

/// Events that are kept: some 100 MB. Whoever needs more takes them from the log.
const KEPT: i64 = 1_000_000;

pub(super) fn append(db: &Connection, events: &[SecurityEvent]) -> Result<(), DbError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO events (at, kind, session, provider, address, operator, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for event in events {
        insert.execute(params![
            time(event.at),
            event.kind.as_str(),
            event.session.map(id),
            event.provider.as_ref().map(|provider| provider.as_str()),
            event.address.map(|address| address.to_string()),
            event.operator.map(|operator| operator.to_string()),
            event.key.map(key),
        ])?;
    }
    let oldest_kept = db.last_insert_rowid().saturating_sub(KEPT);
    db.prepare_cached("DELETE FROM events WHERE place <= ?")?.execute([oldest_kept])?;
    Ok(())
}

pub(super) fn last(db: &Connection, limit: u32) -> Result<Vec<SecurityEvent>, DbError> {
    let mut statement = db.prepare_cached("SELECT * FROM events ORDER BY place DESC LIMIT ?")?;
    let mut rows = statement.query([limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    events.reverse();
    Ok(events)
}

/// Whether every row is one that this program can read.
pub(super) fn readable(db: &Connection) -> Result<(), DbError> {
    let mut statement = db.prepare_cached("SELECT * FROM events")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        event(row)?;
    }
    Ok(())
}

pub(super) fn event(row: &Row<'_>) -> Result<SecurityEvent, DbError> {
    let name: String = row.get("kind")?;
    let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(DbError::Damaged("an event"))?;
    let session = row.get::<_, Option<[u8; 16]>>("session")?.map(|_| row.session("session")).transpose()?;
    let provider = row
        .get::<_, Option<String>>("provider")?
        .map(|name| name.parse().map_err(|_| DbError::Damaged("a provider's name")))
        .transpose()?;
    let operator = row
        .get::<_, Option<String>>("operator")?
        .map(|text| text.parse().map_err(|_| DbError::Damaged("an operator")))
        .transpose()?;
    let (at, address, key) = (row.time("at")?, row.optional_address("address")?, row.optional_key("key")?);
    Ok(SecurityEvent { at, kind, session, provider, address, operator, key })
}
