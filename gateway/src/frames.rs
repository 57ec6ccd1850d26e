//! Where WebSocket frames begin and end (RFC 6455, section 5.2), so that a close frame of ours never lands inside one.
//!
//! Headers are read as bytes pass; payloads are skipped by their length and never looked at.

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct FrameScanner {
    header: [u8; 14],
    /// How many bytes of the header were seen.
    seen: usize,
    /// How many bytes of the payload are still to come.
    payload: u64,
}

impl FrameScanner {
    /// Looks at the next bytes of the direction.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.seen] = byte;
            self.seen += 1;
            bytes = &bytes[1..];
            if self.seen == self.header_length() {
                self.payload = self.payload_length();
                self.seen = 0;
            }
        }
    }

    /// Whether the next byte would be the first of a frame.
    pub(crate) const fn at_boundary(&self) -> bool {
        self.seen == 0 && self.payload == 0
    }

    /// As far as it is known; at least two.
    fn header_length(&self) -> usize {
        if self.seen < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn payload_length(&self) -> u64 {
        match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => {
                let [_, _, length @ .., _, _, _, _] = self.header;
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        }
    }
}

/// An unmasked close frame with a status code and no reason (RFC 6455, section 5.5.1).
pub(crate) fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &[u8], payload: usize) -> Vec<u8> {
        let mut frame = header.to_vec();
        frame.resize(header.len() + payload, 0x88); // looks like a header, and must not be taken for one
        frame
    }

    #[test]
    fn boundaries_are_found_for_every_length_and_mask_however_the_bytes_are_cut() {
        let frames = [
            frame(&[0x81, 0], 0),
            frame(&[0x81, 125], 125),
            frame(&[0x81, 126, 0x01, 0x00], 256),
            frame(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            frame(&[0x81, 0x85, 1, 2, 3, 4], 5),
            frame(&[0x82, 0xfe, 0x00, 0x80, 9, 9, 9, 9], 128),
            frame(&[0x89, 0x80, 1, 2, 3, 4], 0),
        ];
        for chunk in [1, 2, 3, 7, 64, 100_000] {
            let mut scanner = FrameScanner::default();
            for frame in &frames {
                let (last, begin) = frame.split_last().expect("not empty");
                for part in begin.chunks(chunk) {
                    scanner.advance(part);
                    assert!(!scanner.at_boundary());
                }
                scanner.advance(&[*last]);
                assert!(scanner.at_boundary(), "by {chunk}");
            }
        }
    }

    #[test]
    fn a_close_frame_is_itself_a_whole_frame() {
        let mut scanner = FrameScanner::default();
        scanner.advance(&close_frame(4290));
        assert!(scanner.at_boundary());
        assert_eq!(close_frame(4290), [0x88, 2, 0x10, 0xc2]);
    }
}
