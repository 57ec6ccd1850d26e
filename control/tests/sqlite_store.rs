//! SQLite keeps the contract of stores, and what is its own: schema versions, file modes, shared commits.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod migrations;
#[macro_use]
mod store_contract;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use runit_control::sqlite::{OpenError, SqliteStore};
use runit_core::Store;
use runit_core::trail::TrailKey;
use tempfile::TempDir;
use tokio::task::JoinSet;

use store_contract::{Fixture, at, id, registration, trail_key};

struct InDirectory(TempDir);

impl InDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("runit.db")
    }
}

impl Fixture for InDirectory {
    fn open_with(&self, key: TrailKey) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.path(), key).expect("opens"))
    }
}

store_contract!(InDirectory::new());

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let directory = InDirectory::new();
    drop(SqliteStore::open(&directory.path(), trail_key()).unwrap());
    let db = rusqlite::Connection::open(directory.path()).unwrap();
    db.pragma_update(None, "user_version", 1_000).unwrap();
    let refused = SqliteStore::open(&directory.path(), trail_key()).err();
    assert!(matches!(refused, Some(OpenError::Newer { found: 1_000, .. })), "{refused:?}");
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1_000);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = InDirectory::new();
    fs::write(directory.path(), "not a database, and longer than a header of one hundred bytes. ".repeat(20)).unwrap();
    assert!(SqliteStore::open(&directory.path(), trail_key()).is_err());
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let directory = InDirectory::new();
    let store = directory.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    for file in fs::read_dir(directory.0.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_command_takes_no_other_of_its_batch_with_it() {
    let directory = InDirectory::new();
    let store = directory.open();
    let mut tasks = JoinSet::new();
    for number in 0..400 {
        let store = Arc::clone(&store);
        // Each fourth breaks the schema's checks: a token's hash that is there already.
        tasks.spawn(async move {
            store.register(registration(number, "one"), at(0)).await.unwrap();
            let token = if number % 4 == 0 { "shared".to_owned() } else { format!("token {number}") };
            let issue = runit_core::session::Change::IssueToken(runit_core::SecretHash::of(&token));
            store.change(id(number), issue, at(1)).await.is_ok()
        });
    }
    let issued = tasks.join_all().await.into_iter().filter(|&issued| issued).count();
    assert_eq!(issued, 301, "300 of their own, and the first of those that share one");
    let sessions = directory.open().live_sessions().await.unwrap();
    assert_eq!(sessions.len(), 400);
    let changed = sessions.iter().filter(|session| session.revision == 2).count();
    assert_eq!(changed, issued, "what failed has left nothing behind");
}

/// Not a benchmark: a guard against a commit for every command, which would take a sync for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_commands_share_a_commit() {
    const WRITES: u128 = 2_000;
    let directory = InDirectory::new();
    let store = directory.open();
    store.register(registration(1, "one"), at(0)).await.unwrap();
    let wal = directory.0.path().join("runit.db-wal");
    let mut tasks = JoinSet::new();
    for n in 0..WRITES {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.providers_seen(vec![id(1)], at(n as u64)).await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    // A commit writes at least one page of 4 KiB; a commit each would have written 8 MB between two checkpoints of 4 MB.
    assert!(fs::metadata(wal).unwrap().len() < 2 << 20, "commits were not shared");
}
