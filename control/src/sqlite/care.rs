//! Care for the database file: a copy while it is in use, a start from such a copy, and a look at whether it is whole.
//!
//! Invariant: what stands under the name that was asked for is complete and on disk; what is not complete has another
//! name. Nothing is ever written over.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runit_core::trail::TrailKey;
use runit_core::{EventKind, SecurityEvent, Timestamp};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::migrations::{self, SCHEMA_VERSION};
use super::schema::OpenError;
use super::worker::DbError;
use super::{event_rows, key_rows, ledger_rows, session_rows, usage_rows};
use crate::wholeness::problem_of;

/// How long a copy waits for a writer that holds the whole file.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database could not be copied, restored or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    /// There is no such file.
    #[error("there is no database at {}", .0.display())]
    Missing(PathBuf),
    /// Something is there already.
    #[error("{} is there already: move it away first", .0.display())]
    Occupied(PathBuf),
    /// Somebody has it open.
    #[error("a program uses {}: stop it first", .0.display())]
    InUse(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It is of another version, or SQLite refuses it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was copied is not whole.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    /// A row cannot be read or written.
    #[error("cannot use the database")]
    Rows(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<rusqlite::Error> for CareError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(error.into())
    }
}

impl From<DbError> for CareError {
    fn from(error: DbError) -> Self {
        Self::Rows(Box::new(error))
    }
}

/// Copies the database to a new file, readable by this user only, as it is at one moment. Others go on writing.
///
/// Answers the copy's length in bytes.
///
/// # Errors
/// [`CareError`]; nothing is at `target` then that was not there before.
pub fn backup(database: &Path, target: &Path) -> Result<u64, CareError> {
    copy(database, target, |copy| {
        require_whole(copy)?;
        Ok(())
    })
}

/// Puts a backup where no database is.
///
/// Nobody knows who was where since the backup was made: every lock ends, every token dies, and every workspace counts as
/// used ([`runit_core::session::Session::restored`]). Agents register again and bring fresh ones. The audit trail says so.
///
/// # Errors
/// [`CareError`]; nothing is at `database` then.
pub fn restore(backup: &Path, database: &Path, key: &TrailKey, now: Timestamp) -> Result<u64, CareError> {
    for suffix in ["-wal", "-shm", "-journal"] {
        refuse_occupied(&with_suffix(database, suffix))?;
    }
    copy(backup, database, |copy| {
        require_whole(copy)?;
        migrations::migrate(copy)?;
        let transaction = copy.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for known in session_rows::all(&transaction)? {
            let mut session = known.clone();
            session.restored(now);
            session_rows::update(&transaction, &known, &session)?;
            usage_rows::follow(&transaction, &known, &session, now)?;
        }
        event_rows::append(&transaction, key, &[SecurityEvent::new(EventKind::StoreRestored, now)])?;
        transaction.commit()?;
        Ok(())
    })
}

/// Everything that is wrong with a database, which may be in use; nothing when it is whole.
///
/// # Errors
/// [`CareError`] when it cannot be looked at.
pub fn check(database: &Path) -> Result<Vec<String>, CareError> {
    let mut db = existing(database)?;
    require_newest(&db)?;
    // One moment for all questions.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let mut problems = structural_problems(&transaction)?;
    let mut found = |what: &str, outcome: Result<(), DbError>| {
        if let Err(error) = outcome {
            problems.push(format!("{what}: {error}"));
        }
    };
    found("events", event_rows::readable(&transaction));
    found("keys", key_rows::all(&transaction).map(drop));
    match session_rows::all(&transaction) {
        Err(error) => found("sessions", Err(error)),
        Ok(sessions) => {
            for session in sessions {
                match ledger_rows::load(&transaction, session.id) {
                    Err(error) => found(&format!("ledger of session {}", session.id), Err(error)),
                    Ok(ledger) => {
                        let agrees = usage_rows::sum(&transaction, &session).and_then(|sum| {
                            let problem = problem_of(&session, &ledger.unwrap_or_default(), &sum);
                            problem.map_or(Ok(()), |problem| Err(DbError::Damaged(problem)))
                        });
                        found(&format!("ledger of session {}", session.id), agrees);
                    }
                }
            }
        }
    }
    Ok(problems)
}

fn structural_problems(db: &Connection) -> Result<Vec<String>, CareError> {
    let mut problems = Vec::new();
    let mut statement = db.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            problems.push(format!("file: {line}"));
        }
    }
    let mut statement = db.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        problems.push(format!("table {table}: a row without its row in {parent}"));
    }
    Ok(problems)
}

fn require_whole(copy: &Connection) -> Result<(), CareError> {
    match structural_problems(copy)?.into_iter().next() {
        Some(problem) => Err(CareError::Damaged(problem)),
        None => Ok(()),
    }
}

/// Copies at one moment into a draft, has `finish` look at it and change it, and gives it its name when it is on disk.
fn copy(
    source: &Path,
    target: &Path,
    finish: impl FnOnce(&mut Connection) -> Result<(), CareError>,
) -> Result<u64, CareError> {
    let from = existing(source)?;
    refuse_occupied(target)?;
    let draft = Draft::new(target)?;
    let mut to = Connection::open(&draft.0)?;
    // In one step: a copy in several would begin anew whenever somebody writes in between.
    let copied = Backup::new(&from, &mut to)?.step(-1)?;
    if copied != StepResult::Done {
        return Err(CareError::Damaged(format!("copying stopped: {copied:?}")));
    }
    // One file without companions, until a node opens it again.
    to.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    finish(&mut to)?;
    to.close().map_err(|(_, error)| error)?;
    draft.place(target)
}

/// Refuses what a node would migrate.
pub(super) fn require_newest(db: &Connection) -> Result<(), CareError> {
    match migrations::version(db)? {
        SCHEMA_VERSION => Ok(()),
        found => Err(OpenError::Older { found, known: SCHEMA_VERSION }.into()),
    }
}

/// A connection to a database that is there, of no newer version.
pub(super) fn existing(database: &Path) -> Result<Connection, CareError> {
    if !database.is_file() {
        return Err(CareError::Missing(database.to_owned()));
    }
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.busy_timeout(PATIENCE)?;
    let found = migrations::version(&db)?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { found, known: SCHEMA_VERSION }.into());
    }
    Ok(db)
}

fn refuse_occupied(path: &Path) -> Result<(), CareError> {
    if path.exists() { Err(CareError::Occupied(path.to_owned())) } else { Ok(()) }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file that is removed unless it gets its name.
struct Draft(PathBuf);

impl Draft {
    fn new(target: &Path) -> Result<Self, CareError> {
        let path = with_suffix(target, &format!(".{}.partial", std::process::id()));
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        created.map(|_| Self(path.clone())).map_err(|error| CareError::File(path, error))
    }

    fn place(self, target: &Path) -> Result<u64, CareError> {
        let failed = |error| CareError::File(target.to_owned(), error);
        let file = File::open(&self.0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // Not a rename, which would write over what came there in the meantime.
        fs::hard_link(&self.0, target).map_err(failed)?;
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        file.metadata().map(|metadata| metadata.len()).map_err(failed)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already, or left for the operator to see.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(with_suffix(&self.0, "-journal"));
    }
}
