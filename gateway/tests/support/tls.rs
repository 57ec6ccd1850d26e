//! An authority for certificates, a pair of files that it issues, and clients that trust it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runit_config::Tls;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Client;

pub type TlsClient = Client<TlsStream<TcpStream>>;

pub struct Issuer {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Issuer {
    /// An authority, with a first pair in its files.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let issuer = Self { issuer, directory: tempfile::tempdir().expect("a directory") };
        issuer.renew(2030);
        issuer
    }

    pub fn files(&self) -> Tls {
        let file = |name| self.directory.path().join(name);
        Tls { certificate: file("chain.pem"), key: file("key.pem") }
    }

    /// The same as a line of a settings file.
    pub fn setting(&self) -> String {
        let Tls { certificate, key } = self.files();
        format!("tls = {{ certificate = {certificate:?}, key = {key:?} }}\n")
    }

    /// Another pair in place of the one in the files, valid until that year.
    pub fn renew(&self, year: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let files = self.files();
        std::fs::write(&files.certificate, certificate.pem()).expect("written");
        std::fs::write(&files.key, key.serialize_pem()).expect("written");
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// A client's half: trusts this authority, and offers these protocols.
    pub fn connector(&self, protocols: &[&[u8]]) -> TlsConnector {
        TlsConnector::from(Arc::new(self.client(protocols)))
    }

    pub fn client(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    pub async fn connect(&self, to: SocketAddr) -> TlsClient {
        self.connect_with(&self.connector(&[b"http/1.1"]), to).await.expect("a handshake")
    }

    pub async fn connect_with(&self, connector: &TlsConnector, to: SocketAddr) -> std::io::Result<TlsClient> {
        let socket = TcpSocket::new_v4()?;
        // Another address than the default one, since one has only so many ports.
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        self.over(connector, socket.connect(to).await?).await
    }

    /// TLS on a connection that has begun already.
    pub async fn over(&self, connector: &TlsConnector, socket: TcpStream) -> std::io::Result<TlsClient> {
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector.connect(name, socket).await?;
        Ok(Client { stream, sent: 0, received: Vec::new() })
    }
}
