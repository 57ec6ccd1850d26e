//! Which trace a request is part of, by what its client says (W3C Trace Context).
//!
//! It is only read, so that a line of the log can be found by it: nothing is decided by what anybody may write.

use std::fmt;

/// The header field that names the trace.
pub const TRACEPARENT: &str = "traceparent";

/// The header field with what others have to say of that trace.
pub const TRACESTATE: &str = "tracestate";

/// A trace's id, as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// The id in a `traceparent` field (W3C Trace Context, section 3.2.2); none where it is not well-formed.
    ///
    /// A later version may have more behind the flags, and is read as far as this one goes.
    pub fn of(traceparent: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(traceparent).ok()?;
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (version, flags) = (hex(version, 2)?, hex(flags, 2));
        let trace = hex(trace, 32).filter(|&trace| trace != 0)?;
        hex(parent, 16).filter(|&parent| parent != 0)?;
        let ends = version > 0 || parts.next().is_none();
        (version != 0xff && flags.is_some() && ends).then_some(Self(trace))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Exactly so many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_well_formed_field_is_read() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let read = |text: &str| TraceId::of(text.as_bytes()).map(|id| id.to_string());
        assert_eq!(read(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        assert_eq!(read(&format!("01-{id}-00f067aa0ba902b7-00-more")).as_deref(), Some(id));
        let small = "00000000000000000000000000000001";
        assert_eq!(read(&format!("00-{small}-00f067aa0ba902b7-01")).as_deref(), Some(small));
    }

    #[test]
    fn whatever_else_comes_is_no_id() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(TraceId::of(text.as_bytes()), None, "{text}");
        }
        assert_eq!(TraceId::of(b"00-\xff"), None);
    }
}
