//! The cap, to the byte, whatever the traffic.

mod support;

use std::time::Duration;

use futures::future::join_all;
use runit_core::{AccessToken, EventKind, SessionId};
use support::{Client, TestGateway, WEBSOCKET, bearer, eventually};

const CAP: u64 = 5_000_000;
const CONNECTIONS: usize = 24;

/// What the ledger has booked, once everything is settled.
fn booked(gateway: &TestGateway, id: SessionId) -> u64 {
    let used = gateway.authority.standing_of(id).used;
    assert_eq!(used.forfeited, 0, "nothing was lost");
    used.moved()
}

/// The node's own audit: what its sockets saw is what it accounted for, and no byte was spent that was not leased.
async fn assert_audit(gateway: &TestGateway) {
    eventually("all connections have ended", || {
        let open = gateway.metrics_value("runit_gateway_connections");
        if open == 0.0 { Ok(()) } else { Err(open) }
    })
    .await;
    for name in ["runit_quota_audit_difference_bytes_total", "runit_quota_overshoot_bytes_total"] {
        assert_eq!(gateway.metrics_value(name), 0.0, "{name}");
    }
    let value = |name| gateway.metrics_value(name);
    let spent = value("runit_quota_spent_bytes_total");
    assert_eq!(value("runit_quota_leased_bytes_total"), spent + value("runit_quota_refunded_bytes_total"));
}

fn request(id: SessionId, token: &AccessToken, action: &str) -> String {
    format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(token))
}

