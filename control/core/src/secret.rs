//! Secrets that cannot be printed by accident, and the hashes that stand for them in stores and maps.
//!
//! Invariant: no `Debug` or `Display` of this module shows a secret; whoever needs the text calls `expose`.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::{Builder, Uuid};

use crate::id::parse_canonical_uuid;

/// A secret text: a provider's secret, a cookie, a credential for an upstream.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a secret that the caller drew or read.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into_boxed_str())
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored and compared instead of the text.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An access token: a version 4 UUID, issued by the server, good for one lock.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Uuid);

impl AccessToken {
    /// Takes a version 4 UUID that the caller drew.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The token that this reconnect secret stands behind: whoever knows the secret can show that the token was issued to
    /// him, and nobody finds the secret by the token. It has the form of a version 4 UUID, and as many random bits.
    pub fn behind(secret: &Secret) -> Self {
        let digest = Sha256::new().chain_update(b"runit access token 1\0").chain_update(secret.expose()).finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(Builder::from_random_bytes(first).into_uuid())
    }

    /// Reads a token that a renter sent; `None` for all that cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        parse_canonical_uuid(text).map(Self)
    }

    /// The text itself, for the one place that hands it to the renter.
    pub fn expose(&self) -> String {
        self.0.as_hyphenated().to_string()
    }

    /// What is stored and looked up instead of the token.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// SHA-256 (FIPS 180-4) of a secret; compared in constant time.
///
/// The secrets are random with 122 bits or more, so a plain fast hash is enough: there is no dictionary to try.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Takes a hash that was read from a store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for SecretHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_shows_a_secret() {
        let token = AccessToken::from_uuid(Uuid::from_u128(0x1234_5678));
        let shown = format!("{:?} {:?} {:?}", Secret::new("hunter2"), token, token.hash());
        assert_eq!(shown, "Secret(..) AccessToken(..) SecretHash(..)");
    }

    #[test]
    fn a_token_read_back_hashes_the_same() {
        let token = AccessToken::from_uuid(Uuid::from_u128(7));
        assert_eq!(AccessToken::parse(&token.expose()).map(|t| t.hash()), Some(token.hash()));
        assert_eq!(SecretHash::of(&token.expose()), token.hash());
    }

    #[test]
    fn a_secret_stands_behind_one_token_of_the_usual_form() {
        let token = AccessToken::behind(&Secret::new("one"));
        assert_eq!(token, AccessToken::behind(&Secret::new("one")));
        assert_ne!(token, AccessToken::behind(&Secret::new("two")));
        let uuid = Uuid::try_parse(&token.expose()).expect("a UUID");
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
    }

    #[test]
    fn the_hash_is_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hex: String = SecretHash::of("abc").as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected, "FIPS 180-4 test vector");
    }
}
