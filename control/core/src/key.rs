//! Keys: what operators and providers prove themselves with.
//!
//! A key is 256 random bits, given out once and kept as a hash. A revoked one is kept too, so that the audit trail, which
//! names keys by id, stays readable; it opens nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{KeyId, ProviderId};
use crate::secret::SecretHash;
use crate::time::Timestamp;

/// What an operator's key may do; a greater role includes the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also end locks, remove sessions, create and revoke keys.
    Operate,
}

impl Role {
    /// The name in commands, in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A text that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither \"read\" nor \"operate\"")]
pub struct InvalidRole;

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        [Self::Read, Self::Operate].into_iter().find(|role| role.as_str() == text).ok_or(InvalidRole)
    }
}

/// Who a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    /// An operator, by a name for people, and what he may do.
    Operator {
        /// A name for people; need not be unique.
        name: KeyName,
        /// What he may do.
        role: Role,
    },
    /// A provider: sessions may be registered in this name.
    Provider(ProviderId),
}

/// What people call an operator's key: 1 to 64 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot be a key's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters, none of them a control character")]
pub struct InvalidKeyName;

impl FromStr for KeyName {
    type Err = InvalidKeyName;

    fn from_str(text: &str) -> Result<Self, InvalidKeyName> {
        let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidKeyName) }
    }
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is called where the key itself must not stand.
    pub id: KeyId,
    /// Hash of the key.
    pub hash: SecretHash,
    /// Who it is for.
    pub holder: KeyHolder,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked; it opens nothing since then.
    pub revoked_at: Option<Timestamp>,
}

impl Key {
    /// Whether the key that hashes to `hash` is this one and still opens something.
    pub fn admits(&self, hash: SecretHash) -> bool {
        self.revoked_at.is_none() && self.hash == hash
    }

    /// Takes the key back; one that was revoked before keeps its time.
    pub fn revoke(&mut self, now: Timestamp) {
        self.revoked_at.get_or_insert(now);
    }
}

/// Which operator did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The one with the key in the settings.
    Configured,
    /// The one with this key.
    Key(KeyId),
}

/// `configured`, or the key's id.
impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("configured"),
            Self::Key(id) => id.fmt(f),
        }
    }
}

/// A text that names no operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither \"configured\" nor a key's id")]
pub struct InvalidOperator;

impl FromStr for Operator {
    type Err = InvalidOperator;

    fn from_str(text: &str) -> Result<Self, InvalidOperator> {
        match text {
            "configured" => Ok(Self::Configured),
            id => id.parse().map(Self::Key).map_err(|_| InvalidOperator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_revoked_key_opens_nothing_and_keeps_the_first_time() {
        let hash = SecretHash::of("secret");
        let mut key = Key {
            id: KeyId::from_uuid(Uuid::from_u128(1)),
            hash,
            holder: KeyHolder::Operator { name: "night shift".parse().unwrap(), role: Role::Read },
            created_at: Timestamp::from_unix_ms(1),
            revoked_at: None,
        };
        assert!(key.admits(hash));
        assert!(!key.admits(SecretHash::of("guess")));
        key.revoke(Timestamp::from_unix_ms(2));
        key.revoke(Timestamp::from_unix_ms(3));
        assert!(!key.admits(hash));
        assert_eq!(key.revoked_at, Some(Timestamp::from_unix_ms(2)));
    }

    #[test]
    fn roles_names_and_operators_are_read_as_they_are_written() {
        assert!(Role::Read < Role::Operate);
        for role in [Role::Read, Role::Operate] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(InvalidRole));
        for operator in [Operator::Configured, Operator::Key(KeyId::from_uuid(Uuid::from_u128(7)))] {
            assert_eq!(operator.to_string().parse(), Ok(operator));
        }
        assert_eq!("".parse::<Operator>(), Err(InvalidOperator));
        for bad in ["", "two\nlines", &"x".repeat(65)] {
            assert_eq!(bad.parse::<KeyName>(), Err(InvalidKeyName), "{bad:?}");
        }
    }
}
