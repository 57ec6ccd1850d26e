//! A certificate with its key, as two files that may be replaced while the process runs.
//!
//! Invariant: whatever the files hold, handshakes use a pair that fits together; a broken or mismatched one is reported
//! and never used. Open connections do not notice a change: a handshake takes the pair that is there when it begins.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use runit_config::Tls;
use runit_core::Timestamp;
use tokio::sync::Notify;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// A chain of certificates is a few KiB.
const FILE_BYTES: u64 = 1 << 20;

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPair {
    /// The file of the chain or of the key cannot be read.
    #[error("cannot read {0}")]
    Unreadable(String, #[source] std::io::Error),
    /// Others than its owner and its group may read the key, or even write it.
    #[error("{0}: the key can be read or written by everybody (mode {1:o}); only its owner and group may")]
    Exposed(String, u32),
    /// Not PEM, or not what it should hold.
    #[error("{0} does not hold what it should, as PEM")]
    NotPem(String, #[source] pem::Error),
    /// The first certificate cannot be understood.
    #[error("the certificate is malformed")]
    Malformed,
    /// The key is of no kind that is known, or not the certificate's.
    #[error("the key does not fit the certificate")]
    Mismatch(#[source] rustls::Error),
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look {
    /// The same as before.
    Same,
    /// Another pair, which is used from now on.
    Replaced,
    /// Something that cannot be used; said once, and not before two looks have seen the same, because files that are
    /// being replaced are broken for a moment.
    Broken(BadPair),
}

/// The pair in use, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    files: Tls,
    current: ArcSwap<Pair>,
    seen: Mutex<Seen>,
    hasher: RandomState,
    asked: Notify,
}

#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    expires_at: Timestamp,
}

/// What the last look found: a hash of the files, and what became of it.
#[derive(Debug)]
struct Seen {
    hash: Option<u64>,
    judged: bool,
}

impl Certificate {
    /// Reads the pair.
    ///
    /// # Errors
    /// [`BadPair`]
    pub fn open(files: &Tls) -> Result<Self, BadPair> {
        let (chain, key) = read(files)?;
        let hasher = RandomState::new();
        let seen = Seen { hash: Some(hasher.hash_one((&chain, &key))), judged: true };
        let pair = pair(files, &chain, &key)?;
        Ok(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(pair),
            seen: Mutex::new(seen),
            hasher,
            asked: Notify::new(),
        })
    }

    /// Looks whether the files have changed, and takes them over if they fit together.
    pub fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read(&self.files);
        let hash = found.as_ref().ok().map(|found| self.hasher.hash_one(found));
        let is_new = hash != seen.hash;
        if !is_new && seen.judged {
            return Look::Same;
        }
        *seen = Seen { hash, judged: !is_new };
        match found.and_then(|(chain, key)| pair(&self.files, &chain, &key)) {
            Ok(pair) => {
                seen.judged = true;
                self.current.store(Arc::new(pair));
                Look::Replaced
            }
            Err(_) if is_new => Look::Same,
            Err(error) => Look::Broken(error),
        }
    }

    /// Has whoever watches the files look at once.
    pub fn look_soon(&self) {
        self.asked.notify_one();
    }

    /// When the certificate in use ends.
    pub fn expires_at(&self) -> Timestamp {
        self.current.load().expires_at
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

/// Looks at the files every two seconds and whenever it is asked to, for as long as somebody polls it, and tells `report` of each look that found
/// something.
pub async fn watch(certificate: Arc<Certificate>, report: impl Fn(&Certificate, &Look)) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = certificate.asked.notified() => {}
        }
        let looking = Arc::clone(&certificate);
        // The disk may be slow, or a network's.
        let Ok(look) = tokio::task::spawn_blocking(move || looking.look()).await else { continue };
        match &look {
            Look::Same => continue,
            Look::Replaced => tracing::info!(file = %certificate.files.certificate.display(), "certificate replaced"),
            Look::Broken(error) => {
                let error: &dyn std::error::Error = error;
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(%error, cause, "certificate not replaced: the old one stays");
            }
        }
        report(&certificate, &look);
    }
}

/// TLS 1.2 and 1.3 with rustls' own choice of suites: forward secrecy and authenticated encryption only. No early data, no
/// tickets that carry keys (resumption is from this process's memory), and HTTP/1.1 as the only protocol.
pub fn server_config(certificate: Arc<Certificate>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).expect("the provider has suites for both");
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn read(files: &Tls) -> Result<(Vec<u8>, Vec<u8>), BadPair> {
    let (chain, _) = contents(&files.certificate)?;
    let (key, mode) = contents(&files.key)?;
    if mode & 0o007 != 0 {
        return Err(BadPair::Exposed(files.key.display().to_string(), mode & 0o777));
    }
    Ok((chain, key))
}

/// What a file holds, and its mode: that of the very file which was read.
fn contents(path: &Path) -> Result<(Vec<u8>, u32), BadPair> {
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    read().map_err(|error| BadPair::Unreadable(path.display().to_string(), error))
}

fn pair(files: &Tls, chain: &[u8], key: &[u8]) -> Result<Pair, BadPair> {
    let not_pem = |path: &Path| {
        let path = path.display().to_string();
        move |error| BadPair::NotPem(path, error)
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(not_pem(&files.certificate))?;
    let first = chain.first().ok_or_else(|| not_pem(&files.certificate)(pem::Error::NoItemsFound))?;
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_| BadPair::Malformed)?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    let expires_at = Timestamp::from_unix_ms(seconds.saturating_mul(1_000));
    let key = PrivateKeyDer::from_pem_slice(key).map_err(not_pem(&files.key))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(BadPair::Mismatch)?;
    Ok(Pair { key: Arc::new(key), expires_at })
}

#[cfg(test)]
mod tests;
