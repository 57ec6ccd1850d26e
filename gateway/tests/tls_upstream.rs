//! Providers over TLS: chain and name are verified, for requests and for WebSockets.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{TestGateway, WEBSOCKET, bearer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const CAP: u64 = 1 << 30;

/// An authority for certificates of this test.
struct Roots {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Roots {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("roots.pem"), issuer.pem()).expect("written");
        Self { issuer, directory }
    }

    fn file(&self) -> &Path {
        self.directory.path()
    }

    /// A server with a certificate for `name`, which greets and, if asked to, upgrades.
    async fn server(&self, name: &str) -> SocketAddr {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("they fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut socket = acceptor.accept(socket).await?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(socket.read_u8().await?);
                    }
                    let upgrade = head.windows(9).any(|window| window.eq_ignore_ascii_case(b"websocket"));
                    let answer: &[u8] = if upgrade {
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
                    } else {
                        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
                    };
                    socket.write_all(answer).await?;
                    socket.flush().await?;
                    socket.read_u8().await.map(drop)
                });
            }
        });
        address
    }
}

async fn gateway_trusting(roots: &Roots) -> TestGateway {
    let file = roots.file().join("roots.pem");
    TestGateway::with(|settings| settings.upstream.ca_file = Some(file)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_the_right_name_is_reached_over_tls() {
    let roots = Roots::new();
    let server = roots.server("localhost").await;
    let gateway = gateway_trusting(&roots).await;
    let (id, token) = gateway.authority.session_at(&format!("https://localhost:{}", server.port()), CAP);
    let answer = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
    assert_eq!((answer.status, &*answer.body), (200, "hello"));
    let mut client = gateway.connect().await;
    client.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", bearer(&token))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    client.receive(5).await;
    assert_eq!(client.received, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_another_name_or_an_unknown_issuer_is_not_spoken_to() {
    let (roots, strangers) = (Roots::new(), Roots::new());
    let wrong_name = roots.server("gpu.example.org").await;
    let wrong_issuer = strangers.server("localhost").await;
    let gateway = gateway_trusting(&roots).await;
    for server in [wrong_name, wrong_issuer] {
        let (id, token) = gateway.authority.session_at(&format!("https://localhost:{}", server.port()), CAP);
        let answer = gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await;
        assert_eq!(answer.status, 502);
        let mut client = gateway.connect().await;
        client.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", bearer(&token))).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502"));
    }
}
