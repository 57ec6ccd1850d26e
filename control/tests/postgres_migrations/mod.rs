//! A shared store of every earlier version becomes one of the newest, with all that was in it.
//!
//! `version_N.sql` is a store of version N, filled by [`fill`], as `pg_dump --inserts --no-owner` wrote it, without psql's
//! own commands. Whoever adds a migration adds the fixture of the version before it, if there is none yet.

use runit_control::anchors;
use runit_control::postgres::PostgresStore;
use runit_core::key::{KeyHolder, Role};
use runit_core::session::{Change, SessionStatus};
use runit_core::store::Store;
use runit_core::usage::UsageFilter;
use runit_core::{LockId, SecretHash};
use tokio_postgres::Client;

use crate::postgres::Postgres;
use crate::store_contract::{
    at, claim, events, id, issue, key, lease_of, policy, registration, release, report, trail_key,
};

/// In the order of their versions.
const FIXTURES: [&str; 2] = [include_str!("version_1.sql"), include_str!("version_2.sql")];

/// One session in each state, a ledger with what is booked and what is leased, events, a key, a receiver's place.
async fn fill(store: &dyn Store) {
    for number in 1..=4 {
        let token = format!("token {number}");
        store.register(registration(number, "one"), at(0)).await.unwrap();
        store.change(id(number), issue(&token), at(1)).await.unwrap();
    }
    for number in 2..=4 {
        let token = format!("token {number}");
        store.change(id(number), claim(&token, 1, Some("cookie")), at(2)).await.unwrap();
        store.grant(lease_of(&token, number, number, 5_000), policy(), at(3)).await.unwrap();
    }
    store.grant(lease_of("token 2", 2, 5, 7_000), policy(), at(3)).await.unwrap();
    let reports = vec![report(2, 2, 1, (111, 222), true), report(3, 3, 1, (1, 2), true)];
    store.settle(reports, at(4)).await.unwrap();
    store.change(id(3), release("token 3"), at(5)).await.unwrap();
    store.change(id(4), Change::Remove, at(6)).await.unwrap();
    store.append_events(events(2, 7)).await.unwrap();
    store
        .add_key(key(1, KeyHolder::Operator { name: "night shift".parse().unwrap(), role: Role::Read }))
        .await
        .unwrap();
    store.save_webhook_cursor("ops".into(), 1).await.unwrap();
}

async fn holds_what_it_was_filled_with(store: &PostgresStore, what: &str) {
    let statuses = [SessionStatus::Ready, SessionStatus::Locked, SessionStatus::Recycling, SessionStatus::Removed];
    for (number, status) in (1..).zip(statuses) {
        let session = store.session(id(number)).await.unwrap().expect("was there");
        assert_eq!(session.status(), status, "{what}");
        assert_eq!(session.offer.hardware.as_deref(), Some("{\"gpu\":\"A100\"}"));
    }
    let locked = store.session_by_token(SecretHash::of("token 2")).await.unwrap().expect("its lock stands");
    let lock = locked.lock().unwrap();
    assert_eq!((locked.id, lock.address.to_string().as_str(), lock.taken_at), (id(2), "127.0.0.1", at(2)), "{what}");
    assert_eq!(lock.cookie, Some(SecretHash::of("cookie")));

    let ledger = store.ledger(id(2), at(8)).await.unwrap();
    assert_eq!((ledger.total.moved(), ledger.charged(), ledger.open.len()), (333, 7_333, 1), "{what}");
    let records = store.usage_records(UsageFilter::default(), None, 10).await.unwrap();
    assert_eq!(records.len(), 3, "{what}");
    let record = store.usage_record(LockId::of(SecretHash::of("token 3"))).await.unwrap().unwrap();
    assert_eq!((record.used.moved(), record.ended_at, record.is_final), (3, Some(at(5)), true), "{what}");

    let verdict = anchors::verify(store, &trail_key(), &[]).await.unwrap();
    assert_eq!((verdict.events, verdict.findings), (2, vec![]), "{what}");
    assert_eq!(store.keys().await.unwrap().len(), 1, "{what}");
    assert_eq!(store.webhook_cursor("ops".into()).await.unwrap(), Some(1), "{what}");
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new(), "{what}");
    assert_eq!(store.prune_usage(at(6)).await.unwrap(), 1, "what newer versions do, they do with it: {what}");
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new(), "{what}");
}

/// Columns, indexes and constraints.
async fn schema(by_hand: &Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
             FROM information_schema.columns WHERE table_schema = 'public'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace
         ORDER BY 1";
    by_hand.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_store_of_each_earlier_version_is_migrated_with_all_that_was_in_it() {
    let postgres = Postgres::start();
    let new = PostgresStore::connect(&postgres.settings(), trail_key()).await.unwrap();
    fill(&new).await;
    holds_what_it_was_filled_with(&new, "a new store").await;
    drop(new);
    let by_hand = postgres.by_hand().await;
    let newest: i64 = by_hand.query_one("SELECT max(version) FROM schema_version", &[]).await.unwrap().get(0);
    let wanted = schema(&by_hand).await;
    assert!(usize::try_from(newest).unwrap() <= FIXTURES.len() + 1, "a version before {newest} has no fixture");
    for (version, fixture) in (1..).zip(FIXTURES) {
        by_hand.batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
        // On a connection of its own: a dump changes how names are looked up.
        postgres.by_hand().await.batch_execute(fixture).await.unwrap();
        let store = PostgresStore::connect(&postgres.settings(), trail_key()).await.unwrap();
        holds_what_it_was_filled_with(&store, &format!("version {version}")).await;
        assert_eq!(schema(&by_hand).await, wanted, "version {version}");
    }
}
