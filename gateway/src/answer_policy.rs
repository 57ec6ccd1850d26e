//! What a provider's answer may be: which heads end the exchange with an answer of ours, and which fields end here.
//!
//! [`TABLE`] is the whole policy. Pingora has parsed the head already: it joins folded lines, drops a length beside
//! `Transfer-Encoding`, reads a body to its announced end and no further, and never uses a connection again that said
//! more than it should. The rows are what it lets through. Cookies and `Location` are `headers`' to change.
//!
//! Two fields that a page could misuse pass: `Link` and `SourceMap` can have a browser do nothing that the page they
//! come with cannot do by itself, and `Content-Security-Policy` can only take from it.

use http::{HeaderName, StatusCode, Version, header};
use pingora::http::ResponseHeader;

use crate::fields::{Fields, named_by_connection};
use crate::request_policy::is_length;

/// Interim answers (1xx other than 101) that may come before a final one: they are not passed on, nor for ever waited
/// out.
pub(crate) const MAX_INTERIM: usize = 8;

/// Bytes of a head, as it would be written.
const MAX_HEAD: usize = 64 * 1024;

/// The provider broke the protocol, in this way: its answer becomes a 502 of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadAnswer(pub(crate) &'static str);

/// One row of the policy.
enum Row {
    /// The answer does not pass, for this reason.
    Refuse(&'static str, fn(&Answer<'_>) -> bool),
    /// Fields that do not pass: see [`Fields`] for the patterns.
    Strip(Fields),
    /// Fields that do not pass with some statuses.
    StripFrom(fn(StatusCode) -> bool, Fields),
}

use Row::{Refuse, Strip, StripFrom};

/// An answer's head, as the rules see it.
struct Answer<'a> {
    head: &'a ResponseHeader,
    /// The request was a WebSocket handshake.
    to_upgrade: bool,
}

/// The policy.
const TABLE: [Row; 20] = [
    Refuse("101 that nobody asked for, or for another protocol", is_stray_switch),
    Refuse("a status out of range", |answer| !(100..=599).contains(&answer.head.status.as_u16())),
    Refuse("407: the renter has no business with the provider's proxy", is_proxys),
    Refuse("a transfer coding other than chunked, or one in HTTP/1.0", has_other_framing),
    Refuse("no single length of digits", has_other_length),
    Refuse("a head over 64 KiB", |answer| head_bytes(answer.head) > MAX_HEAD),
    Refuse("control characters", has_controls),
    // An interim answer says nothing but that it is one.
    StripFrom(is_interim, Fields::of(&["*"])),
    // Answers without a body have no length.
    StripFrom(has_no_body, Fields::of(&["transfer-encoding"])),
    // Nor has one that could never have one.
    StripFrom(has_no_length, Fields::of(&["content-length"])),
    // Read as `-` by some clients, and so as another field.
    Strip(Fields::of(&["*_*"])),
    // Hop-by-hop.
    Strip(Fields::of(&["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings"])),
    // What a browser would believe of the gateway's whole host.
    Strip(Fields::of(&[
        "accept-ch*",
        "alt-svc",
        "clear-site-data",
        "critical-ch",
        "expect-ct",
        "expect-staple",
        "nel",
        "public-key-pins*",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "set-login",
        "strict-transport-security",
    ])),
    // Who else may read the answer.
    Strip(Fields::of(&["access-control-*", "timing-allow-origin"])),
    // Measurements, readable across origins once allowed.
    Strip(Fields::of(&["server-timing"])),
    // Asks for a password in the gateway's name.
    Strip(Fields::of(&["www-authenticate", "proxy-auth*"])),
    // Leads away from whatever it comes with.
    Strip(Fields::of(&["refresh"])),
    // Orders to a proxy in front of the gateway.
    Strip(Fields::of(&["x-accel-*", "x-sendfile", "x-lighttpd-*", "x-reproxy-*"])),
    // Orders to its cache.
    Strip(Fields::of(&["cdn-cache-control", "*-cdn-cache-control*", "surrogate-*", "edge-control"])),
    // The gateway's own, or its tunnel's.
    Strip(Fields::of(&["x-runit-*", "ratelimit*", "via", "cf-*"])),
];

/// Checks a provider's answer and takes out what ends here. `to_upgrade` tells whether the request was a WebSocket
/// handshake. Doing it twice changes nothing more.
///
/// # Errors
/// [`BadAnswer`] for what must not reach the renter at all.
pub(crate) fn clean(head: &mut ResponseHeader, to_upgrade: bool) -> Result<(), BadAnswer> {
    let answer = Answer { head, to_upgrade };
    for row in &TABLE {
        if let Refuse(reason, is_broken) = row
            && is_broken(&answer)
        {
            return Err(BadAnswer(reason));
        }
    }
    let status = head.status;
    let named = named_by_connection(&head.headers);
    let stripped: Vec<HeaderName> =
        head.headers.keys().filter(|name| named.contains(name) || strips(name, status)).cloned().collect();
    for name in &stripped {
        head.remove_header(name);
    }
    // What the provider's server speaks, and what it calls a status, is nothing to the renter.
    head.set_version(Version::HTTP_11);
    head.set_reason_phrase(None).map_err(|_| BadAnswer("a status without a name"))
}

fn strips(name: &HeaderName, status: StatusCode) -> bool {
    TABLE.iter().any(|row| match row {
        Refuse(..) => false,
        Strip(names) => names.list(name),
        StripFrom(applies, names) => applies(status) && names.list(name),
    })
}

fn is_stray_switch(answer: &Answer<'_>) -> bool {
    let protocol = answer.head.headers.get(header::UPGRADE).map(|value| value.as_bytes());
    let agreed = protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    answer.head.status == StatusCode::SWITCHING_PROTOCOLS && !(answer.to_upgrade && agreed)
}

fn is_proxys(answer: &Answer<'_>) -> bool {
    answer.head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
}

fn has_other_framing(answer: &Answer<'_>) -> bool {
    let mut codings = answer.head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return false };
    let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    !plain || answer.head.version != Version::HTTP_11
}

fn has_other_length(answer: &Answer<'_>) -> bool {
    let mut lengths = answer.head.headers.get_all(header::CONTENT_LENGTH).iter();
    lengths.next().is_some_and(|length| !is_length(length.as_bytes())) || lengths.next().is_some()
}

fn has_controls(answer: &Answer<'_>) -> bool {
    let is_control = |&c: &u8| c.is_ascii_control() && c != b'\t';
    answer.head.headers.values().any(|value| value.as_bytes().iter().any(is_control))
}

fn head_bytes(head: &ResponseHeader) -> usize {
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    head.headers.iter().map(line).sum()
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// RFC 9112, section 6.3.
fn has_no_body(status: StatusCode) -> bool {
    has_no_length(status) || status == StatusCode::NOT_MODIFIED
}

/// RFC 9110, section 8.6.
fn has_no_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

#[cfg(test)]
mod tests;
