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

store_contract! {
    InDirectory::new();
    a_registered_session_is_read_back_whole,
    only_the_same_secret_registers_a_session_again,
    tokens_find_their_session_as_long_as_they_open_it,
    a_lock_is_as_before_after_a_restart,
    an_ipv6_lock_is_as_before_after_a_restart,
    of_many_concurrent_claims_exactly_one_takes_the_lock,
    a_refused_change_changes_nothing_and_an_unknown_session_is_unknown,
    a_removed_session_leaves_a_tombstone_with_its_owner_and_its_usage,
    presence_goes_forward_only_and_passes_over_the_absent,
    sessions_removed_long_ago_are_forgotten_with_all_that_belongs_to_them,
    the_sweeper_is_told_of_those_that_are_due_and_no_others,
    usage_and_leases_are_as_before_after_a_restart,
    a_repeated_or_older_report_changes_nothing,
    an_unsettled_lease_is_charged_in_full_and_comes_free_after_a_day,
    a_dead_nodes_leases_are_settled_by_what_it_left_behind,
    concurrent_leases_never_pass_the_cap,
    events_are_kept_in_order,
    events_are_found_by_what_is_asked_and_counted_by_kind_and_time,
    keys_are_kept_as_hashes_and_stay_when_they_are_revoked,
    a_session_keeps_the_key_it_was_registered_with_and_how_its_lock_ended,
    operators_see_sessions_with_their_ledgers_and_providers_with_their_sessions,
    a_store_that_can_be_written_to_says_so,
    the_trail_is_a_chain_over_restarts_and_concurrent_writers,
    events_can_be_pruned_by_number_and_by_age_and_the_rest_still_verifies,
    each_lock_has_a_record_that_outlives_its_session,
    records_add_up_to_the_ledger_whatever_happens,
    deleted_records_are_carried_on_and_no_sum_changes,
    bytes_are_leased_for_the_lock_that_stands_and_for_no_other,
    a_lease_that_expired_and_is_asked_for_again_is_a_new_one,
    what_one_process_gives_back_another_can_lease,
    a_receivers_place_in_the_trail_survives,
    a_trail_whose_seal_is_of_another_key_goes_on_and_says_so,
}

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
