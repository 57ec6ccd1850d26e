//! Access is continuous: what loses its lock loses its open connections.

mod support;

use runit_core::session::Change;
use runit_core::{LockId, LockMode, RenterAddress, SessionId};
use support::{Client, TestGateway, WEBSOCKET, bearer};

const CAP: u64 = 1 << 30;
/// An unmasked text frame, which the test's provider sends back as it is.
const FRAME: [u8; 6] = [0x81, 4, b'e', b'c', b'h', b'o'];

async fn open_websocket(gateway: &TestGateway, id: SessionId, credential: &str) -> Client {
    let mut client = gateway.connect().await;
    client.send(&format!("GET /s/{id}/ws HTTP/1.1\r\nHost: g\r\n{credential}{WEBSOCKET}\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.send_bytes(&FRAME).await;
    client.receive(FRAME.len()).await;
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
        assert_eq!(client.received, FRAME.iter().chain(&[0x88, 2, 0x0f, 0xa1]).copied().collect::<Vec<_>>(), "4001");
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
async fn a_new_tunnel_or_somebody_elses_end_cuts_nobody() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = open_websocket(&gateway, id, &bearer(&token)).await;
    let (other, _) = gateway.session(CAP);
    gateway.authority.change(other, Change::Remove).expect("live");
    gateway.authority.refresh(id, "the tunnel is another, and so is the workspace");
    for round in 2..5 {
        client.send_bytes(&FRAME).await;
        client.receive(round * FRAME.len()).await;
    }
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renter_who_is_blocked_by_a_deaf_provider_is_cut_all_the_same() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let requests = [
        format!("GET /s/{id}/deaf HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", bearer(&token)),
        format!("PUT /s/{id}/deaf HTTP/1.1\r\nHost: g\r\nContent-Length: 99999999\r\n{}\r\n", bearer(&token)),
        format!("GET /s/{id}/stall HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token)),
    ];
    let mut clients = Vec::new();
    for request in &requests {
        let mut client = gateway.connect().await;
        client.send(request).await;
        clients.push(client);
    }
    for client in &mut clients[..2] {
        // Until nothing is taken any more: every buffer on the way is full.
        let chunk = [0; 64 * 1024];
        let sending = async { while tokio::io::AsyncWriteExt::write(&mut client.stream, &chunk).await.is_ok() {} };
        let blocked = tokio::time::timeout(std::time::Duration::from_millis(700), sending).await;
        assert!(blocked.is_err(), "the gateway still reads");
    }
    gateway.authority.change(id, Change::Remove).expect("live");
    for client in &mut clients {
        client.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_within_a_frame_ends_the_connection_without_another_byte() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = open_websocket(&gateway, id, &bearer(&token)).await;
    client.send_bytes(&[0x81, 100, b'h', b'a', b'l', b'f']).await;
    client.receive(12).await;
    gateway.authority.change(id, Change::Remove).expect("live");
    client.drain().await;
    assert_eq!(client.received.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_session_and_a_reached_cap_have_codes_of_their_own() {
    let mut gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let mut client = open_websocket(&gateway, id, &bearer(&token)).await;
    gateway.authority.change(id, Change::Remove).expect("live");
    client.drain().await;
    assert_eq!(client.received[FRAME.len()..], [0x88, 2, 0x0f, 0xa3], "4003");

    let (id, token) = gateway.session(1_000);
    let mut client = open_websocket(&gateway, id, &bearer(&token)).await;
    let mut download = gateway.connect().await;
    download.send(&format!("GET /s/{id}/download/9999 HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    download.drain().await;
    client.drain().await;
    assert_eq!(client.received[FRAME.len()..], [0x88, 2, 0x10, 0xc2], "4290, by a sibling's use");
    gateway.stop().await;
    assert_eq!(gateway.authority.standing_of(id).used.moved(), 1_000, "the close frame is not charged");
}

/// The next renter comes at once, while bytes of the last one are still leased, reserved and on their way.
#[tokio::test(flavor = "multi_thread")]
async fn each_byte_is_booked_for_the_lock_under_which_it_moved() {
    let mut gateway = TestGateway::start().await;
    let (id, mut token) = gateway.session(CAP);
    let mut renters = Vec::new();
    for round in 0..12 {
        let request = format!("GET /s/{id}/download/1000000000 HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token));
        let mut client = gateway.connect().await;
        client.send(&request).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "also where the release has not come to the gateway yet: {head}");
        client.receive(100_000 * (round % 3 + 1)).await;
        gateway.authority.release(id, &token, 1);
        gateway.authority.refresh(id, &format!("workspace {round}"));
        renters.push((LockId::of(token.hash()), request.len() + head.len(), client));
        token = gateway.authority.issue(id);
    }
    let mut moved = Vec::new();
    for (lock, heads, mut client) in renters {
        client.drain().await;
        moved.push((lock, (heads + client.received.len()) as u64));
    }
    gateway.stop().await;
    let ledger = gateway.authority.ledger(id);
    assert!(ledger.open.is_empty(), "{ledger:?}");
    let booked: Vec<_> = moved.iter().map(|(lock, _)| (*lock, ledger.bookings[lock].moved())).collect();
    assert_eq!(booked, moved);
    assert_eq!(ledger.bookings.len(), moved.len());
    assert_eq!(ledger.total.total(), moved.iter().map(|(_, bytes)| bytes).sum::<u64>());
}
