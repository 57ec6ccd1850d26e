//! The audit trail as rows: each with its hash, and a row for each end of the chain.
//!
//! The head's row says where the chain goes on, not the last event that happens to be there: what is removed from the end
//! leaves a gap that stays.

use runit_core::Timestamp;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::trail::{ChainHash, Link, Mark, MarkKind, SealedMark, TrailKey, TrailMarks};
use rusqlite::{Connection, Row, params};

use super::rows::{self, Columns, id, integer, time};
use super::worker::DbError;

/// Events that one call removes at the most, so that it keeps no other command waiting for long.
const PRUNED_AT_ONCE: u64 = 5_000;

pub(super) fn append(db: &Connection, key: &TrailKey, events: &[SecurityEvent]) -> Result<bool, DbError> {
    let Some(first) = events.first() else { return Ok(false) };
    let TrailMarks { head, .. } = marks(db)?;
    let mut at = head.mark;
    let tampered = !key.holds(MarkKind::Head, &head) && first.kind != EventKind::TrailTampered;
    if tampered {
        at = insert(db, at, &SecurityEvent::new(EventKind::TrailTampered, first.at))?;
    }
    for event in events {
        at = insert(db, at, event)?;
    }
    save_mark(db, "head", &key.seal(MarkKind::Head, at))?;
    Ok(tampered)
}

/// After the head, and after whatever else was put into the table.
fn insert(db: &Connection, at: Mark, event: &SecurityEvent) -> Result<Mark, DbError> {
    let last: Option<i64> = db.prepare_cached("SELECT max(place) FROM events")?.query_row([], |row| row.get(0))?;
    let place = at.place.max(last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0)) + 1;
    let mark = at.followed_by(event, place);
    db.prepare_cached(
        "INSERT INTO events (place, at, kind, session, provider, address, operator, key, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        integer(place),
        time(event.at),
        event.kind.as_str(),
        event.session.map(id),
        event.provider.as_ref().map(|provider| provider.as_str()),
        event.address.map(|address| address.to_string()),
        event.operator.map(|operator| operator.to_string()),
        event.key.map(rows::key),
        mark.hash.0,
    ])?;
    Ok(mark)
}

pub(super) fn last(db: &Connection, limit: u32) -> Result<Vec<SecurityEvent>, DbError> {
    let mut links = links(db, "SELECT * FROM events ORDER BY place DESC LIMIT ?1", params![limit])?;
    links.reverse();
    Ok(links.into_iter().map(|link| link.event).collect())
}

pub(super) fn after(db: &Connection, place: u64, limit: u32) -> Result<Vec<Link>, DbError> {
    let sql = "SELECT * FROM events WHERE place > ?1 ORDER BY place LIMIT ?2";
    links(db, sql, params![integer(place), limit])
}

pub(super) fn marks(db: &Connection) -> Result<TrailMarks, DbError> {
    let base = mark(db, "base")?.unwrap_or(SealedMark { mark: Mark::START, seal: ChainHash::START });
    Ok(TrailMarks { base, head: mark(db, "head")?.unwrap_or(base) })
}

/// Removes the oldest events: those beyond `keep`, and those from before `before`. Answers how many it removed.
pub(super) fn prune(db: &Connection, key: &TrailKey, keep: u64, before: Timestamp) -> Result<u64, DbError> {
    let TrailMarks { base, head } = marks(db)?;
    let oldest_kept: Option<i64> = db
        .prepare_cached("SELECT min(place) FROM (SELECT place FROM events WHERE at >= ?1 ORDER BY place LIMIT 1)")?
        .query_row([time(before)], |row| row.get(0))?;
    let too_old = oldest_kept.map_or(head.mark.place, |place| u64::try_from(place).unwrap_or(0).saturating_sub(1));
    let first: Option<i64> = db.prepare_cached("SELECT min(place) FROM events")?.query_row([], |row| row.get(0))?;
    let first = first.and_then(|first| u64::try_from(first).ok()).unwrap_or(head.mark.place);
    let last = too_old.max(head.mark.place.saturating_sub(keep)).min(first.saturating_add(PRUNED_AT_ONCE));
    let sql = "SELECT * FROM events WHERE place <= ?1 AND hash IS NOT NULL ORDER BY place DESC LIMIT 1";
    let cut = links(db, sql, params![integer(last)])?.pop();
    if let Some(Link { place, hash: Some(hash), .. }) = cut
        && place > base.mark.place
    {
        save_mark(db, "base", &key.seal(MarkKind::Base, Mark { place, hash }))?;
    }
    let removed = db.prepare_cached("DELETE FROM events WHERE place <= ?1")?.execute([integer(last)])?;
    Ok(removed as u64)
}

/// Whether every row is one that this program can read.
pub(super) fn readable(db: &Connection) -> Result<(), DbError> {
    let mut statement = db.prepare("SELECT * FROM events")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        event(row)?;
    }
    marks(db).map(drop)
}

fn mark(db: &Connection, name: &str) -> Result<Option<SealedMark>, DbError> {
    let mut statement = db.prepare_cached("SELECT place, hash, seal FROM trail_marks WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mark = Mark { place: row.unsigned("place")?, hash: ChainHash(row.get("hash")?) };
    Ok(Some(SealedMark { mark, seal: ChainHash(row.get("seal")?) }))
}

fn save_mark(db: &Connection, name: &str, sealed: &SealedMark) -> Result<(), DbError> {
    db.prepare_cached("INSERT OR REPLACE INTO trail_marks (name, place, hash, seal) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![name, integer(sealed.mark.place), sealed.mark.hash.0, sealed.seal.0])?;
    Ok(())
}

fn links(db: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<Link>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut links = Vec::new();
    while let Some(row) = rows.next()? {
        let hash = row.get::<_, Option<[u8; 32]>>("hash")?.map(ChainHash);
        links.push(Link { place: row.unsigned("place")?, hash, event: event(row)? });
    }
    Ok(links)
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
