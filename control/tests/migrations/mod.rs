//! A store of every earlier version becomes one of the newest, with all that was in it.
//!
//! `version_N.sql` is a store of version N as `dump.py` wrote it: one session in each state, a ledger with closed, open
//! and settled parts, events, and what the version could hold besides: a key, a usage record, a receiver's place, a sum. Whoever adds a migration adds the fixture of the version that it makes.

use std::path::{Path, PathBuf};

use runit_control::anchors;
use runit_control::sqlite::{self, SCHEMA_VERSION, SqliteStore};
use runit_core::session::SessionStatus;
use runit_core::usage::UsageFilter;
use runit_core::{EventKind, SecretHash, SecurityEvent, Store};
use rusqlite::Connection;

use crate::store_contract::{at, id, trail_key};

fn fixture(version: i64) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/migrations/version_{version}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn made_from(sql: &str, directory: &Path) -> PathBuf {
    let path = directory.join("runit.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

/// Every object of the schema but its text's spacing, which `ALTER TABLE` and `CREATE TABLE` write differently.
fn schema(path: &Path) -> Vec<(String, String, Vec<String>)> {
    let db = Connection::open(path).unwrap();
    let mut objects =
        db.prepare("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name").unwrap();
    let objects: Vec<(String, String)> =
        objects.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let columns = |name: &str| {
        let sql = "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_xinfo(?)";
        db.prepare(sql).unwrap().query_map([name], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    objects.into_iter().map(|(kind, name)| (kind, name.clone(), columns(&name))).collect()
}

#[tokio::test]
async fn a_store_of_each_earlier_version_is_migrated_with_all_that_was_in_it() {
    for version in 1..=SCHEMA_VERSION {
        let directory = tempfile::tempdir().unwrap();
        let path = made_from(&fixture(version), directory.path());
        let store = SqliteStore::open(&path, trail_key()).unwrap();

        let statuses = [SessionStatus::Ready, SessionStatus::Locked, SessionStatus::Recycling, SessionStatus::Removed];
        for (number, status) in (1..).zip(statuses) {
            let session = store.session(id(number)).await.unwrap().expect("was there");
            assert_eq!(session.status(), status, "version {version}");
            assert_eq!(session.offer.hardware.as_deref(), Some("{\"gpu\":\"A100\"}"));
        }
        let locked = store.session_by_token(SecretHash::of("lock")).await.unwrap().expect("its lock stands");
        let lock = locked.lock().unwrap();
        assert_eq!((locked.id, lock.address.to_string().as_str(), lock.taken_at), (id(2), "127.0.0.1", at(2)));
        assert_eq!(lock.cookie, Some(SecretHash::of("cookie")));

        let ledger = store.ledger(id(2), at(400_000)).await.unwrap();
        let used = ledger.standing(locked.cap_bytes).used;
        assert_eq!((used.bytes_in, used.bytes_out, used.forfeited), (111, 222, 50_000), "version {version}");
        assert_eq!((ledger.open.len(), ledger.settled.len(), ledger.closed.len()), (1, 1, 2));

        let events = store.events(10).await.unwrap();
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["SESSION_LOCKED", "RATE_LIMITED"], "version {version}");
        assert_eq!(events[0].session, Some(id(2)));
        holds_what_came_later(&store, version).await;

        // What newer versions do, they do with it.
        let event = SecurityEvent::new(EventKind::SessionCut, at(500_000));
        assert!(!store.append_events(vec![event]).await.unwrap(), "its end is no tampered one: version {version}");
        let verdict = anchors::verify(&store, &trail_key(), &[]).await.unwrap();
        assert_eq!((verdict.events, verdict.findings), (1, vec![]), "version {version}");
        assert_eq!(sqlite::check(&path).unwrap(), Vec::<String>::new(), "version {version}");
    }
}

/// Each from the version on that could hold it.
async fn holds_what_came_later(store: &SqliteStore, version: i64) {
    let since = |first: i64| usize::from(version >= first);
    assert_eq!(store.keys().await.unwrap().len(), since(2), "version {version}");
    let records = store.usage_records(UsageFilter::default(), None, 10).await.unwrap();
    let used: Vec<u64> = records.iter().map(|record| record.used.total()).collect();
    assert_eq!(used, vec![50_033; since(4)], "version {version}");
    let cursor = store.webhook_cursor("ops".into()).await.unwrap();
    assert_eq!(cursor, (version >= 5).then_some(1), "version {version}");
    let carried = store.carried_usage(None, 10).await.unwrap();
    assert_eq!(carried.len(), since(6), "version {version}");
}

#[test]
fn a_migrated_store_has_the_schema_of_a_new_one() {
    let new = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(&new.path().join("runit.db"), trail_key()).unwrap());
    for version in 1..=SCHEMA_VERSION {
        let directory = tempfile::tempdir().unwrap();
        let path = made_from(&fixture(version), directory.path());
        drop(SqliteStore::open(&path, trail_key()).unwrap());
        assert_eq!(schema(&path), schema(&new.path().join("runit.db")), "version {version}");
    }
}
