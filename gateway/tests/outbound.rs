//! Where the gateway connects to: checked addresses of the registered name, and nothing else.

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use runit_core::upstream::is_public;
use runit_core::{AccessToken, SessionId};
use runit_gateway::Outbound;
use support::{TestGateway, WEBSOCKET, bearer};
use tokio::net::TcpStream;

const CAP: u64 = 1 << 30;
const PUBLIC: &str = "104.16.0.1:443";

/// A world in which names have the addresses that a test gives them, one list after the other; it remembers who was
/// dialled, and lets nobody out of this machine.
struct World {
    answers: Vec<Vec<SocketAddr>>,
    asked: AtomicUsize,
    dialled: Mutex<Vec<SocketAddr>>,
}

impl World {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let address = |text: &&str| text.parse().expect("a literal");
        let answers = answers.iter().map(|answer| answer.iter().map(address).collect()).collect();
        Arc::new(Self { answers, asked: AtomicUsize::new(0), dialled: Mutex::default() })
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().expect("no panic").clone()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Outbound for World {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut addresses = self.answers[number % self.answers.len()].clone();
        addresses.iter_mut().filter(|address| address.port() == 0).for_each(|address| address.set_port(port));
        Ok(addresses)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().expect("no panic").push(address);
        if address.ip().is_loopback() {
            return TcpStream::connect(address).await;
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

async fn request(gateway: &TestGateway, id: SessionId, token: &AccessToken, more: &str) -> u16 {
    gateway.get(&format!("/s/{id}/x"), &format!("{}{more}", bearer(token))).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_alternates_never_has_us_dial_a_forbidden_address() {
    let world = World::new(&[
        &["127.0.0.1:443"],
        &[PUBLIC],
        &["169.254.169.254:443"],
        &[PUBLIC, "10.0.0.1:443"],
        &["[::1]:443", PUBLIC],
        &["[2606:4700::1]:443"],
        &["[::ffff:127.0.0.1]:443"],
    ]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let (id, token) = gateway.authority.session_at("https://gpu.example.org", CAP);
        // Addresses that could not be reached are not remembered, so each of these asks anew.
        for attempt in 0..14 {
            let websocket = WEBSOCKET.replace("Connection: Upgrade", "Connection: Upgrade, close");
            let more = if attempt % 3 == 0 { websocket.as_str() } else { "" };
            statuses.push(request(&gateway, id, &token, more).await);
        }
    }
    assert_eq!(statuses, [502; 70]);
    assert_eq!(world.asked(), 70);
    let dialled = world.dialled();
    assert_eq!(dialled.len(), 20, "two answers of seven are good, and each was dialled");
    assert!(dialled.iter().all(|address| is_public(address.ip())), "{dialled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pooled_connections_and_those_that_come_together_ask_no_name_server() {
    let world = World::new(&[&["127.0.0.1:0"]]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let url = format!("http://localhost:{}", gateway.upstream.address.port());
    let (id, token) = gateway.authority.session_at(&url, CAP);
    for _ in 0..10 {
        assert_eq!(request(&gateway, id, &token, "").await, 200);
    }
    assert_eq!((world.asked(), world.dialled().len()), (1, 1));
    let (other, others_token) = gateway.authority.session_at(&url, CAP);
    assert_eq!(request(&gateway, other, &others_token, "").await, 200);
    let at_once = (0..10).map(|_| request(&gateway, other, &others_token, ""));
    assert_eq!(futures::future::join_all(at_once).await, [200; 10]);
    assert_eq!(world.asked(), 2, "once for each session");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_served_on_anothers_connection_and_none_across_a_change_of_credential() {
    let world = World::new(&[&["127.0.0.1:0"]]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let url = format!("http://localhost:{}", gateway.upstream.address.port());
    let (one, ones_token) = gateway.authority.session_at(&url, CAP);
    let (other, others_token) = gateway.authority.session_at(&url, CAP);
    for _ in 0..5 {
        assert_eq!(request(&gateway, one, &ones_token, "").await, 200);
        assert_eq!(request(&gateway, other, &others_token, "").await, 200);
    }
    assert_eq!(world.dialled().len(), 2, "to the same address, but one for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_closes_an_idle_connection_under_a_request_costs_the_renter_nothing() {
    let world = World::new(&[&["127.0.0.1:0"]]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let url = format!("http://localhost:{}", gateway.upstream.address.port());
    let (id, token) = gateway.authority.session_at(&url, CAP);
    let mut renter = gateway.connect().await;
    for _ in 0..5 {
        renter.send(&format!("GET /s/{id}/fickle HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
        let head = renter.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        renter.receive(2).await;
        renter.received.clear();
    }
    assert_eq!(world.dialled().len(), 5, "each was asked on the one before, and then on one of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_the_renters_to_follow() {
    let world = World::new(&[&["127.0.0.1:0"]]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let url = format!("http://localhost:{}", gateway.upstream.address.port());
    let (id, token) = gateway.authority.session_at(&url, CAP);
    for more in ["", WEBSOCKET] {
        let answer = gateway.get(&format!("/s/{id}/redirect"), &format!("{}{more}", bearer(&token))).await;
        assert_eq!(answer.status, 302);
    }
    assert!(world.dialled().iter().all(|address| *address == gateway.upstream.address), "{:?}", world.dialled());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_is_not_the_last_one() {
    let world = World::new(&[&["127.0.0.1:1", "127.0.0.1:0"]]);
    let gateway = TestGateway::reaching_through(Arc::clone(&world) as Arc<dyn Outbound>).await;
    let url = format!("http://localhost:{}", gateway.upstream.address.port());
    let (id, token) = gateway.authority.session_at(&url, CAP);
    assert_eq!(request(&gateway, id, &token, "").await, 200);
    assert_eq!(world.dialled().len(), 2);
}
