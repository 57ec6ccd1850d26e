//! Reads a secret without ever quoting it.

use runit_core::Secret;
use serde::{Deserialize, Deserializer, de::Error};

/// By way of a `Value`, because serde's own message for a wrong type quotes what it found.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(Some(Secret::new(text))),
        _ => Err(D::Error::custom("must be text")),
    }
}

/// The same for a secret that has to be there.
pub(crate) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    deserialize(deserializer)?.ok_or_else(|| D::Error::custom("must be text"))
}
