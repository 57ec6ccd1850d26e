//! Where a request head ends, found byte by byte.
//!
//! The connection guard hands Pingora no byte past the end of a head before the request is bound to its session, so
//! that the body is metered from its first byte. Pingora's parser stays the judge of what the head means: an end found
//! here too early costs another read, nothing else.

/// Finds the empty line at the end of a head (RFC 9112, section 2.1; a bare LF counts as a line's end, section 2.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum HeadScanner {
    /// Before the first byte of the request line; empty lines here are passed over (RFC 9112, section 2.2).
    #[default]
    Leading,
    /// Within a line.
    Line,
    /// After a line's end.
    LineEnd,
    /// After a line's end and a CR.
    LineEndCr,
    /// The head is complete.
    Done,
}

impl HeadScanner {
    /// Looks at the next bytes; returns how many of them belong to the head.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::Done, _) => return at,
                (Self::Leading, b'\r' | b'\n') => Self::Leading,
                (Self::LineEnd | Self::LineEndCr, b'\n') => Self::Done,
                (Self::LineEnd, b'\r') => Self::LineEndCr,
                (_, b'\n') => Self::LineEnd,
                _ => Self::Line,
            };
        }
        bytes.len()
    }

    /// Whether the whole head was seen.
    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether a byte of the head was seen.
    pub(crate) const fn has_begun(self) -> bool {
        !matches!(self, Self::Leading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_length(bytes: &[u8], chunk: usize) -> Option<usize> {
        let mut scanner = HeadScanner::default();
        let length = bytes.chunks(chunk).map(|chunk| scanner.advance(chunk)).sum();
        scanner.is_done().then_some(length)
    }

    #[test]
    fn the_head_ends_after_the_empty_line_however_it_is_cut() {
        let table: [(&[u8], Option<usize>); 8] = [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", Some(27)),
            (b"GET / HTTP/1.1\nHost: a\n\nbody", Some(24)),
            (b"GET / HTTP/1.1\r\n\nbody", Some(17)),
            (b"GET / HTTP/1.1\n\r\nbody", Some(17)),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", None),
            (b"GET / HTTP/1.1\r\n\rX\r\n\r\n", Some(22)),
            (b"", None),
        ];
        for (bytes, expected) in table {
            for chunk in 1..=bytes.len().max(1) {
                assert_eq!(head_length(bytes, chunk), expected, "{} by {chunk}", bytes.escape_ascii());
            }
        }
    }
}
