//! Which requests are refused before anybody asks who sent them, which of their fields end here, and which origins a
//! browser may send them from.
//!
//! [`TABLE`] is the whole policy. Pingora has parsed the request already and refuses a good deal itself (two hosts,
//! folded lines, bare CR and NUL, lengths that disagree, broken chunks); the rows are the forms that it lets through and
//! that a server behind us might read in another way. Where a length stands beside `Transfer-Encoding`, Pingora drops
//! the length and closes the connection after the answer. What the target names is `target`'s to decide.

use http::{HeaderMap, HeaderName, Method, Version, header};

use crate::answer::Refusal;
use crate::fields::{Fields, options};

/// A request's head, as the rules see it.
struct Head<'a> {
    method: &'a Method,
    version: Version,
    headers: &'a HeaderMap,
}

/// One row of the policy.
enum Row {
    /// Refused, with this answer, when the check says so.
    Refuse(fn(&Head<'_>) -> bool, Refusal),
    /// Fields that do not pass: see [`Fields`] for the patterns.
    Strip(Fields),
}

use Row::{Refuse, Strip};

/// The policy. The first row that refuses gives the answer.
const TABLE: [Row; 15] = [
    // Echoes what was sent, or is another proxy's.
    Refuse(is_unserved, Refusal::MethodNotAllowed),
    // Not HTTP/1.0 or HTTP/1.1.
    Refuse(has_other_version, Refusal::BadRequest),
    // No host, several, or what is not one.
    Refuse(|head| !has_one_host(head), Refusal::BadRequest),
    // No single length of digits.
    Refuse(|head| !has_one_length(head), Refusal::BadRequest),
    // A transfer coding other than chunked.
    Refuse(|head| !has_plain_framing(head), Refusal::BadRequest),
    // Connection names what frames or addresses the request.
    Refuse(names_protected, Refusal::BadRequest),
    // An expectation other than 100-continue.
    Refuse(has_other_expectation, Refusal::ExpectationFailed),
    // Half a WebSocket handshake, or another protocol.
    Refuse(is_other_upgrade, Refusal::BadRequest),
    // Read as `-` by some servers, and so as another field.
    Strip(Fields::of(&["*_*"])),
    // How the request came here, which is not the renter's to say.
    Strip(Fields::of(&[
        "forwarded",
        "x-forwarded*",
        "x-original-forwarded-for",
        "x-original-host",
        "x-host",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "client-ip",
        "true-client-ip",
        "fastly-client-ip",
        "x-scheme",
        "via",
        "cdn-loop",
        "cf-*",
        "x-envoy-*",
    ])),
    // Another method or target than the one that was decided on.
    Strip(Fields::of(&["x-http-method*", "x-method-override", "x-original-ur*", "x-rewrite-url"])),
    // Taken for `HTTP_PROXY` by CGI programs.
    Strip(Fields::of(&["proxy"])),
    // Hop-by-hop.
    Strip(Fields::of(&["proxy-authorization", "proxy-connection", "keep-alive", "te", "trailer", "http2-settings"])),
    // May hold a token.
    Strip(Fields::of(&["referer"])),
    // The gateway's own.
    Strip(Fields::of(&["x-runit-*"])),
];

/// Checks a request's form (RFC 9110, RFC 9112).
///
/// # Errors
/// The [`Refusal`] to answer with.
pub(crate) fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let head = Head { method, version, headers };
    for row in &TABLE {
        if let Refuse(is_broken, refusal) = row
            && is_broken(&head)
        {
            return Err(*refusal);
        }
    }
    Ok(())
}

/// Whether a field of the renter's ends here.
pub(crate) fn strips(name: &HeaderName) -> bool {
    TABLE.iter().any(|row| matches!(row, Strip(names) if names.list(name)))
}

fn is_unserved(head: &Head<'_>) -> bool {
    matches!(*head.method, Method::TRACE | Method::CONNECT) || head.method.as_str() == "TRACK"
}

fn has_other_version(head: &Head<'_>) -> bool {
    head.version != Version::HTTP_11 && head.version != Version::HTTP_10
}

/// `uri-host [":" port]` (RFC 9110, section 7.2) in the characters that names and addresses have.
fn has_one_host(head: &Head<'_>) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let plain = |c: &u8| c.is_ascii_alphanumeric() || b"-._~:[]".contains(c);
    let host = hosts.next().map(|host| host.as_bytes());
    host.is_some_and(|host| !host.is_empty() && host.iter().all(plain)) && hosts.next().is_none()
}

fn has_one_length(head: &Head<'_>) -> bool {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    lengths.next().is_none_or(|length| is_length(length.as_bytes())) && lengths.next().is_none()
}

/// Digits, and so few that any server can count so far.
pub(crate) fn is_length(value: &[u8]) -> bool {
    (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

/// `chunked` alone or nothing: a coding under it would be passed on to a server that may not know it.
fn has_plain_framing(head: &Head<'_>) -> bool {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

/// Such a field would be dropped before the provider, and the request be another one there.
fn names_protected(head: &Head<'_>) -> bool {
    const PROTECTED: [HeaderName; 4] =
        [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONTENT_TYPE];
    options(head.headers, &header::CONNECTION)
        .any(|option| HeaderName::from_bytes(option).map_or(true, |name| PROTECTED.contains(&name)))
}

fn has_other_expectation(head: &Head<'_>) -> bool {
    head.headers.get_all(header::EXPECT).iter().any(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn is_other_upgrade(head: &Head<'_>) -> bool {
    is_upgrade(head.headers) && !is_websocket_handshake(head)
}

/// The client's half of the handshake of RFC 6455, section 4.1. No other protocol can be upgraded to.
fn is_websocket_handshake(head: &Head<'_>) -> bool {
    let only = |name: &str| {
        let mut lines = head.headers.get_all(name).iter();
        lines.next().filter(|_| lines.next().is_none()).map(http::HeaderValue::as_bytes)
    };
    *head.method == Method::GET
        && head.version == Version::HTTP_11
        && options(head.headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && only("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && only("sec-websocket-version") == Some(b"13")
        && only("sec-websocket-key").is_some_and(|key| key.len() == 24)
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
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
mod tests;
