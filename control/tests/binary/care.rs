//! The database is copied while a program writes to it, looked at, and started from again: by the commands, as an
//! operator would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::program::{Program, command, command_into};

fn offer(number: usize) -> Value {
    json!({ "providerId": format!("p-{number}"), "publicUrl": "https://a-b-c.trycloudflare.com", "token": "t" })
}

fn answer(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), format!("{}{}", str(&output.stdout), str(&output.stderr)))
}

fn str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn count(database: &Path, table: &str) -> i64 {
    let db = Connection::open(database).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_write_load_is_whole_and_holds_all_that_was_answered_before() {
    let directory = tempfile::tempdir().unwrap();
    let program = Arc::new(Program::start(directory.path()));
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (program, stop, written) = (Arc::clone(&program), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    program.post("/provider/session", offer(writer * 1_000_000 + number)).await;
                    written.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut copies = Vec::new();
    for number in 0..3 {
        let before = written.load(Ordering::SeqCst);
        while written.load(Ordering::SeqCst) < before + 20 {
            tokio::task::yield_now().await;
        }
        let answered = written.load(Ordering::SeqCst);
        let copy = directory.path().join(format!("copy-{number}.db"));
        assert_eq!(answer(&command(directory.path(), &["backup", copy.to_str().unwrap()])).0, Some(0));
        let meanwhile = written.load(Ordering::SeqCst) - answered;
        copies.push((copy, answered, meanwhile));
    }
    let live = command(directory.path(), &["check"]);
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(answer(&live).0, Some(0), "{live:?}");
    for (copy, answered, _) in &copies {
        let checked = command(directory.path(), &["check", copy.to_str().unwrap()]);
        assert_eq!(answer(&checked).0, Some(0), "{checked:?}");
        let sessions = usize::try_from(count(copy, "sessions")).unwrap();
        assert!(sessions >= *answered, "{sessions} of {answered}");
        // A registration is a session and an event in two transactions: a copy of one moment has at most the writers' apart.
        assert!(sessions.abs_diff(usize::try_from(count(copy, "events")).unwrap()) <= 4);
        assert_eq!(fs::metadata(copy).unwrap().permissions().mode() & 0o077, 0);
    }
    assert!(copies.iter().any(|&(_, _, meanwhile)| meanwhile > 0), "somebody wrote during a copy: {copies:?}");
    let leftovers = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name());
    let leftovers: Vec<_> = leftovers.filter(|name| name.to_str().unwrap().contains(".partial")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[tokio::test]
async fn a_backup_is_started_from_and_its_sessions_want_a_fresh_workspace() {
    let directory = tempfile::tempdir().unwrap();
    let (copy, data) = (directory.path().join("copy.db"), directory.path().join("data"));
    let program = Program::start(directory.path());
    let registered = program.post("/provider/session", offer(1)).await;
    let taken = command(directory.path(), &["backup", copy.to_str().unwrap()]);
    assert_eq!(answer(&taken).0, Some(0), "{taken:?}");
    let again = command(directory.path(), &["backup", copy.to_str().unwrap()]);
    assert_eq!(answer(&again).0, Some(2));
    assert!(answer(&again).1.contains("is there already"));
    let over_a_database = command(directory.path(), &["restore", copy.to_str().unwrap()]);
    assert_eq!(answer(&over_a_database).0, Some(2), "nothing is written over");
    drop(program);

    for name in ["runit.db", "runit.db-wal", "runit.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    fs::write(data.join("runit.db-wal"), "of the database that was here").unwrap();
    assert_eq!(answer(&command(directory.path(), &["restore", copy.to_str().unwrap()])).0, Some(2));
    fs::remove_file(data.join("runit.db-wal")).unwrap();
    let restored = command(directory.path(), &["restore", copy.to_str().unwrap()]);
    assert_eq!(answer(&restored).0, Some(0), "{restored:?}");

    let verified = command(directory.path(), &["events", "verify"]);
    assert_eq!(answer(&verified), (Some(0), "2 events, 1 anchors, 0 findings\n".into()), "the restore is an event");

    let program = Program::start(directory.path());
    let heartbeat = json!({ "sessionId": registered["sessionId"] });
    let secret = registered["providerSecret"].as_str().unwrap();
    assert_eq!(program.call("/provider/heartbeat", &heartbeat, Some(secret)).await.0, 404, "it has to register again");
    let mut same = offer(1);
    same["sessionId"] = registered["sessionId"].clone();
    assert_eq!(program.call("/provider/session", &same, Some(secret)).await.0, 200);
    let (_, status) = program.call("/provider/heartbeat", &heartbeat, Some(secret)).await;
    assert_eq!(status["status"], "RECYCLING");
}

#[test]
fn a_damaged_database_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(Program::start(directory.path()));
    let database = directory.path().join("data/runit.db");
    assert_eq!(answer(&command(directory.path(), &["check"])).0, Some(0));

    let insert = "INSERT INTO sessions (id, provider, provider_secret, upstream, sealed_credential, credential_hash, hardware,
        pricing, revision, registered_at, provider_seen_at, cap_bytes, status, address, cookie, taken_at, renter_seen_at,
        since, clean) VALUES (zeroblob(16), 'p', zeroblob(32), 'https://a-b.trycloudflare.com', x'00',
        zeroblob(32), NULL, NULL, 1, 1, 1, 100, 'READY', NULL, NULL, NULL, NULL, NULL, NULL)";
    let ruin = |sql: &str| {
        let db = Connection::open(&database).unwrap();
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        let (code, text) = answer(&command(directory.path(), &["check"]));
        db.execute_batch("DELETE FROM leases; DELETE FROM ledgers; DELETE FROM sessions; DELETE FROM tokens;").unwrap();
        assert_eq!(code, Some(1), "{sql}: {text}");
        text
    };
    assert!(ruin("INSERT INTO tokens VALUES (zeroblob(32), zeroblob(16), 0)").contains("tokens"));
    assert!(ruin(&format!("{insert}; UPDATE sessions SET upstream = 'ftp://x'")).contains("an upstream URL"));
    let lease = "INSERT INTO leases (session, id, node, granted, bytes_in, bytes_out, sequence, expires_at)
        VALUES (zeroblob(16), zeroblob(16), zeroblob(16), 101, 0, 0, 0, 1)";
    let over = ruin(&format!("{insert}; INSERT INTO ledgers (session, latest) VALUES (zeroblob(16), 1); {lease}"));
    assert!(over.contains("over the cap"), "{over}");

    assert_eq!(answer(&command(directory.path(), &["check"])).0, Some(0), "each was the only thing wrong");
    let bytes = fs::read(&database).unwrap();
    let mut torn = bytes.clone();
    torn[4096 * 3..4096 * 4].fill(0x55);
    fs::write(directory.path().join("torn.db"), torn).unwrap();
    let (code, text) =
        answer(&command(directory.path(), &["check", directory.path().join("torn.db").to_str().unwrap()]));
    assert!(matches!(code, Some(1 | 2)), "{code:?} {text}");
    assert_eq!(answer(&command(directory.path(), &["check", "/nowhere/runit.db"])).0, Some(2));
}

#[test]
fn a_backup_of_a_newer_program_is_refused_by_name_of_the_version() {
    let directory = tempfile::tempdir().unwrap();
    drop(Program::start(directory.path()));
    let copy = directory.path().join("copy.db");
    assert_eq!(answer(&command(directory.path(), &["backup", copy.to_str().unwrap()])).0, Some(0));
    Connection::open(&copy).unwrap().pragma_update(None, "user_version", 1_000).unwrap();
    fs::remove_dir_all(directory.path().join("data")).unwrap();
    let (code, text) = answer(&command(directory.path(), &["restore", copy.to_str().unwrap()]));
    assert_eq!(code, Some(2));
    assert!(text.contains("schema version 1000, written by a newer program"), "{text}");
    assert!(!directory.path().join("data/runit.db").exists());
}

#[test]
fn usage_is_exported_with_a_head_and_choices() {
    let directory = tempfile::tempdir().unwrap();
    drop(Program::start(directory.path()));
    let database = Connection::open(directory.path().join("data/runit.db")).unwrap();
    database
        .execute_batch(
            "INSERT INTO usage_records VALUES
             (x'00000000000000000000000000000001', zeroblob(16), 'p', '{\"a\":1}', 1000, NULL, 1, 2, 3),
             (x'00000000000000000000000000000002', zeroblob(16), 'p', NULL, 2000, 1795334400000, 4, 5, 6)",
        )
        .unwrap();
    let export = |arguments: &[&str]| answer(&command(directory.path(), &[&["usage", "export"], arguments].concat()));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let unwritten = command_into(directory.path(), full.into(), &["usage", "export"]);
    assert_eq!(
        answer(&unwritten),
        (Some(2), "runit-control: standard output: No space left on device (os error 28)\n".into())
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let read_enough = command_into(directory.path(), writer.into(), &["usage", "export"]);
    assert_eq!(answer(&read_enough), (Some(0), String::new()));
    let (code, csv) = export(&["--since", "2026-11-22T00:00:00Z"]);
    let session = "00000000-0000-0000-0000-000000000000";
    assert_eq!(code, Some(0), "{csv}");
    assert_eq!(
        csv.lines().nth(1).unwrap(),
        format!(
            "{}2,{session},p,1970-01-01T00:00:02.000Z,2026-11-22T08:00:00.000Z,1795334398,4,5,6,true,\"\"",
            &session[..35]
        )
    );
    assert_eq!(csv.lines().count(), 2);
    let (_, json) = export(&["--format", "json"]);
    let sums: Vec<Value> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["bytesIn"].clone()).collect();
    assert_eq!(sums, [json!(1), json!(4)]);
    assert_eq!(export(&["--session", "nonsense"]).0, Some(2));

    let row = "INSERT INTO usage_carried VALUES (zeroblob(16), 'p', 0, 2, 3, 1000, 2000, 4, 5, 6)";
    database.execute_batch(row).unwrap();
    let (code, carried) = answer(&command(directory.path(), &["usage", "carried"]));
    assert_eq!((code, carried.lines().count()), (Some(0), 2), "{carried}");
    let times = "1970-01-01T00:00:01.000Z,1970-01-01T00:00:02.000Z";
    assert_eq!(carried.lines().nth(1).unwrap(), format!("{session},p,,2,{times},3,4,5,6"));
    let (_, json) = answer(&command(directory.path(), &["usage", "carried", "--format", "json"]));
    let carried: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&carried["registeredAt"], &carried["records"]), (&Value::Null, &json!(2)));
}
