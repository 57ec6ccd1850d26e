//! What one address, one session and all of them together may take: connections, requests, guesses.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use runit_config::{Limit, Rate};
use runit_core::session::Change;
use runit_core::{AccessToken, EventKind, SessionId};
use support::process::{Installation, Process, free_addresses};
use support::tls::Issuer;
use support::{Client, TestGateway, WEBSOCKET, bearer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const CAP: u64 = 1 << 30;

fn get(id: SessionId, action: &str, token: &AccessToken) -> String {
    format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(token))
}

/// An admitted connection from 127.0.0.`n`, which stays open.
async fn admitted(gateway: &TestGateway, n: u8, id: SessionId, token: &AccessToken) -> Client {
    let mut client = gateway.connect_from([127, 0, 0, n]).await;
    client.send(&get(id, "x", token)).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.receive(2).await;
    client.received.clear();
    client
}

/// Whether the gateway closes the connection without a word.
async fn is_turned_away(mut client: Client) -> bool {
    client.drain().await;
    client.received.is_empty()
}

/// One request on a connection of its own, which the gateway may refuse to take.
async fn try_request(gateway: &TestGateway, id: SessionId, token: &AccessToken) -> Option<String> {
    let mut client = gateway.connect().await;
    let _ = client
        .stream
        .write_all(get(id, "x", token).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
        .await;
    client.drain().await;
    String::from_utf8_lossy(&client.received).split(' ').nth(1).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections_and_another_address_its_own() {
    let gateway = TestGateway::with(|settings| settings.limits.connections_per_address = 3).await;
    let (id, token) = gateway.session(CAP);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(admitted(&gateway, 1, id, &token).await);
    }
    assert!(is_turned_away(gateway.connect().await).await);
    assert_eq!(gateway.metrics_value("runit_gateway_turned_away_total"), 1.0);
    let (other, others_token) = gateway.session(CAP);
    drop(admitted(&gateway, 2, other, &others_token).await);
    drop(open.pop());
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    while try_request(&gateway, id, &token).await.as_deref() != Some("200") {
        assert!(tokio::time::Instant::now() < deadline, "the place does not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_too_fast_are_turned_away_before_they_cost_anything() {
    let slow = Rate { per_second: 1, burst: 5 };
    let gateway = TestGateway::with(|settings| settings.limits.arrivals_per_address = slow).await;
    let (id, token) = gateway.session(CAP);
    let mut renter = admitted(&gateway, 1, id, &token).await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(gateway.connect_from([127, 0, 0, 2]).await);
    }
    eventually("all but the burst are turned away", || {
        match gateway.metrics_value("runit_gateway_turned_away_total") {
            13.0..=15.0 => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    renter.send(&get(id, "x", &token)).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"), "an open connection is none that comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_token_are_fewer() {
    let gateway = TestGateway::with(|settings| settings.limits.waiting_connections_per_address = 2).await;
    let (id, token) = gateway.session(CAP);
    let _open = admitted(&gateway, 1, id, &token).await;
    let silent = [gateway.connect().await, gateway.connect().await];
    eventually("both are counted", || match gateway.metrics_value("runit_gateway_connections") {
        3.0 => Ok(()),
        seen => Err(seen),
    })
    .await;
    assert!(is_turned_away(gateway.connect().await).await);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_without_a_token_takes_no_renters_place() {
    let gateway = TestGateway::with(|settings| settings.limits.waiting_connections = 20).await;
    let (id, token) = gateway.session(CAP);
    let mut renter = admitted(&gateway, 1, id, &token).await;
    let mut flood = Vec::new();
    for n in 0..100 {
        flood.push(gateway.connect_from([127, 0, 1, n]).await);
        if n % 10 == 0 {
            // Who comes new and has a token is let in, in the middle of it.
            drop(admitted(&gateway, 1, id, &token).await);
        }
    }
    renter.send(&get(id, "x", &token)).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"));
    for silent in &mut flood[..70] {
        silent.drain().await;
    }
    assert!(gateway.metrics_value("runit_gateway_cuts_total") >= 70.0);
    eventually("those that wait are bounded", || match gateway.metrics_value("runit_gateway_connections") {
        ..=22.0 => Ok(()),
        seen => Err(seen),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_so_many_connections_and_another_session_its_own() {
    let mut gateway = TestGateway::with(|settings| settings.limits.connections_per_session = 2).await;
    let (id, token) = gateway.session(CAP);
    let (other, others_token) = gateway.session(CAP);
    let open = [admitted(&gateway, 1, id, &token).await, admitted(&gateway, 1, id, &token).await];
    let refused = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert!(refused.body.contains("too_many_connections"), "{}", refused.body);
    drop(admitted(&gateway, 1, other, &others_token).await);
    let moved: u64 = open.iter().map(|client| client.sent).sum();
    drop(open);
    gateway.stop().await;
    let used = gateway.authority.standing_of(id).used;
    assert_eq!(used.bytes_in, moved, "the refused request is not charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_so_many_websockets_and_places_come_back_however_they_end() {
    let gateway = TestGateway::with(|settings| settings.limits.websockets_per_session = 1).await;
    let (id, token) = gateway.session(CAP);
    let open = |action: &'static str| {
        let (gateway, token) = (&gateway, &token);
        async move {
            let mut client = gateway.connect().await;
            client.send(&format!("GET /s/{id}/{action} HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", bearer(token))).await;
            let head = client.head().await;
            (head.split(' ').nth(1).expect("a status").to_owned(), client)
        }
    };
    // Declined by the provider, dropped by the renter, and dropped while the provider says nothing.
    assert_eq!(open("download/5").await.0, "200");
    let mut silent = gateway.connect().await;
    silent.send(&format!("GET /s/{id}/stall HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", bearer(&token))).await;
    silent.head().await;
    drop(silent);
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    let first = loop {
        let (status, client) = open("ws").await;
        if status == "101" {
            break client;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place does not come back: {status}");
    };
    let (status, _) = open("ws").await;
    assert_eq!(status, "429");
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200, "requests are not meant");
    drop(first);
    while open("ws").await.0 != "101" {
        assert!(tokio::time::Instant::now() < deadline, "the place does not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_and_keeps_whom_it_has() {
    let gateway = TestGateway::with(|settings| settings.limits.connections = 2).await;
    let (id, token) = gateway.session(CAP);
    let (other, others_token) = gateway.session(CAP);
    let mut open = [admitted(&gateway, 1, id, &token).await, admitted(&gateway, 2, other, &others_token).await];
    let refused = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    open[0].send(&get(id, "x", &token)).await;
    assert!(open[0].head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_while_the_provider_is_silent_gives_the_place_back() {
    let gateway = TestGateway::with(|settings| settings.limits.connections = 1).await;
    let (id, token) = gateway.session(CAP);
    let (other, others_token) = gateway.session(CAP);
    let mut waiting = gateway.connect().await;
    waiting.send(&get(id, "deaf", &token)).await;
    eventually("the provider is asked", || if gateway.upstream.heads().len() == 1 { Ok(()) } else { Err(()) }).await;
    gateway.authority.change(id, Change::Remove).expect("live");
    waiting.drain().await;
    drop(waiting);
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    while gateway.get(&format!("/s/{other}/x"), &bearer(&others_token)).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the place does not come back");
    }
}

/// However many requests were refused.
async fn expect_one_event_of_limits(gateway: &TestGateway, session: Option<SessionId>) {
    eventually("the trail hears of the limit, once", || {
        let events = gateway.authority.events();
        let of_limits = events.iter().filter(|event| event.kind == EventKind::RateLimited);
        let told: Vec<_> = of_limits.map(|event| event.session).collect();
        if told == [session] { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_from_an_address_that_come_too_fast_are_refused_and_no_others() {
    let rate = Rate { per_second: 1, burst: 5 };
    let gateway = TestGateway::with(|settings| settings.limits.requests_per_address = rate).await;
    let (id, token) = gateway.session(CAP);
    drop(admitted(&gateway, 1, id, &token).await);
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let answer = gateway.get("/nowhere", "").await;
        assert_eq!(answer.header("retry-after").is_some(), answer.status == 429);
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..4], [404; 4], "the burst");
    assert!(statuses.contains(&429), "{statuses:?}");
    expect_one_event_of_limits(&gateway, None).await;
    let (other, others_token) = gateway.session(CAP);
    drop(admitted(&gateway, 2, other, &others_token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_session_that_come_too_fast_are_refused_and_no_others() {
    let rate = Rate { per_second: 1, burst: 5 };
    let gateway = TestGateway::with(|settings| settings.limits.requests_per_session = rate).await;
    let (id, token) = gateway.session(CAP);
    let (other, others_token) = gateway.session(CAP);
    for _ in 0..20 {
        // Without the token nobody uses up what is the renter's.
        assert_eq!(gateway.get(&format!("/s/{id}/x"), "").await.status, 401);
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status);
    }
    assert_eq!(statuses[..5], [200; 5], "the burst");
    assert!(statuses.contains(&429), "{statuses:?}");
    expect_one_event_of_limits(&gateway, Some(id)).await;
    assert_eq!(gateway.get(&format!("/s/{other}/x"), &bearer(&others_token)).await.status, 200);
}

/// 73 requests with 38 in flight are what JupyterLab needs for one page: three at once, in one session, with the defaults.
#[tokio::test(flavor = "multi_thread")]
async fn three_page_loads_at_once_run_into_no_limit() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    drop(admitted(&gateway, 1, id, &token).await);
    let tab = || async {
        let lane = |requests: usize| {
            let (gateway, token) = (&gateway, &token);
            async move {
                let mut client = gateway.connect().await;
                for _ in 0..requests {
                    client.send(&get(id, "download/1000", token)).await;
                    let head = client.head().await;
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    client.receive(1000).await;
                    client.received.clear();
                }
            }
        };
        join_all((0..38).map(|lane_number| lane(if lane_number < 35 { 2 } else { 1 }))).await
    };
    join_all((0..3).map(|_| tab())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_so_many_guesses_the_authority_is_not_asked_and_lock_holders_notice_nothing() {
    let limit = Limit { requests: 10, seconds: 60 };
    let gateway = TestGateway::with(|settings| settings.limits.guesses_per_address = limit).await;
    let (id, token) = gateway.session(CAP);
    let (free, _) = gateway.session(CAP);
    let mut renter = admitted(&gateway, 1, id, &token).await;
    let guess = || async {
        let token = AccessToken::from_uuid(uuid::Uuid::new_v4());
        let (target, headers) = match token.expose().as_bytes()[0] % 3 {
            0 => (format!("/access/{}", token.expose()), String::new()),
            1 => (format!("/s/{free}/lab?token={}", token.expose()), "Accept: text/html\r\n".to_owned()),
            _ => (format!("/s/{free}/api"), bearer(&token)),
        };
        gateway.get(&target, &headers).await
    };
    let before = gateway.authority.claims();
    let answers = join_all((0..30).map(|_| guess())).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!((answers.len() - refused.len(), gateway.authority.claims() - before), (10, 10));
    assert!(refused.iter().all(|answer| answer.header("retry-after") == Some("60")));
    assert_eq!(try_request(&gateway, id, &token).await.as_deref(), Some("200"), "the lock's holder, anew");
    renter.send(&get(id, "x", &token)).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"));
    gateway.authority.clock.advance(Duration::from_secs(60));
    assert_eq!(guess().await.status, 403, "a window later");
}

#[tokio::test(flavor = "multi_thread")]
async fn right_tokens_are_no_guesses() {
    let limit = Limit { requests: 1, seconds: 60 };
    let gateway = TestGateway::with(|settings| settings.limits.guesses_per_address = limit).await;
    for _ in 0..5 {
        let (id, token) = gateway.session(CAP);
        assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
    }
}

/// A gateway with a listener that redirects, and that listener's address. Of its files 62 are for redirects.
async fn redirecting(issuer: &Issuer) -> (Installation, Process, SocketAddr) {
    let [redirect] = free_addresses();
    let house = Installation::over_tls(issuer, &format!("redirect_listen = \"{redirect}\"\n"), "");
    let process = house.start_with_files(1_000).await;
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    while let Err(error) = TcpStream::connect(redirect).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}\n{}", house.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (house, process, redirect)
}

/// A connection from `ip` to the listener that redirects.
async fn to_redirect(redirect: SocketAddr, ip: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((ip, 0))).expect("loopback has this address");
    socket.connect(redirect).await.expect("it listens")
}

async fn is_redirected(redirect: SocketAddr, ip: [u8; 4]) -> bool {
    let mut stream = to_redirect(redirect, ip).await;
    let mut answer = String::new();
    let _ = stream.write_all(b"GET /s/x HTTP/1.1\r\nHost: g\r\n\r\n").await;
    let _ = stream.read_to_string(&mut answer).await;
    answer.starts_with("HTTP/1.1 308")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections_to_be_redirected_and_another_its_own() {
    let issuer = Issuer::new();
    let (house, _process, redirect) = redirecting(&issuer).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(to_redirect(redirect, [127, 0, 0, 2]).await);
    }
    house.until("runit_gateway_turned_away_total", 8.0).await;
    assert!(is_redirected(redirect, [127, 0, 0, 3]).await);
    drop(open);
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    while !is_redirected(redirect, [127, 0, 0, 2]).await {
        assert!(tokio::time::Instant::now() < deadline, "the places do not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_silent_connections_to_be_redirected_keeps_nobody_out() {
    let issuer = Issuer::new();
    let (_house, _process, redirect) = redirecting(&issuer).await;
    let mut flood = Vec::new();
    for n in 0..200 {
        flood.push(to_redirect(redirect, [127, 0, 1, n % 10]).await);
        if n % 20 == 19 {
            assert!(is_redirected(redirect, [127, 0, 0, 3]).await, "after {n}");
        }
    }
}
