//! 2,000 WebSockets over TLS, while certificates and settings are reloaded 50 times: none is dropped, none miscounted.

mod support;

use futures::stream::{self, StreamExt};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use support::process::{Installation, Process, Rented};
use support::tls::{Issuer, TlsClient};
use support::{PATIENCE, TestUpstream, WEBSOCKET, bearer};

const WEBSOCKETS: usize = 2_000;
const RELOADS: i32 = 50;
const AT_ONCE: usize = 50;
/// What 50 reloads may leave behind: settings and certificates are a few KB each.
const GROWTH_KB: u64 = 32 * 1024;

/// Enough files for both ends of the WebSockets that this process has: the clients' and the provider's.
fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("up to the maximum");
}

fn resident_kb(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Opens one, and counts what that moved.
async fn open(house: &Installation, issuer: &Issuer, rented: &Rented) -> (TlsClient, u64) {
    let mut client = issuer.connect(house.gateway).await;
    client
        .send(&format!("GET /s/{}/ws HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", rented.id, bearer(&rented.token)))
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}\n{}", house.log());
    let moved = client.sent + head.len() as u64;
    (client, moved)
}

/// One message there and back on each of them.
async fn talk(clients: &mut [TlsClient], message: &[u8]) -> u64 {
    let echoes = clients.iter_mut().map(|client| async {
        client.received.clear();
        client.send_bytes(message).await;
        client.receive(message.len()).await;
        assert_eq!(client.received, message, "unharmed, and nothing else");
        2 * message.len() as u64
    });
    stream::iter(echoes).buffer_unordered(AT_ONCE).fold(0, async |sum, moved| sum + moved).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_websockets_outlive_fifty_reloads_and_are_counted_to_the_byte() {
    raise_limit_of_files();
    let issuer = Issuer::new();
    let most = 4 * WEBSOCKETS;
    let house = Installation::over_tls(
        &issuer,
        "keepalive_seconds = 100\n",
        &format!(
            "[limits]\nconnections_per_address = {most}\nconnections_per_session = {most}\n\
             websockets_per_session = {most}\nrequests_per_address = {{ per_second = {most}, burst = {most} }}\n\
             arrivals_per_address = {{ per_second = {most}, burst = {most} }}\n\
             requests_per_session = {{ per_second = {most}, burst = {most} }}\n"
        ),
    );
    let upstream = TestUpstream::start().await;
    let process = house.start().await;
    let rented = house.rent(upstream.address).await;
    // The first one takes the lock.
    let (first, mut moved) = open(&house, &issuer, &rented).await;
    let mut clients = vec![first];
    let opening = stream::iter(1..WEBSOCKETS).map(|_| open(&house, &issuer, &rented)).buffer_unordered(AT_ONCE);
    for (client, bytes) in opening.collect::<Vec<_>>().await {
        clients.push(client);
        moved += bytes;
    }
    moved += talk(&mut clients, b"before").await;
    let before_kb = resident_kb(&process);

    for n in 1..=RELOADS {
        issuer.renew(2030 + n);
        house.edit(&format!("keepalive_seconds = {}\n", 99 + n), &format!("keepalive_seconds = {}\n", 100 + n));
        process.signal(Signal::HUP);
        house.until("runit_gateway_tls_certificate_changes_total", f64::from(n)).await;
        house.logged("gateway.keepalive_seconds\"}", usize::try_from(n).expect("few")).await;
        if n % 10 == 0 {
            moved += talk(&mut clients, format!("after {n} reloads").as_bytes()).await;
            // What comes in between sees the new pair, and the new settings.
            let (mut newcomer, bytes) = open(&house, &issuer, &rented).await;
            moved += bytes + talk(std::slice::from_mut(&mut newcomer), b"hello").await;
        }
    }

    assert_eq!(house.metric("runit_gateway_tls_certificate_expiry_timestamp_seconds").await, 3_471_292_800.0, "2080");
    assert_eq!(house.metric("runit_gateway_settings_reload_successful").await, 1.0);
    for nothing in
        ["runit_gateway_cuts_total", "runit_quota_audit_difference_bytes_total", "runit_quota_overshoot_bytes_total"]
    {
        assert_eq!(house.metric(nothing).await, 0.0, "{nothing}");
    }
    house.until("runit_gateway_websockets", WEBSOCKETS as f64).await;
    house.used_at_least(&rented, moved).await;
    assert_eq!(house.used(&rented).await, moved, "bytes that the clients sent and received inside TLS");
    let after_kb = resident_kb(&process);
    assert!(after_kb < before_kb + GROWTH_KB, "{before_kb} kB before, {after_kb} kB after");
    assert!(tokio::time::timeout(PATIENCE, talk(&mut clients, b"still here")).await.expect("in time") > 0);
}
