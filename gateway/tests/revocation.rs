//! Access is continuous: what loses its lock loses its open connections.

mod support;

use runit_core::session::Change;
use runit_core::{LockMode, RenterAddress, SessionId};
use support::{Client, TestGateway, WEBSOCKET, bearer};

const CAP: u64 = 1 << 30;

async fn open_websocket(gateway: &TestGateway, id: SessionId, credential: &str) -> Client {
    let mut client = gateway.connect().await;
    client.send(&format!("GET /s/{id}/ws HTTP/1.1\r\nHost: g\r\n{credential}{WEBSOCKET}\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.send("echo").await;
    client.receive(4).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn release_ends_idle_websockets_and_the_token_with_them() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open_websocket(&gateway, id, &bearer(&token)).await);
    }
    let release = Change::Release {
        token: token.hash(),
        address: RenterAddress::new([127, 0, 0, 1].into()),
        mode: LockMode::Exact,
    };
    gateway.authority.change(id, release).expect("its holder");
    for client in &mut clients {
        client.drain().await;
    }
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_ends_idle_keep_alive_connections_and_downloads() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut idle = gateway.connect().await;
    idle.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    assert!(idle.head().await.starts_with("HTTP/1.1 200"));
    let mut busy = gateway.connect().await;
    busy.send(&format!("GET /s/{id}/download/1000000000 HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    busy.head().await;
    gateway.authority.change(id, Change::Remove).expect("live");
    idle.drain().await;
    busy.drain().await;
    assert!(busy.received.len() < 1_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tunnel_cuts_nobody() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = open_websocket(&gateway, id, &bearer(&token)).await;
    let (other, _) = gateway.session(CAP);
    gateway.authority.change(other, Change::Remove).expect("live");
    client.send("still").await;
    client.receive(9).await;
}
