use super::*;

const HANDSHAKE: [(&str, &str); 5] = [
    ("host", "gateway:8080"),
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse().expect("valid"), value.parse().expect("valid"))).collect()
}

fn get(lines: &[(&'static str, &str)]) -> Result<(), Refusal> {
    check(&Method::GET, Version::HTTP_11, &headers(lines))
}

#[test]
fn ordinary_requests_pass() {
    for more in
        [("accept", "*/*"), ("content-length", "5"), ("transfer-encoding", "Chunked"), ("expect", "100-Continue")]
    {
        assert_eq!(get(&[("host", "gateway:8080"), more]), Ok(()), "{more:?}");
    }
    assert_eq!(get(&HANDSHAKE), Ok(()));
}

#[test]
fn requests_that_servers_may_read_differently_are_refused() {
    let host = ("host", "gateway:8080");
    for lines in [
        &[][..],
        &[("host", "")],
        &[("host", "a, b")],
        &[host, ("host", "b")],
        &[host, ("content-length", "5, 5")],
        &[host, ("content-length", "+5")],
        &[host, ("content-length", "5"), ("content-length", "5")],
        &[host, ("transfer-encoding", "gzip, chunked")],
        &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[host, ("upgrade", "h2c")],
        &[("host", "user@a")],
        &[("host", "a/b")],
        &[("host", "a b")],
        &[("host", "a%00")],
        &[host, ("content-length", "")],
        &[host, ("content-length", "-5")],
        &[host, ("content-length", "0x5")],
        &[host, ("content-length", "9999999999999999999")],
        &[host, ("transfer-encoding", "identity")],
        &[host, ("transfer-encoding", "chunked;q=1")],
        &[host, ("transfer-encoding", "\"chunked\"")],
        &[host, ("transfer-encoding", "")],
        &[host, ("connection", "close, Host")],
        &[host, ("connection", "Content-Length"), ("content-length", "5")],
        &[host, ("connection", "transfer-encoding"), ("transfer-encoding", "chunked")],
        &[host, ("connection", "two words")],
    ] {
        assert_eq!(get(lines), Err(Refusal::BadRequest), "{lines:?}");
    }
}

#[test]
fn half_a_websocket_handshake_is_refused() {
    for missing in 1..HANDSHAKE.len() {
        let mut lines = HANDSHAKE.to_vec();
        let (name, _) = lines.remove(missing);
        if name != "upgrade" {
            assert_eq!(get(&lines), Err(Refusal::BadRequest), "without {name}");
        }
    }
    let post = check(&Method::POST, Version::HTTP_11, &headers(&HANDSHAKE));
    assert_eq!(post, Err(Refusal::BadRequest));
}

#[test]
fn methods_that_are_not_served_are_named_so() {
    for method in [Method::TRACE, Method::CONNECT] {
        let refused = check(&method, Version::HTTP_11, &headers(&[("host", "a")]));
        assert_eq!(refused, Err(Refusal::MethodNotAllowed));
    }
}

#[test]
fn unsafe_methods_and_websockets_come_from_our_own_pages_only() {
    let from = |origin: &str| headers(&[("host", "gateway:8080"), ("origin", origin)]);
    let ours = ["http://gateway:8080", "http://GATEWAY:8080"];
    let foreign = [
        "null",
        "http://gateway",
        "http://gateway:80800",
        "http://evil/gateway:8080",
        "http://gateway:8080.evil",
        "http://x.gateway:8080",
        "gateway:8080",
        "https://gateway:8080",
        "ftp://gateway:8080",
        "",
    ];
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert!(ours.iter().all(|origin| origin_is_ours(&method, &from(origin), false, false)));
        assert!(foreign.iter().all(|origin| !origin_is_ours(&method, &from(origin), true, false)));
    }
    assert!(origin_is_ours(&Method::POST, &from("https://gateway:8080"), false, true));
    assert!(!origin_is_ours(&Method::POST, &from("http://gateway:8080"), false, true));
    let mut handshake = headers(&HANDSHAKE);
    assert!(!origin_is_ours(&Method::GET, &handshake, false, false), "a cookie alone");
    assert!(origin_is_ours(&Method::GET, &handshake, true, false), "a program with its token");
    handshake.append("origin", "http://evil".parse().expect("valid"));
    assert!(!origin_is_ours(&Method::GET, &handshake, true, false));
    assert!(origin_is_ours(&Method::GET, &from("http://evil"), false, false), "a plain link");
}

#[test]
fn other_expectations_fail_by_their_name() {
    for lines in [&[("host", "a"), ("expect", "200-ok")][..], &[("host", "a"), ("expect", "100-continue, x")]] {
        assert_eq!(get(lines), Err(Refusal::ExpectationFailed), "{lines:?}");
    }
}

#[test]
fn every_field_of_the_table_ends_here_and_ordinary_ones_pass() {
    let stripped = TABLE.iter().filter_map(|row| match row {
        Strip(fields) => Some(fields.patterns),
        Refuse(..) => None,
    });
    let names: Vec<&str> = stripped.flatten().copied().collect();
    assert!(names.len() > 25, "{}", names.len());
    for pattern in names {
        let name = HeaderName::from_bytes(pattern.replace('*', "x").as_bytes()).expect("valid");
        assert!(strips(&name), "{name}");
    }
    for name in [
        "accept",
        "authorization",
        "cookie",
        "origin",
        "range",
        "x-xsrftoken",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "if-none-match",
        "content-type",
        "content-encoding",
        "user-agent",
        "x-requested-with",
    ] {
        assert!(!strips(&HeaderName::from_static(name)), "{name}");
    }
}
