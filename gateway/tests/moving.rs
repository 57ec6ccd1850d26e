//! A renter at another address than his lock's: how closely addresses are compared, and the way back.

mod support;

use runit_core::{AccessToken, EventKind, LockMode, SessionId};
use support::{Answer, Client, TestGateway, WEBSOCKET, bearer, eventually};

const CAP: u64 = 1 << 30;
const HERE: [u8; 4] = [127, 0, 0, 1];
const BESIDE: [u8; 4] = [127, 0, 0, 2];
const ELSEWHERE: [u8; 4] = [127, 0, 1, 1];
const PRESSED: &str = "Origin: http://gateway\r\nContent-Length: 0\r\n";
const HTML: &str = "Accept: text/html\r\n";

async fn send(gateway: &TestGateway, from: [u8; 4], method: &str, target: &str, headers: &str) -> Answer {
    let mut client = gateway.connect_from(from).await;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}\r\n");
    client.send(&head).await;
    client.answer().await
}

fn link(token: &AccessToken) -> String {
    format!("/access/{}", token.expose())
}

/// A session that a browser here has taken, and its cookie.
async fn taken(gateway: &TestGateway) -> (SessionId, AccessToken, String) {
    let (id, token) = gateway.session(CAP);
    let cookie = send(gateway, HERE, "GET", &link(&token), "").await.cookie();
    (id, token, cookie)
}

async fn websocket(gateway: &TestGateway, id: SessionId, cookie: &str) -> Client {
    let mut client = gateway.connect().await;
    let head = format!("GET /s/{id}/ws HTTP/1.1\r\nHost: gateway\r\n{cookie}{WEBSOCKET}Origin: http://gateway\r\n\r\n");
    client.send(&head).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lock_mode_lets_in_whom_it_says() {
    for (mode, beside, elsewhere) in
        [(LockMode::Exact, 403, 403), (LockMode::Prefix, 200, 403), (LockMode::Observe, 200, 200)]
    {
        let gateway = TestGateway::with(|settings| settings.lock.mode = mode).await;
        let (id, token, cookie) = taken(&gateway).await;
        let lab = format!("/s/{id}/lab");
        for (from, status) in [(HERE, 200), (BESIDE, beside), (ELSEWHERE, elsewhere)] {
            for credential in [&cookie, &bearer(&token)] {
                let answer = send(&gateway, from, "GET", &lab, credential).await;
                assert_eq!(answer.status, status, "{mode:?} {from:?}");
                assert!(status == 200 || answer.body.contains("IP mismatch - access denied"), "{}", answer.body);
            }
        }
        let expected = if mode == LockMode::Exact { 4 } else { 2 };
        eventually("who came from elsewhere is in the audit trail", || {
            let events = gateway.authority.events();
            let seen = events.iter().filter(|event| event.kind == EventKind::SessionHijackAttempt).count();
            if mode == LockMode::Prefix && seen == 2 || seen >= expected { Ok(()) } else { Err(events) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_goes_on_from_its_new_address_with_its_link_and_its_cookie() {
    let gateway = TestGateway::start().await;
    let (id, token, cookie) = taken(&gateway).await;
    let mut open = websocket(&gateway, id, &cookie).await;
    let lab = format!("/s/{id}/lab");
    let asked = send(&gateway, ELSEWHERE, "GET", &link(&token), &format!("{HTML}{cookie}")).await;
    assert_eq!((asked.status, asked.header("set-cookie")), (403, None));
    assert!(asked.body.contains("IP mismatch - access denied") && asked.body.contains(&link(&token)), "{}", asked.body);
    let program = send(&gateway, ELSEWHERE, "GET", &link(&token), &cookie).await;
    assert_eq!(program.body, r#"{"code":"address_mismatch","error":"IP mismatch - access denied"}"#);
    assert_eq!(send(&gateway, ELSEWHERE, "GET", &lab, &cookie).await.status, 403, "asking moves nothing");

    let charged = gateway.authority.ledger(id);
    let moved = send(&gateway, ELSEWHERE, "POST", &link(&token), &format!("{PRESSED}{cookie}")).await;

    assert_eq!((moved.status, moved.header("location")), (302, Some(&*lab)));
    open.drain().await;
    assert!(open.received.ends_with(&4003_u16.to_be_bytes()), "the old address is cut: {:?}", open.received);
    assert_eq!(send(&gateway, ELSEWHERE, "GET", &lab, &cookie).await.status, 200);
    assert_eq!(send(&gateway, ELSEWHERE, "GET", &lab, &bearer(&token)).await.status, 200);
    for credential in [&cookie, &bearer(&token)] {
        let old = send(&gateway, HERE, "GET", &lab, credential).await;
        assert!(old.status == 403 && old.body.contains("IP mismatch - access denied"), "{}", old.body);
    }
    let (before, after) = (charged.standing(CAP), gateway.authority.standing_of(id));
    assert!(after.remaining <= before.remaining, "moving resets nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_link_or_a_stolen_cookie_moves_nothing() {
    let gateway = TestGateway::start().await;
    let (id, token, cookie) = taken(&gateway).await;
    let (_, other, other_cookie) = taken(&gateway).await;
    let guess = format!("Cookie: runit-{id}=guess\r\n");
    for (token, headers) in [
        (&token, PRESSED.to_owned()),
        (&token, format!("{PRESSED}{}", bearer(&token))),
        (&token, format!("{PRESSED}{guess}")),
        (&token, format!("{PRESSED}{other_cookie}")),
        (&other, format!("{PRESSED}{cookie}")),
        (&token, format!("Origin: http://evil\r\nContent-Length: 0\r\n{cookie}")),
        (&token, format!("Content-Length: 0\r\n{cookie}")),
    ] {
        let answer = send(&gateway, ELSEWHERE, "POST", &link(token), &headers).await;
        assert_eq!(answer.status, 403, "{headers}");
    }
    assert_eq!(send(&gateway, HERE, "GET", &format!("/s/{id}/lab"), &cookie).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_too_often_is_told_when_to_try_again() {
    let gateway = TestGateway::start().await;
    let (_, token, cookie) = taken(&gateway).await;
    gateway.authority.tired.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = send(&gateway, ELSEWHERE, "POST", &link(&token), &format!("{PRESSED}{cookie}")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    assert_eq!(send(&gateway, HERE, "GET", &link(&token), &cookie).await.status, 302, "and he is where he was");
}
