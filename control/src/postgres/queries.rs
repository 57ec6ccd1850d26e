//! What operators ask, as SQL.

use std::time::Duration;

use deadpool_postgres::Client;
use runit_core::event::EventKind;
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent, ProviderRecord};
use runit_core::session::SessionStatus;
use runit_core::time::millis;
use runit_core::{ProviderId, SessionId, Timestamp};

use super::{DbError, event_rows, integer, time, unsigned};

pub(super) async fn find_events(
    db: &Client,
    filter: &EventFilter,
    from: EventsFrom,
    limit: u32,
) -> Result<Vec<PlacedEvent>, DbError> {
    let (after, before, order) = match from {
        EventsFrom::Newest => (None, None, "DESC"),
        EventsFrom::Before(place) => (None, Some(integer(place)), "DESC"),
        EventsFrom::After(place) => (Some(integer(place)), None, "ASC"),
    };
    let sql = format!(
        "SELECT * FROM events
         WHERE ($1::bigint IS NULL OR place > $1) AND ($2::bigint IS NULL OR place < $2)
             AND ($3::uuid IS NULL OR session = $3) AND ($4::text IS NULL OR provider = $4)
             AND ($5::bigint IS NULL OR at >= $5) AND ($6::bigint IS NULL OR at < $6)
             AND (cardinality($7::text[]) = 0 OR kind = ANY($7))
         ORDER BY place {order} LIMIT $8"
    );
    let session = filter.session.map(SessionId::as_uuid);
    let provider = filter.provider.as_ref().map(ProviderId::as_str);
    let (since, until) = (filter.since.map(time), filter.until.map(time));
    let kinds: Vec<&str> = filter.kinds.iter().map(|kind| kind.as_str()).collect();
    let statement = db.prepare_cached(&sql).await?;
    let limit = i64::from(limit);
    let rows = db.query(&statement, &[&after, &before, &session, &provider, &since, &until, &kinds, &limit]).await?;
    rows.iter()
        .map(|row| Ok(PlacedEvent { place: unsigned(row.try_get("place")?)?, event: event_rows::event(row)? }))
        .collect()
}

pub(super) async fn count_events(
    db: &Client,
    since: Timestamp,
    step: Duration,
) -> Result<Vec<(Timestamp, EventKind, u64)>, DbError> {
    let sql = "SELECT at / $2 * $2 AS began, kind, count(*) FROM events WHERE at >= $1 GROUP BY began, kind";
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, &[&time(since), &integer(millis(step).max(1))]).await?;
    let count = |row: &tokio_postgres::Row| {
        let kind = row.try_get::<_, &str>(1)?.parse().map_err(|_| DbError::Damaged("an event"))?;
        Ok((Timestamp::from_unix_ms(unsigned(row.try_get(0)?)?), kind, unsigned(row.try_get(2)?)?))
    };
    rows.iter().map(count).collect()
}

pub(super) async fn sessions_with_ledgers(db: &Client) -> Result<Vec<SessionId>, DbError> {
    let statement = db.prepare_cached("SELECT session FROM ledgers").await?;
    let rows = db.query(&statement, &[]).await?;
    rows.iter().map(|row| Ok(SessionId::from_uuid(row.try_get(0)?))).collect()
}

pub(super) async fn providers(db: &Client) -> Result<Vec<ProviderRecord>, DbError> {
    let sql = "SELECT document ->> 'provider' AS provider, status, count(*),
             max(greatest(provider_seen_at, (document ->> 'provider_seen_at')::bigint))
         FROM sessions JOIN presence ON presence.session = sessions.id GROUP BY 1, 2 ORDER BY 1";
    let statement = db.prepare_cached(sql).await?;
    let mut providers: Vec<ProviderRecord> = Vec::new();
    for row in db.query(&statement, &[]).await? {
        let id = row.try_get::<_, &str>(0)?.parse().map_err(|_| DbError::Damaged("a provider's name"))?;
        let seen_at = Timestamp::from_unix_ms(unsigned(row.try_get(3)?)?);
        let sessions = (status(row.try_get(1)?)?, unsigned(row.try_get(2)?)?, seen_at);
        match providers.last_mut().filter(|last| last.id == id) {
            Some(last) => last.sessions.push(sessions),
            None => providers.push(ProviderRecord { id, sessions: vec![sessions] }),
        }
    }
    Ok(providers)
}

pub(super) async fn webhook_cursor(db: &Client, target: &str) -> Result<Option<u64>, DbError> {
    let statement = db.prepare_cached("SELECT place FROM webhook_cursors WHERE target = $1").await?;
    let row = db.query_opt(&statement, &[&target]).await?;
    row.map(|row| unsigned(row.try_get(0)?)).transpose()
}

pub(super) async fn save_webhook_cursor(db: &Client, target: &str, place: u64) -> Result<(), DbError> {
    let sql = "INSERT INTO webhook_cursors (target, place) VALUES ($1, $2)
         ON CONFLICT (target) DO UPDATE SET place = greatest(webhook_cursors.place, excluded.place)";
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&target, &integer(place)]).await?;
    Ok(())
}

pub(super) async fn probe(db: &Client, now: Timestamp) -> Result<(), DbError> {
    let sql = "INSERT INTO probe (one, at) VALUES (true, $1) ON CONFLICT (one) DO UPDATE SET at = excluded.at";
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&time(now)]).await?;
    Ok(())
}

fn status(text: &str) -> Result<SessionStatus, DbError> {
    [SessionStatus::Ready, SessionStatus::Locked, SessionStatus::Recycling, SessionStatus::Removed]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or(DbError::Damaged("a status"))
}
