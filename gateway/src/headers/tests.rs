use super::*;
use runit_core::session::SessionStatus;
use runit_core::{Secret, SessionId, UpstreamPolicy, UpstreamUrl};

fn session() -> SessionView {
    let url = "https://calm-red-fox.trycloudflare.com";
    SessionView {
        id: "00000000-0000-4000-8000-000000000001".parse::<SessionId>().expect("canonical"),
        revision: 1,
        status: SessionStatus::Ready,
        ending: None,
        lock: None,
        upstream: UpstreamUrl::parse(url, &UpstreamPolicy::default()).expect("valid"),
        credential: Secret::new("gate-secret"),
        cap_bytes: 1,
    }
}

fn request(target: &str, lines: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("valid");
    for (name, value) in lines {
        request.append_header(*name, *value).expect("valid");
    }
    to_provider(&mut request, &session()).expect("rewritten");
    request
}

fn answer(status: u16, lines: &[(&'static str, &str)]) -> ResponseHeader {
    let mut answer = ResponseHeader::build(status, None).expect("valid");
    for (name, value) in lines {
        answer.append_header(*name, *value).expect("valid");
    }
    answer
}

fn cleaned(status: u16, lines: &[(&'static str, &str)]) -> ResponseHeader {
    let mut answer = answer(status, lines);
    to_renter(&mut answer, &session(), false, false).expect("acceptable");
    answer
}

fn cookies(answer: &ResponseHeader) -> Vec<&str> {
    answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("ascii")).collect()
}

#[test]
fn the_provider_sees_its_own_name_and_credential_and_none_of_ours() {
    let token = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let request = request(
        &format!("/s/x/api/contents/a%2Fb//c?token={token}&x=%2F:"),
        &[
            ("host", "gateway"),
            ("authorization", "token one"),
            ("authorization", "token two"),
            ("origin", "http://gateway"),
            ("cookie", "runit-a=1; _xsrf=2|x"),
            ("referer", "http://gateway/?token=secret"),
        ],
    );
    let all = |name: &str| request.headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(request.raw_path(), b"/s/x/api/contents/a%2Fb//c?x=%2F:");
    assert_eq!(all("host"), ["calm-red-fox.trycloudflare.com"]);
    assert_eq!(all("authorization"), ["token gate-secret"]);
    assert_eq!(all("origin"), ["https://calm-red-fox.trycloudflare.com"]);
    assert_eq!(all("cookie"), ["_xsrf=2|x"]);
    assert!(all("referer").is_empty());
}

#[test]
fn a_query_of_nothing_but_a_token_leaves_no_question_mark() {
    assert_eq!(request("/s/x/lab?token=1", &[]).raw_path(), b"/s/x/lab");
    assert_eq!(request("/s/x/ws?1795316893", &[]).raw_path(), b"/s/x/ws?1795316893");
    assert_eq!(request("/s/x/lab?", &[]).raw_path(), b"/s/x/lab?");
}

#[test]
fn what_a_renter_says_of_the_way_is_dropped_and_only_our_name_is_said() {
    let lines = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x_forwarded_for", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1"),
        ("cf-connecting-ip", "1.1.1.1"),
        ("true-client-ip", "1.1.1.1"),
        ("x-runit-session", "x"),
    ];
    let request = request("/", &[&lines[..], &[("via", "1.1 inner.example")]].concat());
    for (name, _) in lines {
        assert!(!request.headers.contains_key(name), "{name}");
    }
    assert_eq!(request.headers.get_all("via").iter().collect::<Vec<_>>(), ["1.1 runit"]);
}

#[test]
fn cookies_lose_their_domain_and_imitations_are_dropped() {
    let answer = cleaned(
        200,
        &[
            ("set-cookie", "_xsrf=2|a; Path=/s/00000000-0000-4000-8000-000000000001/; Domain=example.org; HttpOnly"),
            ("set-cookie", "runit-x=stolen; Path=/"),
            ("set-cookie", "RUNIT-x=stolen; Path=/"),
            ("set-cookie", "__Host-runit=1; Secure; Path=/"),
            ("set-cookie", "username-calm-red-fox-trycloudflare-com=2|1; Path=/"),
            ("set-cookie", "=nameless"),
            ("set-cookie", "lab=1; secure; domain = .x"),
        ],
    );
    let kept = "_xsrf=2|a; Path=/s/00000000-0000-4000-8000-000000000001/; HttpOnly";
    assert_eq!(cookies(&answer), [kept, "lab=1"]);
}

#[test]
fn no_cookie_reaches_beyond_its_session() {
    let base = "/s/00000000-0000-4000-8000-000000000001";
    for (path, kept) in [
        ("/", format!("{base}/")),
        ("", format!("{base}/")),
        ("/s/00000000-0000-4000-8000-000000000002/", format!("{base}/")),
        (&format!("{base}2/"), format!("{base}/")),
        (base, base.to_owned()),
        (&format!("{base}/lab"), format!("{base}/lab")),
    ] {
        let answer = cleaned(200, &[("set-cookie", &format!("a=1; Path={path}"))]);
        assert_eq!(cookies(&answer), [format!("a=1; Path={kept}")], "{path:?}");
    }
    let twice = cleaned(200, &[("set-cookie", &format!("a=1; Path={base}/; Path=/"))]);
    assert_eq!(cookies(&twice), [format!("a=1; Path={base}/; Path={base}/")], "the last one counts");
}

#[test]
fn redirects_to_the_tunnel_become_paths() {
    let table = [
        ("https://calm-red-fox.trycloudflare.com/s/x/lab?a=1", "/s/x/lab?a=1"),
        ("http://CALM-red-fox.trycloudflare.com:80", "/"),
        ("//calm-red-fox.trycloudflare.com/x", "/x"),
        ("https://calm-red-fox.trycloudflare.com//evil.example/", "/evil.example/"),
        ("/s/x/tree", "/s/x/tree"),
        ("https://example.org/", "https://example.org/"),
        (
            "https://calm-red-fox.trycloudflare.com.evil.example/",
            "https://calm-red-fox.trycloudflare.com.evil.example/",
        ),
    ];
    for (location, expected) in table {
        assert_eq!(cleaned(302, &[("location", location)]).headers["location"], expected, "{location}");
    }
}
