//! Sessions and their tokens as rows.
//!
//! Invariant: `tokens` holds exactly the hashes that a session's state names.

use std::collections::BTreeSet;

use runit_core::session::{Ending, Lock, Offer, Session, SessionState, SessionStatus};
use runit_core::upstream::UpstreamUrl;
use runit_core::{SecretHash, SessionId, Timestamp};
use rusqlite::{Connection, Row, named_params, params};

use super::rows::{Columns, id, integer, key, time};
use super::worker::DbError;

pub(super) fn by_id(db: &Connection, session: SessionId) -> Result<Option<Session>, DbError> {
    one(db, "SELECT * FROM sessions WHERE id = ?", &id(session))
}

pub(super) fn by_token(db: &Connection, token: SecretHash) -> Result<Option<Session>, DbError> {
    one(
        db,
        "SELECT sessions.* FROM sessions JOIN tokens ON tokens.session = sessions.id WHERE tokens.hash = ?",
        token.as_bytes(),
    )
}

pub(super) fn live(db: &Connection) -> Result<Vec<Session>, DbError> {
    several(db, "SELECT * FROM sessions WHERE status <> 'REMOVED'")
}

/// Tombstones too.
pub(super) fn all(db: &Connection) -> Result<Vec<Session>, DbError> {
    several(db, "SELECT * FROM sessions")
}

fn several(db: &Connection, sql: &str) -> Result<Vec<Session>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(session(db, row)?);
    }
    Ok(sessions)
}

/// Not `UNION`: for its order SQLite goes through the whole table, and this is asked with each sweep.
pub(super) const DUE: &str = "SELECT id FROM sessions WHERE status <> 'REMOVED' AND provider_seen_at <= ?1
     UNION ALL
     SELECT id FROM sessions WHERE status = 'LOCKED' AND renter_seen_at <= ?2";

pub(super) fn due(db: &Connection, silent: Timestamp, absent: Timestamp) -> Result<Vec<SessionId>, DbError> {
    let mut statement = db.prepare_cached(DUE)?;
    let mut rows = statement.query([time(silent), time(absent)])?;
    let mut due = BTreeSet::new();
    while let Some(row) = rows.next()? {
        due.insert(row.session("id")?);
    }
    Ok(due.into_iter().collect())
}

pub(super) fn forget_removed(db: &Connection, before: Timestamp) -> Result<u64, DbError> {
    // Children before parents: SQLite checks references at each statement.
    for table in ["tokens", "usage", "leases", "settled", "ledgers"] {
        let forgotten = "SELECT id FROM sessions WHERE status = 'REMOVED' AND since < ?";
        db.prepare_cached(&format!("DELETE FROM {table} WHERE session IN ({forgotten})"))?.execute([time(before)])?;
    }
    let sessions =
        db.prepare_cached("DELETE FROM sessions WHERE status = 'REMOVED' AND since < ?")?.execute([time(before)])?;
    Ok(sessions as u64)
}

pub(super) fn insert(db: &Connection, session: &Session) -> Result<(), DbError> {
    write(
        db,
        "INSERT INTO sessions (id, provider, provider_secret, upstream, sealed_credential, credential_hash, hardware,
             pricing, revision, registered_at, provider_seen_at, cap_bytes, status, address, cookie, taken_at,
             renter_seen_at, since, clean, provider_key, ending)
         VALUES (:id, :provider, :provider_secret, :upstream, :sealed_credential, :credential_hash, :hardware,
             :pricing, :revision, :registered_at, :provider_seen_at, :cap_bytes, :status, :address, :cookie, :taken_at,
             :renter_seen_at, :since, :clean, :provider_key, :ending)",
        session,
    )?;
    insert_tokens(db, session)
}

/// Writes back what `after` has different from `before`.
pub(super) fn update(db: &Connection, before: &Session, after: &Session) -> Result<(), DbError> {
    write(
        db,
        "UPDATE sessions SET provider = :provider, provider_secret = :provider_secret, upstream = :upstream,
             sealed_credential = :sealed_credential, credential_hash = :credential_hash, hardware = :hardware,
             pricing = :pricing, revision = :revision, registered_at = :registered_at,
             provider_seen_at = :provider_seen_at, cap_bytes = :cap_bytes, status = :status, address = :address,
             cookie = :cookie, taken_at = :taken_at, renter_seen_at = :renter_seen_at, since = :since, clean = :clean,
             provider_key = :provider_key, ending = :ending
         WHERE id = :id",
        after,
    )?;
    if tokens_of(before) != tokens_of(after) {
        db.prepare_cached("DELETE FROM tokens WHERE session = ?")?.execute([id(after.id)])?;
        insert_tokens(db, after)?;
    }
    Ok(())
}

pub(super) fn providers_seen(db: &Connection, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    seen(
        db,
        "UPDATE sessions SET provider_seen_at = ?2 WHERE id = ?1 AND status <> 'REMOVED' AND provider_seen_at < ?2",
        ids,
        now,
    )
}

pub(super) fn renters_seen(db: &Connection, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    seen(
        db,
        "UPDATE sessions SET renter_seen_at = ?2 WHERE id = ?1 AND status = 'LOCKED' AND renter_seen_at < ?2",
        ids,
        now,
    )
}

fn seen(db: &Connection, sql: &str, ids: &[SessionId], now: Timestamp) -> Result<(), DbError> {
    let mut statement = db.prepare_cached(sql)?;
    for &session in ids {
        statement.execute(params![id(session), time(now)])?;
    }
    Ok(())
}

