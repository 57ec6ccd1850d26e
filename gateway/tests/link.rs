//! The hand-over link, where a browser says that nobody may have meant it; and what is said to keep pages apart.

mod support;

use runit_core::AccessToken;
use support::{Answer, TestGateway, bearer};

const CAP: u64 = 1 << 30;
const NAVIGATION: &str = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";

async fn send(gateway: &TestGateway, method: &str, target: &str, headers: &str) -> Answer {
    let mut client = gateway.connect().await;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}\r\n");
    client.send(&head).await;
    client.answer().await
}

fn link(token: &AccessToken) -> String {
    format!("/access/{}", token.expose())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_nobody_may_have_meant_is_asked_about_and_takes_nothing() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    for unasked in [
        format!("{NAVIGATION}Sec-Fetch-Site: cross-site\r\n"),
        format!("{NAVIGATION}Sec-Fetch-Site: none\r\nSec-Purpose: prefetch;prerender\r\n"),
        "Purpose: prefetch\r\n".to_owned(),
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: image\r\nSec-Fetch-Mode: no-cors\r\n".to_owned(),
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Dest: iframe\r\nSec-Fetch-Mode: navigate\r\n".to_owned(),
    ] {
        let answer = send(&gateway, "GET", &link(&token), &unasked).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (200, None), "{unasked}");
        assert!(answer.body.contains(&format!(r#"<form method="post" action="{}">"#, link(&token))), "{}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let page = format!("/s/{id}/lab/tree/a.ipynb?token={}", token.expose());
    let answer = send(&gateway, "GET", &page, &format!("{NAVIGATION}Sec-Fetch-Site: cross-site\r\n")).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some(&*link(&token))), "to where it is asked");
    let first = send(&gateway, "GET", &link(&token), &format!("{NAVIGATION}Sec-Fetch-Site: none\r\n")).await;
    assert_eq!(first.status, 302, "it was still free");
    let known = format!("{NAVIGATION}Sec-Fetch-Site: cross-site\r\n{}", first.cookie());
    assert_eq!(send(&gateway, "GET", &link(&token), &known).await.status, 302, "its own browser is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_takes_the_session_and_no_other_page_can_press_it() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    for origin in [
        "",
        "Origin: null\r\n",
        "Origin: http://evil\r\n",
        "Origin: http://gateway.evil\r\n",
        "Origin: https://gateway\r\n",
    ] {
        let answer = send(&gateway, "POST", &link(&token), &format!("{origin}Content-Length: 0\r\n")).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{origin}");
    }
    let pressed = "Origin: http://gateway\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n";
    let taken = send(&gateway, "POST", &link(&token), pressed).await;
    assert_eq!((taken.status, taken.header("location")), (302, Some(&*format!("/s/{id}/lab"))));
    assert_eq!(send(&gateway, "GET", &format!("/s/{id}/lab"), &taken.cookie()).await.status, 200);
    assert_eq!(send(&gateway, "POST", &link(&token), pressed).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_take_no_session() {
    let gateway = TestGateway::start().await;
    let (_, token) = gateway.session(CAP);
    for method in ["HEAD", "OPTIONS", "PUT", "DELETE"] {
        let answer = send(&gateway, method, &link(&token), "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{method}");
    }
    assert_eq!(send(&gateway, "GET", &link(&token), "").await.status, 302);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_tell_a_person_what_to_do_next() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    assert_eq!(send(&gateway, "GET", &link(&token), "").await.status, 302);
    for (target, status, says) in [
        (link(&token), 409, "go on there"),
        (format!("/s/{id}/lab"), 401, "Open the link"),
        ("/access/67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(), 403, "Ask for a new one"),
    ] {
        let answer = send(&gateway, "GET", &target, NAVIGATION).await;
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(says), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_other_origins_out() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    let passed_on = send(&gateway, "GET", &format!("/s/{id}/lab"), &bearer(&token)).await;
    let refused = send(&gateway, "GET", &format!("/s/{id}/lab"), "").await;
    let redirected = send(&gateway, "GET", &link(&token), "").await;
    assert_eq!((passed_on.status, refused.status, redirected.status), (200, 401, 302));
    for answer in [&passed_on, &refused, &redirected] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert_eq!(answer.header("origin-agent-cluster"), Some("?1"));
    }
    assert_eq!(passed_on.header("content-security-policy"), Some("frame-ancestors 'self'"));
}
