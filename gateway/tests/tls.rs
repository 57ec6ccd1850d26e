//! TLS on the listener: what is counted, what is refused, and what a change of certificate does.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use runit_config::NodeSettings;
use runit_core::{AccessToken, SessionId};
use support::tls::{Issuer, TlsClient};
use support::{TestGateway, WEBSOCKET, bearer, eventually};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, HandshakeKind};
use url::Url;

const CAP: u64 = 5_000_000;

async fn gateway(issuer: &Issuer) -> TestGateway {
    gateway_with(issuer, |_| {}).await
}

async fn gateway_with(issuer: &Issuer, more: impl FnOnce(&mut NodeSettings)) -> TestGateway {
    TestGateway::with(|settings| {
        settings.gateway.tls = Some(issuer.files());
        settings.gateway.public_url = Url::parse("https://localhost").expect("a URL");
        more(settings);
    })
    .await
}

fn request(id: SessionId, token: &AccessToken, action: &str, more: &str) -> String {
    format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: localhost\r\n{}{more}\r\n", bearer(token))
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_tls_downloads_and_websockets_end_at_exactly_the_cap() {
    let issuer = Issuer::new();
    for run in 0..3 {
        let mut gateway = gateway(&issuer).await;
        let (id, token) = gateway.session(CAP);
        let mut first = issuer.connect(gateway.address).await;
        first.send(&request(id, &token, "hello", "Connection: close\r\n")).await;
        first.drain().await;
        let mut moved = first.sent + first.received.len() as u64;
        let downloads = (0..8).map(|_| async {
            let mut client = issuer.connect(gateway.address).await;
            client.send(&request(id, &token, "download/100000000", "Connection: close\r\n")).await;
            client.drain().await;
            if client.received.starts_with(b"HTTP/1.1 429") { 0 } else { client.sent + client.received.len() as u64 }
        });
        moved += join_all(downloads).await.iter().sum::<u64>();
        gateway.stop().await;
        assert_eq!(moved, CAP, "run {run}: what the clients sent and received inside TLS");
        assert_eq!(gateway.authority.standing_of(id).used.moved(), CAP, "run {run}: what the ledger booked");
        assert_eq!(gateway.metrics_value("runit_quota_audit_difference_bytes_total"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_handshakes_take_no_renters_place() {
    const FLOOD: u32 = 10_000;
    let issuer = Issuer::new();
    let gateway = gateway_with(&issuer, |settings| settings.limits.waiting_connections = 256).await;
    let (id, token) = gateway.session(CAP);
    let mut renter = issuer.connect(gateway.address).await;
    renter.send(&request(id, &token, "hello", "")).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"));
    renter.receive(2).await;
    let mut open = std::collections::VecDeque::new();
    for n in 0..FLOOD {
        // The beginning of a ClientHello, from a hundred networks in turn.
        let mut half = gateway.connect_from([127, 1, 0, (n % 100) as u8 + 1]).await;
        let _ = half.stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        open.push_back(half);
        if open.len() > 400 {
            open.pop_front();
        }
        if n % 1_000 == 0 {
            renter.received.clear();
            renter.send(&request(id, &token, "hello", "")).await;
            assert!(renter.head().await.starts_with("HTTP/1.1 200"));
            renter.receive(2).await;
            // Who comes new and has a token is let in, in the middle of it.
            let mut newcomer = issuer.connect(gateway.address).await;
            newcomer.send(&request(id, &token, "hello", "Connection: close\r\n")).await;
            assert_eq!(newcomer.answer().await.status, 200);
        }
    }
    let seen = gateway.metrics_value("runit_gateway_connections");
    assert!(seen <= 300.0, "{seen} connections are open");
}

async fn open_websocket(issuer: &Issuer, gateway: &TestGateway, id: SessionId, token: &AccessToken) -> TlsClient {
    let mut client = issuer.connect(gateway.address).await;
    client.send(&request(id, token, "ws", WEBSOCKET)).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_large_messages_over_tls_and_hear_why_they_are_cut() {
    let issuer = Issuer::new();
    let gateway = gateway(&issuer).await;
    let (id, token) = gateway.session(1 << 30);
    let mut client = open_websocket(&issuer, &gateway, id, &token).await;
    let message: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    for _ in 0..10 {
        client.received.clear();
        client.send_bytes(&message).await;
        client.receive(message.len()).await;
        assert!(client.received == message, "the echo differs");
    }
    let mut idle = open_websocket(&issuer, &gateway, id, &token).await;
    gateway.authority.release(id, &token, 1);
    idle.drain().await;
    assert_eq!(idle.received, [0x88, 2, 0x0f, 0xa1], "4001");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_cookies_are_secure_and_browsers_are_told_to_stay() {
    let issuer = Issuer::new();
    let gateway = gateway(&issuer).await;
    let (id, token) = gateway.session(1 << 30);
    let ask = async |head: String| {
        let mut client = issuer.connect(gateway.address).await;
        client.send(&head).await;
        client.answer().await
    };
    let access = |token: &AccessToken| {
        format!("GET /access/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", token.expose())
    };
    let handed_over = ask(access(&token)).await;
    assert!(handed_over.header("set-cookie").expect("a cookie").contains("; Secure"), "{}", handed_over.head);
    let hsts = Some("max-age=31536000");
    assert_eq!(handed_over.header("strict-transport-security"), hsts, "the gateway's own answers");
    let close = format!("Connection: close\r\n{}", handed_over.cookie());
    let proxied = ask(format!("GET /s/{id}/x HTTP/1.1\r\nHost: localhost\r\n{close}\r\n")).await;
    assert_eq!((proxied.status, proxied.header("strict-transport-security")), (200, hsts), "the provider's");
    let write = |origin: &str| {
        format!("POST /s/{id}/x HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Length: 0\r\n{close}\r\n")
    };
    assert_eq!(ask(write("https://localhost")).await.status, 200);
    assert_eq!(ask(write("http://localhost")).await.status, 403, "the same host without TLS is another origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_finish_or_is_none_is_closed() {
    let issuer = Issuer::new();
    let gateway = gateway_with(&issuer, |settings| settings.gateway.handshake_timeout_ms = 500).await;
    let failed = |count: f64| {
        let gateway = &gateway;
        eventually("handshakes failed", move || {
            let seen = gateway.metrics_value("runit_gateway_handshakes_failed_total");
            if seen == count { Ok(()) } else { Err(seen) }
        })
    };
    let mut silent = gateway.connect().await;
    silent.drain().await;
    failed(1.0).await;

    // A whole record would be an error, and end at once: this is the beginning of one, a byte at a time.
    let mut slow = gateway.connect().await;
    for byte in [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03] {
        if slow.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    slow.drain().await;
    failed(2.0).await;

    let mut plain = gateway.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    plain.drain().await;
    assert!(!plain.received.starts_with(b"HTTP"), "{}", plain.received.escape_ascii());
    failed(3.0).await;
    eventually("all are gone", || {
        let open = gateway.metrics_value("runit_gateway_connections");
        if open == 0.0 { Ok(()) } else { Err(open) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_is_the_only_protocol() {
    let issuer = Issuer::new();
    let gateway = gateway(&issuer).await;
    let agreed = async |protocols: &[&[u8]]| {
        let client = issuer.connect_with(&issuer.connector(protocols), gateway.address).await.ok()?;
        Some(client.stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(&[b"h2", b"http/1.1"]).await, Some(Some(b"http/1.1".to_vec())));
    assert_eq!(agreed(&[]).await, Some(None), "a client that does not ask gets it too");
    assert_eq!(agreed(&[b"h2"]).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resumes_may_send_no_early_data() {
    let issuer = Issuer::new();
    let gateway = gateway(&issuer).await;
    let mut config = issuer.client(&[b"http/1.1"]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut resumed = false;
    for _ in 0..3 {
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut client = issuer.connect_with(&connector, gateway.address).await.expect("a handshake");
        resumed |= client.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        client.send("GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        client.drain().await;
    }
    assert!(resumed, "otherwise this shows nothing");
    let mut next = ClientConnection::new(config, ServerName::try_from("localhost").expect("a name")).expect("good");
    assert!(next.early_data().is_none(), "the server's tickets allow some");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_serves_new_handshakes_and_no_open_connection_notices() {
    let issuer = Issuer::new();
    let gateway = gateway(&issuer).await;
    let (id, token) = gateway.session(1 << 30);
    let certificate = |client: &TlsClient| client.stream.get_ref().1.peer_certificates().expect("some")[0].to_vec();
    let mut old = open_websocket(&issuer, &gateway, id, &token).await;
    let expiry = "runit_gateway_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(gateway.metrics_value(expiry), 1_893_456_000.0, "2030-01-01");

    issuer.renew(2040);
    eventually("the new certificate", || {
        let seen = gateway.metrics_value(expiry);
        if seen == 2_208_988_800.0 { Ok(()) } else { Err(seen) }
    })
    .await;
    let new = open_websocket(&issuer, &gateway, id, &token).await;
    assert_ne!(certificate(&new), certificate(&old));

    std::fs::write(issuer.files().key, "broken").expect("written");
    let changes = "runit_gateway_tls_certificate_changes_total";
    eventually("the broken one is seen", || {
        let seen = gateway.metrics_value(changes);
        if seen == 2.0 { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(certificate(&issuer.connect(gateway.address).await), certificate(&new), "the old one stays");
    old.send("still here").await;
    old.receive(10).await;
}