/// Takes the lock, and counts what that moved.
async fn take_lock(gateway: &TestGateway, id: SessionId, token: &AccessToken) -> u64 {
    let mut client = gateway.connect().await;
    client.send(&request(id, token, "hello")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.receive(2).await;
    client.sent + head.len() as u64 + 2
}

/// Downloads until the connection ends; the bytes sent and received while the session served it.
async fn download(mut client: Client, id: SessionId, token: &AccessToken) -> u64 {
    let head = request(id, token, "download/100000000").replace("Host: g", "Host: g\r\nConnection: close");
    client.send(&head).await;
    client.drain().await;
    let refused = client.received.starts_with(b"HTTP/1.1 429");
    if refused { 0 } else { client.sent + client.received.len() as u64 }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_downloads_end_at_exactly_the_cap_in_twenty_of_twenty_runs() {
    for run in 0..20 {
        let mut gateway = TestGateway::start().await;
        let (id, token) = gateway.session(CAP);
        let first = take_lock(&gateway, id, &token).await;
        let clients = join_all((0..CONNECTIONS).map(|_| gateway.connect())).await;
        let moved: u64 = join_all(clients.into_iter().map(|client| download(client, id, &token))).await.iter().sum();
        gateway.stop().await;
        assert_eq!(first + moved, CAP, "run {run}: what the clients sent and received");
        assert_eq!(booked(&gateway, id), CAP, "run {run}: what the ledger booked");
        assert_audit(&gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_traffic_ends_at_exactly_the_cap_and_clients_received_no_more() {
    for run in 0..5 {
        let mut gateway = TestGateway::start().await;
        let (id, token) = gateway.session(CAP);
        take_lock(&gateway, id, &token).await;
        let clients = (0..CONNECTIONS).map(|n| {
            let (gateway, token) = (&gateway, &token);
            async move {
                let client = gateway.connect().await;
                match n % 3 {
                    0 => download(client, id, token).await,
                    1 => upload(client, id, token).await,
                    _ => echo(client, id, token).await,
                }
            }
        });
        let received: u64 = join_all(clients).await.iter().sum();
        gateway.stop().await;
        assert_eq!(booked(&gateway, id), CAP, "run {run}");
        assert_audit(&gateway).await;
        assert!(received <= CAP, "run {run}: {received}");
    }
}

/// Sends without end; returns the bytes received.
async fn upload(client: Client, id: SessionId, token: &AccessToken) -> u64 {
    let head = request(id, token, "upload")
        .replace("GET", "POST")
        .replace("\r\n\r\n", "\r\nContent-Length: 100000000\r\n\r\n");
    send_without_end(client, &head).await
}

/// Echoes without end over an upgraded connection; returns the bytes received.
async fn echo(client: Client, id: SessionId, token: &AccessToken) -> u64 {
    let head = request(id, token, "ws").replace("\r\n\r\n", &format!("\r\n{WEBSOCKET}\r\n"));
    send_without_end(client, &head).await
}

async fn send_without_end(client: Client, head: &str) -> u64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Client { stream, .. } = client;
    let (mut reader, mut writer) = stream.into_split();
    let head = head.to_owned();
    let sending = tokio::spawn(async move {
        let chunk = vec![b'u'; 32 * 1024];
        let mut result = writer.write_all(head.as_bytes()).await;
        while result.is_ok() {
            result = writer.write_all(&chunk).await;
        }
    });
    let mut received = Vec::new();
    let reading = async { while reader.read_buf(&mut received).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(support::PATIENCE, reading).await.expect("the connection ends");
    sending.abort();
    if received.starts_with(b"HTTP/1.1 429") { 0 } else { received.len() as u64 }
}

/// Head and body of the exchange that the next tests cut.
async fn exchange(gateway: &TestGateway, id: SessionId, token: &AccessToken) -> (String, Client) {
    let mut client = gateway.connect().await;
    client.send(&request(id, token, "download/1000").replace("HTTP/1.1", "HTTP/1.1\r\nConnection: close")).await;
    let head = client.head().await;
    client.drain().await;
    (head, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_byte_passes_and_the_one_after_it_does_not() {
    let mut gateway = TestGateway::start().await;
    // As many digits in the answer's quota fields as below.
    let (id, token) = gateway.session(9_999);
    let (head, client) = exchange(&gateway, id, &token).await;
    let whole = client.sent + head.len() as u64 + 1000;
    gateway.stop().await;
    assert_eq!(booked(&gateway, id), whole);
    for (cap, body, more) in [(whole - 1, 999, 0), (whole, 1000, 0), (whole + 1, 1000, 1)] {
        let mut gateway = TestGateway::start().await;
        let (id, token) = gateway.session(cap);
        let (_, client) = exchange(&gateway, id, &token).await;
        assert_eq!(client.received.len(), body, "cap {cap}");
        let refused = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
        assert_eq!(refused.status, 429, "a request that does not fit");
        gateway.stop().await;
        assert_eq!(booked(&gateway, id), cap - more, "cap {cap}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_of_nothing_and_one_smaller_than_a_head_answer_429_with_a_time() {
    for cap in [0, 1, 50] {
        let mut gateway = TestGateway::start().await;
        let (id, token) = gateway.session(cap);
        let answer = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
        assert_eq!(answer.status, 429, "cap {cap}");
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
        gateway.stop().await;
        assert_eq!(booked(&gateway, id), 0);
        assert!(gateway.upstream.heads().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_body_filters_never_see_are_charged() {
    let mut gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut charged = take_lock(&gateway, id, &token).await;
    for (method, action, more) in [
        ("GET", "chunked/500", ""),
        ("HEAD", "download/1000", ""),
        ("GET", "interim/8", ""),
        ("GET", "download/0", &*format!("X-Large: {}\r\n", "h".repeat(20_000))),
        ("POST", "upload", "Content-Length: 10\r\n\r\n0123456789"),
        ("POST", "x", "Transfer-Encoding: chunked\r\n\r\n2;extension=of the chunk\r\nab\r\n0\r\nTrailer: t\r\n"),
    ] {
        let head = request(id, &token, action).replace("GET", method).replace("\r\n\r\n", "\r\nConnection: close\r\n");
        let end = if more.starts_with("Content-Length") { "" } else { "\r\n" };
        let mut client = gateway.connect().await;
        client.send(&format!("{head}{more}{end}")).await;
        client.drain().await;
        let status = String::from_utf8_lossy(&client.received).lines().next().map(str::to_owned);
        assert_eq!(status.as_deref(), Some("HTTP/1.1 200 OK"), "{method} {action}");
        charged += client.sent + client.received.len() as u64;
    }
    gateway.stop().await;
    assert_eq!(booked(&gateway, id), charged, "what passed on the renter's sockets");
    assert_audit(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_itself_says_is_not_charged() {
    let mut gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let charged = take_lock(&gateway, id, &token).await;
    for target in [format!("/s/{id}/logout"), format!("/s/{id}"), "/access/x".to_owned(), format!("/s/{id}/../x")] {
        let answer = gateway.get(&target, &bearer(&token)).await;
        assert!(answer.status >= 300, "{target}");
    }
    gateway.stop().await;
    assert_eq!(booked(&gateway, id), charged);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_moves_while_a_websocket_is_open() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    client.send(&request(id, &token, "ws").replace("\r\n\r\n", &format!("\r\n{WEBSOCKET}\r\n"))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    let before = gateway.authority.standing_of(id).used.moved();
    client.send_bytes(&[b'w'; 1000]).await;
    client.receive(1000).await;
    eventually("the ledger knows of the open WebSocket", || {
        let used = gateway.authority.standing_of(id).used.moved();
        if used >= before + 2000 { Ok(()) } else { Err(used) }
    })
    .await;
    // Said after the usage.
    eventually("a WebSocket that talks is presence", || gateway.authority.was_present(id).then_some(()).ok_or(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_yesterday_come_free_without_a_restart() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(20_000);
    download(gateway.connect().await, id, &token).await;
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 429);
    eventually("the cap is in the audit trail, once", || {
        let events = gateway.authority.events();
        let reached = events.iter().filter(|event| event.kind == EventKind::BandwidthExceeded).count();
        if reached == 1 { Ok(()) } else { Err(events) }
    })
    .await;
    gateway.authority.clock.advance(Duration::from_secs(24 * 3600 + 300));
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ledger_nothing_beyond_the_lease_passes_and_then_it_recovers() {
    let gateway = TestGateway::with(|settings| settings.quota.renewal_wait_ms = 300).await;
    let (id, token) = gateway.session(CAP);
    take_lock(&gateway, id, &token).await;
    gateway.authority.down.store(true, std::sync::atomic::Ordering::SeqCst);
    let leased = gateway.authority.ledger(id).charged();
    let moved = download(gateway.connect().await, id, &token).await;
    assert!(moved <= leased, "{moved} of {leased}");
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 503);
    gateway.authority.down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_how_the_cap_stands_and_the_trail_hears_that_it_comes_near() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(100_000);
    take_lock(&gateway, id, &token).await;
    let answer = gateway.get(&format!("/s/{id}/download/81000"), &bearer(&token)).await;
    assert_eq!(answer.header("ratelimit-policy"), Some("\"daily\";q=100000;w=86400"));
    let left = |answer: &support::Answer| {
        let field = answer.header("ratelimit").expect("the field");
        let left = field.strip_prefix("\"daily\";r=").and_then(|rest| rest.split(';').next());
        left.and_then(|left| left.parse::<u64>().ok()).expect("a number")
    };
    let before = left(&answer);
    assert!((99_000..100_000).contains(&before), "{before}");
    let after = left(&gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await);
    assert!((81_000..82_000).contains(&(before - after)), "{before} {after}");
    let kinds = || gateway.authority.events().iter().map(|event| event.kind).collect::<Vec<_>>();
    eventually("the first warning", || if kinds() == [EventKind::Bandwidth80Percent] { Ok(()) } else { Err(kinds()) })
        .await;
    gateway.get(&format!("/s/{id}/download/15000"), &bearer(&token)).await;
    eventually("the second warning", || {
        if kinds() == [EventKind::Bandwidth80Percent, EventKind::Bandwidth95Percent] { Ok(()) } else { Err(kinds()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_connections_race_for_the_last_bytes_and_exactly_the_cap_passes() {
    for cap in [20_000, 20_001, 33_333] {
        let mut gateway = TestGateway::start().await;
        let (id, token) = gateway.session(cap);
        let first = take_lock(&gateway, id, &token).await;
        let clients = join_all((0..64).map(|_| gateway.connect())).await;
        let moved: u64 = join_all(clients.into_iter().map(|client| download(client, id, &token))).await.iter().sum();
        gateway.stop().await;
        assert_eq!((first + moved, booked(&gateway, id)), (cap, cap));
        assert_audit(&gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_happens_to_a_session_gives_its_bytes_back() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(50_000);
    download(gateway.connect().await, id, &token).await;
    let used = || gateway.authority.standing_of(id).used.total();
    eventually("the cap is used up", || if used() == 50_000 { Ok(()) } else { Err(used()) }).await;
    let refused = |credential: String, n: u8| {
        let gateway = &gateway;
        async move {
            let mut client = gateway.connect_from([127, 0, 0, n]).await;
            client.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{credential}\r\n")).await;
            client.answer().await.status
        }
    };
    let mut n = 1;
    let mut token = token;
    for workspace in ["second", "third"] {
        // Released, recycled with a new tunnel and a new credential, rented with a new token from a new address.
        assert_eq!(refused(bearer(&token), n).await, 429);
        gateway.authority.release(id, &token, n);
        gateway.authority.refresh(id, workspace);
        n += 1;
        token = gateway.authority.issue(id);
        gateway.authority.heard().await;
        assert_eq!(refused(bearer(&token), n).await, 429, "{workspace}");
        // The agent leaves, comes back under the same id, and its session is rented again.
        gateway.authority.leave_and_return(id, &format!("{workspace} after a restart"));
        n += 1;
        token = gateway.authority.issue(id);
        gateway.authority.heard().await;
        assert_eq!(refused(bearer(&token), n).await, 429, "{workspace}");
        assert_eq!(used(), 50_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_does_not_answer_at_all_fails_closed_as_well_and_recovers() {
    let gateway = TestGateway::with(|settings| settings.quota.renewal_wait_ms = 300).await;
    let (id, token) = gateway.session(CAP);
    take_lock(&gateway, id, &token).await;
    gateway.authority.hangs.store(true, std::sync::atomic::Ordering::SeqCst);
    let leased = gateway.authority.ledger(id).charged();
    let moved = download(gateway.connect().await, id, &token).await;
    assert!(moved <= leased, "{moved} of {leased}");
    let refused = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
    assert_eq!(refused.status, 503);
    gateway.authority.hangs.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
}
