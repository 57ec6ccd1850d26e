//! Seals the credentials that upstreams want, so that the database alone gives none of them away.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha, ChaCha20-Poly1305 of RFC 8439 with a 24 byte nonce, which may be drawn
//! at random), with the session's id as associated data: a sealed credential opens for the session that it was sealed
//! for, and for no other. The key is in a file of its own beside the database.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use runit_core::trail::TrailKey;
use runit_core::{Secret, SessionId};
use sha2::Sha256;

use crate::random::{self, NoRandomness};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// First byte of what is sealed, so that another scheme can follow.
const VERSION: u8 = 1;

/// The key's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be created or read.
    #[error("cannot open the credential key's file")]
    File(#[source] io::Error),
    /// Others than its owner may read it.
    #[error("the credential key's file must not be accessible to others: set its mode to 0600")]
    Exposed,
    /// It holds something else than a key.
    #[error("the credential key's file does not hold 32 bytes")]
    NoKey,
    /// None could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What was sealed was sealed for another session or with another key, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential cannot be opened")]
pub struct Unopenable;

/// Seals and opens with one key.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    trail_key: TrailKey,
}

impl Sealer {
    /// Takes the key from `path`, where a new one is put at the first start, readable by this user only.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        if !fs::exists(path).map_err(KeyError::File)? {
            create_key(path)?;
        }
        Self::from_existing_file(path)
    }

    /// Takes the key from `path`.
    ///
    /// # Errors
    /// [`KeyError`], also when there is no file.
    pub fn from_existing_file(path: &Path) -> Result<Self, KeyError> {
        let mode = fs::metadata(path).map_err(KeyError::File)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed);
        }
        let key: [u8; KEY_BYTES] =
            fs::read(path).map_err(KeyError::File)?.try_into().map_err(|_: Vec<u8>| KeyError::NoKey)?;
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("HMAC takes keys of any length");
        let trail_key = TrailKey::new(mac.chain_update("runit audit trail").finalize().into_bytes().into());
        Ok(Self { cipher: <XChaCha20Poly1305 as KeyInit>::new(&Key::from(key)), trail_key })
    }

    /// What seals the audit trail: derived from the key, and telling nothing of it.
    pub fn trail_key(&self) -> TrailKey {
        self.trail_key.clone()
    }

    /// Seals a credential for `session`: version, nonce, ciphertext with tag.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn seal(&self, session: SessionId, credential: &Secret) -> Result<Vec<u8>, NoRandomness> {
        let nonce: [u8; NONCE_BYTES] = random::bytes()?;
        let aad = session.as_uuid().into_bytes();
        let message = Payload { msg: credential.expose().as_bytes(), aad: &aad };
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), message)
            .expect("encryption into memory fails only beyond 256 GB, and credentials are at most kilobytes");
        Ok([&[VERSION], nonce.as_slice(), &ciphertext].concat())
    }

    /// Opens what [`Self::seal`] made for the same session.
    ///
    /// # Errors
    /// [`Unopenable`].
    pub fn open(&self, session: SessionId, sealed: &[u8]) -> Result<Secret, Unopenable> {
        let (&VERSION, rest) = sealed.split_first().ok_or(Unopenable)? else { return Err(Unopenable) };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Unopenable)?;
        let aad = session.as_uuid().into_bytes();
        let message = Payload { msg: ciphertext, aad: &aad };
        let opened = self.cipher.decrypt(&XNonce::from(*nonce), message).map_err(|_| Unopenable)?;
        String::from_utf8(opened).map(Secret::new).map_err(|_| Unopenable)
    }
}

/// Writes the key beside its place and links it there: another process sees all of it or nothing, and the first one wins.
fn create_key(path: &Path) -> Result<(), KeyError> {
    let key: [u8; KEY_BYTES] = random::bytes()?;
    let draft = path.with_extension(format!("key.{}", std::process::id()));
    let placed = write_new(&draft, &key).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match placed {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(KeyError::File(error)),
        _ => removed.map_err(KeyError::File)?,
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(KeyError::File)
}

fn write_new(path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(key)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn session(number: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn a_credential_opens_for_its_session_only_and_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.key");
        let sealed = Sealer::from_file(&path).unwrap().seal(session(1), &Secret::new("hunter2")).unwrap();
        let sealer = Sealer::from_file(&path).unwrap();
        assert_eq!(sealer.open(session(1), &sealed).unwrap().expose(), "hunter2");
        assert_eq!(sealer.open(session(2), &sealed).unwrap_err(), Unopenable);
        assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
    }

    #[test]
    fn what_is_damaged_or_cut_short_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::from_file(&directory.path().join("credential.key")).unwrap();
        let sealed = sealer.seal(session(1), &Secret::new("hunter2")).unwrap();
        for length in 0..sealed.len() {
            assert!(sealer.open(session(1), &sealed[..length]).is_err(), "{length} bytes");
        }
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(sealer.open(session(1), &damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_key_is_its_owners_alone_and_an_exposed_or_short_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.key");
        Sealer::from_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the draft is gone");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Sealer::from_file(&path), Err(KeyError::Exposed)));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [7; 31]).unwrap();
        assert!(matches!(Sealer::from_file(&path), Err(KeyError::NoKey)));
    }
}
