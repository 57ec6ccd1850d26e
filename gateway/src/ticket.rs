//! What takes a browser from the hand-over link's host to its rental's own: its cookie, sealed, in a URL.
//!
//! The access token stays where it was, and the ticket is of no use to whoever finds it later: it opens for a minute, once
//! on each node, and from the lock's address only. Any node can open it, since the key comes from the hash of the cookie,
//! which all of them know and no browser does.

use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use runit_core::{HostLabel, Secret, SecretHash, Timestamp};
use sha2::{Digest, Sha256};

/// A redirect is followed at once.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Keeps the key apart from every other hash of a cookie.
const DOMAIN: &[u8] = b"runit ticket 1\0";
const TIME_BYTES: usize = 8;

/// A ticket as it stands in a path: hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ticket(Vec<u8>);

impl Ticket {
    /// Seals the cookie of the lock whose rental has this label.
    pub(crate) fn seal(cookie: &Secret, label: HostLabel, now: Timestamp) -> Self {
        let issued_at = now.unix_ms().to_be_bytes();
        let label = label.to_string();
        let payload = Payload { msg: cookie.expose().as_bytes(), aad: label.as_bytes() };
        let sealed = cipher(cookie.hash()).encrypt(&nonce(issued_at), payload);
        let sealed = sealed.expect("a cookie is far shorter than what the cipher takes");
        Self([&issued_at[..], &sealed].concat())
    }

    /// Reads what stands in a path; `None` if it cannot be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |c: u8| char::from(c).to_digit(16).filter(|_| !c.is_ascii_uppercase());
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
                _ => None,
            })
            .collect();
        bytes.filter(|bytes| bytes.len() > TIME_BYTES).map(Self)
    }

    /// The cookie in it, if it was sealed for the lock with this cookie and this label, and not long ago.
    pub(crate) fn open(&self, cookie: SecretHash, label: HostLabel, now: Timestamp) -> Option<Secret> {
        let (time, sealed) = self.0.split_first_chunk::<TIME_BYTES>()?;
        let label = label.to_string();
        let payload = Payload { msg: sealed, aad: label.as_bytes() };
        let opened = cipher(cookie).decrypt(&nonce(*time), payload).ok()?;
        let secret = Secret::new(String::from_utf8(opened).ok()?);
        let (issued, now) = (Duration::from_millis(self.issued_at_ms()), Duration::from_millis(now.unix_ms()));
        // Nodes' clocks differ a little, either way.
        let fresh = issued.abs_diff(now) < GOOD_FOR;
        (fresh && secret.hash() == cookie).then_some(secret)
    }

    /// When it was sealed, in Unix milliseconds: a later ticket has a later time.
    pub(crate) fn issued_at_ms(&self) -> u64 {
        self.0.first_chunk::<TIME_BYTES>().copied().map_or(0, u64::from_be_bytes)
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(..)")
    }
}

fn cipher(cookie: SecretHash) -> ChaCha20Poly1305 {
    let key: [u8; 32] = Sha256::new().chain_update(DOMAIN).chain_update(cookie.as_bytes()).finalize().into();
    ChaCha20Poly1305::new(&Key::from(key))
}

/// The time is nonce enough: with one key the text is always the same one.
fn nonce(issued_at: [u8; TIME_BYTES]) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..TIME_BYTES].copy_from_slice(&issued_at);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_334_400_000);

    fn label(of: &str) -> HostLabel {
        HostLabel::of(SecretHash::of(of))
    }

    #[test]
    fn a_ticket_opens_for_its_own_lock_and_label_for_a_minute() {
        let cookie = Secret::new("0123456789abcdef0123456789abcdef");
        let sealed = Ticket::seal(&cookie, label("token"), NOW).to_string();
        assert!(!sealed.contains(cookie.expose()));
        let ticket = Ticket::parse(&sealed).expect("its own form");
        let open = |hash, of: &str, ms: u64| ticket.open(hash, label(of), Timestamp::from_unix_ms(ms));
        let now = NOW.unix_ms();
        assert_eq!(open(cookie.hash(), "token", now + 59_999).map(|secret| secret.hash()), Some(cookie.hash()));
        assert!(open(cookie.hash(), "token", now + 60_000).is_none());
        assert!(open(cookie.hash(), "token", now - 60_000).is_none());
        assert!(open(cookie.hash(), "other", now).is_none());
        assert!(open(SecretHash::of("another lock's"), "token", now).is_none());
    }

    #[test]
    fn no_bit_of_a_ticket_can_be_changed() {
        let cookie = Secret::new("0123456789abcdef0123456789abcdef");
        let Ticket(bytes) = Ticket::seal(&cookie, label("token"), NOW);
        for place in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[place / 8] ^= 1 << (place % 8);
            assert!(Ticket(changed).open(cookie.hash(), label("token"), NOW).is_none(), "bit {place}");
        }
    }

    #[test]
    fn what_is_no_ticket_is_not_read() {
        for text in
            ["", "0", "xyz", "00112233445566778", "0011223344556677", "001122334455667A88", "é0112233445566778899"]
        {
            assert_eq!(Ticket::parse(text), None, "{text}");
        }
    }
}
