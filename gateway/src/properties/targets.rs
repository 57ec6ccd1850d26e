//! Targets and queries: what is decided here is what any server behind us would decide.

use runit_core::AccessToken;

use super::{decoded_once, spelled};
use crate::credentials::{query_tokens, without_tokens};
use crate::target::{Place, Target, read};

const ID: &str = "00000000-0000-4000-8000-000000000001";
const SESSION: &str = "/s/00000000-0000-4000-8000-000000000001";
const PATHS: [&str; 30] = [
    "/",
    "..",
    ".",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    "\\",
    "%25",
    "%252e",
    "api",
    "shutdown",
    "logout",
    "s",
    ID,
    SESSION,
    "//",
    "%61",
    "%",
    "2",
    "e",
    "f",
    "5",
    "x",
    ";",
    "#",
    "%00",
    "%0a",
    "access",
    "%73hutdown",
];

/// A path as some server might resolve it: empty segments folded or not, backslashes as slashes or not.
fn resolved(path: &[u8], folds: bool, turns: bool) -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let is_slash = |c: &u8| *c == b'/' || (turns && *c == b'\\');
    for segment in path.split(is_slash).skip(1) {
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            b"" if folds => {}
            segment => segments.push(segment.to_vec()),
        }
    }
    segments
}

#[test]
fn an_open_place_is_within_its_session_for_every_server() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        for start in [&b""[..], SESSION.as_bytes()] {
            let path = [start, &spelled(bytes, &PATHS)].concat();
            let Ok(Target::Session(id, place)) = read(&path) else { continue };
            assert_eq!(id.to_string(), ID);
            let mut layer = path.clone();
            for _ in 0..6 {
                for (folds, turns) in [(false, false), (false, true), (true, false), (true, true)] {
                    let segments = resolved(&layer, folds, turns);
                    let inside = segments.len() >= 2 && segments[0] == b"s" && segments[1] == ID.as_bytes();
                    assert!(inside, "{} is read as {segments:?}", path.escape_ascii());
                    let rest: Vec<&[u8]> = segments[2..].iter().map(Vec::as_slice).collect();
                    let stops = matches!(rest[..], [b"api", b"shutdown"] | [b"logout"]);
                    assert!(!stops || place != Place::Open, "{} stops the server", path.escape_ascii());
                }
                layer = decoded_once(&layer);
            }
        }
    });
}

const QUERIES: [&str; 20] = [
    "token",
    "=",
    "&",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "%74oken",
    "t%6fken",
    "Token",
    "+",
    "%3d",
    "%26",
    "a",
    "?",
    "%",
    "4-",
    ";",
    "token=",
    "&token=67e55044-10b1-426f-9247-bb680e5fe0c8",
    "%2d",
    "xtoken",
    "\u{e9}",
];

#[test]
fn tokens_of_a_query_are_the_ones_that_a_server_would_find_and_none_is_left() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let query = spelled(bytes, &QUERIES);
        let is_token = |name: &str| name == "token";
        let expected: Vec<String> = url::form_urlencoded::parse(&query)
            .filter(|(name, _)| is_token(name))
            .filter_map(|(_, value)| AccessToken::parse(&value).map(|token| token.expose().to_string()))
            .collect();
        let found: Vec<String> = query_tokens(Some(&query)).map(|token| token.expose().to_string()).collect();
        assert_eq!(found, expected, "{}", query.escape_ascii());
        let left = without_tokens(&query);
        assert!(!url::form_urlencoded::parse(&left).any(|(name, _)| is_token(&name)), "{}", left.escape_ascii());
        assert_eq!(without_tokens(&left), left, "twice is once");
        if !url::form_urlencoded::parse(&query).any(|(name, _)| is_token(&name)) {
            assert_eq!(left, query, "what is no token stays as it is");
        }
    });
}
