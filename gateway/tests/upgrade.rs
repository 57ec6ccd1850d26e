//! One process takes over from another, and both charge the same session.

mod support;

use rustix::process::Signal;
use support::process::{Installation, Rented, free_addresses};
use support::tls::Issuer;
use support::{Client, TestUpstream, WEBSOCKET, bearer};

const FRAME: [u8; 6] = [0x81, 4, b'e', b'c', b'h', b'o'];

async fn open_websocket(house: &Installation, rented: &Rented) -> Client {
    let mut client = house.connect().await;
    client
        .send(&format!("GET /s/{}/ws HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", rented.id, bearer(&rented.token)))
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}\n{}", house.log());
    client
}

async fn echo(client: &mut Client) {
    client.received.clear();
    client.send_bytes(&FRAME).await;
    client.receive(FRAME.len()).await;
}

/// The bytes of one exchange on a connection of its own.
async fn download(house: &Installation, rented: &Rented, bytes: usize) -> u64 {
    let mut client = house.connect().await;
    let Rented { id, token } = rented;
    client
        .send(&format!(
            "GET /s/{id}/download/{bytes} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n",
            bearer(token)
        ))
        .await;
    client.drain().await;
    assert!(client.received.starts_with(b"HTTP/1.1 200"), "{}", client.received.escape_ascii());
    client.sent + client.received.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_and_no_websocket_notices() {
    let house = Installation::new("");
    let upstream = TestUpstream::start().await;
    let mut old = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(open_websocket(&house, &rented).await);
    }
    let mut moved = download(&house, &rented, 10_000).await;
    let _new = house.start_with(&["--upgrade"]).await;
    for client in &mut clients {
        echo(client).await;
    }
    // The successor's sockets are the only ones now, and its store knows the lock.
    for _ in 0..20 {
        moved += download(&house, &rented, 10_000).await;
    }
    for client in &mut clients {
        echo(client).await;
        moved += 2 * 2 * FRAME.len() as u64; // both echoes, both ways; the handshakes come on top
    }
    let release = format!("/renter/release/{}", rented.token.expose());
    house.used_at_least(&rented, moved).await;
    assert_eq!(house.call("POST", &release, None).await.0, 200);
    for client in &mut clients {
        client.drain().await;
        assert!(client.received.ends_with(&[0x88, 2, 0x0f, 0xa1]), "the old process heard of the release: 4001");
    }
    assert!(old.ended().await.success(), "{}", house.log());
}

