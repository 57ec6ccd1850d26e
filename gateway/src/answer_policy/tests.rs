use super::*;

fn head(status: u16, lines: &[(&'static str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).expect("valid");
    head.set_version(Version::HTTP_11);
    for (name, value) in lines {
        head.append_header(*name, *value).expect("valid");
    }
    head
}

fn cleaned(status: u16, lines: &[(&'static str, &str)]) -> Result<Vec<String>, BadAnswer> {
    let mut head = head(status, lines);
    clean(&mut head, false)?;
    let once = format!("{:?}", head.headers);
    clean(&mut head, false).expect("what was cleaned is clean");
    assert_eq!(format!("{:?}", head.headers), once, "cleaning twice changes nothing");
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    Ok(head.headers.iter().map(line).collect())
}

#[test]
fn ordinary_answers_pass_as_they_are() {
    for (status, lines) in [
        (200, &[("content-length", "3"), ("content-type", "text/html"), ("etag", "\"x\"")][..]),
        (200, &[("transfer-encoding", "Chunked"), ("link", "<x>; rel=next"), ("server", "TornadoServer/6.6")]),
        (206, &[("content-range", "bytes 0-1/3"), ("content-length", "2")]),
        (304, &[("content-length", "30"), ("etag", "\"x\"")]),
        (403, &[("x-content-type-options", "nosniff"), ("content-security-policy", "frame-ancestors 'self'")]),
    ] {
        let expected: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut passed = cleaned(status, lines).expect("acceptable");
        passed.sort_by_key(|line| expected.iter().position(|expected| expected == line));
        assert_eq!(passed, expected, "{status}");
    }
}

#[test]
fn answers_that_break_the_protocol_are_refused() {
    let (long, name) = ("v".repeat(8_000), "x-filler");
    for (status, lines) in [
        (101, &[][..]),
        (101, &[("upgrade", "websocket")]),
        (407, &[]),
        (600, &[]),
        (999, &[]),
        (200, &[("transfer-encoding", "gzip")]),
        (200, &[("transfer-encoding", "gzip, chunked")]),
        (200, &[("transfer-encoding", "identity")]),
        (200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
        (200, &[("content-length", "5, 5")]),
        (200, &[("content-length", "5"), ("content-length", "5")]),
        (200, &[("content-length", "+5")]),
        (200, &[("content-length", "99999999999999999999")]),
        (200, &[(name, &*long); 9]),
    ] {
        assert!(cleaned(status, lines).is_err(), "{status} {lines:?}");
    }
    assert!(cleaned(200, &[(name, &*long); 8]).is_ok(), "just below the limit");
    let mut old = head(200, &[("transfer-encoding", "chunked")]);
    old.set_version(Version::HTTP_10);
    assert!(clean(&mut old, false).is_err());
}

#[test]
fn a_handshake_is_answered_by_its_own_protocol_only() {
    let mut agreed = head(101, &[("upgrade", "WebSocket"), ("connection", "Upgrade"), ("content-length", "5")]);
    assert_eq!(clean(&mut agreed, true), Ok(()));
    assert!(!agreed.headers.contains_key("content-length"));
    for upgrade in [&[("upgrade", "h2c")][..], &[]] {
        assert!(clean(&mut head(101, upgrade), true).is_err());
    }
}

#[test]
fn every_field_of_the_table_ends_here() {
    let on_every_answer = TABLE.iter().filter_map(|row| match row {
        Strip(fields) => Some(fields.patterns),
        Refuse(..) | StripFrom(..) => None,
    });
    let names: Vec<&str> = on_every_answer.flatten().copied().collect();
    assert!(names.len() > 30, "{}", names.len());
    for pattern in names {
        let name = HeaderName::from_bytes(pattern.replace('*', "x").as_bytes()).expect("valid");
        let mut head = head(200, &[("content-length", "0")]);
        head.append_header(name.clone(), "x").expect("valid");
        clean(&mut head, false).expect("acceptable");
        assert_eq!(head.headers.len(), 1, "{name}");
    }
}

#[test]
fn fields_that_the_provider_calls_hop_by_hop_go_and_framing_stays() {
    let lines = [("connection", "close, X-Hop, content-length"), ("x-hop", "1"), ("content-length", "3")];
    assert_eq!(cleaned(200, &lines), Ok(vec!["content-length: 3".to_owned()]));
}

#[test]
fn answers_without_a_body_lose_their_framing() {
    let lines = [("content-length", "3"), ("x-kept", "1")];
    assert_eq!(cleaned(204, &lines), Ok(vec!["x-kept: 1".to_owned()]));
    assert_eq!(cleaned(204, &[("transfer-encoding", "chunked")]), Ok(vec![]));
    assert_eq!(cleaned(304, &[("transfer-encoding", "chunked")]), Ok(vec![]));
    assert_eq!(cleaned(100, &lines), Ok(vec![]));
}

#[test]
fn version_and_reason_are_ours() {
    let mut head = head(200, &[]);
    head.set_version(Version::HTTP_10);
    head.set_reason_phrase(Some("Follow http://evil.example")).expect("valid");
    clean(&mut head, false).expect("acceptable");
    assert_eq!((head.version, head.get_reason_phrase()), (Version::HTTP_11, Some("OK")));
}
