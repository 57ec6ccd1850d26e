//! A host name for each rental: who is served where, how a browser gets there, and what nobody learns on the way.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use runit_config::Rate;
use runit_core::{AccessToken, EventKind, HostLabel, SessionId};
use support::{Answer, TestGateway, WEBSOCKET, bearer, eventually};
use uuid::Uuid;

const CAP: u64 = 1 << 30;
const MAIN: &str = "gateway.example";
const HTML: &str = "Accept: text/html\r\n";

/// A gateway behind TLS: that the test speaks without it changes nothing here.
async fn gateway() -> TestGateway {
    TestGateway::with(|settings| {
        settings.gateway.public_url = "https://gateway.example".parse().expect("valid");
        settings.gateway.sessions_host = Some("notebooks.test".to_owned());
        settings.limits.arrivals_per_address = Rate { per_second: 10_000, burst: 10_000 };
    })
    .await
}

fn host_of(token: &AccessToken) -> String {
    format!("{}.notebooks.test", HostLabel::of(token.hash()))
}

async fn get(gateway: &TestGateway, host: &str, target: &str, headers: &str) -> Answer {
    get_from(gateway, [127, 0, 0, 1], host, target, headers).await
}

async fn get_from(gateway: &TestGateway, ip: [u8; 4], host: &str, target: &str, headers: &str) -> Answer {
    let mut client = gateway.connect_from(ip).await;
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")).await;
    client.answer().await
}

