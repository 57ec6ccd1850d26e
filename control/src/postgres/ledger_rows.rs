//! Ledgers as rows, replaced as a whole if nobody else has replaced them; and what is known of them here.
//!
//! A session's bytes mostly move through one node, so the ledger that this node wrote last is mostly the one that is
//! there: then a change is one statement. When it is not, the statement changes nothing, and the ledger is read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Client;
use lru::LruCache;
use runit_core::ledger::{Ledger, OpenLease, Usage};
use runit_core::{SecretHash, SessionId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::document::{self, LeaseDocument, SettledDocument};
use super::{DbError, integer, time, unsigned};

/// Ledgers that are remembered: those of sessions that moved bytes last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// A ledger as it was last seen in the database, with what a grant needs to know of its session.
#[derive(Clone)]
pub(super) struct Known {
    /// Version of the row; 0 where there is none yet.
    pub(super) version: i64,
    pub(super) ledger: Ledger,
    /// None when the session is removed.
    pub(super) cap_bytes: Option<u64>,
    /// The token of the session's lock, as it was when this was read.
    pub(super) lock: Option<SecretHash>,
}

impl Known {
    /// Whether the ledger has a lease that this does not have.
    fn is_outgrown_by(&self, ledger: &Ledger) -> bool {
        let is_known = |lease: &OpenLease| {
            self.ledger.open.iter().any(|known| (known.id, known.expires_at) == (lease.id, lease.expires_at))
        };
        !ledger.open.iter().all(is_known)
    }
}

/// One that changes a ledger holds its place, so that callers in this process do not outdate each other.
pub(super) type Place = Arc<tokio::sync::Mutex<Option<Known>>>;

/// What is known, by session.
pub(super) struct Memory(Mutex<LruCache<SessionId, Place>>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    pub(super) fn place(&self, session: SessionId) -> Place {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.get_or_insert(session, Place::default))
    }

    /// Has it read anew.
    pub(super) async fn forget(&self, session: SessionId) {
        self.place(session).lock().await.take();
    }
}

/// A ledger to be put in the place of one that is known.
pub(super) struct Replacement<'a> {
    pub(super) session: SessionId,
    pub(super) known: &'a Known,
    pub(super) ledger: &'a Ledger,
}

/// Reads ledgers; sessions that do not exist are left out.
pub(super) async fn load(db: &Client, sessions: &[SessionId]) -> Result<Vec<(SessionId, Known)>, DbError> {
    rows(db, sessions).await?.iter().map(known).collect()
}

/// The same, each as far as it can be read.
pub(super) async fn each(db: &Client, sessions: &[SessionId]) -> Result<Vec<(Uuid, Result<Known, DbError>)>, DbError> {
    let rows = rows(db, sessions).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, known(row).map(|(_, known)| known)))).collect()
}

async fn rows(db: &Client, sessions: &[SessionId]) -> Result<Vec<Row>, DbError> {
    let sql = "SELECT id, status, tokens, cap_bytes, ledgers.version, latest, open, settled, total, closed
         FROM sessions LEFT JOIN ledgers ON ledgers.session = sessions.id WHERE id = ANY($1)";
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.as_uuid()).collect();
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, &[&ids]).await?)
}

