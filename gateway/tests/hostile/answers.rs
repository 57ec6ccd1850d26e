//! Answers that break the protocol, or reach for what is not the provider's: one row each.

use crate::recorder::Step::{self, Close, Forever, Hang, Send};

/// What has to come of a row at the renter's.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// The gateway's own answer.
    Fails(u16),
    /// The answer, with this status and body.
    Passes(u16, &'static str),
    /// The answer begins and visibly does not end.
    CutShort,
}

pub use Outcome::{CutShort, Fails, Passes};

pub struct Row {
    pub what: &'static str,
    pub method: &'static str,
    pub script: Vec<Step>,
    pub outcome: Outcome,
}

const OK: Outcome = Passes(200, "ok");
const BROKEN: Outcome = Fails(502);
const HEAD: &str = "HTTP/1.1 200 OK\r\n";

fn row(what: &'static str, bytes: impl AsRef<[u8]>, outcome: Outcome) -> Row {
    Row { what, method: "GET", script: vec![Send(bytes.as_ref().to_vec())], outcome }
}

/// The same, and then the connection ends.
fn closing(what: &'static str, bytes: impl AsRef<[u8]>, outcome: Outcome) -> Row {
    Row { what, method: "GET", script: vec![Send(bytes.as_ref().to_vec()), Close], outcome }
}

fn scripted(what: &'static str, script: Vec<Step>, outcome: Outcome) -> Row {
    Row { what, method: "GET", script, outcome }
}

fn to(method: &'static str, row: Row) -> Row {
    Row { method, ..row }
}

fn with(field: &str) -> String {
    format!("{HEAD}Content-Length: 2\r\n{field}\r\n\r\nok")
}

pub fn table() -> Vec<Row> {
    [framing(), lines(), interim(), floods()].into_iter().flatten().collect()
}

