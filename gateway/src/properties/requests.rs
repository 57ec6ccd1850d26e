//! Heads, and what a renter shows in them: what passes is sound, and nothing is taken for what it is not.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use runit_core::{HostLabel, Secret, SecretHash, Timestamp};
use url::Url;

use super::spelled;
use crate::credentials::{presented, query_tokens};
use crate::request_policy;
use crate::sites::{Site, Sites};
use crate::ticket::Ticket;

/// Fields, and a value that each may well have.
const FIELDS: [(&str, &str); 10] = [
    ("host", "g"),
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("content-length", "5"),
    ("transfer-encoding", "chunked"),
    ("expect", "100-continue"),
    ("x-kept", "x"),
    ("content_length", "6"),
];
/// So many of them are a handshake.
const HANDSHAKE: usize = 5;
const VALUES: [&str; 28] = [
    "g",
    "",
    ",",
    " ",
    "\t",
    "5",
    "0",
    "+",
    "-",
    "chunked",
    "Chunked",
    "gzip",
    "identity",
    "close",
    "upgrade",
    "websocket",
    "h2c",
    "host",
    "Host",
    "content-length",
    "CONTENT-LENGTH",
    "transfer-encoding",
    "content-type",
    "x-kept",
    "100-continue",
    "g:80",
    "[::1]",
    "\"",
];

/// The first few: one fragment or two mean something more often than many.
fn few(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() % 5]
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// One host, one framing, and a `Connection` that takes neither away; told apart from the policy's own words.
fn is_sound(headers: &HeaderMap) -> bool {
    let host = match lines(headers, &header::HOST)[..] {
        [host] => !host.is_empty() && !host.iter().any(|c| b" \t,/@\"+".contains(c) || !c.is_ascii()),
        _ => false,
    };
    let length = match lines(headers, &header::CONTENT_LENGTH)[..] {
        [] => true,
        [length] => std::str::from_utf8(length).is_ok_and(|text| text.parse::<u64>().is_ok() && !text.starts_with('+')),
        _ => false,
    };
    let coding = match lines(headers, &header::TRANSFER_ENCODING)[..] {
        [] => true,
        [coding] => coding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    let options = lines(headers, &header::CONNECTION).join(&b',').to_ascii_lowercase();
    let protected = ["host", "content-length", "transfer-encoding", "content-type"].map(str::as_bytes);
    let mut options = options.split(|&c| c == b',').map(<[u8]>::trim_ascii);
    host && length && coding && !options.any(|option| protected.contains(&option))
}

#[test]
fn whatever_passes_has_one_host_and_one_framing_and_keeps_both() {
    bolero::check!().with_type::<(u8, bool, Vec<(u8, bool, Vec<u8>)>)>().for_each(|(method, handshake, fields)| {
        let mut headers = HeaderMap::new();
        for (name, value) in FIELDS[..HANDSHAKE].iter().filter(|_| *handshake) {
            headers.append(*name, HeaderValue::from_static(value));
        }
        for (name, usual, bytes) in fields {
            let (name, value) = FIELDS[usize::from(*name) % FIELDS.len()];
            let value = if *usual { value.into() } else { spelled(few(bytes), &VALUES) };
            if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
                headers.append(name, value);
            }
        }
        let method = [Method::GET, Method::POST, Method::HEAD][usize::from(*method) % 3].clone();
        let checked = request_policy::check(&method, Version::HTTP_11, &headers);
        assert!(checked.is_err() || is_sound(&headers), "{headers:?} passes");
        if checked.is_ok() && request_policy::is_upgrade(&headers) {
            let framed =
                headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
            assert!(!framed && method == Method::GET, "{headers:?} passes as a handshake");
        }
    });
}

const AUTHORIZATIONS: [&str; 22] = [
    "token ",
    "Bearer ",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "token",
    "TOKEN",
    "bearer",
    "Basic",
    "Negotiate",
    " ",
    "\t",
    "11111111-10b1-426f-9247-bb680e5fe0c8",
    "67E55044-10B1-426F-9247-BB680E5FE0C8",
    "67e55044-10b1-126f-9247-bb680e5fe0c8",
    "67e5504410b1426f9247bb680e5fe0c8",
    "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
    "0123456789abcdef",
    ",",
    "=",
    "\"",
    "x",
    "-",
    "4",
];

/// The token of a line, by its last 36 characters and what is before them.
fn shown_in(line: &[u8]) -> Option<SecretHash> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches([' ', '\t']);
    let (before, token) = line.split_at_checked(line.len().checked_sub(36)?)?;
    let scheme = before.trim_end_matches([' ', '\t']);
    let fits = |(at, c): (usize, char)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
    };
    let ours = scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer");
    let shown = ours && before[scheme.len()..].starts_with(' ') && token.chars().enumerate().all(fits);
    shown.then(|| SecretHash::of(token))
}

