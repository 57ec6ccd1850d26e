//! What is done to the audit trail from outside of the program is found by `events verify`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::program::{Program, command, command_with};

fn verify(directory: &Path, anchors: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["events", "verify"];
    anchors.iter().for_each(|anchor| arguments.extend(["--anchor", anchor]));
    let output = command(directory, &arguments);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

pub(crate) async fn register(program: &Program, number: usize) {
    let offer =
        json!({ "providerId": format!("p-{number}"), "publicUrl": "https://a-b-c.trycloudflare.com", "token": "t" });
    program.post("/provider/session", offer).await;
}

fn anchor(directory: &Path) -> String {
    fs::read_to_string(directory.join("data/trail.anchor")).unwrap_or_default()
}

/// Waits until the anchor file names that place.
pub(crate) async fn anchored(directory: &Path, place: u64) {
    let named = || serde_json::from_str::<Value>(&anchor(directory)).ok().and_then(|anchor| anchor["place"].as_u64());
    while named() != Some(place) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn edit(directory: &Path, sql: &str) {
    Connection::open(directory.join("data/runit.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn changing_one_event_dropping_the_last_ten_and_swapping_two_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let program = Program::start(directory);
    for number in 0..10 {
        register(&program, number).await;
    }
    anchored(directory, 10).await;
    let early = anchor(directory);
    for number in 10..20 {
        register(&program, number).await;
    }
    anchored(directory, 20).await;
    assert_eq!(verify(directory, &[]), (Some(0), "20 events, 1 anchors, 0 findings\n".into()), "while it runs");
    drop(program);
    let database = directory.join("data/runit.db");
    edit(directory, "PRAGMA wal_checkpoint(TRUNCATE)");
    let whole = fs::read(&database).unwrap();
    let swap = "UPDATE events SET place = -1 WHERE place = 5; UPDATE events SET place = 5 WHERE place = 9;
        UPDATE events SET place = 9 WHERE place = -1;";
    let erase = "DELETE FROM events;
        UPDATE trail_marks SET place = 1000000, hash = zeroblob(32), seal = zeroblob(32)";
    let insert = "INSERT INTO events (at, kind, hash) VALUES (1, 'RATE_LIMITED', zeroblob(32))";
    let sealed = serde_json::from_str::<Value>(&early).unwrap();
    let put_back = format!(
        "DELETE FROM events WHERE place > 10;
         UPDATE trail_marks SET place = 10, hash = x'{}', seal = x'{}' WHERE name = 'head'",
        sealed["hash"].as_str().unwrap(),
        sealed["seal"].as_str().unwrap()
    );
    let tamperings = [
        (&*put_back, "an anchor says that event 20 was written"),
        ("UPDATE events SET provider = 'somebody-else' WHERE place = 7", "event 7: changed"),
        ("UPDATE events SET hash = zeroblob(32) WHERE place = 7", "event 7: changed"),
        ("DELETE FROM events WHERE place > 10", "ends at event 10 and should end at 20"),
        ("DELETE FROM events WHERE place = 1", "event 2: changed"),
        ("DELETE FROM events WHERE place = 12", "event 13: changed"),
        ("DELETE FROM events", "ends at event 0 and should end at 20"),
        ("DELETE FROM events; DELETE FROM trail_marks", "an anchor says that event 20 was written"),
        (erase, "an anchor says that event 20 was written"),
        ("UPDATE trail_marks SET place = 10 WHERE name = 'head'; DELETE FROM events WHERE place > 10", "no valid seal"),
        (
            "UPDATE trail_marks SET place = 5, hash = (SELECT hash FROM events WHERE place = 5) WHERE name = 'base'",
            "base",
        ),
        (swap, "event 5: changed"),
        (insert, "event 21: changed"),
        ("INSERT INTO events (at, kind) VALUES (1, 'RATE_LIMITED')", "event 21: written by something"),
    ];
    for (tampering, finding) in tamperings {
        edit(directory, tampering);
        let (code, text) = verify(directory, &[]);
        assert_eq!(code, Some(1), "{tampering}: {text}");
        assert!(text.contains(finding), "{tampering}: {text}");
        fs::write(&database, &whole).unwrap();
        for companion in ["runit.db-wal", "runit.db-shm"] {
            let _ = fs::remove_file(directory.join("data").join(companion));
        }
        assert_eq!(verify(directory, &[]).0, Some(0), "as it was");
    }
    fs::remove_file(directory.join("data/trail.anchor")).unwrap();
    assert_eq!(verify(directory, &[]).0, Some(1), "without an anchor nobody knows");
}

#[tokio::test]
async fn an_older_store_put_in_place_is_found_by_anchors_and_a_running_node_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let older = directory.join("older.db");
    let program = Program::start(directory);
    register(&program, 1).await;
    assert!(command(directory, &["backup", older.to_str().unwrap()]).status.success());
    register(&program, 2).await;
    anchored(directory, 2).await;
    let logged = anchor(directory);
    drop(program);
    for companion in ["runit.db-wal", "runit.db-shm"] {
        let _ = fs::remove_file(directory.join("data").join(companion));
    }
    fs::copy(&older, directory.join("data/runit.db")).unwrap();
    let (code, text) = verify(directory, &[]);
    assert_eq!((code, text.contains("an anchor says that event 2 was written")), (Some(1), true), "{text}");

    // The node goes on and writes its own anchors, but leaves word of what it found.
    let program = Program::start(directory);
    anchored_elsewhere(directory, &logged).await;
    register(&program, 3).await;
    let (code, text) = verify(directory, &[logged.trim()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("event 2: the node reports"), "{text}");
    assert!(text.contains("an anchor says that event 2 was written"), "the log's anchor still proves it: {text}");
}

#[tokio::test]
async fn a_node_that_starts_over_a_trail_which_was_erased_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let program = Program::start(directory);
    register(&program, 1).await;
    anchored(directory, 1).await;
    let logged = anchor(directory);
    drop(program);
    edit(
        directory,
        "DELETE FROM events; UPDATE trail_marks SET place = 1000000, hash = zeroblob(32), seal = zeroblob(32)",
    );
    let _program = Program::start(directory);
    anchored_elsewhere(directory, &logged).await;
    let (code, text) = verify(directory, &[]);
    assert_eq!((code, text.contains("event 1000001: the node reports")), (Some(1), true), "{text}");
}

#[tokio::test]
async fn a_node_whose_anchor_is_gone_or_spoilt_says_so() {
    for spoil in [|anchor: &Path| fs::remove_file(anchor).unwrap(), |anchor: &Path| fs::write(anchor, "{").unwrap()] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let program = Program::start(directory);
        register(&program, 1).await;
        anchored(directory, 1).await;
        drop(program);
        spoil(&directory.join("data/trail.anchor"));
        let _program = Program::start(directory);
        anchored(directory, 2).await;
        let (code, text) = verify(directory, &[]);
        assert_eq!((code, text.contains("event 2: the node reports")), (Some(1), true), "{text}");
    }
}

#[tokio::test]
async fn a_node_that_can_write_no_anchor_says_once_that_it_is_gone_and_a_new_one_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    let anchor = elsewhere.join("trail.anchor");
    let environment =
        [("RUNIT_AUDIT__ANCHOR_FILE", anchor.to_str().unwrap()), ("RUNIT_CONTROL__SWEEP_INTERVAL_MS", "50")];
    let refused = command_with(directory.path(), &environment, &["serve"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("anchor cannot be written"), "{refused:?}");

    fs::create_dir(&elsewhere).unwrap();
    let program = Program::start_with(directory.path(), &environment);
    register(&program, 1).await;
    while !fs::read_to_string(&anchor).is_ok_and(|text| text.contains("\"place\":1")) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(program);
    fs::remove_dir_all(&elsewhere).unwrap();
    let program = Program::start_with(directory.path(), &environment);
    let told = || {
        let exported = command_with(directory.path(), &environment, &["events", "export"]).stdout;
        String::from_utf8(exported).unwrap().matches("TRAIL_TAMPERED").count()
    };
    while told() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // Some sweeps later it is still the one.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    register(&program, 2).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(told(), 1);
}

async fn anchored_elsewhere(directory: &Path, before: &str) {
    while anchor(directory) == before {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_leaves_a_trail_that_verifies_and_exports() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for round in 0..3 {
        let program = Arc::new(Program::start(directory));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (program, stop) = (Arc::clone(&program), Arc::clone(&stop));
                tokio::spawn(async move {
                    for number in 0..1_000 {
                        if stop.load(Ordering::SeqCst) || program.try_register(writer * 1_000 + number).await.is_err() {
                            return number;
                        }
                    }
                    1_000
                })
            })
            .collect();
        anchored_beyond(directory, round * 50).await;
        program.kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        let (code, text) = verify(directory, &[]);
        assert_eq!(code, Some(0), "{text}");
    }
    let output = command(directory, &["events", "export"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.lines().count() > 100);
    let mut before = "0".repeat(64);
    for line in lines.lines() {
        let mut members: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let hash = members.remove("hash").unwrap();
        let digest = Sha256::digest(format!("{before}\n{}", Value::Object(members)));
        before = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, json!(before), "{line}");
    }
}

async fn anchored_beyond(directory: &Path, place: u64) {
    let named = || serde_json::from_str::<Value>(&anchor(directory)).ok().and_then(|anchor| anchor["place"].as_u64());
    while named().is_none_or(|named| named <= place + 50) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
