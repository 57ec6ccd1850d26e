//! All that a database holds, for another store to take over.

use std::path::Path;
use std::time::Duration;

use runit_core::key::Key;
use runit_core::ledger::Ledger;
use runit_core::session::Session;
use runit_core::trail::{Link, TrailMarks};
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::care::{CareError, existing, require_newest};
use super::rows::Columns;
use super::worker::DbError;
use super::{event_rows, key_rows, ledger_rows, session_rows, usage_rows};

/// A node that is about to end may take so long to let go of the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a store keeps, all of it. It is in memory as a whole: some hundred bytes for each session, event and record.
#[derive(Debug)]
pub struct Contents {
    /// Tombstones too; a ledger only where bytes were ever leased.
    pub sessions: Vec<(Session, Option<Ledger>)>,
    /// By start and lock.
    pub records: Vec<UsageRecord>,
    /// What deleted records add up to.
    pub carried: Vec<CarriedUsage>,
    /// By place.
    pub events: Vec<Link>,
    /// Both ends of the trail.
    pub marks: TrailMarks,
    /// Revoked ones too.
    pub keys: Vec<Key>,
    /// How far each webhook's receiver is.
    pub webhook_cursors: Vec<(String, u64)>,
}

/// Reads all of a database that nobody else has open.
///
/// # Errors
/// [`CareError::InUse`] when a program has it open: what that writes later would be lost.
pub fn contents(database: &Path) -> Result<Contents, CareError> {
    let mut db = existing(database)?;
    require_newest(&db)?;
    db.busy_timeout(PATIENCE)?;
    // In this mode a transaction begins only when no other connection is open (https://sqlite.org/wal.html, section 6).
    db.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => CareError::InUse(database.to_owned()),
            _ => error.into(),
        }
    })?;
    let with_ledger = |session: Session| Ok((session.clone(), ledger_rows::load(&transaction, session.id)?));
    let sessions = session_rows::all(&transaction)?.into_iter().map(with_ledger).collect::<Result<_, DbError>>()?;
    Ok(Contents {
        sessions,
        records: usage_rows::find(&transaction, &UsageFilter::default(), None, u32::MAX)?,
        carried: usage_rows::carried(&transaction, None, u32::MAX)?,
        events: event_rows::after(&transaction, 0, u32::MAX)?,
        marks: event_rows::marks(&transaction)?,
        keys: key_rows::all(&transaction)?,
        webhook_cursors: webhook_cursors(&transaction)?,
    })
}

fn webhook_cursors(db: &Connection) -> Result<Vec<(String, u64)>, DbError> {
    let mut statement = db.prepare("SELECT target, place FROM webhook_cursors")?;
    let mut rows = statement.query([])?;
    let mut cursors = Vec::new();
    while let Some(row) = rows.next()? {
        cursors.push((row.get("target")?, row.unsigned("place")?));
    }
    Ok(cursors)
}
