//! The audit trail as rows: each with its hash, and a row for each end of the chain.
//!
//! Whoever appends reads the head, chains his events to it, and writes both in one statement that does nothing if the head
//! is another one by then.

use deadpool_postgres::Client;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::trail::{ChainHash, Link, Mark, MarkKind, SealedMark, TrailKey, TrailMarks};
use runit_core::{KeyId, RenterAddress, SessionId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{DbError, integer, time, unsigned};

/// Events that one call removes at the most.
const PRUNED_AT_ONCE: u64 = 5_000;

/// Whether an event of tampering was put before them; none when they were not appended, since the head has moved in the meantime.
pub(super) async fn append(db: &Client, key: &TrailKey, events: &[SecurityEvent]) -> Result<Option<bool>, DbError> {
    let Some(first) = events.first() else { return Ok(Some(false)) };
    let TrailMarks { head, .. } = marks(db).await?;
    let mut at = head.mark;
    let mut place = at.place.max(last_place(db).await?);
    let mut chained = Vec::with_capacity(events.len() + 1);
    let mut chain = |event: &SecurityEvent| {
        place += 1;
        at = at.followed_by(event, place);
        chained.push((at, event.clone()));
    };
    let tampered = !key.holds(MarkKind::Head, &head) && first.kind != EventKind::TrailTampered;
    if tampered {
        chain(&SecurityEvent::new(EventKind::TrailTampered, first.at));
    }
    events.iter().for_each(chain);
    let appended = insert(db, &head, &chained, &key.seal(MarkKind::Head, at)).await?;
    Ok(appended.then_some(tampered))
}

/// After whatever was put into the table beside the chain.
async fn last_place(db: &Client) -> Result<u64, DbError> {
    let statement = db.prepare_cached("SELECT coalesce(max(place), 0) FROM events").await?;
    unsigned(db.query_one(&statement, &[]).await?.try_get(0)?)
}

async fn insert(
    db: &Client,
    known: &SealedMark,
    chained: &[(Mark, SecurityEvent)],
    head: &SealedMark,
) -> Result<bool, DbError> {
    let sql = "WITH moved AS (
             UPDATE trail_marks SET place = $10, hash = $11, seal = $12
             WHERE name = 'head' AND place = $13 AND hash = $14 RETURNING 1
         )
         INSERT INTO events (place, hash, at, kind, session, provider, address, operator, key)
         SELECT new.* FROM moved, unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::text[], $5::uuid[], $6::text[],
             $7::text[], $8::text[], $9::uuid[]) AS new";
    let places: Vec<i64> = chained.iter().map(|(mark, _)| integer(mark.place)).collect();
    let hashes: Vec<&[u8]> = chained.iter().map(|(mark, _)| mark.hash.0.as_slice()).collect();
    let events = || chained.iter().map(|(_, event)| event);
    let at: Vec<i64> = events().map(|event| time(event.at)).collect();
    let kinds: Vec<&str> = events().map(|event| event.kind.as_str()).collect();
    let sessions: Vec<Option<Uuid>> = events().map(|event| event.session.map(SessionId::as_uuid)).collect();
    let text = |value: fn(&SecurityEvent) -> Option<String>| -> Vec<Option<String>> { events().map(value).collect() };
    let providers = text(|event| event.provider.as_ref().map(ToString::to_string));
    let addresses = text(|event| event.address.map(|address| address.to_string()));
    let operators = text(|event| event.operator.map(|operator| operator.to_string()));
    let keys: Vec<Option<Uuid>> = events().map(|event| event.key.map(KeyId::as_uuid)).collect();
    let (place, hash, seal) = (integer(head.mark.place), head.mark.hash.0.as_slice(), head.seal.0.as_slice());
    let (known_place, known_hash) = (integer(known.mark.place), known.mark.hash.0.as_slice());
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &places,
        &hashes,
        &at,
        &kinds,
        &sessions,
        &providers,
        &addresses,
        &operators,
        &keys,
        &place,
        &hash,
        &seal,
        &known_place,
        &known_hash,
    ];
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, &parameters).await? > 0)
}

pub(super) async fn last(db: &Client, limit: u32) -> Result<Vec<SecurityEvent>, DbError> {
    let mut links = links(db, "SELECT * FROM events ORDER BY place DESC LIMIT $1", &[&i64::from(limit)]).await?;
    links.reverse();
    Ok(links.into_iter().map(|link| link.event).collect())
}

pub(super) async fn after(db: &Client, place: u64, limit: u32) -> Result<Vec<Link>, DbError> {
    let sql = "SELECT * FROM events WHERE place > $1 ORDER BY place LIMIT $2";
    links(db, sql, &[&integer(place), &i64::from(limit)]).await
}

