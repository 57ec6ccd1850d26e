//! Connections: how they are made, how long they may take, and the pool of them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use runit_core::{Secret, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{DbError, OpenError};

/// How long anything may take that the database is asked for. What takes longer has failed, and the caller fails closed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of one node; each carries one statement at a time.
const CONNECTIONS: usize = 8;

/// After what the URL asks for, of which the last one counts: a grant is durable before it is spent, whatever the server's
/// default is; no statement outlives its caller.
const OPTIONS: &str = "-c synchronous_commit=on -c statement_timeout=5000 -c idle_in_transaction_session_timeout=5000";

/// Where the database is.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`, as libpq reads it.
    pub url: Secret,
    /// PEM file of the roots that are trusted for the database's certificate; without one the connection is not
    /// encrypted, which is for a private network or a socket on this machine.
    pub ca_file: Option<PathBuf>,
}

/// How this node connects.
///
/// Connections are served on the runtime that this was made on, whichever runtime asks for them: the data plane's runtimes
/// end before the last bytes are settled.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    runtime: Handle,
}

impl Connector {
    /// To be called on a runtime.
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, OpenError> {
        let mut config: Config = settings.url.expose().parse().map_err(OpenError::Url)?;
        let asked = config.get_ssl_mode();
        let options = format!("{} {OPTIONS}", config.get_options().unwrap_or_default());
        config
            .application_name("runit")
            .connect_timeout(PATIENCE)
            .keepalives_idle(Duration::from_secs(5))
            .tcp_user_timeout(PATIENCE)
            .ssl_mode(match (&settings.ca_file, asked) {
                (Some(_), _) => SslMode::Require,
                (None, SslMode::Require) => return Err(OpenError::NoRoots),
                (None, _) => SslMode::Disable,
            })
            .options(options);
        Ok(Self { config, tls: tls(settings)?, runtime: Handle::current() })
    }

    /// A pool of connections.
    pub(super) fn pool(&self) -> Result<Pool, OpenError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
        Pool::builder(Manager::from_connect(self.config.clone(), self.clone(), recycling))
            .max_size(CONNECTIONS)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| OpenError::Pool)
    }

    /// A connection of its own, whose messages go to `messages` until it ends.
    pub(super) async fn listen(&self, messages: UnboundedSender<AsyncMessage>) -> Result<Client, DbError> {
        let this = self.clone();
        let connected = self.runtime.spawn(async move {
            let (client, mut connection) = this.config.connect(this.tls).await?;
            tokio::spawn(async move {
                let mut stream = futures::stream::poll_fn(|cx| connection.poll_message(cx));
                while let Some(Ok(message)) = stream.next().await {
                    if messages.send(message).is_err() {
                        break;
                    }
                }
            });
            Ok::<_, DbError>(client)
        });
        in_time(async { connected.await.map_err(|_| DbError::TooSlow)? }).await
    }
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let this = self.clone();
        let connecting = self.runtime.spawn(async move {
            let (client, connection) = this.config.connect(this.tls).await?;
            // How it ended is told to whoever uses it.
            let serving = tokio::spawn(async move { drop(connection.await) });
            Ok((client, serving))
        });
        async move {
            match connecting.await {
                Ok(connected) => connected,
                // The runtime has ended; the pool's patience ends this.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// TLS with the roots that are configured.
fn tls(settings: &PostgresSettings) -> Result<MakeRustlsConnect, OpenError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &settings.ca_file {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| OpenError::Roots(Box::new(error)))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| OpenError::Roots(Box::new(error)))?;
            roots.add(certificate).map_err(|error| OpenError::Roots(Box::new(error)))?;
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Roots(Box::new(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(tls))
}

/// The answer, or an error when it does not come in time.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| DbError::TooSlow)?
}

/// The database's time. All nodes count from it, so that none frees bytes before another would.
pub(super) async fn time(pool: &Pool) -> Result<Timestamp, DbError> {
    let client = pool.get().await?;
    let row = client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", &[]).await?;
    Ok(Timestamp::from_unix_ms(super::unsigned(row.try_get(0)?)?))
}
