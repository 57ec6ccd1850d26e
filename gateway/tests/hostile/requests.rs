//! Requests that servers read differently, or that reach for what is not the renter's: one row each.
//!
//! In a row `{S}` is a path in the attacker's session, `{B}` the session's own, `{O}` that of the other's, and `{AUTH}` his credentials as
//! fields. `{GET}` is a whole request but for more fields and the empty line, `{MORE}` a whole one that may not get
//! through, `{TE}` ends a head with `Transfer-Encoding: chunked`, `{WS}` is what a handshake needs. `{LONG}` is a token of
//! 8 KB, and `{COOKIES}` more cookies than a head may have.

use crate::wire::Framing::{self, Chunked, Length, None};

/// What has to come of a row.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// The gateway answers so (0: it closes without an answer), and the provider hears nothing.
    Refused(&'static [u16]),
    /// The provider hears exactly this, and each is answered: method, path below the session, framing, body.
    Passes(&'static [(&'static str, &'static str, Framing, &'static str)]),
    /// The same, with a page that has these words.
    RefusedByPage(u16, &'static str),
    /// At most this one is heard, and it is answered or refused; the rest of the connection is not read.
    First(&'static str, &'static str, Framing, &'static str),
    /// It is taken up and then found broken: the provider may hear a part, but no whole request.
    Breaks,
    /// The renter goes away in the middle: the provider may hear a part, but no whole request.
    Ends,
}

use Outcome::{Breaks, Ends, First, Passes, Refused, RefusedByPage};

pub struct Row {
    pub what: &'static str,
    pub bytes: &'static str,
    pub outcome: Outcome,
}

const fn row(what: &'static str, bytes: &'static str, outcome: Outcome) -> Row {
    Row { what, bytes, outcome }
}

/// What `{LONG}` is.
pub const LONG: &str = match str::from_utf8(&[b'M'; 8_000]) {
    Ok(text) => text,
    Err(_) => "",
};

const GET: Outcome = Passes(&[("GET", "x", None, "")]);
const BAD: Outcome = Refused(&[400]);
/// Where Pingora's parser decides: some forms end without an answer.
const DROPPED: Outcome = Refused(&[400, 0]);

pub const FRAMING: &[Row] = &[
    row("a plain length", "{POST}Content-Length: 5\r\n\r\nhello", Passes(&[("POST", "x", Length, "hello")])),
    row("plain chunks", "{POST}{TE}3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", Passes(&[("POST", "x", Chunked, "hello")])),
    row("CL.TE", "{POST}Content-Length: 6\r\n{TE}0\r\n\r\nG", Passes(&[("POST", "x", Chunked, "")])),
    row(
        "CL.TE with a whole request behind",
        "{POST}Content-Length: 200\r\n{TE}0\r\n\r\n{MORE}",
        Passes(&[("POST", "x", Chunked, "")]),
    ),
    row("TE.CL", "{POST}Content-Length: 4\r\n{TE}5\r\nGET /\r\n0\r\n\r\n", Passes(&[("POST", "x", Chunked, "GET /")])),
    row("TE.TE, unknown first", "{POST}Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n", BAD),
    row("TE.TE, unknown last", "{POST}Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", DROPPED),
    row("TE.TE, two lines", "{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", DROPPED),
    row("TE.TE, twice the same", "{POST}Transfer-Encoding: chunked\r\n{TE}0\r\n\r\n", BAD),
    row("TE.TE, identity", "{POST}Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", DROPPED),
    row("gzip under chunked", "{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
    row("xchunked", "{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", DROPPED),
    row("chunked in quotes", "{POST}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", DROPPED),
    row("chunked with a parameter", "{POST}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", DROPPED),
    row(
        "chunked after a tab",
        "{POST}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
        Passes(&[("POST", "x", Chunked, "")]),
    ),
    row("chunked after a vertical tab", "{POST}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", DROPPED),
    row("an empty coding", "{POST}Transfer-Encoding:\r\n\r\n0\r\n\r\n", DROPPED),
    row("whitespace before the colon of a coding", "{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", DROPPED),
    row("a coding folded away", "{POST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", DROPPED),
    row("a coding behind a bare CR", "{POST}X: y\r{TE}0\r\n\r\n", DROPPED),
    row("a coding behind a bare LF", "{POST}X: y\n{TE}0\r\n\r\n", Passes(&[("POST", "x", Chunked, "")])),
    row("a coding in HTTP/1.0", "POST {S}/x HTTP/1.0\r\nHost: g\r\n{AUTH}{TE}0\r\n\r\n", DROPPED),
    row(
        "a coding with an underscore",
        "{POST}Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        Passes(&[("POST", "x", Length, "hello")]),
    ),
    row("two lengths that agree, in a list", "{POST}Content-Length: 5, 5\r\n\r\nhello", BAD),
    row("two lengths that agree, in two lines", "{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", BAD),
    row("two lengths that do not", "{POST}Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello", DROPPED),
    row("a length with a plus", "{POST}Content-Length: +5\r\n\r\nhello", DROPPED),
    row("a length with a minus", "{POST}Content-Length: -5\r\n\r\nhello", DROPPED),
    row("a length in hex", "{POST}Content-Length: 0x5\r\n\r\nhello", DROPPED),
    row("a length with an underscore in it", "{POST}Content-Length: 1_0\r\n\r\nhellohello", DROPPED),
    row("a length of two words", "{POST}Content-Length: 5 5\r\n\r\nhello", DROPPED),
    row("a length with a fraction", "{POST}Content-Length: 5.0\r\n\r\nhello", DROPPED),
    row("an empty length", "{POST}Content-Length:\r\n\r\n", DROPPED),
    row("a length over 64 bits", "{POST}Content-Length: 18446744073709551621\r\n\r\nhello", DROPPED),
    row("a length over 63 bits", "{POST}Content-Length: 9223372036854775808\r\n\r\nhello", DROPPED),
    row(
        "a length with zeros before it",
        "{POST}Content-Length: 0005\r\n\r\nhello",
        Passes(&[("POST", "x", Length, "hello")]),
    ),
    row(
        "a length with an underscore in its name",
        "{POST}Content_Length: 50\r\nContent-Length: 5\r\n\r\nhello",
        Passes(&[("POST", "x", Length, "hello")]),
    ),
    row("whitespace before the colon of a length", "{POST}Content-Length : 5\r\n\r\nhello", DROPPED),
    row(
        "a body that is a request",
        "{POST}Content-Length: 28\r\n\r\nGET /smuggled HTTP/1.1\r\nA: b",
        Passes(&[("POST", "x", Length, "GET /smuggled HTTP/1.1\r\nA: b")]),
    ),
    row("a body of GET", "{GET}Content-Length: 5\r\n\r\nhello", Passes(&[("GET", "x", Length, "hello")])),
    row("chunks of DELETE", "{DELETE}{TE}1\r\na\r\n0\r\n\r\n", Passes(&[("DELETE", "x", Chunked, "a")])),
    row("a body of HEAD", "{HEAD}Content-Length: 5\r\n\r\nhello", Passes(&[("HEAD", "x", Length, "hello")])),
    row("a body nobody announced", "{POST}\r\n{MORE}", First("POST", "x", None, "")),
];

// Pingora reads an extension to CRLF, and no size as nothing: what the provider gets is new chunks either way.
pub const CHUNKS: &[Row] = &[
    row("an extension", "{POST}{TE}5;a=b\r\nhello\r\n0\r\n\r\n", Passes(&[("POST", "x", Chunked, "hello")])),
    row(
        "an extension with a bare LF",
        "{POST}{TE}5;a\nb\r\nhello\r\n0\r\n\r\n",
        Passes(&[("POST", "x", Chunked, "hello")]),
    ),
    row("an extension with a bare CR", "{POST}{TE}5;a\rb\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size ended by a bare LF", "{POST}{TE}5\nhello\r\n0\r\n\r\n", Breaks),
    row("a chunk ended by a bare LF", "{POST}{TE}5\r\nhello\n0\r\n\r\n", Breaks),
    row("a chunk ended by other bytes", "{POST}{TE}5\r\nhelloXX0\r\n\r\n", Breaks),
    row("a chunk longer than its size", "{POST}{TE}2\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size of 64 bits and more", "{POST}{TE}10000000000000005\r\nhello\r\n0\r\n\r\n", Breaks),
    row("the largest size", "{POST}{TE}FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a negative size", "{POST}{TE}-5\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size with a plus", "{POST}{TE}+5\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size with 0x", "{POST}{TE}0x5\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size with an underscore", "{POST}{TE}0_5\r\nhello\r\n0\r\n\r\n", Breaks),
    row("a size after a space", "{POST}{TE} 5\r\nhello\r\n0\r\n\r\n", Breaks),
    row("an empty size", "{POST}{TE}\r\nhello\r\n0\r\n\r\n", Passes(&[("POST", "x", Chunked, "")])),
    row("no size at all", "{POST}{TE}hello\r\n0\r\n\r\n", Breaks),
    row(
        "trailers",
        "{POST}{TE}1\r\na\r\n0\r\nContent-Length: 5\r\nAuthorization: token x\r\n\r\n",
        Passes(&[("POST", "x", Chunked, "a")]),
    ),
    row("TE.0", "{POST}{TE}0\r\n\r\n{MORE}", Passes(&[("POST", "x", Chunked, "")])),
];

pub const LINES: &[Row] = &[
    row("one plain GET", "{GET}\r\n", GET),
    row("bare LF everywhere", "GET {S}/x HTTP/1.1\nHost: g\nAuthorization: token {TOKEN}\n\n", GET),
    row("empty lines before", "\r\n\r\n{GET}\r\n", GET),
    row("a folded line", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX: y\r\n folded\r\n{AUTH}\r\n", DROPPED),
    row("a folded first line", "GET {S}/x HTTP/1.1\r\n Host: g\r\n{AUTH}\r\n", DROPPED),
    row("whitespace before a colon", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX : y\r\n{AUTH}\r\n", DROPPED),
    row("a tab before a colon", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX\t: y\r\n{AUTH}\r\n", DROPPED),
    row("a name of nothing", "GET {S}/x HTTP/1.1\r\nHost: g\r\n: y\r\n{AUTH}\r\n", DROPPED),
    row("a line without a colon", "GET {S}/x HTTP/1.1\r\nHost: g\r\nfield\r\n{AUTH}\r\n", DROPPED),
    row("a NUL in a value", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX: a\0b\r\n{AUTH}\r\n", DROPPED),
    row("a NUL in a name", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX\0: a\r\n{AUTH}\r\n", DROPPED),
    row("a CR in a value", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX: a\rb\r\n{AUTH}\r\n", DROPPED),
    row("a name that is no token", "GET {S}/x HTTP/1.1\r\nHost: g\r\nX(y): a\r\n{AUTH}\r\n", DROPPED),
    row("a method that is no token", "G(T {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("a method of a quote", "\"GET\" {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("a method in lower case", "get {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Passes(&[("get", "x", None, "")])),
    row("a method of 8 KB", "{LONG} {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Passes(&[(LONG, "x", None, "")])),
    row("a cookie flood", "{GET}{COOKIES}\r\n", RefusedByPage(431, "delete the cookies of this site")),
    row("TRACE", "TRACE {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[405])),
    row("TRACK", "TRACK {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[405])),
    row(
        "CONNECT to a host",
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n{AUTH}\r\n",
        Refused(&[400, 405, 0]),
    ),
    row("CONNECT to a path", "CONNECT {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[400, 405, 0])),
    row("two spaces in the first line", "GET  {S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row(
        "two spaces before the version",
        "GET {S}/x  HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n",
        Passes(&[("GET", "x%20", None, "")]),
    ),
    row("a tab in the first line", "GET\t{S}/x\tHTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("HTTP/0.9", "GET {S}/x\r\n", DROPPED),
    row("HTTP/1.2", "GET {S}/x HTTP/1.2\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", DROPPED),
    row("a version in lower case", "GET {S}/x http/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("two versions", "GET {S}/x HTTP/1.1 HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("HTTP/1.0", "GET {S}/x HTTP/1.0\r\nHost: g\r\n{AUTH}\r\n", GET),
    row("noise", "\u{1}\u{2}\u{3}\u{16}\u{3}\u{1}\r\n\r\n", DROPPED),
    row("a head that ends early", "{GET}", Refused(&[400, 0])),
];

pub const TARGETS: &[Row] = &[
    row("absolute form", "GET http://g{S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("absolute form of another host", "GET http://evil{S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("asterisk", "OPTIONS * HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("no slash", "GET x{S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("two slashes first", "GET //evil{S}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[404, 400])),
    row("dots", "GET {S}/../x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("dots to another session", "GET {S}/../../{O}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("encoded dots", "GET {S}/%2e%2e/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("twice encoded dots", "GET {S}/%252e%252e/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("encoded slash and dots", "GET {S}/..%2fx HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("backslashes", "GET {S}/..\\x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("encoded CR and LF", "GET {S}/x%0d%0aX:%20y HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("an encoded NUL", "GET {S}/x%00 HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", BAD),
    row("a fragment", "GET {S}/x#y HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", GET),
    row("a session's name in capitals", "GET /S/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[404])),
    row("another session with this one's token", "GET {O}/x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n", Refused(&[403])),
    row(
        "shutdown, twice encoded",
        "POST {B}/api/%2573hutdown HTTP/1.1\r\nHost: g\r\n{AUTH}Content-Length: 0\r\n\r\n",
        Refused(&[403]),
    ),
    row(
        "bytes as they are",
        "GET {S}/x%2Fy//z:;,@&=+$!*'()~%7e HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n",
        Passes(&[("GET", "x%2Fy//z:;,@&=+$!*'()~%7e", None, "")]),
    ),
    row("no host", "GET {S}/x HTTP/1.1\r\n{AUTH}\r\n", BAD),
    row("no host in HTTP/1.0", "GET {S}/x HTTP/1.0\r\n{AUTH}\r\n", BAD),
    row("an empty host", "GET {S}/x HTTP/1.1\r\nHost:\r\n{AUTH}\r\n", BAD),
    row("two hosts", "GET {S}/x HTTP/1.1\r\nHost: g\r\nHost: g\r\n{AUTH}\r\n", DROPPED),
    row("two hosts in a list", "GET {S}/x HTTP/1.1\r\nHost: g, h\r\n{AUTH}\r\n", DROPPED),
    row("a host with a user", "GET {S}/x HTTP/1.1\r\nHost: u@g\r\n{AUTH}\r\n", DROPPED),
    row("a host with a path", "GET {S}/x HTTP/1.1\r\nHost: g/x\r\n{AUTH}\r\n", DROPPED),
    row("a host with a space", "GET {S}/x HTTP/1.1\r\nHost: g h\r\n{AUTH}\r\n", DROPPED),
    row("a host with an underscore in its name", "GET {S}/x HTTP/1.1\r\nHos_t: h\r\nHost: g\r\n{AUTH}\r\n", GET),
];

pub const CONNECTIONS: &[Row] = &[
    row("two at once", "{GET}\r\n{MORE}", First("GET", "x", None, "")),
    row(
        "another after Connection: close",
        "GET {S}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{AUTH}\r\n{MORE}",
        First("GET", "x", None, ""),
    ),
    row(
        "another's session behind a body",
        "{POST}Content-Length: 2\r\n\r\nokGET {O}/smuggled HTTP/1.1\r\nHost: g\r\n\r\n",
        First("POST", "x", Length, "ok"),
    ),
    row("another behind a refused one", "GET {S}/../x HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n{MORE}", BAD),
    row(
        "a body behind a refused one",
        "POST {S}/../x HTTP/1.1\r\nHost: g\r\n{AUTH}Content-Length: 60\r\n\r\n{MORE}",
        BAD,
    ),
    row("another behind one to nobody's place", "GET /nowhere HTTP/1.1\r\nHost: g\r\n\r\n{MORE}", Refused(&[404])),
    row("another behind a handshake that is declined", "{GET}{WS}\r\n{MORE}", GET),
    row(
        "a handshake of another version",
        "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{MORE}",
        BAD,
    ),
    row(
        "a handshake without Connection",
        "{GET}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        BAD,
    ),
    row(
        "a handshake without a key",
        "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n{MORE}",
        BAD,
    ),
    row(
        "a handshake with an empty key",
        "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key:\r\n\r\n{MORE}",
        BAD,
    ),
    row(
        "a handshake without a version",
        "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{MORE}",
        BAD,
    ),
    row("a handshake by POST", "{POST}{WS}\r\n", BAD),
    row("a handshake with a body", "{GET}{WS}Content-Length: 5\r\n\r\nhello", BAD),
    row("a handshake with two keys", "{GET}{WS}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", BAD),
    row(
        "an upgrade to h2c",
        "{GET}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        BAD,
    ),
    row(
        "an upgrade to a choice",
        "{GET}Connection: Upgrade\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        BAD,
    ),
    row(
        "an expectation",
        "{POST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        Passes(&[("POST", "x", Length, "ok")]),
    ),
    row("another expectation", "{GET}Expect: 200-ok\r\n\r\n", Refused(&[417])),
    row("two expectations", "{POST}Expect: 100-continue\r\nExpect: y\r\nContent-Length: 2\r\n\r\nok", Refused(&[417])),
    row("Connection names the host", "{GET}Connection: Host\r\n\r\n", BAD),
    row("Connection names the length", "{POST}Connection: close, Content-Length\r\nContent-Length: 2\r\n\r\nok", BAD),
    row("Connection names the coding", "{POST}Connection: transfer-encoding\r\n{TE}0\r\n\r\n", BAD),
    row("Connection names no token", "{GET}Connection: \"Cookie\"\r\n\r\n", BAD),
    row("Connection names our credential", "{GET}Connection: Authorization\r\n\r\n", GET),
    row("Connection names cookies", "{GET}Connection: close, Cookie, Via, X-Runit-Session\r\n\r\n", GET),
    row("a body cut short", "{POST}Content-Length: 50\r\n\r\nshort", Ends),
    row("chunks cut short", "{POST}{TE}5\r\nhe", Ends),
];

pub const TABLES: &[&[Row]] = &[FRAMING, CHUNKS, LINES, TARGETS, CONNECTIONS];

/// What a renter says of where he comes from or who he is, and what would change the request behind us. Each also with
/// `_` for `-`.
pub const CLAIMS: &[&str] = &[
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Host",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-IPCountry",
    "CDN-Loop",
    "Via",
    "X-Scheme",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "Proxy",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "HTTP2-Settings",
    "Referer",
    "X-Runit-Session",
];

/// What the gateway sets for the provider, which no `Connection` may take away.
pub const OURS: &[&str] = &["Authorization", "Via", "Origin"];
