//! Behind proxies and load balancers: whose request it is, and who is charged for it.

mod support;

use std::time::Duration;

use runit_core::{AccessToken, SessionId};
use support::tls::Issuer;
use support::{Client, TestGateway, WEBSOCKET, bearer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

const CAP: u64 = 1 << 30;
/// Addresses of two renters, for documentation only (RFC 5737).
const ALICE: &str = "198.51.100.1";
const BOB: &str = "198.51.100.2";

/// A gateway that believes the proxy at 127.0.0.1, and nobody at 127.0.0.2.
async fn behind_a_proxy() -> TestGateway {
    TestGateway::with(|settings| {
        settings.gateway.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    })
    .await
}

fn request(id: SessionId, token: &AccessToken, action: &str, forwarded_for: &str) -> String {
    format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\nX-Forwarded-For: {forwarded_for}\r\n{}\r\n", bearer(token))
}

/// Reads an answer to its end, and counts it.
async fn whole_answer(client: &mut Client) -> (String, u64) {
    let head = client.head().await;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    match length {
        Some(length) => client.receive(length).await,
        None => {
            while !client.received.ends_with(b"0\r\n\r\n") {
                assert!(client.stream.read_buf(&mut client.received).await.expect("no reset") > 0, "ended early");
            }
        }
    }
    let bytes = head.len() + client.received.len();
    client.received.clear();
    (head, bytes as u64)
}

async fn status(gateway: &TestGateway, from: [u8; 4], request: &str) -> u16 {
    let mut client = gateway.connect_from(from).await;
    client.send(&request.replace("Host: g", "Host: g\r\nConnection: close")).await;
    client.answer().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn renters_who_share_a_proxys_connection_are_each_charged_exactly_their_bytes() {
    let mut gateway = behind_a_proxy().await;
    let sessions = [ALICE, BOB].map(|renter| (renter, gateway.session(CAP)));
    let mut moved = [0, 0];
    let mut client = gateway.connect().await;
    for round in 0..40 {
        let who = usize::from(round % 3 == 1);
        let (renter, (id, token)) = &sessions[who];
        let before = client.sent;
        match round % 4 {
            0 => client.send(&request(*id, token, "download/70000", renter)).await,
            1 => client.send(&request(*id, token, "chunked/300", renter)).await,
            2 => client.send(&request(*id, token, "download/7", renter).replace("GET", "HEAD")).await,
            _ => {
                let head = request(*id, token, "upload", renter)
                    .replace("GET", "POST")
                    .replace("\r\n\r\n", "\r\nContent-Length: 50000\r\n\r\n");
                client.send(&head).await;
                client.send_bytes(&[b'u'; 50_000]).await;
            }
        }
        let received = if round % 4 == 2 {
            client.head().await.len() as u64
        } else {
            let (head, bytes) = whole_answer(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200"), "round {round}: {head}");
            bytes
        };
        moved[who] += client.sent - before + received;
    }
    // A refusal in between is nobody's.
    client.send(&request(sessions[0].1.0, &sessions[1].1.1, "x", ALICE)).await;
    assert!(whole_answer(&mut client).await.0.starts_with("HTTP/1.1 403"));
    // An upgrade is the last that the connection carries.
    let (renter, (id, token)) = &sessions[1];
    let before = client.sent;
    client.send(&request(*id, token, "ws", renter).replace("\r\n\r\n", &format!("\r\n{WEBSOCKET}\r\n"))).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.send_bytes(&[b'e'; 10_000]).await;
    client.receive(10_000).await;
    moved[1] += client.sent - before + head.len() as u64 + 10_000;
    drop(client);

    gateway.stop().await;
    for ((renter, (id, _)), moved) in sessions.iter().zip(moved) {
        assert_eq!(gateway.authority.standing_of(*id).used.moved(), moved, "{renter}");
    }
    assert_eq!(gateway.metrics_value("runit_quota_audit_difference_bytes_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_exact_for_the_one_who_reaches_it_on_a_shared_connection() {
    const SMALL: u64 = 1_000_000;
    let mut gateway = behind_a_proxy().await;
    let (rich, (alice, alices)) = (gateway.session(CAP), gateway.session(SMALL));
    let (mut moved, mut others) = (0, 0);
    let mut client = gateway.connect().await;
    while moved < SMALL {
        let before = client.sent;
        client.send(&request(rich.0, &rich.1, "download/5000", BOB)).await;
        others += whole_answer(&mut client).await.1 + client.sent - before;
        let before = client.sent;
        client.send(&request(alice, &alices, "download/90000", ALICE)).await;
        let head = client.head().await;
        while client.received.len() < 90_000
            && client.stream.read_buf(&mut client.received).await.is_ok_and(|read| read > 0)
        {}
        moved += client.sent - before + head.len() as u64 + client.received.len() as u64;
        client.received.clear();
    }
    client.drain().await;
    gateway.stop().await;
    assert_eq!(moved, SMALL, "what the client sent and received for her");
    assert_eq!(gateway.authority.standing_of(alice).used.moved(), SMALL);
    assert_eq!(gateway.authority.standing_of(rich.0).used.moved(), others);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_one_renter_does_not_end_the_connection_under_another() {
    let gateway = behind_a_proxy().await;
    let sessions = [ALICE, BOB].map(|renter| (renter, gateway.session(CAP)));
    let mut client = gateway.connect().await;
    for (renter, (id, token)) in &sessions {
        client.send(&request(*id, token, "download/10", renter)).await;
        assert!(whole_answer(&mut client).await.0.starts_with("HTTP/1.1 200"));
    }
    let [(_, (alice, _)), (_, (bob, token))] = &sessions;
    // The next head has come, so Bob's request is over in any case, and nobody is served.
    client.send("GET / HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert!(whole_answer(&mut client).await.0.starts_with("HTTP/1.1 404"));
    for id in [alice, bob] {
        gateway.authority.change(*id, runit_core::session::Change::Cut).expect("held");
    }
    for (renter, (id, token)) in &sessions {
        // The node hears of it within moments, perhaps in the middle of an answer, which it ends then.
        let asked = request(*id, token, "x", renter).replace("Host: g", "Host: g\r\nConnection: close");
        tokio::time::timeout(support::PATIENCE, async {
            loop {
                let mut other = gateway.connect().await;
                other.send(&asked).await;
                other.drain().await;
                if other.received.starts_with(b"HTTP/1.1 403") {
                    break;
                }
            }
        })
        .await
        .expect("the node hears that the lock has ended");
    }
    client.send(&request(*bob, token, "download/10", BOB)).await;
    let (head, _) = whole_answer(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 403"), "his token is gone, the connection is not: {head}");
    eventually("his connection is the only one", || {
        let open = gateway.metrics_value("runit_gateway_connections");
        if open == 1.0 { Ok(()) } else { Err(open) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_holds_on_to_the_address_that_the_proxy_saw_and_to_no_claim() {
    let gateway = behind_a_proxy().await;
    let (id, token) = gateway.session(CAP);
    let from = async |peer, forwarded_for: &str| status(&gateway, peer, &request(id, &token, "x", forwarded_for)).await;
    const PROXY: [u8; 4] = [127, 0, 0, 1];
    const STRANGER: [u8; 4] = [127, 0, 0, 2];
    assert_eq!(from(PROXY, ALICE).await, 200);
    assert_eq!(from(PROXY, &format!("::ffff:{ALICE}")).await, 200);
    assert_eq!(from(PROXY, &format!("unknown, {ALICE}:4711, 127.0.0.1")).await, 200);
    assert_eq!(from(PROXY, BOB).await, 403);
    assert_eq!(from(PROXY, &format!("{ALICE}, {BOB}")).await, 403, "what stands on the left is a claim");
    assert_eq!(from(STRANGER, ALICE).await, 403, "nobody else is believed");
    assert_eq!(from(PROXY, "unknown").await, 400);
    assert_eq!(from(PROXY, "").await, 400);
    let two_lines = format!("{ALICE}\r\nX-Forwarded-For: {BOB}");
    assert_eq!(from(PROXY, &two_lines).await, 403, "the last line is the nearest proxy's");
    assert_eq!(from(PROXY, &format!("{BOB}\r\nX-Forwarded-For: {ALICE}")).await, 200);
    for head in gateway.upstream.heads() {
        assert!(!head.to_lowercase().contains("x-forwarded"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_not_read_ends_a_shared_connection() {
    let gateway = behind_a_proxy().await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    let post = request(id, &AccessToken::from_uuid(uuid::Uuid::new_v4()), "x", ALICE)
        .replace("GET", "POST")
        .replace("\r\n\r\n", "\r\nContent-Length: 300\r\n\r\n");
    client.send(&post).await;
    let (head, _) = whole_answer(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    // What would be the rest of the body is no request of anybody.
    let _ = client.stream.write_all(request(id, &token, "x", BOB).as_bytes()).await;
    client.drain().await;
    assert!(client.received.is_empty(), "{}", client.received.escape_ascii());
    assert!(gateway.upstream.heads().is_empty());
}

/// A header of the PROXY protocol, version 2, for TCP over IPv4.
fn proxy_header(renter: &str) -> Vec<u8> {
    let renter: std::net::Ipv4Addr = renter.parse().expect("an address");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(renter.octets());
    header.extend([127, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb]);
    header
}

async fn behind_a_balancer(issuer: Option<&Issuer>) -> TestGateway {
    TestGateway::with(|settings| {
        settings.gateway.proxy_protocol = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.gateway.handshake_timeout_ms = 2_000;
        if let Some(issuer) = issuer {
            settings.gateway.tls = Some(issuer.files());
            settings.gateway.public_url = Url::parse("https://localhost").expect("a URL");
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_holds_on_to_the_address_in_the_balancers_header() {
    let gateway = behind_a_balancer(None).await;
    let (id, token) = gateway.session(CAP);
    let ask = async |header: &[u8]| {
        let mut client = gateway.connect().await;
        client.send_bytes(header).await;
        client.send(&request(id, &token, "x", BOB).replace("Host: g", "Host: g\r\nConnection: close")).await;
        client.answer().await.status
    };
    assert_eq!(ask(&proxy_header(ALICE)).await, 200);
    assert_eq!(ask(&proxy_header(ALICE)).await, 200, "what HTTP says of forwarding is not read");
    assert_eq!(ask(&proxy_header(BOB)).await, 403);
    let alive = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(ask(alive).await, 403, "the balancer itself is served, and holds no lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_stands_before_tls_and_is_not_charged() {
    let issuer = Issuer::new();
    let mut gateway = behind_a_balancer(Some(&issuer)).await;
    let (id, token) = gateway.session(CAP);
    let mut moved = 0;
    for (renter, expected) in [(ALICE, "200"), (BOB, "403")] {
        let mut socket = gateway.connect().await.stream;
        socket.write_all(&proxy_header(renter)).await.expect("taken");
        let mut client = issuer.over(&issuer.connector(&[]), socket).await.expect("a handshake");
        client.send(&request(id, &token, "x", "").replace("Host: g", "Host: g\r\nConnection: close")).await;
        client.drain().await;
        assert!(client.received.starts_with(format!("HTTP/1.1 {expected}").as_bytes()), "{renter}");
        if renter == ALICE {
            moved = client.sent + client.received.len() as u64;
        }
    }
    gateway.stop().await;
    assert_eq!(gateway.authority.standing_of(id).used.moved(), moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_header_or_from_elsewhere_a_connection_is_closed_without_a_word() {
    let gateway = behind_a_balancer(None).await;
    let (id, token) = gateway.session(CAP);
    let get = request(id, &token, "x", ALICE);
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 3_000]].concat();
    let cases: [(&str, [u8; 4], Vec<u8>); 5] = [
        ("no header", [127, 0, 0, 1], Vec::new()),
        ("version 1", [127, 0, 0, 1], format!("PROXY TCP4 {ALICE} 127.0.0.1 4660 443\r\n").into_bytes()),
        ("a longer one than is read", [127, 0, 0, 1], long),
        ("from somebody who is no balancer", [127, 0, 0, 2], proxy_header(ALICE)),
        ("nothing, from somebody who is none", [127, 0, 0, 2], Vec::new()),
    ];
    for (what, from, before) in cases {
        let mut client = gateway.connect_from(from).await;
        // It may be closed by now.
        let _ = client.stream.write_all(&[&before, get.as_bytes()].concat()).await;
        client.drain().await;
        assert!(client.received.is_empty(), "{what}: {}", client.received.escape_ascii());
    }
    let mut slow = gateway.connect().await;
    for byte in &proxy_header(ALICE)[..20] {
        if slow.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.drain().await;
    eventually("all six are counted", || {
        let seen = gateway.metrics_value("runit_gateway_handshakes_failed_total");
        if seen == 6.0 { Ok(()) } else { Err(seen) }
    })
    .await;
    assert!(gateway.upstream.heads().is_empty());
}
