//! The commands on the store, where that is the database of several nodes.

use std::path::Path;

use serde_json::{Value, json};

use crate::audit::{anchored, register};
use crate::postgres::Postgres;
use crate::program::{Program, command_with};

/// A command's exit code, and what it says.
fn run(directory: &Path, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command_with(directory, &[("RUNIT_STORE__URL", url)], arguments);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn what_is_done_to_the_shared_trail_by_hand_is_found() {
    let (directory, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let (directory, url) = (directory.path(), postgres.settings().url.expose().to_owned());
    let program = Program::start_with(directory, &[("RUNIT_STORE__URL", &url)]);
    for number in 0..20 {
        register(&program, number).await;
    }
    anchored(directory, 20).await;
    let well = (Some(0), "20 events, 1 anchors, 0 findings\n".to_owned());
    assert_eq!(run(directory, &url, &["events", "verify"]), well, "while it runs");
    drop(program);
    let (code, exported) = run(directory, &url, &["events", "export", "--after", "5"]);
    assert_eq!((code, exported.lines().count()), (Some(0), 15), "{exported}");

    let by_hand = postgres.by_hand().await;
    by_hand.batch_execute("CREATE TABLE kept AS TABLE events; CREATE TABLE marks AS TABLE trail_marks").await.unwrap();
    let swap = "UPDATE events SET place = -1 WHERE place = 5; UPDATE events SET place = 5 WHERE place = 9;
        UPDATE events SET place = 9 WHERE place = -1";
    let erase = "DELETE FROM events;
        UPDATE trail_marks SET place = 1000000, hash = decode(repeat('00', 32), 'hex'), seal = decode(repeat('00', 32), 'hex')";
    let shorter = "UPDATE trail_marks SET place = 10, hash = (SELECT hash FROM events WHERE place = 10)
        WHERE name = 'head'; DELETE FROM events WHERE place > 10";
    let tamperings = [
        ("UPDATE events SET provider = 'somebody-else' WHERE place = 7", "event 7: changed"),
        ("DELETE FROM events WHERE place > 10", "ends at event 10 and should end at 20"),
        (shorter, "no valid seal"),
        ("DELETE FROM events; DELETE FROM trail_marks", "an anchor says that event 20 was written"),
        (erase, "an anchor says that event 20 was written"),
        (swap, "event 5: changed"),
        ("INSERT INTO events (place, at, kind) VALUES (21, 1, 'RATE_LIMITED')", "event 21: written by something"),
    ];
    let back = "TRUNCATE events, trail_marks; INSERT INTO events TABLE kept; INSERT INTO trail_marks TABLE marks";
    for (tampering, finding) in tamperings {
        by_hand.batch_execute(tampering).await.unwrap();
        let (code, text) = run(directory, &url, &["events", "verify"]);
        assert_eq!((code, text.contains(finding)), (Some(1), true), "{tampering}: {text}");
        by_hand.batch_execute(back).await.unwrap();
        assert_eq!(run(directory, &url, &["events", "verify"]), well, "as it was");
    }
}

#[tokio::test]
async fn the_shared_store_is_looked_at_and_its_usage_written_but_it_is_copied_by_its_own_tools() {
    let (directory, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let (directory, url) = (directory.path(), postgres.settings().url.expose().to_owned());
    let program = Program::start_with(directory, &[("RUNIT_STORE__URL", &url)]);
    register(&program, 1).await;
    assert_eq!(run(directory, &url, &["check"]), (Some(0), "the shared store: whole\n".into()), "while it runs");

    let by_hand = postgres.by_hand().await;
    let used =
        "INSERT INTO usage_records SELECT '00000000-0000-0000-0000-000000000001', id, 'p-1', NULL, 1000, 2000, 4, 5, 6
        FROM sessions; INSERT INTO usage_carried SELECT id, 'p-1', 0, 2, 3, 1000, 2000, 4, 5, 6 FROM sessions";
    by_hand.batch_execute(used).await.unwrap();
    let (code, records) = run(directory, &url, &["usage", "export", "--format", "json", "--provider", "p-1"]);
    let record: Value = serde_json::from_str(&records).unwrap();
    assert_eq!((code, &record["bytesIn"], &record["bytesOut"]), (Some(0), &json!(4), &json!(5)), "{records}");
    let (code, carried) = run(directory, &url, &["usage", "carried"]);
    assert_eq!((code, carried.lines().count()), (Some(0), 2), "{carried}");
    assert!(carried.ends_with("1970-01-01T00:00:01.000Z,1970-01-01T00:00:02.000Z,3,4,5,6\n"), "{carried}");

    by_hand.batch_execute("UPDATE sessions SET document = document - 'provider'").await.unwrap();
    let (code, text) = run(directory, &url, &["check"]);
    assert_eq!((code, text.starts_with("session ")), (Some(1), true), "{text}");
    for command in ["backup", "restore"] {
        let (code, text) = run(directory, &url, &[command, directory.join("copy").to_str().unwrap()]);
        assert_eq!((code, text.contains("pg_dump")), (Some(2), true), "{command}: {text}");
    }
    let (code, text) = run(directory, "postgres://postgres@127.0.0.1:1/postgres", &["check"]);
    assert_eq!(code, Some(2), "nobody is there: {text}");
}

#[tokio::test]
async fn what_the_store_could_not_count_uses_up_no_limit() {
    let (directory, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let url = postgres.settings().url.expose().to_owned();
    let limit = "{ requests = 3, seconds = 3600 }";
    let environment = [("RUNIT_STORE__URL", &*url), ("RUNIT_CONTROL__CREATION_LIMIT", limit)];
    let program = Program::start_with(directory.path(), &environment);
    let offer = json!({ "providerId": "p", "publicUrl": "https://a-b-c.trycloudflare.com", "token": "t" });
    let statuses = async |count| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(program.call("/provider/session", &offer, None).await.0);
        }
        statuses
    };
    let by_hand = postgres.by_hand().await;
    by_hand.batch_execute("ALTER TABLE rates RENAME TO away").await.unwrap();
    assert_eq!(statuses(5).await, [503; 5]);
    by_hand.batch_execute("ALTER TABLE away RENAME TO rates").await.unwrap();
    assert_eq!(statuses(4).await, [200, 200, 200, 429]);
}
