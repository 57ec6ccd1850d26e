//! Header fields in both directions: what may not pass does not, and a second pass changes nothing.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use runit_core::SessionId;

use super::spelled;
use crate::credentials::{foreign_cookies, presented};
use crate::fields::named_by_connection;
use crate::testing::view;
use crate::{answer_policy, headers, request_policy};

const ID: &str = "00000000-0000-4000-8000-000000000001";
const NAMES: [&str; 36] = [
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "transfer-encoding",
    "content-length",
    "host",
    "authorization",
    "cookie",
    "origin",
    "referer",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x_forwarded_for",
    "x-real-ip",
    "cf-ray",
    "proxy",
    "x-kept",
    "set-cookie",
    "location",
    "strict-transport-security",
    "clear-site-data",
    "access-control-allow-origin",
    "alt-svc",
    "www-authenticate",
    "proxy-authenticate",
    "refresh",
    "public-key-pins-report-only",
    "server-timing",
    "x-accel-redirect",
    "service-worker-allowed",
    "content_length",
    "x-runit-session",
    "trailer",
    "nel",
];
const VALUES: [&str; 34] = [
    "",
    "close",
    "upgrade",
    "websocket",
    "chunked",
    "gzip",
    "5",
    ",",
    ";",
    "=",
    " ",
    "\t",
    "x-kept",
    "authorization",
    "host",
    "runit-",
    "__Host-",
    "__secure-",
    "RUNIT-",
    ID,
    "Domain",
    "Path=/",
    "Secure",
    "a",
    "b=c",
    "a-b.trycloudflare.com",
    "//",
    "https:",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "Bearer ",
    "token ",
    "\"",
    "content-length",
    "a-b-trycloudflare-com",
];

fn session() -> SessionId {
    ID.parse().expect("canonical")
}

/// Fields out of a fuzzer's bytes.
fn field_lines(lines: &[(u8, Vec<u8>)]) -> Vec<(HeaderName, HeaderValue)> {
    let name = |byte: u8| HeaderName::from_static(NAMES[usize::from(byte) % NAMES.len()]);
    let value = |bytes: &[u8]| HeaderValue::from_bytes(&spelled(bytes, &VALUES)).ok();
    lines.iter().filter_map(|(byte, bytes)| Some((name(*byte), value(bytes)?))).collect()
}

fn sorted(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    lines.sort();
    lines
}

#[test]
fn what_a_renter_may_not_say_never_reaches_a_provider() {
    bolero::check!().with_type::<(Vec<u8>, Vec<(u8, Vec<u8>)>)>().for_each(|(query, lines)| {
        let target = [b"/s/x?", &spelled(query, &["token", "=", "&", "a", "%74"])[..]].concat();
        let Ok(mut request) = RequestHeader::build("GET", &target, None) else { return };
        for (name, value) in field_lines(lines) {
            request.append_header(name, value).expect("there is room");
        }
        let view = view(session(), 1);
        headers::to_provider(&mut request, &view).expect("rewritten");
        let forbidden = |name: &HeaderName| *name != header::VIA && request_policy::strips(name);
        assert!(!request.headers.keys().any(forbidden), "{:?}", request.headers);
        for (name, value) in [
            (header::AUTHORIZATION, "token upstream"),
            (header::HOST, "a-b.trycloudflare.com"),
            (header::VIA, "1.1 runit"),
        ] {
            assert!(request.headers.get_all(&name).iter().eq([value]), "{name}");
        }
        let cookies = request.headers.get_all(header::COOKIE).iter();
        let names = cookies.flat_map(|line| line.as_bytes().split(|&c| c == b';')).map(<[u8]>::trim_ascii);
        let ours = |name: &[u8]| name.to_ascii_lowercase().starts_with(b"runit-");
        assert!(!names.into_iter().any(ours), "{:?}", request.headers);
        let (once, path) = (sorted(&request.headers), request.raw_path().to_vec());
        headers::to_provider(&mut request, &view).expect("rewritten");
        assert_eq!((sorted(&request.headers), request.raw_path()), (once, &path[..]), "twice is once");
    });
}

#[test]
fn what_a_provider_may_not_say_never_reaches_a_renter() {
    bolero::check!().with_type::<(u16, bool, Vec<(u8, Vec<u8>)>)>().for_each(|(status, to_upgrade, lines)| {
        let Ok(mut answer) = ResponseHeader::build(100 + status % 600, None) else { return };
        answer.set_version(http::Version::HTTP_11);
        for (name, value) in field_lines(lines) {
            answer.append_header(name, value).expect("there is room");
        }
        let view = view(session(), 1);
        let named = named_by_connection(&answer.headers);
        if headers::to_renter(&mut answer, &view, *to_upgrade, true).is_err() {
            return;
        }
        assert!((100..=599).contains(&answer.status.as_u16()) && (answer.status != 101 || *to_upgrade));
        assert!(!named.iter().any(|name| answer.headers.contains_key(name)), "{named:?} in {:?}", answer.headers);
        assert!(!answer.headers.contains_key(header::CONNECTION));
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = String::from_utf8_lossy(cookie.as_bytes()).to_ascii_lowercase();
            let ours = ["runit-", "__host-", "__secure-", "="].iter().any(|prefix| cookie.starts_with(prefix));
            let widened =
                cookie.split(';').skip(1).any(|part| part.split('=').next().unwrap_or_default().trim() == "domain");
            let paths =
                cookie.split(';').skip(1).filter_map(|part| part.trim().strip_prefix("path=").map(str::to_owned));
            let beyond = paths.into_iter().any(|path| !path.starts_with(&format!("/s/{ID}/")));
            assert!(!ours && !widened && !beyond, "{cookie}");
        }
        let once = sorted(&answer.headers);
        let _ = answer_policy::clean(&mut answer, *to_upgrade);
        let left: Vec<_> = once.iter().filter(|(name, _)| !answer.headers.contains_key(name)).collect();
        assert!(left.is_empty(), "a second pass takes {left:?}");
    });
}

#[test]
fn cookies_are_found_by_their_name_and_ours_stay_here() {
    bolero::check!().with_type::<Vec<Vec<u8>>>().for_each(|lines| {
        let mut headers = HeaderMap::new();
        let fragments = ["runit-", ID, "=", ";", " ", "__Host-", "a", "__host-", "Runit-", "\"", "\t", ","];
        for value in lines.iter().filter_map(|bytes| HeaderValue::from_bytes(&spelled(bytes, &fragments)).ok()) {
            headers.append(header::COOKIE, value);
        }
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs: Vec<&str> = lines
            .flat_map(|line| line.as_bytes().split(|&c| c == b';'))
            .filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok())
            .collect();
        for secure in [false, true] {
            let name = if secure { format!("__Host-runit-{ID}=") } else { format!("runit-{ID}=") };
            let exact = pairs.iter().filter(|pair| pair.starts_with(&name)).count();
            let found = presented(&headers, None, session(), secure).cookies.len();
            assert!(found <= exact && (found > 0) == (exact > 0), "{found} of {exact} in {pairs:?}");
        }
        let passed = foreign_cookies(&headers).unwrap_or_default();
        let passed = String::from_utf8_lossy(&passed).to_ascii_lowercase();
        let ours = passed.split(';').map(|pair| pair.trim().strip_prefix("__host-").unwrap_or(pair.trim()));
        assert!(!ours.into_iter().any(|pair| pair.starts_with("runit-")), "{passed}");
    });
}
