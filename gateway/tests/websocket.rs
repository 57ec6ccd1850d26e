//! WebSockets: every handshake becomes a tunnel, and every tunnel passes bytes as they are.

mod support;

use std::time::Duration;

use futures::future::join_all;
use runit_config::Rate;
use runit_core::{AccessToken, SessionId};
use support::{Client, TestGateway, WEBSOCKET, bearer};

const CAP: u64 = 1 << 30;

fn handshake(id: SessionId, token: &AccessToken, action: &str, more: &str) -> String {
    format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}{more}\r\n", bearer(token))
}

async fn open(gateway: &TestGateway, id: SessionId, token: &AccessToken) -> Client {
    let mut client = gateway.connect().await;
    client.send(&handshake(id, token, "ws", "")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

/// Keeps the runtime's threads busy, so that tasks are polled in every order.
struct Load(Vec<tokio::task::JoinHandle<()>>);

impl Load {
    fn start() -> Self {
        let busy = || async {
            loop {
                std::hint::black_box((0..2_000).sum::<u64>());
                tokio::task::yield_now().await;
            }
        };
        Self((0..4).map(|_| tokio::spawn(busy())).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_handshakes_under_load_all_become_tunnels() {
    let unlimited = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let gateway = TestGateway::with(|settings| {
        settings.limits.requests_per_session = unlimited;
        settings.limits.requests_per_address = unlimited;
        settings.limits.arrivals_per_address = unlimited;
    });
    let gateway = gateway.await;
    let (id, token) = gateway.session(CAP);
    drop(open(&gateway, id, &token).await);
    let _load = Load::start();
    for _ in 0..100 {
        let tunnels = (0..30).map(|_| async {
            let mut client = open(&gateway, id, &token).await;
            client.send("ping").await;
            client.receive(4).await;
            assert_eq!(client.received, b"ping");
        });
        join_all(tunnels).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_parts_that_come_too_fast_wait_and_lose_nothing_and_large_ones_do_not_wait() {
    let gateway = TestGateway::with(|settings| {
        settings.limits.websocket_reads_per_session = Rate { per_second: 1_000, burst: 100 };
    })
    .await;
    let waits = || gateway.metrics_value("runit_gateway_websocket_waits_total");
    let (id, token) = gateway.session(CAP);
    let mut client = open(&gateway, id, &token).await;
    let large = vec![b'l'; 32 * 1024];
    for _ in 0..20 {
        client.received.clear();
        client.send_bytes(&large).await;
        client.receive(large.len()).await;
    }
    let mut sibling = open(&gateway, id, &token).await;
    let (mut sent, mut received): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    while waits() == 0.0 || sent.len() < 4 * 500 {
        let part = format!("{:04}", sent.len() / 4);
        for client in [&mut client, &mut sibling] {
            client.received.clear();
            client.send(&part).await;
            client.receive(part.len()).await;
        }
        sent.extend(part.as_bytes());
        received.extend(&sibling.received);
        assert!(sent.len() < 4 * 9_999, "never slowed down");
    }
    assert_eq!(sent, received);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_wait_for_the_answer_loses_nothing() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    drop(open(&gateway, id, &token).await);
    for _ in 0..50 {
        let mut client = gateway.connect().await;
        client.send(&format!("{}early bytes", handshake(id, &token, "ws", ""))).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        client.receive(11).await;
        assert_eq!(client.received, b"early bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass_both_ways_unchanged() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let client = open(&gateway, id, &token).await;
    let message: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = client.stream.into_split();
    let sent = message.clone();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        writer.write_all(&sent).await.expect("taken");
        writer // dropped only after all came back
    });
    let mut received = vec![0; message.len()];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut received);
    tokio::time::timeout(support::PATIENCE, reading).await.expect("in time").expect("whole");
    assert!(received == message, "the echo differs");
    drop(sending.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_protocols_pass_and_an_answer_that_is_no_upgrade_reaches_the_renter() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    let protocol = "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\n";
    client.send(&handshake(id, &token, "download/5", protocol)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &*answer.body), (200, "ddddd"));
    let head = gateway.upstream.heads().pop().expect("it arrived").to_lowercase();
    assert!(head.contains("sec-websocket-protocol: v1.kernel.websocket.jupyter.org"), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    assert!(head.contains("authorization: token upstream-credential"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tunnel_ends_after_its_time_and_a_talking_one_stays() {
    let gateway = TestGateway::with(|settings| settings.gateway.websocket_idle_seconds = 3).await;
    let (id, token) = gateway.session(CAP);
    let mut silent = open(&gateway, id, &token).await;
    let mut talking = open(&gateway, id, &token).await;
    let talk = async {
        for round in 1..=20 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            talking.send("x").await;
            talking.receive(round).await;
        }
    };
    tokio::join!(silent.drain(), talk);
    assert_eq!(gateway.metrics_value("runit_gateway_websockets"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_declines_and_stalls_does_not_hold_the_renter_for_ever() {
    let gateway = TestGateway::with(|settings| settings.gateway.upstream_first_byte_timeout_ms = 300).await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    client.send(&handshake(id, &token, "stall", "")).await;
    client.drain().await;
}