/// The hand-over link, opened; the path of the ticket that it leads to.
async fn open_link(gateway: &TestGateway, token: &AccessToken) -> (Answer, String) {
    let answer = get(gateway, MAIN, &format!("/access/{}", token.expose()), "").await;
    let location = answer.header("location").expect("it leads on");
    let path = location.strip_prefix(&format!("https://{}", host_of(token))).expect("to its own host").to_owned();
    (answer, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_from_the_link_to_the_rentals_own_host() {
    let gateway = gateway().await;
    let (id, token) = gateway.session(CAP);
    let host = host_of(&token);
    let (link, ticket) = open_link(&gateway, &token).await;
    assert_eq!((link.status, link.header("referrer-policy")), (302, Some("no-referrer")));
    assert!(!ticket.contains(&token.expose()));
    let entered = get(&gateway, &host, &ticket, "").await;
    assert_eq!((entered.status, entered.header("location")), (302, Some(&*format!("/s/{id}/lab"))));
    assert_eq!(entered.header("referrer-policy"), Some("no-referrer"));
    for answer in [&link, &entered] {
        let cookie = answer.header("set-cookie").expect("a cookie");
        let (pair, attributes) = cookie.split_once("; ").expect("attributes");
        assert!(pair.starts_with(&format!("__Host-runit-{id}=")), "{cookie}");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
    }
    let lab = get(&gateway, &host.to_uppercase(), &format!("/s/{id}/lab"), &entered.cookie()).await;
    assert_eq!((lab.status, &*lab.body), (200, "ok"));

    let again = get(&gateway, MAIN, &format!("/access/{}", token.expose()), &link.cookie()).await;
    assert_eq!((again.status, again.header("set-cookie")), (302, None), "the same browser opens its link again");
    let second = get(&gateway, MAIN, &format!("/access/{}", token.expose()), "").await;
    assert_eq!((second.status, &*second.body), (409, r#"{"code":"already_in_use","error":"Session already in use"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once_for_a_minute_on_one_host_and_from_one_address() {
    let gateway = gateway().await;
    let ((_, token), (_, other)) = (gateway.session(CAP), gateway.session(CAP));
    let (link, ticket) = open_link(&gateway, &token).await;
    open_link(&gateway, &other).await;
    assert_eq!(get(&gateway, &host_of(&other), &ticket, "").await.status, 403, "another rental's host");
    assert_eq!(get(&gateway, MAIN, &ticket, "").await.status, 404, "the link's host");
    let thief = get_from(&gateway, [127, 0, 0, 2], &host_of(&token), &ticket, "").await;
    assert!(thief.status == 403 && thief.body.contains("IP mismatch - access denied"), "{}", thief.body);
    let entered = get(&gateway, &host_of(&token), &ticket, "").await;
    assert_eq!(entered.status, 302);
    let replayed = get(&gateway, &host_of(&token), &ticket, "").await;
    assert_eq!((replayed.status, replayed.header("set-cookie")), (403, None));
    let known = get(&gateway, &host_of(&token), &ticket, &entered.cookie()).await;
    assert_eq!((known.status, known.header("set-cookie")), (302, None), "the browser went back in its history");

    gateway.authority.clock.advance(Duration::from_secs(1));
    let late = get(&gateway, MAIN, &format!("/access/{}", token.expose()), &link.cookie()).await;
    let late = late.header("location").and_then(|url| url.split_once("/access/")).map(|(_, ticket)| ticket);
    gateway.authority.clock.advance(Duration::from_secs(60));
    let late = get(&gateway, &host_of(&token), &format!("/access/{}", late.expect("a ticket")), "").await;
    assert_eq!(late.status, 403, "a minute later");
    eventually("the thief is in the audit trail", || {
        let events = gateway.authority.events();
        events.iter().any(|event| event.kind == EventKind::SessionHijackAttempt).then_some(()).ok_or(events)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_served_on_their_rentals_host_only() {
    let gateway = gateway().await;
    let ((id, token), (other_id, other)) = (gateway.session(CAP), gateway.session(CAP));
    let lab = format!("/s/{id}/lab");
    assert_eq!(get(&gateway, &host_of(&token), &lab, &bearer(&token)).await.status, 200, "a program's first use");
    assert_eq!(get(&gateway, &host_of(&other), &format!("/s/{other_id}/lab"), &bearer(&other)).await.status, 200);
    let host = host_of(&token);
    for (host, target, status) in [
        (MAIN, &*lab, 404),
        ("notebooks.test", &lab, 421),
        ("127.0.0.1", &lab, 421),
        (&format!("{host}."), &lab, 421),
        (&format!("{host}:8080"), &lab, 421),
        (&format!("{host}.evil.example"), &lab, 421),
        (&format!("x.{host}"), &lab, 403),
        (&host_of(&other), &lab, 403),
        (&host, &format!("/s/{other_id}/lab"), 403),
        (&host, "/", 404),
        (&host, &format!("/access/{}", token.expose()), 404),
        (&format!("{host}:443"), &lab, 200),
    ] {
        assert_eq!(get(&gateway, host, target, &bearer(&token)).await.status, status, "{host} {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_takes_nothing_on_a_host_that_is_not_its_own() {
    let gateway = gateway().await;
    let ((id, token), (_, other)) = (gateway.session(CAP), gateway.session(CAP));
    let foreign = get(&gateway, &host_of(&other), &format!("/s/{id}/lab"), &bearer(&token)).await;
    assert_eq!(foreign.status, 403);
    let page = get(&gateway, &host_of(&other), &format!("/s/{id}/lab?token={}", token.expose()), HTML).await;
    assert_eq!(page.status, 403);
    let own = get(&gateway, &host_of(&token), &format!("/s/{id}/lab?token={}&x=1", token.expose()), HTML).await;
    assert_eq!((own.status, own.header("location")), (302, Some(&*format!("/s/{id}/lab?x=1"))), "it was still free");
    assert_eq!(get(&gateway, &host_of(&token), &format!("/s/{id}/lab"), &own.cookie()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_rentals_host_is_dead_and_the_next_one_has_another() {
    let gateway = gateway().await;
    let (id, token) = gateway.session(CAP);
    let (_, ticket) = open_link(&gateway, &token).await;
    let cookie = get(&gateway, &host_of(&token), &ticket, "").await.cookie();
    let lab = format!("/s/{id}/lab");
    assert_eq!(get(&gateway, &host_of(&token), &lab, &cookie).await.status, 200);
    gateway.authority.release(id, &token, 1);
    gateway.authority.refresh(id, "fresh");
    let next = gateway.authority.issue(id);
    assert_ne!(host_of(&next), host_of(&token));
    assert_eq!(get(&gateway, &host_of(&next), &lab, &bearer(&next)).await.status, 200);
    for credential in [&cookie, &bearer(&token), &bearer(&next)] {
        assert_eq!(get(&gateway, &host_of(&token), &lab, credential).await.status, 403, "{credential}");
    }
    assert_eq!(get(&gateway, &host_of(&next), &lab, &cookie).await.status, 403);
    let over = get(&gateway, &host_of(&token), &lab, &cookie).await;
    assert_eq!(over.header("clear-site-data"), Some("\"cache\", \"storage\""), "nobody comes back for it");
    for credential in [&String::new(), &bearer(&token)] {
        assert_eq!(get(&gateway, &host_of(&token), &lab, credential).await.header("clear-site-data"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_from_an_answer_which_rentals_there_are() {
    let gateway = gateway().await;
    let ((id, token), (free, unused)) = (gateway.session(CAP), gateway.session(CAP));
    open_link(&gateway, &token).await;
    let unknown = AccessToken::from_uuid(Uuid::new_v4());
    let nobody = SessionId::from_uuid(Uuid::new_v4());
    let targets = [
        (id, host_of(&token)),
        (free, host_of(&unused)),
        (nobody, host_of(&unknown)),
        (id, "www.notebooks.test".to_owned()),
    ];
    let guess = |id: &SessionId| format!("Cookie: __Host-runit-{id}=guess\r\n");
    let credentials: [&dyn Fn(&SessionId) -> String; 3] = [&|_| String::new(), &|_| bearer(&unknown), &guess];
    for credential in credentials {
        let mut answers = HashSet::new();
        for (id, host) in &targets {
            let answer = get(&gateway, host, &format!("/s/{id}/lab"), &credential(id)).await;
            answers.insert((answer.status, answer.body));
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    let mut answers = HashSet::new();
    for _ in 0..1_000 {
        let host = host_of(&AccessToken::from_uuid(Uuid::new_v4()));
        let answer = get(&gateway, &host, &format!("/s/{id}/lab"), "").await;
        let dateless = |line: &&str| !line.to_lowercase().starts_with("date:");
        answers.insert((answer.head.lines().filter(dateless).collect::<String>(), answer.body));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_rental_takes_no_other_lock_even_where_browsers_call_it_the_same_site() {
    let gateway = gateway().await;
    let (id, token) = gateway.session(CAP);
    let link = format!("/access/{}", token.expose());
    let navigation = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let same_site = format!("{navigation}Sec-Fetch-Site: same-site\r\n");
    for led_by in ["", "Referer: https://abc.notebooks.test/\r\n", "Referer: https://gateway.example.evil.test/\r\n"] {
        let answer = get(&gateway, MAIN, &link, &format!("{same_site}{led_by}")).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (200, None), "asks: {led_by}");
    }
    let page = format!("/s/{id}/lab?token={}", token.expose());
    let answer = get(&gateway, &host_of(&token), &page, &same_site).await;
    let asked = format!("https://{MAIN}{link}");
    assert_eq!((answer.status, answer.header("location")), (302, Some(&*asked)), "to where it is asked");
    let from_control = format!("{same_site}Referer: http://127.0.0.1:10000/\r\n");
    assert_eq!(get(&gateway, MAIN, &link, &from_control).await.status, 302, "the renter's page means it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_asked_about_may_lead_to_its_own_rental_and_to_no_other() {
    let gateway = gateway().await;
    let (_, token) = gateway.session(CAP);
    let answer = get(&gateway, MAIN, &format!("/access/{}", token.expose()), "Sec-Fetch-Site: cross-site\r\n").await;
    let leads_to = format!("; form-action 'self' https://{}; frame-ancestors 'none'", host_of(&token));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert_eq!(answer.status, 200);
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.ends_with(&leads_to), "{policy}");
    let page = format!("/s/{}/lab?token={}", Uuid::new_v4(), token.expose());
    let answer = get(&gateway, &host_of(&token), &page, &format!("{HTML}Sec-Fetch-Site: cross-site\r\n")).await;
    let link = format!("https://{MAIN}/access/{}", token.expose());
    assert_eq!((answer.status, answer.header("location")), (302, Some(&*link)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_rental_write_and_open_websockets_on_their_own_host_only() {
    let gateway = gateway().await;
    let ((id, token), (_, other)) = (gateway.session(CAP), gateway.session(CAP));
    let (_, ticket) = open_link(&gateway, &token).await;
    let host = host_of(&token);
    let cookie = get(&gateway, &host, &ticket, "").await.cookie();
    let foreign = [
        "null".to_owned(),
        format!("http://{host}"),
        format!("https://{host}:8443"),
        format!("https://{host}.evil.example"),
        format!("https://x.{host}"),
        format!("https://{}", &host[1..]),
        "https://notebooks.test".to_owned(),
        format!("https://{MAIN}"),
        format!("https://{}", host_of(&other)),
    ];
    for origin in &foreign {
        for (method, more) in [("POST", "Content-Length: 0\r\n"), ("DELETE", ""), ("GET", WEBSOCKET)] {
            let mut client = gateway.connect().await;
            let head =
                format!("{method} /s/{id}/ws HTTP/1.1\r\nHost: {host}\r\n{cookie}Origin: {origin}\r\n{more}\r\n");
            client.send(&head).await;
            assert!(client.head().await.starts_with("HTTP/1.1 403"), "{method} {origin}");
        }
    }
    assert!(gateway.upstream.heads().is_empty());
    let mut own = gateway.connect().await;
    own.send(&format!("GET /s/{id}/ws HTTP/1.1\r\nHost: {host}\r\n{cookie}{WEBSOCKET}Origin: https://{host}\r\n\r\n"))
        .await;
    assert!(own.head().await.starts_with("HTTP/1.1 101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_other_names_reach_jupyter_byte_for_byte() {
    for apart in [false, true] {
        let gateway = if apart { gateway().await } else { TestGateway::start().await };
        let (id, token) = gateway.session(CAP);
        let many: Vec<String> = (0..150).map(|n| format!("c{n}=\"v, {n}\"")).collect();
        let others = format!("_xsrf=2|1a|b; theme=\"dark blue\"; empty=; runit=mine; odd=a=b==; {}", many.join("; "));
        let ours = format!("__Host-runit-{id}=x; {others}; runit-{id}=y");
        let more = format!("Cookie: {ours}\r\n{}", bearer(&token));
        assert_eq!(get(&gateway, &host_of(&token), &format!("/s/{id}/lab"), &more).await.status, 200);
        let heads = gateway.upstream.heads();
        let seen = heads[0].lines().find_map(|line| line.strip_prefix("Cookie: ").or(line.strip_prefix("cookie: ")));
        assert_eq!(seen, Some(&*others));
    }
}
