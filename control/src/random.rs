//! Randomness: the one place where this crate draws ids, tokens, secrets and nonces, from the operating system.

use runit_core::{AccessToken, KeyId, Secret, SessionId};
use uuid::Builder;

/// The operating system gave no random bytes; nothing may be issued without.
#[derive(Debug, thiserror::Error)]
#[error("no randomness")]
pub struct NoRandomness(#[source] getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// [`NoRandomness`].
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

pub(crate) fn session_id() -> Result<SessionId, NoRandomness> {
    Ok(SessionId::from_uuid(Builder::from_random_bytes(bytes()?).into_uuid()))
}

/// An access token, with the secret that stands behind it.
pub(crate) fn access_token() -> Result<(AccessToken, Secret), NoRandomness> {
    let secret = secret()?;
    Ok((AccessToken::behind(&secret), secret))
}

/// 256 bits as 64 hexadecimal digits.
pub(crate) fn secret() -> Result<Secret, NoRandomness> {
    let bytes: [u8; 32] = bytes()?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

pub(crate) fn key_id() -> Result<KeyId, NoRandomness> {
    Ok(KeyId::from_uuid(Builder::from_random_bytes(bytes()?).into_uuid()))
}

/// 256 bits as 64 hexadecimal digits after a prefix, by which people and scanners tell what it is.
pub(crate) fn key(prefix: &str) -> Result<Secret, NoRandomness> {
    Ok(Secret::new(format!("{prefix}{}", secret()?.expose())))
}
