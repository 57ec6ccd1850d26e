//! The contract of `Store`, kept by PostgreSQL, and what only it can do.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

#[macro_use]
#[path = "store_contract/mod.rs"]
mod store_contract;
#[path = "support/postgres.rs"]
mod postgres;
mod postgres_migrations;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use postgres::Postgres;
use runit_control::anchors;
use runit_control::moving::{MoveError, move_store};
use runit_control::postgres::{ImportError, OpenError, PostgresStore};
use runit_control::sqlite::{CareError, SqliteStore};
use runit_core::Secret;
use runit_core::key::{KeyHolder, Role};
use runit_core::limit::Limit;
use runit_core::session::Change;
use runit_core::store::{Elsewhere, SharedRate, SharedVerdict, Store, Turn};
use runit_core::trail::TrailKey;
use store_contract::Fixture;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

impl Fixture for Postgres {
    fn open_with(&self, key: TrailKey) -> Arc<dyn Store> {
        let settings = self.settings();
        let store = block_in_place(|| Handle::current().block_on(PostgresStore::connect(&settings, key)));
        Arc::new(store.expect("connects"))
    }
}

store_contract!(Postgres::start());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_nodes_has_a_turn_and_a_change_of_keys_is_told_to_the_other() {
    let postgres = Postgres::start();
    let (first, second) = (postgres.open(), postgres.open());
    let ops = Turn::Webhook("ops".into());
    for (store, turn, has) in [
        (&first, &ops, true),
        (&second, &ops, false),
        (&second, &Turn::Sweep, true),
        (&first, &Turn::Sweep, false),
        (&first, &ops, true),
    ] {
        assert_eq!(store.has_turn(turn.clone()).await.unwrap(), has, "{turn:?}");
    }

    let mut heard = second.changes();
    assert_eq!(heard.next().await, Some(Elsewhere::Anything), "it has begun to listen");
    let key = store_contract::key(1, KeyHolder::Provider("gpu-box".parse().unwrap()));
    first.add_key(key.clone()).await.unwrap();
    assert_eq!(heard.next().await, Some(Elsewhere::Keys));
    second.revoke_key(key.id, store_contract::at(1)).await.unwrap();
    first.revoke_key(key.id, store_contract::at(2)).await.unwrap();
    assert_eq!(heard.next().await, Some(Elsewhere::Keys), "and of its own not");
    first.register(store_contract::registration(1, "one"), store_contract::at(3)).await.unwrap();
    assert_eq!(heard.next().await, Some(Elsewhere::Session(store_contract::id(1))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_silent_until_it_is_listened_to_and_not_while_nothing_happens() {
    let postgres = Postgres::start();
    let store = postgres.open();
    let mut changes = store.changes();
    while store.silence() < Duration::from_millis(50) {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    assert_eq!(changes.next().await, Some(Elsewhere::Anything));
    assert!(store.silence() <= asked.elapsed(), "heard when it began to listen");

    let listening = tokio::spawn(async move { changes.next().await });
    let mut before = Duration::ZERO;
    let signs_of_life = async {
        while store.silence() >= before {
            before = store.silence();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), signs_of_life).await.expect("asked for a sign of life");
    assert!(!listening.is_finished(), "nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_for_all_nodes_together() {
    let postgres = Postgres::start();
    let nodes = [postgres.open(), postgres.open(), postgres.open()];
    let window = Duration::from_secs(3_600);
    let of = |whom: &str| SharedRate { name: "test", whom: whom.to_owned(), limit: Limit { requests: 10, window } };
    let now = store_contract::at(1);
    let rate = of("192.0.2.1");
    let volley = (0..30).map(|number| nodes[number % 3].admit(&rate, now));
    let verdicts: Vec<_> = futures::future::join_all(volley).await.into_iter().map(Result::unwrap).collect();
    let admitted: Vec<_> = verdicts
        .iter()
        .filter_map(|one| if let SharedVerdict::Admitted(at) = one { Some(*at) } else { None })
        .collect();
    assert_eq!(admitted.len(), 10, "{verdicts:?}");
    let first = |one: &&SharedVerdict| matches!(one, SharedVerdict::TooMany { first: true, .. });
    assert_eq!(verdicts.iter().filter(first).count(), 1, "one event for a window: {verdicts:?}");
    let waits = verdicts.iter().all(|one| match one {
        SharedVerdict::TooMany { next_free, .. } => *next_free <= window && *next_free > window / 2,
        SharedVerdict::Admitted(_) => true,
    });
    assert!(waits, "{verdicts:?}");

    let is_admitted = |one| matches!(one, SharedVerdict::Admitted(_));
    assert!(is_admitted(nodes[0].admit(&of("192.0.2.2"), now).await.unwrap()), "another network has its own");
    nodes[1].forgive(&rate, admitted[3]).await.unwrap();
    assert!(is_admitted(nodes[2].admit(&rate, now).await.unwrap()), "what was none is taken back");
    assert!(!is_admitted(nodes[0].admit(&rate, now).await.unwrap()));

    let brief = SharedRate { limit: Limit { requests: 1, window: Duration::from_millis(1) }, ..of("192.0.2.3") };
    assert!(is_admitted(nodes[0].admit(&brief, now).await.unwrap()));
    while !is_admitted(nodes[1].admit(&brief, now).await.unwrap()) {}
    nodes[1].forget_removed(now).await.unwrap();
    assert!(!is_admitted(nodes[0].admit(&rate, now).await.unwrap()), "only what is over is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_may_take_longer_than_other_statements() {
    use store_contract::trail_key;
    let postgres = Postgres::start();
    let by_hand = postgres.by_hand().await;
    // As if another node migrated, which takes its time.
    by_hand.batch_execute("SELECT pg_advisory_lock(125848689144833)").await.unwrap();
    let settings = postgres.settings();
    let connecting = tokio::spawn(async move { PostgresStore::connect(&settings, trail_key()).await.map(drop) });
    let long = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND clock_timestamp() > query_start + '6 s'::interval";
    while by_hand.query(long, &[]).await.unwrap().is_empty() {
        assert!(!connecting.is_finished(), "{:?}", connecting.await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    by_hand.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    connecting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_url_asks_of_the_database_is_added_to_what_the_store_needs() {
    use store_contract::trail_key;
    let postgres = Postgres::start();
    let by_hand = postgres.by_hand().await;
    by_hand.batch_execute("CREATE SCHEMA notebooks").await.unwrap();
    let mut settings = postgres.settings();
    settings.url = Secret::new(format!("{}?options=-c%20search_path%3Dnotebooks", settings.url.expose()));
    let store = PostgresStore::connect(&settings, trail_key()).await.unwrap();
    by_hand.query_one("SELECT FROM notebooks.sessions HAVING count(*) = 0", &[]).await.expect("its tables are there");
    drop(store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_sessions_are_read_by_pages_each_once() {
    use store_contract::{at, id, registration};
    let postgres = Postgres::start();
    let store = postgres.open();
    assert_eq!(store.live_sessions().await.unwrap().len(), 0);
    store.register(registration(1, "one"), at(0)).await.unwrap();
    store.register(registration(2, "one"), at(0)).await.unwrap();
    store.change(id(2), Change::Remove, at(1)).await.unwrap();
    let by_hand = postgres.by_hand().await;
    let copies = format!(
        "INSERT INTO sessions (id, version, status, tokens, cap_bytes, removed_at, sealed_credential, document)
         SELECT md5(n::text)::uuid, version, status, tokens, cap_bytes, removed_at, sealed_credential, document
         FROM sessions, generate_series(1, 6999) AS n WHERE id = '{}';
         INSERT INTO presence (session, provider_seen_at) SELECT id, 1 FROM sessions ON CONFLICT DO NOTHING",
        id(1)
    );
    by_hand.batch_execute(&copies).await.unwrap();
    let live = store.live_sessions().await.unwrap();
    let ids: HashSet<_> = live.iter().map(|session| session.id).collect();
    assert_eq!((live.len(), ids.len()), (7_000, 7_000));
    assert!(!ids.contains(&id(2)), "it is removed");
}

/// What a node leaves behind: sessions in each state, a lease that is open, usage, events, keys, and a receiver's place.
async fn lived_in(store: &dyn Store) {
    use store_contract::{at, events, id, issue, key, lease_of, locked, policy, registration, release, report};
    for number in 1..=4 {
        locked(store, number, &format!("token {number}")).await;
        let lease = lease_of(&format!("token {number}"), number, number, 5_000);
        store.grant(lease, policy(), at(3)).await.unwrap();
    }
    let reports =
        vec![report(1, 1, 1, (10, 20), false), report(2, 2, 1, (30, 40), true), report(3, 3, 1, (1, 2), true)];
    store.settle(reports, at(4)).await.unwrap();
    store.change(id(2), release("token 2"), at(5)).await.unwrap();
    store.change(id(3), Change::Remove, at(6)).await.unwrap();
    store.change(id(4), Change::Cut, at(7)).await.unwrap();
    assert_eq!(store.prune_usage(at(6)).await.unwrap(), 1, "of the second session, to be carried on");
    store.register(registration(5, "one"), at(8)).await.unwrap();
    store.change(id(5), issue("token 5"), at(9)).await.unwrap();
    store.append_events(events(2_500, 10)).await.unwrap();
    store.prune_events(2_000, at(0)).await.unwrap();
    let operator = KeyHolder::Operator { name: "night shift".parse().unwrap(), role: Role::Operate };
    store.add_key(key(1, operator)).await.unwrap();
    store.add_key(key(2, KeyHolder::Provider("gpu-box".parse().unwrap()))).await.unwrap();
    store.revoke_key(key(2, KeyHolder::Provider("gpu-box".parse().unwrap())).id, at(11)).await.unwrap();
    store.save_webhook_cursor("ops".into(), 700).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_own_store_is_moved_whole_once_nobody_uses_it() {
    use store_contract::{at, claim, id, trail_key};
    let (postgres, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let database = directory.path().join("runit.db");
    let node = SqliteStore::open(&database, trail_key()).unwrap();
    lived_in(&node).await;
    let store = PostgresStore::connect(&postgres.settings(), trail_key()).await.unwrap();
    let refused = move_store(&database, &store, trail_key(), at(20)).await;
    assert!(matches!(refused, Err(MoveError::From(CareError::InUse(_)))), "{refused:?}");
    drop(node);
    let (moved, differences) = loop {
        // The threads of the store let go of the file in their own time.
        match move_store(&database, &store, trail_key(), at(20)).await {
            Err(MoveError::From(CareError::InUse(_))) => {}
            moved => break moved.unwrap(),
        }
    };
    assert_eq!(differences, Vec::<&str>::new());
    assert_eq!((moved.sessions.len(), moved.records.len(), moved.events.len(), moved.keys.len()), (5, 3, 2_000, 2));
    assert_eq!(moved.carried[0].used.moved(), 70);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let verdict = anchors::verify(&store, &trail_key(), &[moved.marks.head]).await.unwrap();
    assert_eq!((verdict.events, verdict.findings), (2_000, vec![]));
    let again = move_store(&database, &store, trail_key(), at(20)).await;
    assert!(matches!(again, Err(MoveError::Into(ImportError::Occupied))), "{again:?}");

    store.change(id(5), claim("token 5", 1, None), at(21)).await.expect("its token opens it here too");
    store.settle(vec![store_contract::report(1, 1, 2, (11, 20), true)], at(22)).await.unwrap();
    assert_eq!(store.ledger(id(1), at(22)).await.unwrap().charged(), 31, "the lease goes on");
    store.append_events(store_contract::events(1, 23)).await.unwrap();
    let verdict = anchors::verify(&store, &trail_key(), &[moved.marks.head]).await.unwrap();
    assert_eq!((verdict.events, verdict.findings), (2_001, vec![]), "and so does the trail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_row_is_found_and_nothing_else() {
    use store_contract::{id, trail_key};
    let postgres = Postgres::start();
    let early = PostgresStore::connect_existing(&postgres.settings(), trail_key()).await.err();
    assert!(matches!(early, Some(OpenError::Older { found: 0, .. })), "only a node migrates: {early:?}");
    lived_in(&*postgres.open()).await;
    let store = PostgresStore::connect_existing(&postgres.settings(), trail_key()).await.unwrap();
    let by_hand = postgres.by_hand().await;
    let tables = ["sessions", "presence", "ledgers", "usage_records", "usage_carried", "events", "keys"];
    let keep = tables.map(|table| format!("CREATE TABLE kept.{table} AS TABLE {table};")).concat();
    by_hand.batch_execute(&format!("CREATE SCHEMA kept; {keep}")).await.unwrap();
    let back = tables.map(|table| format!("INSERT INTO {table} TABLE kept.{table};")).concat();
    let (one, two, four) = (id(1), id(2), id(4));
    let ruins = [
        (format!("DELETE FROM presence WHERE session = '{four}'"), format!("session {four}: "), "without its presence"),
        (
            "UPDATE sessions SET document = document - 'lock'".into(),
            format!("session {one}: "),
            "a lock that is missing",
        ),
        (format!("UPDATE sessions SET cap_bytes = 1 WHERE id = '{one}'"), format!("session {one}: "), "over the cap"),
        (
            format!("UPDATE usage_records SET bytes_in = bytes_in + 1 WHERE session = '{one}'"),
            format!("session {one}: "),
            "sum of its",
        ),
        ("UPDATE usage_carried SET bytes_out = 41".into(), format!("session {two}: "), "the sum of its records"),
        (
            format!("UPDATE ledgers SET total = '{{}}' WHERE session = '{one}'"),
            format!("session {one}: "),
            "deserializ",
        ),
        ("UPDATE events SET kind = 'NONSENSE' WHERE place = 1700".into(), "events: ".into(), "an event"),
        ("UPDATE keys SET role = 'nonsense' WHERE role IS NOT NULL".into(), "keys: ".into(), "a key"),
    ];
    for (ruin, what, why) in ruins {
        assert_eq!(store.check().await.unwrap(), Vec::<String>::new(), "before: {ruin}");
        by_hand.batch_execute(&ruin).await.unwrap();
        let problems = store.check().await.unwrap();
        assert_eq!(problems.len(), 1, "{ruin}: {problems:?}");
        assert!(problems[0].contains(&what) && problems[0].contains(why), "{ruin}: {problems:?}");
        by_hand.batch_execute(&format!("TRUNCATE {}; {back}", tables.join(", "))).await.unwrap();
    }
    by_hand.batch_execute("DROP TABLE keys").await.unwrap();
    assert!(store.check().await.is_err(), "a look that the database ends is none");
    by_hand.batch_execute("UPDATE schema_version SET version = 1000").await.unwrap();
    let newer = PostgresStore::connect_existing(&postgres.settings(), trail_key()).await.err();
    assert!(matches!(newer, Some(OpenError::Newer { found: 1000, .. })), "{newer:?}");
}
