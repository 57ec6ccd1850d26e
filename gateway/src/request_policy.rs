//! Which requests are refused before anybody asks who sent them, and which origins a browser may send them from.

use http::{HeaderMap, Method, Version, header};

use crate::answer::Refusal;

/// Checks a request's form (RFC 9110, RFC 9112). Pingora has parsed it already and refuses a good deal itself; these
/// are the forms that it lets through and that a server behind us might read in another way.
///
/// # Errors
/// The [`Refusal`] to answer with.
pub(crate) fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(Refusal::MethodNotAllowed);
    }
    if version != Version::HTTP_11 && version != Version::HTTP_10 {
        return Err(Refusal::BadRequest);
    }
    let well_formed = has_one_host(headers)
        && has_one_length(headers)
        && has_plain_framing(headers)
        && has_known_expectation(headers)
        && (!headers.contains_key(header::UPGRADE) || is_websocket_handshake(method, version, headers));
    if well_formed { Ok(()) } else { Err(Refusal::BadRequest) }
}

fn has_one_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    host.is_some_and(|host| !host.is_empty() && !host.iter().any(|c| matches!(c, b',' | b' ' | b'/' | b'@')))
        && hosts.next().is_none()
}

fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let digits_only =
        lengths.next().is_none_or(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit));
    digits_only && lengths.next().is_none()
}

/// `chunked` alone or nothing: a coding under it would be passed on to a server that may not know it.
///
/// A `Content-Length` beside it never gets here: Pingora drops it and closes the connection after the answer.
fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

fn has_known_expectation(headers: &HeaderMap) -> bool {
    headers.get_all(header::EXPECT).iter().all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The client's half of the handshake of RFC 6455, section 4.1. No other protocol can be upgraded to.
fn is_websocket_handshake(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let is = |name, value: &[u8]| {
        headers.get(name).is_some_and(|v: &http::HeaderValue| v.as_bytes().eq_ignore_ascii_case(value))
    };
    let connection_upgrade = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&c| c == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    *method == Method::GET
        && version == Version::HTTP_11
        && connection_upgrade
        && is(header::UPGRADE, b"websocket")
        && is(header::SEC_WEBSOCKET_VERSION, b"13")
        && headers.get(header::SEC_WEBSOCKET_KEY).is_some_and(|key| key.len() == 24)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a request is a WebSocket handshake; only for requests that passed [`check`].
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Whether a browser's page may send this: unsafe methods and WebSockets only from pages of this very origin.
///
/// Jupyter's own check is off once a token is injected, so this is the one that counts. A missing `Origin` comes
/// from programs, and is enough only with an explicit token, which a foreign page cannot make a browser send.
pub(crate) fn origin_is_ours(method: &Method, headers: &HeaderMap, by_token: bool, secure: bool) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if safe && !is_upgrade(headers) {
        return true;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => by_token,
        (Some(origin), None) => same_origin(origin.as_bytes(), headers, secure),
        (Some(_), Some(_)) => false,
    }
}

/// `Origin` names the scheme and authority of the page (RFC 6454): the scheme must be the one that renters use, and the
/// authority the one in `Host`.
fn same_origin(origin: &[u8], headers: &HeaderMap, secure: bool) -> bool {
    let scheme: &[u8] = if secure { b"https://" } else { b"http://" };
    let authority = origin.strip_prefix(scheme);
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    matches!((authority, host), (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
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
            &[host, ("expect", "200-ok")],
            &[host, ("upgrade", "h2c")],
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
}
