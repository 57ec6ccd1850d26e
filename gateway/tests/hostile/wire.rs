//! HTTP/1.1 messages read strictly, byte by byte: what a parser might forgive is garbage here.

use std::fmt;

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    None,
    Length,
    Chunked,
    /// Answers only: with the connection.
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    pub body: Vec<u8>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// More must come.
    Partial,
    Garbage(&'static str),
}

use Unread::{Garbage, Partial};

/// What a body is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Request,
    /// An answer to this method, with its connection still open or not.
    Answer {
        to_head: bool,
        ended: bool,
    },
}

/// The first message in `bytes`, and how long it is.
pub fn read(bytes: &[u8], of: Of) -> Result<(Message, usize), Unread> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(Partial)?;
    let (start, fields) = head(&bytes[..end])?;
    let mut message = Message { start, fields, framing: Framing::None, body: Vec::new() };
    let rest = &bytes[end + 4..];
    let status: u16 = message.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let bodiless = match of {
        Of::Request => false,
        Of::Answer { to_head, .. } => to_head || status < 200 || matches!(status, 204 | 304),
    };
    if bodiless {
        return Ok((message, end + 4));
    }
    let codings = message.all("transfer-encoding");
    let lengths = message.all("content-length");
    let taken = match (&codings[..], &lengths[..], of) {
        (["chunked"], [], _) => {
            message.framing = Framing::Chunked;
            let (body, taken) = chunks(rest)?;
            message.body = body;
            taken
        }
        ([], [length], _) if !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| Garbage("a length beyond all measure"))?;
            message.framing = Framing::Length;
            message.body = rest.get(..length).ok_or(Partial)?.to_vec();
            length
        }
        ([], [], Of::Request) => 0,
        ([], [], Of::Answer { ended, .. }) => {
            message.framing = Framing::Close;
            message.body = rest.to_vec();
            if ended { rest.len() } else { return Err(Partial) }
        }
        _ => return Err(Garbage("framing that is not one of the three")),
    };
    Ok((message, end + 4 + taken))
}

fn head(bytes: &[u8]) -> Result<(String, Vec<(String, String)>), Unread> {
    // Bytes beyond ASCII are allowed in values (RFC 9110, section 5.5), and mean nothing here.
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields: Option<Vec<_>> = lines.map(field).collect();
    let plain = |text: &str| !text.contains(|c: char| c.is_ascii_control() && c != '\t');
    if !plain(&start) || start.split(' ').count() < 3 {
        return Err(Garbage("a first line of other than three words"));
    }
    let fields = fields.ok_or(Garbage("a line that is no field"))?;
    if !fields.iter().all(|(_, value)| plain(value)) {
        return Err(Garbage("a control character in a field"));
    }
    Ok((start, fields))
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let token = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c));
    token.then(|| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

/// Chunks without extensions and trailers: the gateway makes none, and passes none on.
fn chunks(bytes: &[u8]) -> Result<(Vec<u8>, usize), Unread> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n").ok_or(Partial)?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| Garbage("a chunk size"))?;
        let hex = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_hexdigit());
        let size = hex.then(|| usize::from_str_radix(digits, 16).ok()).flatten().ok_or(Garbage("a chunk size"))?;
        at += line + 2;
        let chunk = bytes.get(at..at + size + 2).ok_or(Partial)?;
        if !chunk.ends_with(b"\r\n") {
            return Err(Garbage("a chunk without an end"));
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok((body, at));
        }
    }
}

impl Message {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// A request's method and target.
    pub fn method_and_target(&self) -> (&str, &str) {
        let mut words = self.start.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// An answer's status.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{:?}, {} bytes]", self.start, self.framing, self.body.len())
    }
}

#[test]
fn what_others_forgive_is_garbage_here() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded\r\n\r\n",
        b"GET /\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ] {
        assert!(matches!(read(bytes, Of::Request), Err(Garbage(_))), "{}", bytes.escape_ascii());
    }
    let (message, length) = read(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxyz", Of::Request).expect("a message");
    assert_eq!((message.body, length), (b"x".to_vec(), 41 - 2));
}
