//! What operators ask, as SQL. These run on a connection of their own, so that none of them delays a claim.

use std::time::Duration;

use runit_core::event::EventKind;
use runit_core::ledger::Ledger;
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use runit_core::session::Session;
use runit_core::time::millis;
use runit_core::{SessionId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::rows::{Columns, id, integer, time};
use super::worker::DbError;
use super::{event_rows, ledger_rows, session_rows};

pub(super) fn find_events(
    db: &Connection,
    filter: &EventFilter,
    from: EventsFrom,
    limit: u32,
) -> Result<Vec<PlacedEvent>, DbError> {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut demand = |condition: &str, value: Value| {
        conditions.push(condition.to_owned());
        values.push(value);
    };
    let order = match from {
        EventsFrom::Newest => "DESC",
        EventsFrom::Before(place) => {
            demand("place < ?", integer(place).into());
            "DESC"
        }
        EventsFrom::After(place) => {
            demand("place > ?", integer(place).into());
            "ASC"
        }
    };
    filter.session.iter().for_each(|session| demand("session = ?", id(*session).to_vec().into()));
    filter.provider.iter().for_each(|provider| demand("provider = ?", provider.as_str().to_owned().into()));
    filter.since.iter().for_each(|since| demand("at >= ?", time(*since).into()));
    filter.until.iter().for_each(|until| demand("at < ?", time(*until).into()));
    if !filter.kinds.is_empty() {
        conditions.push(format!("kind IN ({})", vec!["?"; filter.kinds.len()].join(", ")));
        values.extend(filter.kinds.iter().map(|kind| Value::from(kind.as_str().to_owned())));
    }
    let sql = format!("SELECT * FROM events WHERE {} ORDER BY place {order} LIMIT {limit}", conditions.join(" AND "));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(PlacedEvent { place: row.unsigned("place")?, event: event_rows::event(row)? });
    }
    Ok(found)
}

pub(super) fn count_events(
    db: &Connection,
    since: Timestamp,
    step: Duration,
) -> Result<Vec<(Timestamp, EventKind, u64)>, DbError> {
    let mut statement = db.prepare_cached(
        "SELECT at / ?2 * ?2 AS began, kind, count(*) AS number FROM events WHERE at >= ?1 GROUP BY began, kind",
    )?;
    let mut rows = statement.query(params![time(since), integer(millis(step).max(1))])?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        let kind = row.get::<_, String>("kind")?.parse().map_err(|_| DbError::Damaged("an event"))?;
        counts.push((row.time("began")?, kind, row.unsigned("number")?));
    }
    Ok(counts)
}

pub(super) fn records(db: &Connection, ids: &[SessionId], now: Timestamp) -> Result<Vec<(Session, Ledger)>, DbError> {
    let mut records = Vec::with_capacity(ids.len());
    for &id in ids {
        let Some(session) = session_rows::by_id(db, id)? else { continue };
        let mut ledger = ledger_rows::load(db, id)?.unwrap_or_default();
        ledger.advance(now);
        records.push((session, ledger));
    }
    Ok(records)
}

pub(super) fn sessions_with_ledgers(db: &Connection) -> Result<Vec<SessionId>, DbError> {
    let mut statement = db.prepare_cached("SELECT session FROM ledgers")?;
    let mut rows = statement.query([])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        ids.push(row.session("session")?);
    }
    Ok(ids)
}

pub(super) fn providers(db: &Connection) -> Result<Vec<ProviderRecord>, DbError> {
    let mut statement = db.prepare_cached(
        "SELECT provider, status, count(*) AS number, max(provider_seen_at) AS seen_at FROM sessions
         GROUP BY provider, status ORDER BY provider",
    )?;
    let mut rows = statement.query([])?;
    let mut providers: Vec<ProviderRecord> = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get::<_, String>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))?;
        let sessions = (session_rows::status(row)?, row.unsigned("number")?, row.time("seen_at")?);
        match providers.last_mut().filter(|last| last.id == id) {
            Some(last) => last.sessions.push(sessions),
            None => providers.push(ProviderRecord { id, sessions: vec![sessions] }),
        }
    }
    Ok(providers)
}

pub(super) fn webhook_cursor(db: &Connection, target: &str) -> Result<Option<u64>, DbError> {
    let mut statement = db.prepare_cached("SELECT place FROM webhook_cursors WHERE target = ?")?;
    let mut rows = statement.query([target])?;
    rows.next()?.map(|row| row.unsigned("place")).transpose()
}

pub(super) fn save_webhook_cursor(db: &Connection, target: &str, place: u64) -> Result<(), DbError> {
    let sql = "INSERT INTO webhook_cursors (target, place) VALUES (?1, ?2)
         ON CONFLICT (target) DO UPDATE SET place = max(place, excluded.place)";
    db.prepare_cached(sql)?.execute(params![target, integer(place)])?;
    Ok(())
}

pub(super) fn probe(db: &Connection, now: Timestamp) -> Result<(), DbError> {
    db.prepare_cached("INSERT OR REPLACE INTO probe (one, at) VALUES (1, ?)")?.execute([time(now)])?;
    Ok(())
}