fn one(db: &Connection, sql: &str, key: &[u8]) -> Result<Option<Session>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(|row| session(db, row)).transpose()
}

fn write(db: &Connection, sql: &str, session: &Session) -> Result<(), DbError> {
    let lock = session.lock();
    let (since, clean) = match session.state {
        SessionState::Recycling { since, .. } => (Some(since), None),
        SessionState::Removed { since, clean } => (Some(since), Some(clean)),
        SessionState::Ready { .. } | SessionState::Locked(_) => (None, None),
    };
    db.prepare_cached(sql)?.execute(named_params! {
        ":id": id(session.id),
        ":provider": session.provider.as_str(),
        ":provider_secret": session.provider_secret.as_bytes(),
        ":upstream": session.offer.upstream.to_string(),
        ":sealed_credential": session.offer.sealed_credential,
        ":credential_hash": session.offer.credential_hash.as_bytes(),
        ":hardware": session.offer.hardware,
        ":pricing": session.offer.pricing,
        ":revision": integer(session.revision),
        ":registered_at": time(session.registered_at),
        ":provider_seen_at": time(session.provider_seen_at),
        ":cap_bytes": integer(session.cap_bytes),
        ":status": session.status().as_str(),
        ":address": lock.map(|lock| lock.address.to_string()),
        ":cookie": lock.and_then(|lock| lock.cookie).map(|hash| *hash.as_bytes()),
        ":taken_at": lock.map(|lock| time(lock.taken_at)),
        ":renter_seen_at": lock.map(|lock| time(lock.renter_seen_at)),
        ":since": since.map(time),
        ":clean": clean,
        ":provider_key": session.provider_key.map(key),
        ":ending": session.ending().map(ending),
    })?;
    Ok(())
}

fn tokens_of(session: &Session) -> &[SecretHash] {
    match &session.state {
        SessionState::Ready { tokens } => tokens,
        SessionState::Locked(lock) => std::slice::from_ref(&lock.token),
        SessionState::Recycling { .. } | SessionState::Removed { .. } => &[],
    }
}

fn insert_tokens(db: &Connection, session: &Session) -> Result<(), DbError> {
    let mut statement = db.prepare_cached("INSERT INTO tokens (hash, session, place) VALUES (?1, ?2, ?3)")?;
    for (place, token) in (0_i64..).zip(tokens_of(session)) {
        statement.execute(params![token.as_bytes(), id(session.id), place])?;
    }
    Ok(())
}

fn session(db: &Connection, row: &Row<'_>) -> Result<Session, DbError> {
    let id = row.session("id")?;
    let provider = row.get::<_, String>("provider")?.parse().map_err(|_| DbError::Damaged("a provider's name"))?;
    let offer = Offer {
        upstream: UpstreamUrl::read_back(&row.get::<_, String>("upstream")?)
            .map_err(|_| DbError::Damaged("an upstream URL"))?,
        sealed_credential: row.get("sealed_credential")?,
        credential_hash: row.hash("credential_hash")?,
        hardware: row.get("hardware")?,
        pricing: row.get("pricing")?,
    };
    Ok(Session {
        id,
        provider,
        provider_secret: row.hash("provider_secret")?,
        provider_key: row.optional_key("provider_key")?,
        offer,
        revision: row.unsigned("revision")?,
        registered_at: row.time("registered_at")?,
        provider_seen_at: row.time("provider_seen_at")?,
        cap_bytes: row.unsigned("cap_bytes")?,
        state: state(db, id, row)?,
    })
}

fn state(db: &Connection, session: SessionId, row: &Row<'_>) -> Result<SessionState, DbError> {
    Ok(match status(row)? {
        SessionStatus::Ready => SessionState::Ready { tokens: tokens(db, session)? },
        SessionStatus::Locked => SessionState::Locked(Box::new(Lock {
            token: tokens(db, session)?.pop().ok_or(DbError::Damaged("a lock without a token"))?,
            address: row.optional_address("address")?.ok_or(DbError::Damaged("a lock without an address"))?,
            cookie: row.optional_hash("cookie")?,
            taken_at: row.time("taken_at")?,
            renter_seen_at: row.time("renter_seen_at")?,
        })),
        SessionStatus::Recycling => {
            SessionState::Recycling { since: row.time("since")?, ending: ending_of(row.get("ending")?)? }
        }
        SessionStatus::Removed => SessionState::Removed { since: row.time("since")?, clean: row.get("clean")? },
    })
}

const fn ending(value: Ending) -> &'static str {
    match value {
        Ending::Released => "RELEASED",
        Ending::Cut => "CUT",
    }
}

fn ending_of(text: Option<String>) -> Result<Ending, DbError> {
    let Some(text) = text else { return Ok(Ending::Released) };
    let known = [Ending::Released, Ending::Cut].into_iter().find(|one| ending(*one) == text);
    known.ok_or(DbError::Damaged("how a lock ended"))
}

fn tokens(db: &Connection, session: SessionId) -> Result<Vec<SecretHash>, DbError> {
    let mut statement = db.prepare_cached("SELECT hash FROM tokens WHERE session = ? ORDER BY place")?;
    let mut rows = statement.query([id(session)])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(row.hash("hash")?);
    }
    Ok(tokens)
}

pub(super) fn status(row: &Row<'_>) -> Result<SessionStatus, DbError> {
    let text: String = row.get("status")?;
    [SessionStatus::Ready, SessionStatus::Locked, SessionStatus::Recycling, SessionStatus::Removed]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or(DbError::Damaged("a status"))
}
