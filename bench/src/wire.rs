//! HTTP/1.1 and WebSocket frames as the load generator and its upstream need them: as little work as can be, so that what
//! is measured is the proxy. Every message has a `Content-Length` or no body; anything else is an error.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read may bring.
pub(crate) const CHUNK: usize = 256 * 1024;
const LONGEST_HEAD: usize = 32 * 1024;

/// Bytes that were read from a stream and not used yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// Where a head ended and what it says of the body after it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The head, with the empty line at its end.
    pub(crate) text: String,
    /// Bytes of body that follow.
    pub(crate) length: u64,
}

impl Inbox {
    /// An empty one that holds up to `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity], from: 0, to: 0 }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.bytes.len() {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.bytes.len() {
            return Err(invalid("head too long"));
        }
        match stream.read(&mut self.bytes[self.to..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.to += read;
                Ok(())
            }
        }
    }

    /// Reads a head.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the stream; `InvalidData` for a chunked body or a head of more than 32 KiB.
    pub(crate) async fn head(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
        let mut searched = 0;
        loop {
            let unread = self.unread();
            let start = searched.min(unread.len());
            if let Some(at) = unread[start..].windows(4).position(|window| window == b"\r\n\r\n") {
                let end = start + at + 4;
                let text = std::str::from_utf8(&unread[..end]).map_err(|_| invalid("head is not text"))?.to_owned();
                self.from += end;
                let length = content_length(&text)?;
                return Ok(Head { text, length });
            }
            searched = unread.len().saturating_sub(3);
            if unread.len() > LONGEST_HEAD {
                return Err(invalid("head too long"));
            }
            self.fill(stream).await?;
        }
    }

    /// Reads `length` bytes and drops them.
    pub(crate) async fn skip(&mut self, stream: &mut (impl AsyncRead + Unpin), mut length: u64) -> io::Result<()> {
        loop {
            let now = length.min(self.unread().len() as u64);
            self.from += usize::try_from(now).unwrap_or_default();
            length -= now;
            if length == 0 {
                return Ok(());
            }
            self.fill(stream).await?;
        }
    }

    /// Reads the head of a WebSocket frame: its first byte, its mask, and how long its payload is.
    pub(crate) async fn frame(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, [u8; 4], u64)> {
        while self.unread().len() < 2 {
            self.fill(stream).await?;
        }
        let (first, second) = (self.unread()[0], self.unread()[1]);
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let size = 2 + extended + if masked { 4 } else { 0 };
        while self.unread().len() < size {
            self.fill(stream).await?;
        }
        let unread = self.unread();
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => unread[2..2 + extended].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        let mut mask = [0; 4];
        if masked {
            mask.copy_from_slice(&unread[size - 4..size]);
        }
        self.from += size;
        Ok((first, mask, length))
    }

    /// Takes up to `most` bytes that are there, or reads some.
    pub(crate) async fn some(&mut self, stream: &mut (impl AsyncRead + Unpin), most: u64) -> io::Result<&mut [u8]> {
        if self.from == self.to {
            self.fill(stream).await?;
        }
        let from = self.from;
        let now = most.min((self.to - from) as u64);
        self.from += usize::try_from(now).unwrap_or_default();
        Ok(&mut self.bytes[from..self.from])
    }
}

/// The head of a final binary frame; `masked` by zeros, which leave the payload as it is.
pub(crate) fn frame_head(length: u64, masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut head = vec![0x82];
    match length {
        0..126 => head.push(mask_bit | u8::try_from(length).unwrap_or_default()),
        126..65_536 => {
            head.push(mask_bit | 126);
            head.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend(length.to_be_bytes());
        }
    }
    if masked {
        head.extend([0; 4]);
    }
    head
}

impl Head {
    /// The status of an answer; 0 if it has none.
    pub(crate) fn status(&self) -> u16 {
        self.text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

fn content_length(head: &str) -> io::Result<u64> {
    let mut length = 0;
    for (name, value) in head.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| invalid("length is not a number"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("chunked body"));
        }
    }
    Ok(length)
}

pub(crate) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn messages_are_read_one_after_another_however_they_are_cut() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n";
        for cut in 1..text.len() {
            run(async {
                let mut stream = tokio::io::AsyncReadExt::chain(&text[..cut], &text[cut..]);
                let mut inbox = Inbox::new(1024);
                let head = inbox.head(&mut stream).await.expect("a head");
                assert_eq!((head.status(), head.length), (200, 3));
                inbox.skip(&mut stream, head.length).await.expect("a body");
                assert_eq!(inbox.head(&mut stream).await.expect("a head").status(), 204);
            });
        }
    }

    #[test]
    fn frame_heads_of_every_size_are_read_as_they_are_written() {
        for length in [0, 64, 125, 126, 65_535, 65_536, 1 << 20] {
            for masked in [false, true] {
                let head = frame_head(length, masked);
                let read = run(async { Inbox::new(64).frame(&mut &head[..]).await.expect("a frame") });
                assert_eq!(read, (0x82, [0; 4], length));
            }
        }
    }

    #[test]
    fn a_chunked_body_is_an_error() {
        let text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(run(async { Inbox::new(1024).head(&mut &text[..]).await }).is_err());
    }
}
