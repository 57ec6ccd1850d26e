//! Randomness from the operating system: secrets, names, and the jitter of pauses.

use runit_core::{Secret, SessionId};

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no randomness from the operating system")]
pub struct NoRandomness(#[from] getrandom::Error);

/// 256 random bits, as 64 hexadecimal digits.
pub(crate) fn secret() -> Result<Secret, NoRandomness> {
    Ok(Secret::new(hex(&bytes::<32>()?)))
}

/// A version 4 UUID.
pub(crate) fn session_id() -> Result<SessionId, NoRandomness> {
    Ok(SessionId::from_uuid(uuid::Builder::from_random_bytes(bytes()?).into_uuid()))
}

/// 8 hexadecimal digits that tell one workspace's volume from the next.
pub(crate) fn suffix() -> Result<String, NoRandomness> {
    Ok(hex(&bytes::<4>()?))
}

/// For jitter only: where there is no randomness, everybody waits equally long.
pub(crate) fn chance() -> u16 {
    bytes().map(u16::from_ne_bytes).unwrap_or(u16::MAX)
}

fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_256_bits_and_differ() {
        let (one, other) = (secret().expect("randomness"), secret().expect("randomness"));
        assert_eq!(one.expose().len(), 64);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.expose(), other.expose());
    }

    #[test]
    fn session_ids_are_version_4() {
        assert_eq!(session_id().expect("randomness").as_uuid().get_version_num(), 4);
    }
}