/// Reads every event and both ends, so many events at a time.
pub(super) async fn readable(db: &Client, page: u32) -> Result<(), DbError> {
    let mut place = 0;
    while let Some(last) = after(db, place, page).await?.pop() {
        place = last.place;
    }
    marks(db).await.map(drop)
}

pub(super) async fn marks(db: &Client) -> Result<TrailMarks, DbError> {
    let start = SealedMark { mark: Mark::START, seal: ChainHash::START };
    let (mut base, mut head) = (start, None);
    let statement = db.prepare_cached("SELECT name, place, hash, seal FROM trail_marks").await?;
    for row in db.query(&statement, &[]).await? {
        let mark = Mark { place: unsigned(row.try_get("place")?)?, hash: hash(row.try_get("hash")?)? };
        let sealed = SealedMark { mark, seal: hash(row.try_get("seal")?)? };
        match row.try_get::<_, &str>("name")? {
            "base" => base = sealed,
            _ => head = Some(sealed),
        }
    }
    Ok(TrailMarks { base, head: head.unwrap_or(base) })
}

/// Removes the oldest events: those beyond `keep`, and those from before `before`. Answers how many it removed.
pub(super) async fn prune(db: &Client, key: &TrailKey, keep: u64, before: Timestamp) -> Result<u64, DbError> {
    let TrailMarks { base, head } = marks(db).await?;
    let sql = "SELECT min(place) AS first, (SELECT place FROM events WHERE at >= $1 ORDER BY place LIMIT 1) AS kept
         FROM events";
    let statement = db.prepare_cached(sql).await?;
    let row = db.query_one(&statement, &[&time(before)]).await?;
    let place = |column| row.try_get::<_, Option<i64>>(column)?.map(unsigned).transpose();
    let too_old = place("kept")?.map_or(head.mark.place, |kept| kept.saturating_sub(1));
    let first = place("first")?.unwrap_or(head.mark.place);
    let last = too_old.max(head.mark.place.saturating_sub(keep)).min(first.saturating_add(PRUNED_AT_ONCE));
    let sql = "SELECT * FROM events WHERE place <= $1 AND hash IS NOT NULL ORDER BY place DESC LIMIT 1";
    let cut = links(db, sql, &[&integer(last)]).await?.pop();
    if let Some(Link { place, hash: Some(hash), .. }) = cut
        && place > base.mark.place
    {
        let sealed = key.seal(MarkKind::Base, Mark { place, hash });
        let sql = "UPDATE trail_marks SET place = $1, hash = $2, seal = $3 WHERE name = 'base' AND place < $1";
        let statement = db.prepare_cached(sql).await?;
        let (hash, seal) = (sealed.mark.hash.0.as_slice(), sealed.seal.0.as_slice());
        db.execute(&statement, &[&integer(place), &hash, &seal]).await?;
    }
    let statement = db.prepare_cached("DELETE FROM events WHERE place <= $1").await?;
    Ok(db.execute(&statement, &[&integer(last)]).await?)
}

async fn links(db: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Link>, DbError> {
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, parameters).await?;
    let link = |row: &Row| {
        let hash = row.try_get::<_, Option<&[u8]>>("hash")?.map(hash).transpose()?;
        Ok(Link { place: unsigned(row.try_get("place")?)?, hash, event: event(row)? })
    };
    rows.iter().map(link).collect()
}

fn hash(bytes: &[u8]) -> Result<ChainHash, DbError> {
    bytes.try_into().map(ChainHash).map_err(|_| DbError::Damaged("a hash"))
}

pub(super) fn event(row: &Row) -> Result<SecurityEvent, DbError> {
    let kind = row.try_get::<_, &str>("kind")?.parse().map_err(|_| DbError::Damaged("an event"))?;
    let operator = row
        .try_get::<_, Option<&str>>("operator")?
        .map(|text| text.parse().map_err(|_| DbError::Damaged("an operator")))
        .transpose()?;
    let key = row.try_get::<_, Option<Uuid>>("key")?.map(KeyId::from_uuid);
    let provider = row
        .try_get::<_, Option<&str>>("provider")?
        .map(|name| name.parse().map_err(|_| DbError::Damaged("a provider's name")))
        .transpose()?;
    let address = row
        .try_get::<_, Option<&str>>("address")?
        .map(|text| text.parse().map(RenterAddress::new).map_err(|_| DbError::Damaged("an address")))
        .transpose()?;
    let session = row.try_get::<_, Option<Uuid>>("session")?.map(SessionId::from_uuid);
    let at = Timestamp::from_unix_ms(unsigned(row.try_get("at")?)?);
    Ok(SecurityEvent { at, kind, session, provider, address, operator, key })
}
