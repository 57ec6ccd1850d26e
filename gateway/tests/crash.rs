//! `kill -9` under load: the ledger never says less than what moved, and hardly more.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::process::{Installation, Rented};
use support::{TestUpstream, WEBSOCKET, bearer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `RUNIT_CRASH_ROUNDS` makes more of them.
const ROUNDS: u64 = 200;
const STREAMS: usize = 6;
/// What one stream can be charged beyond what moved: a poll's reservation, and what lay in the proxy's write buffer or
/// was only the head of a request.
const IN_FLIGHT: u64 = 64 * 1024 + 4 * 1024;

/// What the renter's sockets saw.
#[derive(Default)]
struct Wire {
    received: AtomicU64,
    echoed: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figure is what a person runs this for")]
async fn after_kill_9_the_ledger_is_never_below_what_moved_and_hardly_above() {
    let rounds = std::env::var("RUNIT_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let house = Installation::new("[quota]\ncap_bytes = 1000000000000\n");
    let upstream = TestUpstream::start().await;
    let mut process = house.start().await;
    let rented = Arc::new(house.rent(upstream.address).await);
    let mut worst = 0;
    for round in 0..rounds {
        // What an echo's socket still holds is lost with the connection, so that only downloads tell how much is too much.
        let echoes = round % 2 == 0;
        let before = house.used(&rented).await;
        let wire = Arc::new(Wire::default());
        let streams: Vec<_> = (0..STREAMS)
            .map(|n| tokio::spawn(load(house.gateway, Arc::clone(&rented), Arc::clone(&wire), echoes && n % 2 == 0)))
            .collect();
        // At another point of the work each time; nothing is asserted of the time itself.
        tokio::time::sleep(Duration::from_millis(20 + round * 37 % 180)).await;
        process.kill();
        for stream in streams {
            stream.await.expect("no panic");
        }
        process = house.start().await;
        let charged = house.used(&rented).await - before;
        let moved = wire.received.load(Ordering::SeqCst);
        // A byte that came back by echo had been sent, and was charged on its way in.
        let least = moved + wire.echoed.load(Ordering::SeqCst);
        assert!(charged >= least, "round {round}: {charged} charged of at least {least}\n{}", house.log());
        if !echoes {
            worst = worst.max(charged - least);
        }
    }
    let forfeited = house.metric("runit_quota_forfeited_bytes_total").await;
    assert!(forfeited <= (STREAMS as u64 * IN_FLIGHT) as f64, "{forfeited} by the last kill");
    println!("{rounds} kills: never below what moved; at most {worst} bytes above it, with {STREAMS} streams");
    assert!(worst <= STREAMS as u64 * IN_FLIGHT, "{worst}");
    drop(process);
}

/// Downloads or echoes without end, until the connection breaks.
async fn load(gateway: std::net::SocketAddr, rented: Arc<Rented>, wire: Arc<Wire>, echo: bool) {
    let Ok(stream) = TcpStream::connect(gateway).await else { return };
    let (mut reader, mut writer) = stream.into_split();
    let (action, more) = if echo { ("ws", WEBSOCKET) } else { ("download/1000000000", "") };
    let head = format!("GET /s/{}/{action} HTTP/1.1\r\nHost: g\r\n{}{more}\r\n", rented.id, bearer(&rented.token));
    if writer.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let sending = tokio::spawn(async move {
        let chunk = [b'e'; 4096];
        while echo && writer.write_all(&chunk).await.is_ok() {}
        if !echo {
            std::future::pending::<()>().await;
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    let mut first = true;
    while let Ok(read @ 1..) = reader.read(&mut buffer).await {
        wire.received.fetch_add(read as u64, Ordering::SeqCst);
        // The head of the answer is not an echo.
        if echo && !first {
            wire.echoed.fetch_add(read as u64, Ordering::SeqCst);
        }
        first = false;
    }
    sending.abort();
}
