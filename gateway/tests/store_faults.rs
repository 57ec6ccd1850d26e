//! The store cannot be written: what is leased may be spent, then nothing passes; and it recovers by itself.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::process::{Installation, Rented};
use support::{PATIENCE, TestUpstream, bearer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SETTINGS: &str = "[quota]\nrenewal_wait_ms = 1000\nlease_max_bytes = 1048576\n";

/// Makes the store unwritable for as long as it lives.
trait Fault {
    fn begin(data: &Path) -> Self;
}

/// Another program holds the database's write lock.
struct Locked(#[expect(dead_code, reason = "held")] rusqlite::Connection);

impl Fault for Locked {
    fn begin(data: &Path) -> Self {
        let database = rusqlite::Connection::open(data.join("runit.db")).expect("there");
        database.busy_timeout(Duration::from_secs(10)).expect("set");
        database.execute_batch("BEGIN IMMEDIATE").expect("the lock is free at times");
        Self(database)
    }
}

/// The disk is full.
struct Full(PathBuf);

impl Fault for Full {
    fn begin(data: &Path) -> Self {
        let filler = data.join("filler");
        let mut file = std::fs::File::create(&filler).expect("created");
        // Ends with an error: there is no space left.
        let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
        Self(filler)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("ours");
    }
}

/// A file system of 40 MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("created");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(at).status();
        assert!(mount.expect("mount is installed").success(), "this test mounts a tmpfs, which takes root");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test left is still on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_stops_the_bytes_at_the_lease_and_no_longer_than_the_lock() {
    let house = Installation::new(SETTINGS);
    withstands::<Locked>(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_bytes_at_the_lease_and_no_longer_than_it_is_full() {
    let house = Installation::new(SETTINGS);
    let _disk = SmallDisk::mount(&house.path().join("data"));
    withstands::<Full>(&house).await;
}

async fn withstands<F: Fault>(house: &Installation) {
    let upstream = TestUpstream::start().await;
    let process = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut download = Download::start(house, &rented).await;
    download.receive(5_000_000).await;

    let fault = F::begin(&house.path().join("data"));
    download.read_to_the_end().await;
    let refused = get(house, &rented, "x").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("ledger_unavailable"), "{refused}");
    let leased = house.metric("runit_quota_leased_bytes_total").await;
    assert!(download.received as f64 <= leased, "{} of {leased} leased", download.received);

    drop(fault);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = get(house, &rented, "x").await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no recovery: {answer}\n{}", house.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    house.used_at_least(&rented, download.received).await;
    assert_eq!(house.metric("runit_quota_overshoot_bytes_total").await, 0.0);
    drop(process);
}

/// A download without end that is read in pieces.
struct Download {
    stream: TcpStream,
    received: u64,
}

impl Download {
    async fn start(house: &Installation, rented: &Rented) -> Self {
        let mut stream = TcpStream::connect(house.gateway).await.expect("listens");
        let head =
            format!("GET /s/{}/download/99999999999 HTTP/1.1\r\nHost: g\r\n{}\r\n", rented.id, bearer(&rented.token));
        stream.write_all(head.as_bytes()).await.expect("taken");
        Self { stream, received: 0 }
    }

    async fn receive(&mut self, bytes: u64) {
        let mut buffer = vec![0; 64 * 1024];
        while self.received < bytes {
            let read = self.stream.read(&mut buffer).await.expect("open");
            assert!(read > 0, "ended early");
            self.received += read as u64;
        }
    }

    async fn read_to_the_end(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let reading = async {
            while let Ok(read @ 1..) = self.stream.read(&mut buffer).await {
                self.received += read as u64;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the gateway cuts it");
    }
}

async fn get(house: &Installation, rented: &Rented, action: &str) -> String {
    let mut client = house.connect().await;
    let Rented { id, token } = rented;
    client
        .send(&format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n", bearer(token)))
        .await;
    client.drain().await;
    String::from_utf8_lossy(&client.received).into_owned()
}