#[test]
fn a_token_that_is_shown_is_found_and_nothing_else_is() {
    let session = "00000000-0000-4000-8000-000000000001".parse().expect("canonical");
    bolero::check!().with_type::<(Vec<Vec<u8>>, Vec<u8>)>().for_each(|(lines, query)| {
        let mut headers = HeaderMap::new();
        for bytes in lines {
            let value = spelled(few(bytes), &AUTHORIZATIONS);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(header::AUTHORIZATION, value);
            }
        }
        let query = spelled(query, &["token=", AUTHORIZATIONS[2], "&", "%74", "a"]);
        let in_query = query_tokens(Some(&query)).map(|token| token.hash());
        let shown = headers.get_all(header::AUTHORIZATION).iter().filter_map(|line| shown_in(line.as_bytes()));
        let expected: Vec<SecretHash> = shown.chain(in_query).collect();
        for secure in [false, true] {
            let found = presented(&headers, Some(&query), session, secure);
            assert_eq!(found.tokens, expected, "{headers:?}, {}", query.escape_ascii());
            assert!(found.cookies.is_empty());
        }
    });
}

const MAIN: &str = "gateway.example";
const SESSIONS: &str = "notebooks.test";

static LABEL: LazyLock<String> = LazyLock::new(|| HostLabel::of(SecretHash::of("token")).to_string());

#[test]
fn a_name_that_is_not_configured_is_no_host_of_ours() {
    let sites = Sites::new(&runit_config::Gateway {
        public_url: Url::parse(&format!("https://{MAIN}")).expect("valid"),
        sessions_host: Some(SESSIONS.to_owned()),
        ..runit_config::Gateway::default()
    });
    let fragments = [
        &LABEL,
        ".",
        SESSIONS,
        MAIN,
        ":443",
        ":",
        "443",
        "80",
        "0",
        "+",
        "GATEWAY",
        "Notebooks.Test",
        ".evil",
        "evil",
        "www",
        "-",
        "[::1]",
        "]",
        "a",
        "localhost",
        "8",
    ];
    let rental = format!("{}.{SESSIONS}", *LABEL);
    bolero::check!().with_type::<(u8, Vec<u8>)>().for_each(|(start, bytes)| {
        let start = ["", MAIN, &rental][usize::from(*start) % 3];
        let text = [start.as_bytes(), &spelled(few(bytes), &fragments)].concat();
        let Ok(value) = HeaderValue::from_bytes(&text) else { return };
        let site = sites.named_by(&[(header::HOST, value)].into_iter().collect());
        let host = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let name = host.strip_suffix(":443").unwrap_or(&host);
        match site {
            Some(Site::Shared) => panic!("{host} is everybody's"),
            Some(Site::Main) => assert_eq!(name, MAIN),
            Some(Site::Rental(Some(label))) => assert_eq!(name, format!("{label}.{SESSIONS}")),
            Some(Site::Rental(None)) => assert!(name.ends_with(&format!(".{SESSIONS}")), "{host}"),
            None => assert!(name != MAIN && name != rental, "{host} is ours"),
        }
    });
}

#[test]
fn only_the_ticket_that_was_sealed_opens() {
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_334_400_000);
    let cookie = Secret::new("0123456789abcdef0123456789abcdef");
    let label: HostLabel = LABEL.parse().expect("its own form");
    let sealed = Ticket::seal(&cookie, label, NOW).to_string();
    bolero::check!().with_type::<(bool, u8, u8, Vec<u8>)>().for_each(|(whole, from, to, bytes)| {
        let inserted = spelled(bytes, &["0", "1", "9", "a", "f", "A", "g", "/", "%", "", "00000000", "\u{e9}"]);
        let inserted = String::from_utf8_lossy(&inserted);
        let (from, to) = (usize::from(*from) % (sealed.len() + 1), usize::from(*to) % (sealed.len() + 1));
        let text =
            if *whole { inserted.into_owned() } else { format!("{}{inserted}{}", &sealed[..from], &sealed[to..]) };
        let Some(ticket) = Ticket::parse(&text) else { return };
        assert_eq!(ticket.to_string(), text, "one spelling for each ticket");
        let opened = ticket.open(cookie.hash(), label, NOW).map(|secret| secret.hash());
        assert_eq!(opened, (text == sealed).then(|| cookie.hash()), "{text}");
    });
}