/// Replaces ledgers, all in one statement; answers which of them were replaced. The others had changed.
pub(super) async fn replace<'a>(db: &Client, replacements: &[Replacement<'a>]) -> Result<Vec<SessionId>, DbError> {
    // Rows are locked in one order everywhere, so that two nodes that replace the same ledgers do not wait for each other.
    // A grant holds the lock's row until it is committed, so that the lock stands when bytes are leased for it.
    let sql = "WITH new AS (
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::jsonb[], $5::jsonb[], $6::jsonb[],
                 $7::bytea[], $8::jsonb[], $9::bigint[])
                 AS new (session, known, latest, open, settled, closed, lock, total, expires)
         ), locked AS (
             SELECT id FROM sessions JOIN new ON id = new.session
             WHERE new.lock IS NOT NULL AND status = 'LOCKED' AND tokens = ARRAY[new.lock] FOR SHARE OF sessions
         ), held AS (
             SELECT session FROM ledgers WHERE session = ANY($1) ORDER BY session FOR UPDATE
         ), updated AS (
             UPDATE ledgers SET version = version + 1, latest = new.latest, open = new.open, settled = new.settled,
                 total = new.total, expires = new.expires, closed = coalesce(new.closed, ledgers.closed)
             FROM new JOIN held USING (session)
             WHERE ledgers.session = new.session AND ledgers.version = new.known
                 AND (new.lock IS NULL OR new.session IN (SELECT id FROM locked))
             RETURNING ledgers.session
         ), inserted AS (
             INSERT INTO ledgers (session, version, latest, open, settled, total, expires, closed)
             SELECT session, 1, latest, open, settled, total, expires, coalesce(closed, '[]') FROM new
             WHERE known = 0 AND new.session IN (SELECT id FROM locked)
             ON CONFLICT DO NOTHING RETURNING session
         ), replaced AS (
             SELECT session FROM updated UNION ALL SELECT session FROM inserted
         ), booked AS (
             -- A lock without a record gets one from what its session is now.
             INSERT INTO usage_records
                 (lock, session, provider, pricing, started_at, ended_at, bytes_in, bytes_out, forfeited)
             SELECT booking.lock, id, document ->> 'provider', document ->> 'pricing',
                 coalesce((document #>> '{lock,taken_at}')::bigint, (document ->> 'since')::bigint,
                     (document ->> 'registered_at')::bigint),
                 CASE WHEN status <> 'LOCKED' THEN
                     coalesce((document ->> 'since')::bigint, (document ->> 'registered_at')::bigint) END,
                 booking.bytes_in, booking.bytes_out, booking.forfeited
             FROM unnest($10::uuid[], $11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[])
                 AS booking (session, lock, bytes_in, bytes_out, forfeited)
                 JOIN replaced USING (session) JOIN sessions ON id = session
             ON CONFLICT (lock) DO UPDATE SET bytes_in = usage_records.bytes_in + excluded.bytes_in,
                 bytes_out = usage_records.bytes_out + excluded.bytes_out,
                 forfeited = usage_records.forfeited + excluded.forfeited
         )
         SELECT session FROM replaced";
    let column = |value: fn(&Replacement<'_>) -> i64| -> Vec<i64> { replacements.iter().map(value).collect() };
    let sessions: Vec<Uuid> = replacements.iter().map(|one| one.session.as_uuid()).collect();
    let known = column(|one| one.known.version);
    let latest = column(|one| time(one.ledger.latest));
    let open: Vec<_> = replacements.iter().map(|one| Json(document::open_leases(one.ledger))).collect();
    let settled: Vec<_> = replacements.iter().map(|one| Json(document::settled(one.ledger))).collect();
    let closed = |one: &Replacement<'_>| {
        (one.known.ledger.closed != one.ledger.closed).then(|| Json(document::closed(one.ledger)))
    };
    let closed: Vec<_> = replacements.iter().map(closed).collect();
    // Only a grant adds a lease, and only a lock that stands gets one.
    let lock = |one: &Replacement<'a>| {
        let lock = one.known.lock.as_ref().filter(|_| one.known.is_outgrown_by(one.ledger));
        lock.map(|lock| lock.as_bytes().as_slice())
    };
    let locks_leased_for: Vec<Option<&[u8]>> = replacements.iter().map(lock).collect();
    let total: Vec<_> = replacements.iter().map(|one| Json(document::total(one.ledger))).collect();
    let first_to_expire = |one: &Replacement<'_>| one.ledger.open.iter().map(|lease| time(lease.expires_at)).min();
    let expires: Vec<Option<i64>> = replacements.iter().map(first_to_expire).collect();
    let bookings: Vec<(Uuid, Uuid, &Usage)> = replacements.iter().flat_map(bookings).collect();
    let of: Vec<Uuid> = bookings.iter().map(|&(session, ..)| session).collect();
    let locks: Vec<Uuid> = bookings.iter().map(|&(_, lock, _)| lock).collect();
    let booked =
        |value: fn(&Usage) -> u64| -> Vec<i64> { bookings.iter().map(|(.., one)| integer(value(one))).collect() };
    let (bytes_in, bytes_out) = (booked(|usage| usage.bytes_in), booked(|usage| usage.bytes_out));
    let forfeited = booked(|usage| usage.forfeited);
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &sessions,
        &known,
        &latest,
        &open,
        &settled,
        &closed,
        &locks_leased_for,
        &total,
        &expires,
        &of,
        &locks,
        &bytes_in,
        &bytes_out,
        &forfeited,
    ];
    let statement = db.prepare_cached(sql).await?;
    let rows = db.query(&statement, &parameters).await?;
    rows.iter().map(|row| Ok(SessionId::from_uuid(row.try_get(0)?))).collect()
}

/// Sessions with a lease that is past its time; a bounded number of them.
pub(super) async fn with_expired_leases(db: &Client, now: Timestamp) -> Result<Vec<SessionId>, DbError> {
    let statement = db.prepare_cached("SELECT session FROM ledgers WHERE expires <= $1 LIMIT 100").await?;
    let rows = db.query(&statement, &[&time(now)]).await?;
    rows.iter().map(|row| Ok(SessionId::from_uuid(row.try_get(0)?))).collect()
}

/// What a ledger has booked since it was loaded, by lock.
fn bookings<'a>(one: &Replacement<'a>) -> impl Iterator<Item = (Uuid, Uuid, &'a Usage)> + use<'a> {
    let session = one.session.as_uuid();
    one.ledger.bookings.iter().map(move |(lock, usage)| (session, lock.as_uuid(), usage))
}

/// Bytes that were forfeited between two states of a ledger.
pub(super) fn forfeited(before: &Ledger, after: &Ledger) -> u64 {
    let known = |bucket| before.closed.get(bucket).map_or(0, |usage| usage.forfeited);
    let growth = |(bucket, usage): (_, &Usage)| usage.forfeited.saturating_sub(known(bucket));
    after.closed.iter().map(growth).sum()
}

fn known(row: &Row) -> Result<(SessionId, Known), DbError> {
    let session = SessionId::from_uuid(row.try_get("id")?);
    let cap: i64 = row.try_get("cap_bytes")?;
    let removed = row.try_get::<_, &str>("status")? == "REMOVED";
    let cap_bytes = if removed { None } else { Some(unsigned(cap)?) };
    let lock = match row.try_get::<_, &str>("status")? {
        "LOCKED" => row.try_get::<_, Vec<&[u8]>>("tokens")?.first().map(|token| document::hash(token)).transpose()?,
        _ => None,
    };
    let Some(version) = row.try_get::<_, Option<i64>>("version")? else {
        return Ok((session, Known { version: 0, ledger: Ledger::default(), cap_bytes, lock }));
    };
    let latest = Timestamp::from_unix_ms(unsigned(row.try_get("latest")?)?);
    let Json(open): Json<Vec<LeaseDocument>> = row.try_get("open")?;
    let Json(settled): Json<Vec<SettledDocument>> = row.try_get("settled")?;
    let (Json(total), Json(closed)) = (row.try_get("total")?, row.try_get("closed")?);
    let ledger = document::ledger(latest, total, open, settled, closed);
    Ok((session, Known { version, ledger, cap_bytes, lock }))
}
