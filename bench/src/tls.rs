//! A certificate for the peers, and a client that takes any: what is measured is the proxy's side.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The certificate's name.
pub(crate) const NAME: &str = "localhost";

/// A self-signed one (ECDSA P-256), in files.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// HAProxy wants them in one.
    pub(crate) both: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one in `directory`.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let file = |name: &str| directory.join(name);
        std::fs::write(file("chain.pem"), &chain)?;
        std::fs::write(file("key.pem"), &key)?;
        std::fs::write(file("both.pem"), chain + &key)?;
        // The gateway takes no key that others can read.
        std::fs::set_permissions(file("key.pem"), Permissions::from_mode(0o600))?;
        Ok(Self {
            chain: file("chain.pem"),
            key: file("key.pem"),
            both: file("both.pem"),
            der: made.cert.der().clone(),
        })
    }

    /// A client that trusts it and resumes no session, so that every connection is a full handshake.
    ///
    /// # Errors
    /// When the TLS library does not take it.
    pub(crate) fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
