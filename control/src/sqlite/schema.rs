//! The file and its pragmas.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

/// Prepared statements that a connection keeps; there are fewer than this.
const STATEMENTS: usize = 64;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or read.
    #[error("cannot open the database file")]
    File(#[source] io::Error),
    /// SQLite refuses it.
    #[error("cannot use the database")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by a newer version of this program.
    #[error("the database has schema version {found}, written by a newer program; this one knows up to {known}")]
    Newer {
        /// Version of the file.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// Written by an older version, and not to be changed now.
    #[error("the database has schema version {found}, not {known}: a start of the node brings it there")]
    Older {
        /// Version of the file.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// A thread could not be started.
    #[error("cannot start the store's thread")]
    Thread(#[source] io::Error),
}

/// Opens a connection with the settings that all of them share.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    // Created here rather than by SQLite for the mode; the journal files take theirs from it.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(OpenError::File)?;
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", "on")?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

/// What differs between two calls if, and only if, another connection has committed in between.
pub(super) fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "data_version", |row| row.get(0))
}
