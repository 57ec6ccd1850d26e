//! Names of things: sessions, providers, nodes, leases.
//!
//! Random ids are drawn at the edge and handed in as [`Uuid`]s, since this crate has no randomness.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::secret::SecretHash;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID that the caller drew or read.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        /// Accepts only the canonical form of RFC 9562, section 4: lower case and hyphenated, 36 characters.
        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_canonical_uuid(text).map(Self).ok_or(InvalidId)
            }
        }
    };
}

uuid_id! {
    /// A session: one notebook that a provider rents out. Also the identity of its byte cap.
    SessionId
}
uuid_id! {
    /// One running gateway process. A restarted process is another node.
    NodeId
}
uuid_id! {
    /// A lease of bytes from a session's ledger; chosen by the node that asks, so that a repeated request is harmless.
    LeaseId
}
uuid_id! {
    /// A lock: one renter's time with a session. It follows from the token that took the lock, and does not tell it.
    LockId
}
uuid_id! {
    /// A key of an operator or a provider: what the audit trail names instead of the key.
    KeyId
}

impl LockId {
    /// The lock that a token took, or would take: a UUID of version 8 (RFC 9562) out of the hash of the token's hash.
    pub fn of(token: SecretHash) -> Self {
        let digest = Sha256::new_with_prefix("runit lock").chain_update(token.as_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The text is not an id in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical id")]
pub struct InvalidId;

pub(crate) fn parse_canonical_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    let canonical = uuid.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
    canonical.then_some(uuid)
}

/// What a provider calls itself: 1 to 128 characters out of `A-Z a-z 0-9 . _ : @ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct ProviderId(String);

impl ProviderId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProviderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:@".contains(c);
        if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId)
        }
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_of_an_id_is_accepted() {
        let canonical = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(canonical.parse::<SessionId>().map(|id| id.to_string()), Ok(canonical.to_owned()));
        for other in [
            "67E55044-10B1-426F-9247-BB680E5FE0C8",
            "67e5504410b1426f9247bb680e5fe0c8",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8",
            "",
        ] {
            assert_eq!(other.parse::<SessionId>(), Err(InvalidId), "{other}");
        }
    }

    #[test]
    fn a_provider_id_is_short_and_printable() {
        assert!("gpu-box_1.example:a@b".parse::<ProviderId>().is_ok());
        for bad in ["", "with space", "new\nline", "ü", &"x".repeat(129)] {
            assert_eq!(bad.parse::<ProviderId>(), Err(InvalidId), "{bad:?}");
        }
    }
}
