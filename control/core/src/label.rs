//! The name of a rental's own origin, where every rental has one: `<label>.<sessions host>`.
//!
//! A label is a hash of the token that takes the lock. Tokens are drawn at random and used for one lock only, so no two
//! rentals ever share an origin, not even two of one session, and what a rental leaves in a browser (service workers,
//! storage) is never met again. Nothing has to be stored for that, and nobody finds a token by its label.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::id::InvalidId;
use crate::secret::SecretHash;

/// Keeps the label apart from every other hash of a token.
const DOMAIN: &[u8] = b"runit session host 1\0";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Digits of base32 (RFC 4648, section 6) that 128 bits need; the last one carries 3 of them.
const DIGITS: usize = 26;
const SPARE_BITS: u32 = 2;

/// 128 bits as 26 digits of base32 in lower case: one label of a host name (RFC 1035, section 2.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostLabel(u128);

impl HostLabel {
    /// The label of the rental that this token takes.
    pub fn of(token: SecretHash) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(token.as_bytes()).finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl fmt::Display for HostLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: [u8; DIGITS] = std::array::from_fn(|place| {
            let behind = 5 * (DIGITS - 1 - place) as u32;
            let digit = match behind.checked_sub(SPARE_BITS) {
                Some(shift) => self.0 >> shift,
                None => self.0 << SPARE_BITS,
            };
            ALPHABET[(digit & 31) as usize]
        });
        f.write_str(&String::from_utf8_lossy(&digits))
    }
}

impl fmt::Debug for HostLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts what [`HostLabel`] shows, in either case, as host names are compared (RFC 4343).
impl FromStr for HostLabel {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != DIGITS {
            return Err(InvalidId);
        }
        let mut bits = 0_u128;
        for (place, digit) in text.bytes().enumerate() {
            let digit = digit.to_ascii_lowercase();
            let value = ALPHABET.iter().position(|&known| known == digit).ok_or(InvalidId)? as u128;
            if place < DIGITS - 1 {
                bits = bits << 5 | value;
            } else if value & 0b11 == 0 {
                bits = bits << 3 | value >> SPARE_BITS;
            } else {
                return Err(InvalidId); // a second spelling of the same bits
            }
        }
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_token_has_a_label_of_its_own_and_always_the_same() {
        let label = HostLabel::of(SecretHash::of("one"));
        assert_eq!(label, HostLabel::of(SecretHash::of("one")));
        assert_ne!(label, HostLabel::of(SecretHash::of("two")));
        // Renters' bookmarks and open pages hold it: it may not change with a release.
        assert_eq!(label.to_string(), "zgrwavkp6bs3bbej7ztv3wnu4i");
    }

    #[test]
    fn a_label_is_not_the_tokens_hash_in_another_dress() {
        let token = SecretHash::of("one");
        let mut first = [0; 16];
        first.copy_from_slice(&token.as_bytes()[..16]);
        assert_ne!(HostLabel::of(token), HostLabel(u128::from_be_bytes(first)));
    }

    #[test]
    fn one_spelling_names_a_label_but_for_the_case() {
        let text = HostLabel(1).to_string();
        assert_eq!(text, "aaaaaaaaaaaaaaaaaaaaaaaaae");
        assert_eq!(text.to_uppercase().parse(), Ok(HostLabel(1)));
        let spelled_otherwise = [
            "aaaaaaaaaaaaaaaaaaaaaaaaaf",
            "aaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaea",
            "0aaaaaaaaaaaaaaaaaaaaaaaae",
            "aaaaaaaaaaaaaaaaaaaaaaaaé",
            "",
        ];
        for other in spelled_otherwise {
            assert_eq!(other.parse::<HostLabel>(), Err(InvalidId), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bits: u128) {
            let label = HostLabel(bits);
            prop_assert_eq!(label.to_string().parse(), Ok(label));
        }
    }
}