/// Asks on a connection that would stay; whether the answer says that it does not.
async fn is_let_go(client: &mut Client, rented: &Rented) -> bool {
    client.send(&format!("GET /s/{}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", rented.id, bearer(&rented.token))).await;
    let head = client.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    client.receive(2).await;
    client.received.clear();
    head.contains("connection: close")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_serves_to_the_end_and_ends_when_the_last_one_has_gone() {
    let house = Installation::new("");
    let upstream = TestUpstream::start().await;
    let mut node = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut websocket = open_websocket(&house, &rented).await;
    let mut browser = house.connect().await;
    assert!(!is_let_go(&mut browser, &rented).await);
    assert_eq!(house.ready().await, 200);

    node.signal(Signal::USR1);
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while house.ready().await != 503 {
        assert!(std::time::Instant::now() < deadline, "still ready");
    }
    assert!(is_let_go(&mut browser, &rented).await, "to another node");
    assert!(is_let_go(&mut house.connect().await, &rented).await, "who has not heard of it is served");
    echo(&mut websocket).await;
    assert_eq!(house.call("GET", "/renter/sessions", None).await.0, 200, "so is its control API");
    let used = house.used(&rented).await;
    drop(websocket);
    assert!(node.ended().await.success(), "{}", house.log());

    let _again = house.start().await;
    house.used_at_least(&rented, used).await;
    assert_eq!(house.metric("runit_quota_forfeited_bytes_total").await, 0.0, "its leases were given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_ends_websockets_at_its_deadline() {
    let house = Installation::with("drain_seconds = 1\n", "");
    let upstream = TestUpstream::start().await;
    let mut node = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut websocket = open_websocket(&house, &rented).await;
    node.signal(Signal::USR1);
    websocket.drain().await;
    assert!(websocket.received.ends_with(&[0x88, 2, 0x03, 0xf4]), "1012: {:?}", websocket.received);
    assert!(node.ended().await.success(), "{}", house.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_tls_and_the_redirect_too() {
    let issuer = Issuer::new();
    let [redirect] = free_addresses();
    let house = Installation::over_tls(&issuer, &format!("redirect_listen = \"{redirect}\"\n"), "");
    let upstream = TestUpstream::start().await;
    let mut old = house.start().await;
    let rented = house.rent(upstream.address).await;
    let handshake = format!("GET /s/{}/ws HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", rented.id, bearer(&rented.token));
    let open = async || {
        let mut client = issuer.connect(house.gateway).await;
        client.send(&handshake).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}\n{}", house.log());
        client
    };
    let redirected = async || {
        let mut stream = tokio::net::TcpStream::connect(redirect).await.expect("listens");
        let head = b"GET /s/x?a=1&token=secret HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.expect("taken");
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        assert!(answer.contains(&format!("\r\nLocation: https://{}/s/x?a=1\r\n", house.gateway)), "{answer}");
    };
    let mut before = open().await;
    redirected().await;
    let _new = house.start_with(&["--upgrade"]).await;
    redirected().await;
    let mut after = open().await;
    for client in [&mut before, &mut after] {
        client.send_bytes(&FRAME).await;
        client.receive(FRAME.len()).await;
    }
    drop((before, after));
    assert!(old.ended().await.success(), "{}", house.log());
    redirected().await;
    open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_deadline_ends_what_is_left_with_1012() {
    let house = Installation::new("");
    let settings = std::fs::read_to_string(house.path().join("runit.toml")).expect("written");
    let settings = settings.replace("[gateway]\n", "[gateway]\ndrain_seconds = 1\n");
    std::fs::write(house.path().join("runit.toml"), settings).expect("written");
    let upstream = TestUpstream::start().await;
    let mut old = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut client = open_websocket(&house, &rented).await;
    let _new = house.start_with(&["--upgrade"]).await;
    client.drain().await;
    assert_eq!(client.received, [0x88, 2, 0x03, 0xf4]);
    assert!(old.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_wait_for_a_slow_successor_however_short_the_drain() {
    let house = Installation::with("drain_seconds = 0\n", "");
    let mut old = house.start().await;
    old.signal(Signal::QUIT);
    house.logged("server not ready", 1).await;
    // It tells the old process once more, which changes nothing.
    let new = house.start_with(&["--upgrade"]).await;
    assert!(old.ended().await.success(), "{}", house.log());
    let serves = std::fs::read_to_string(house.path().join("data/gateway.pid")).expect("claimed");
    assert_eq!(serves, format!("{}\n", new.id()));
    let rented = house.rent(TestUpstream::start().await.address).await;
    download(&house, &rented, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_settles_everything_and_the_next_start_knows_it() {
    let house = Installation::new("");
    let upstream = TestUpstream::start().await;
    let mut first = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut client = open_websocket(&house, &rented).await;
    let moved = download(&house, &rented, 100_000).await;
    first.signal(Signal::TERM);
    client.drain().await;
    assert_eq!(client.received, [0x88, 2, 0x03, 0xf4], "1012: come back");
    assert!(first.ended().await.success(), "{}", house.log());
    let _second = house.start().await;
    let used = house.used(&rented).await;
    assert!((moved..moved + 2_000).contains(&used), "{used}: what moved, and a handshake");
    let mut again = open_websocket(&house, &rented).await;
    echo(&mut again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_a_lock_and_its_idle_websockets() {
    let house = Installation::new("");
    let settings = std::fs::read_to_string(house.path().join("runit.toml")).expect("written");
    let settings = settings.replace("[gateway]\n", "[gateway]\noperator_key = \"sixteen characters\"\n");
    std::fs::write(house.path().join("runit.toml"), settings).expect("written");
    let upstream = TestUpstream::start().await;
    let _process = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut client = open_websocket(&house, &rented).await;
    let cut = |key: &'static str| {
        let (admin, id) = (house.admin, rented.id);
        async move {
            let mut stream = tokio::net::TcpStream::connect(admin).await.expect("listens");
            let head = format!(
                "POST /admin/v1/sessions/{id}/cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\
                 Authorization: Bearer {key}\r\n\r\n"
            );
            tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("taken");
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
            answer.split(' ').nth(1).map(str::to_owned)
        }
    };
    assert_eq!(cut("a guess of a key").await.as_deref(), Some("401"));
    echo(&mut client).await;
    client.received.clear();
    assert_eq!(cut("sixteen characters").await.as_deref(), Some("200"));
    client.drain().await;
    assert_eq!(client.received, [0x88, 2, 0x0f, 0xa3], "taken away");
    assert!(house.log().contains("SESSION_CUT"), "{}", house.log());
    assert_eq!(cut("sixteen characters").await.as_deref(), Some("409"), "nobody holds it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_predecessor_there_is_nothing_to_take_over() {
    let house = Installation::new("");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_runit-gateway"))
        .args(["--upgrade", "--config"])
        .arg(house.path().join("runit.toml"))
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to take over"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_spend_one_cap_to_the_byte() {
    const CAP: u64 = 20_000_000;
    let house = Installation::new(&format!("[quota]\ncap_bytes = {CAP}\nlease_max_bytes = 1048576\n"));
    let upstream = TestUpstream::start().await;
    let _old = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open_websocket(&house, &rented).await);
    }
    let _new = house.start_with(&["--upgrade"]).await;
    // The old process serves these, the new one those; neither knows of the other but by the ledger.
    let echoes = clients.into_iter().map(|client| {
        let (mut reader, mut writer) = client.stream.into_split();
        let sending = tokio::spawn(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut writer, &[b'e'; 8192]).await.is_ok() {}
        });
        tokio::spawn(async move {
            let mut sink = tokio::io::sink();
            // Until it is cut.
            let _ = tokio::io::copy(&mut reader, &mut sink).await;
            sending.abort();
        })
    });
    let echoes: Vec<_> = echoes.collect();
    let downloads = (0..4).map(|_| async {
        let mut client = house.connect().await;
        let Rented { id, token } = &rented;
        let head = format!(
            "GET /s/{id}/download/1000000000 HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n",
            bearer(token)
        );
        client.send(&head).await;
        client.drain().await;
    });
    futures::future::join_all(downloads).await;
    for echo in echoes {
        tokio::time::timeout(support::PATIENCE, echo).await.expect("cut").expect("no panic");
    }
    house.used_at_least(&rented, CAP).await;
    assert_eq!(house.used(&rented).await, CAP);
}
