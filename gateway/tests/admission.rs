//! Who gets in: token, cookie, address, origin.

mod support;

use std::sync::atomic::Ordering;

use runit_core::EventKind;
use support::{TestGateway, bearer, eventually};

const CAP: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_takes_the_lock_sets_a_cookie_and_opens_the_lab() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let answer = gateway.get(&format!("/access/{}", token.expose()), "").await;
    assert_eq!((answer.status, answer.header("location")), (302, Some(&*format!("/s/{id}/lab"))));
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    let lab = gateway.get(&format!("/s/{id}/lab"), &answer.cookie()).await;
    assert_eq!((lab.status, &*lab.body), (200, "ok"));
    let again = gateway.get(&format!("/access/{}", token.expose()), &answer.cookie()).await;
    assert_eq!((again.status, again.header("set-cookie")), (302, None), "the same browser opens its link again");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_browser_with_the_same_link_is_told_that_the_session_is_in_use() {
    let gateway = TestGateway::start().await;
    let (_, token) = gateway.session(CAP);
    let link = format!("/access/{}", token.expose());
    assert_eq!(gateway.get(&link, "").await.status, 302);
    let second = gateway.get(&link, "").await;
    assert_eq!((second.status, &*second.body), (409, r#"{"code":"already_in_use","error":"Session already in use"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_refused_with_the_token_and_with_the_stolen_cookie() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let opened = gateway.get(&format!("/access/{}", token.expose()), "").await;
    for (target, credential) in [
        (format!("/s/{id}/lab"), bearer(&token)),
        (format!("/s/{id}/lab"), opened.cookie()),
        (format!("/s/{id}/lab?token={}", token.expose()), String::new()),
        (format!("/access/{}", token.expose()), String::new()),
        (format!("/access/{}", token.expose()), opened.cookie()),
    ] {
        let mut thief = gateway.connect_from([127, 0, 0, 2]).await;
        thief.send(&format!("GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{credential}\r\n")).await;
        let answer = thief.answer().await;
        assert_eq!(answer.status, 403, "{target}");
        assert!(answer.body.contains("IP mismatch - access denied"), "{}", answer.body);
    }
    let heads = gateway.upstream.heads();
    assert!(heads.is_empty(), "nothing reached the provider: {heads:?}");
    eventually("the attempts are in the audit trail", || {
        let events = gateway.authority.events();
        let attempts = events.iter().filter(|event| event.kind == EventKind::SessionHijackAttempt).count();
        if attempts >= 3 { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_of_events_some_are_recorded_and_the_others_counted() {
    const ATTEMPTS: usize = 60;
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    gateway.get(&format!("/access/{}", token.expose()), "").await;
    for _ in 0..ATTEMPTS {
        let mut thief = gateway.connect_from([127, 0, 0, 2]).await;
        let credential = bearer(&token);
        thief.send(&format!("GET /s/{id}/lab HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{credential}\r\n")).await;
        assert_eq!(thief.answer().await.status, 403);
    }
    eventually("each attempt is in the trail or in the count", || {
        let is_attempt = |kind: &EventKind| *kind == EventKind::SessionHijackAttempt;
        let recorded = gateway.authority.events().iter().filter(|event| is_attempt(&event.kind)).count();
        let counted = gateway.authority.counted().iter().filter(|kind| is_attempt(kind)).count();
        if recorded + counted == ATTEMPTS && counted > 0 { Ok(()) } else { Err((recorded, counted)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_nothing_reaches_the_provider() {
    let gateway = TestGateway::start().await;
    let (id, _) = gateway.session(CAP);
    let unknown = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let nobody = "00000000-0000-4000-8000-000000000001";
    for (target, headers, status) in [
        (format!("/s/{id}/lab"), String::new(), 401),
        (format!("/s/{nobody}/lab"), String::new(), 401),
        (format!("/s/{id}/lab"), format!("Authorization: Bearer {unknown}\r\n"), 403),
        (format!("/s/{nobody}/lab"), format!("Authorization: Bearer {unknown}\r\n"), 403),
        (format!("/s/{id}/lab?token={unknown}"), String::new(), 403),
        (format!("/s/{id}/lab"), format!("Cookie: runit-{id}=guess\r\n"), 403),
        (format!("/access/{unknown}"), String::new(), 403),
        ("/access/guess".to_owned(), String::new(), 404),
        ("/".to_owned(), String::new(), 404),
    ] {
        assert_eq!(gateway.get(&target, &headers).await.status, status, "{target} {headers}");
    }
    assert!(gateway.upstream.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_served_by_header_and_by_query_like_jupyter_does() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let path = format!("/s/{id}/api/status");
    assert_eq!(gateway.get(&path, &bearer(&token)).await.status, 200);
    assert_eq!(gateway.get(&path, &format!("Authorization: token {}\r\n", token.expose())).await.status, 200);
    assert_eq!(gateway.get(&format!("{path}?token={}", token.expose()), "").await.status, 200);
    let browser = gateway.get(&format!("{path}?a=1&token={}", token.expose()), "Accept: text/html\r\n").await;
    assert_eq!((browser.status, browser.header("location")), (302, Some(&*format!("{path}?a=1"))));
    assert_eq!(gateway.get(&path, &browser.cookie()).await.status, 200, "a browser joins its renter's lock once");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_first_uses_that_come_together_one_asks_the_authority_and_all_are_served() {
    const TOGETHER: usize = 64;
    let gateway = TestGateway::with(|settings| settings.limits.guesses_per_address.requests = 2).await;
    let (id, token) = gateway.session(CAP);
    gateway.authority.heard().await;
    let request = format!("GET /s/{id}/api/status HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n", bearer(&token));
    let mut clients = Vec::new();
    for _ in 0..TOGETHER {
        clients.push(gateway.connect().await);
    }
    gateway.authority.hangs.store(true, Ordering::SeqCst);
    for client in &mut clients {
        client.send(&request).await;
    }
    eventually("one asks", || if gateway.authority.claims() > 0 { Ok(()) } else { Err(0) }).await;
    gateway.authority.hangs.store(false, Ordering::SeqCst);
    for mut client in clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(gateway.authority.claims(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_sees_raw_bytes_and_its_own_credential_only() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let target = format!("/s/{id}/api/contents/a%2Fb//c:d?1795316893&token={}&x=%2f", token.expose());
    gateway.get(&target, "Cookie: runit-x=1; lab=2\r\nX-Forwarded-For: 1.1.1.1\r\nX-Mine: kept\r\n").await;
    let heads = gateway.upstream.heads();
    let head = heads.first().expect("it arrived");
    assert!(head.starts_with(&format!("GET /s/{id}/api/contents/a%2Fb//c:d?1795316893&x=%2f HTTP/1.1\r\n")), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("authorization: token upstream-credential\r\n"), "{head}");
    assert!(lower.contains(&format!("host: {}\r\n", gateway.upstream.address)), "{head}");
    assert!(lower.contains("cookie: lab=2\r\n") && lower.contains("x-mine: kept\r\n"), "{head}");
    assert!(!lower.contains("x-forwarded-for") && !lower.contains("runit-x") && !lower.contains(&token.expose()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_one_session() {
    let gateway = TestGateway::start().await;
    let ((first, token), (second, other)) = (gateway.session(CAP), gateway.session(CAP));
    let mut client = gateway.connect().await;
    client.send(&format!("GET /s/{first}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    client.receive(2).await;
    client.received.clear();
    client.send(&format!("GET /s/{second}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&other))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 421"));
    assert_eq!(gateway.upstream.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_can_neither_write_nor_open_a_websocket() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let cookie = gateway.get(&format!("/access/{}", token.expose()), "").await.cookie();
    let websocket = support::WEBSOCKET;
    for (request, extra) in [
        ("POST", "Origin: http://evil\r\nContent-Length: 0\r\n"),
        ("DELETE", "Origin: null\r\n"),
        ("PUT", "Content-Length: 0\r\n"),
        ("GET", &*format!("{websocket}Origin: http://evil\r\n")),
        ("GET", websocket),
    ] {
        let mut client = gateway.connect().await;
        client.send(&format!("{request} /s/{id}/ws HTTP/1.1\r\nHost: g\r\n{cookie}{extra}\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 403"), "{request} {extra}");
    }
    let mut ours = gateway.connect().await;
    ours.send(&format!("GET /s/{id}/ws HTTP/1.1\r\nHost: g\r\n{cookie}{websocket}Origin: http://g\r\n\r\n")).await;
    assert!(ours.head().await.starts_with("HTTP/1.1 101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_stop_the_server_are_closed() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    for path in ["api/shutdown", "logout", "%61pi//shutdown"] {
        let mut client = gateway.connect().await;
        let head = format!("POST /s/{id}/{path} HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n{}\r\n", bearer(&token));
        client.send(&head).await;
        assert!(client.head().await.starts_with("HTTP/1.1 403"), "{path}");
    }
    assert!(gateway.upstream.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_nobody_asked_for_is_refused() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let answer = gateway.get(&format!("/s/{id}/unasked101"), &bearer(&token)).await;
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("raw bytes"));
}