fn framing() -> Vec<Row> {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nSet-Cookie: evil=1\r\n\r\nsmuggled";
    vec![
        row("a plain answer", with("X: y"), OK),
        row("chunks", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), OK),
        row("chunks with extensions", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n"), OK),
        row(
            "trailers",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: evil=1\r\n\r\n"),
            OK,
        ),
        closing("a body to the end of the connection", format!("{HEAD}\r\nok"), OK),
        closing("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nok", OK),
        row("HTTP/1.0 that stays", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", OK),
        row("two answers at once", format!("{}{smuggled}", with("X: y")), OK),
        row("more than was announced", format!("{}excess", with("X: y")), OK),
        row("more after chunks", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{smuggled}"), OK),
        row("two lengths in a list", format!("{HEAD}Content-Length: 2, 2\r\n\r\nok"), BROKEN),
        row("two lengths in two lines", format!("{HEAD}Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"), BROKEN),
        row("lengths that disagree", format!("{HEAD}Content-Length: 2\r\nContent-Length: 9\r\n\r\nok"), BROKEN),
        row("a length with a plus", format!("{HEAD}Content-Length: +2\r\n\r\nok"), BROKEN),
        row("a negative length", format!("{HEAD}Content-Length: -2\r\n\r\nok"), BROKEN),
        row("a length over 64 bits", format!("{HEAD}Content-Length: 18446744073709551618\r\n\r\nok"), BROKEN),
        row("an empty length", format!("{HEAD}Content-Length:\r\n\r\nok"), BROKEN),
        row(
            "a length beside chunks",
            format!("{HEAD}Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            OK,
        ),
        row("gzip as a transfer coding", format!("{HEAD}Transfer-Encoding: gzip\r\n\r\nok"), BROKEN),
        row("gzip under chunks", format!("{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), BROKEN),
        row("identity", format!("{HEAD}Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok"), BROKEN),
        row("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", BROKEN),
        closing("less than was announced", format!("{HEAD}Content-Length: 9\r\n\r\nok"), CutShort),
        closing("chunks without an end", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), CutShort),
        row(
            "a chunk size of nonsense",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"),
            CutShort,
        ),
        row("a negative chunk", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n"), CutShort),
        row("the largest chunk", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nok"), CutShort),
        row(
            "a chunk over 64 bits",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok"),
            CutShort,
        ),
        row("a chunk without an end", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n"), CutShort),
        row("204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\n", Passes(204, "")),
        row("204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled", Passes(204, "")),
        row(
            "204 with chunks",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Passes(204, ""),
        ),
        row("304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled", Passes(304, "")),
        to("HEAD", row("an answer to HEAD", format!("{HEAD}Content-Length: 8\r\n\r\n"), Passes(200, ""))),
        to("HEAD", row("a body to HEAD", format!("{HEAD}Content-Length: 8\r\n\r\n{smuggled}"), Passes(200, ""))),
        to(
            "HEAD",
            row("chunks to HEAD", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Passes(200, "")),
        ),
    ]
}

fn lines() -> Vec<Row> {
    vec![
        row("bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", OK),
        row("a folded line", with("X: a\r\n Set-Cookie: folded=1"), OK),
        row("whitespace before a colon", with("X : y"), OK),
        row("a bare CR in a value", with("X: a\rSet-Cookie: evil=1"), BROKEN),
        row("a NUL in a value", with("X: a\0b"), BROKEN),
        row("a line without a colon", with("nonsense"), BROKEN),
        row("a name that is no token", with("X(y): z"), BROKEN),
        row("bytes beyond ASCII", [HEAD.as_bytes(), b"Content-Length: 2\r\nX: \xff\xfe\r\n\r\nok"].concat(), OK),
        row("an ANSI escape", with("X: \u{1b}[31mred"), BROKEN),
        row("no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n\r\n", BROKEN),
        row("another version", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a status of 600", "HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a status of 999", "HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a status of 099", "HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a negative status", "HTTP/1.1 -200 X\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("a reason of markup", "HTTP/1.1 200 <script>\r\nContent-Length: 2\r\n\r\nok", OK),
        row("407", "HTTP/1.1 407 X\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok", BROKEN),
        row("401", "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok", Passes(401, "ok")),
        row("257 fields", format!("{HEAD}{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(257)), BROKEN),
        row("a field of 70 KB", with(&format!("X: {}", "v".repeat(70_000))), BROKEN),
        row("fields of 70 KB", with(&vec![format!("X: {}", "v".repeat(1_000)); 70].join("\r\n")), BROKEN),
        row("a field of 2 MB", with(&format!("X: {}", "v".repeat(2_000_000))), BROKEN),
        row("a name of 70 KB", with(&format!("{}: x", "n".repeat(70_000))), BROKEN),
        to("POST", closing("nothing to POST", "", BROKEN)),
        to("POST", closing("half a head to POST", "HTTP/1.1 200 OK\r\nContent-", BROKEN)),
        closing("nothing", "", BROKEN),
        closing("half a head", "HTTP/1.1 200 OK\r\nContent-", BROKEN),
    ]
}

fn interim() -> Vec<Row> {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </evil>; rel=preload\r\nSet-Cookie: evil=1\r\n\r\n";
    let answer = with("X: y");
    vec![
        row("an early hint", format!("{hint}{answer}"), OK),
        row("100 that nobody waits for", format!("HTTP/1.1 100 Continue\r\nSet-Cookie: evil=1\r\n\r\n{answer}"), OK),
        row("eight of them", format!("{}{answer}", hint.repeat(8)), OK),
        row("nine of them", format!("{}{answer}", hint.repeat(9)), BROKEN),
        row("an interim answer with a length", format!("HTTP/1.1 102 X\r\nContent-Length: 2\r\n\r\n{answer}"), OK),
        row("101 that nobody asked for", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\nraw bytes", BROKEN),
        row("101 behind another", format!("{hint}HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\nraw bytes"), BROKEN),
        scripted("interim answers for ever", vec![Forever(hint.as_bytes().to_vec())], BROKEN),
    ]
}

fn floods() -> Vec<Row> {
    vec![
        scripted("a head for ever", vec![Send(HEAD.into()), Forever(b"X: y\r\n".to_vec())], BROKEN),
        scripted("a field for ever", vec![Send(format!("{HEAD}X: ").into()), Forever(vec![b'v'; 4096])], BROKEN),
        scripted(
            "a chunk size for ever",
            vec![Send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n").into()), Forever(b"0".to_vec())],
            CutShort,
        ),
        scripted(
            "an extension for ever",
            vec![Send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2;").into()), Forever(b"x".repeat(4096))],
            CutShort,
        ),
        scripted("no answer", vec![Hang], Fails(504)),
        scripted("half a head and silence", vec![Send(HEAD.into()), Hang], Fails(504)),
        scripted(
            "half a body and silence",
            vec![Send(format!("{HEAD}Content-Length: 9\r\n\r\nok").into()), Hang],
            CutShort,
        ),
    ]
}

/// Fields of answers that say nothing to the renter, one per line.
pub const STRIPPED: &[&str] = &[
    "Connection: X-Named\r\nX-Named: evil",
    "Connection: keep-alive, X-Named\r\nX-Named: evil",
    "Keep-Alive: timeout=evil",
    "Proxy-Connection: evil",
    "Trailer: evil",
    "TE: evil",
    "Upgrade: evil",
    "Access-Control-Allow-Origin: evil",
    "Access-Control-Allow-Origin:",
    "Access-Control-Allow-Credentials: evil",
    "Access-Control-Expose-Headers: evil",
    "Timing-Allow-Origin: evil",
    "Alt-Svc: h3=\"evil:443\"",
    "Clear-Site-Data: \"evil\"",
    "NEL: {\"report_to\":\"evil\"}",
    "Report-To: {\"group\":\"evil\"}",
    "Reporting-Endpoints: evil=\"https://evil\"",
    "Public-Key-Pins: evil",
    "Public-Key-Pins-Report-Only: evil",
    "Expect-CT: evil",
    "Strict-Transport-Security: max-age=1; evil",
    "Service-Worker-Allowed: /evil",
    "Server-Timing: evil",
    "Refresh: 0; url=https://evil",
    "WWW-Authenticate: Basic realm=evil",
    "WWW-Authenticate: Negotiate evil",
    "Proxy-Authenticate: Basic realm=evil",
    "Proxy-Authentication-Info: evil",
    "Accept-CH: evil",
    "Critical-CH: evil",
    "Set-Login: evil",
    "X-Accel-Redirect: /evil",
    "X-Sendfile: /evil",
    "X-Lighttpd-Send-File: /evil",
    "X-Lighttpd-Send-Tempfile: /evil",
    "X-Reproxy-URL: http://127.0.0.1/evil",
    "CDN-Cache-Control: evil",
    "Cloudflare-CDN-Cache-Control: evil",
    "Edge-Control: evil",
    "Surrogate-Control: evil",
    "Surrogate-Key: evil",
    "RateLimit: \"evil\";r=0;t=86400",
    "RateLimit-Policy: \"evil\";q=0",
    "Expect-Staple: max-age=31536000; report-uri=\"https://evil\"",
    "X-Runit-Session: evil",
    "Via: 1.1 evil",
    "CF-Ray: evil",
    "Content_Length: evil",
    "Set_Cookie: evil",
    "Set-Cookie: runit-evil=1; Path=/",
    "Set-Cookie: RUNIT-evil=1",
    "Set-Cookie: __Host-evil=1; Secure; Path=/",
    "Set-Cookie: __secure-evil=1; Secure",
    "Set-Cookie: =evil",
    "Set-Cookie: runit-00000000-0000-4000-8000-000000000001=evil",
];

/// What a provider sets, and what of it arrives. `{B}` is the path of its own session, `{O}` that of another's, `{OURS}`
/// and `{OTHERS}` are the names of the gateway's cookies for them.
pub const COOKIES: &[(&str, &[&str])] = &[
    ("a=b", &["a=b"]),
    ("a=b; Domain=g", &["a=b"]),
    ("a=b; domain = .g ;HttpOnly", &["a=b; HttpOnly"]),
    ("a=b; Domain=localhost; Path={O}/", &["a=b; Path={B}/"]),
    ("a=b; Path=/", &["a=b; Path={B}/"]),
    ("a=b; PATH = /; SameSite=None", &["a=b; Path={B}/; SameSite=None"]),
    ("a=b; Path={O}/", &["a=b; Path={B}/"]),
    ("a=b; Path={B}/lab; Path=/", &["a=b; Path={B}/lab; Path={B}/"]),
    ("a=b; Path=", &["a=b; Path={B}/"]),
    ("a=b; Path={B}/lab", &["a=b; Path={B}/lab"]),
    ("a=b\r\nSet-Cookie: {OURS}=evil\r\nSet-Cookie: c=d; Path=/", &["a=b", "c=d; Path={B}/"]),
    ("{OURS}=evil", &[]),
    ("{OURS}=evil; Path={B}/", &[]),
    ("{OURS}=; Max-Age=0", &[]),
    (" {OURS} = evil", &[]),
    ("{OTHERS}=evil; Domain=g; Path=/", &[]),
    ("__Host-{OURS}=evil; Secure; Path=/", &[]),
];

/// Answers to a WebSocket handshake.
pub fn handshakes() -> Vec<Row> {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n";
    let declined = "HTTP/1.1 403 X\r\nSet-Cookie: runit-evil=1\r\nContent-Length: 2\r\n\r\nno";
    vec![
        row("declined", declined, Passes(403, "no")),
        row("declined with more behind it", format!("{declined}excess"), Passes(403, "no")),
        row("declined after a hint", format!("{hint}{declined}"), Passes(403, "no")),
        row(
            "declined by chunks",
            "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            Passes(404, "no"),
        ),
        row("declined by gzip", "HTTP/1.1 404 X\r\nTransfer-Encoding: gzip\r\n\r\nno", BROKEN),
        closing("declined and cut short", "HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nno", CutShort),
        row("another protocol", "HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nraw", BROKEN),
        row("no protocol", "HTTP/1.1 101 X\r\n\r\nraw", BROKEN),
        row("407", "HTTP/1.1 407 X\r\nContent-Length: 2\r\n\r\nno", BROKEN),
        row(
            "a head of 70 KB",
            format!("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nX: {}\r\n\r\n", "v".repeat(70_000)),
            BROKEN,
        ),
        row("nine hints", format!("{}{declined}", hint.repeat(9)), BROKEN),
        scripted("hints for ever", vec![Forever(hint.as_bytes().to_vec())], BROKEN),
        scripted("a head for ever", vec![Send(HEAD.into()), Forever(b"X: y\r\n".to_vec())], BROKEN),
        scripted("no answer", vec![Hang], Fails(504)),
        closing("nothing", "", BROKEN),
    ]
}
