//! One gateway node: built from settings and an authority, with the tasks that run beside the proxy.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::listeners::tls::Acceptor;
use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use runit_config::{LiveSettings, NodeSettings};
use runit_core::{Authority, Clock, NodeId, SecurityEvent};
use runit_listener::{BadPair, Certificate, Look, files, server_config};
use runit_spent::{Estate, SpentFile};
use runit_traces::Traces;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::app::GatewayApp;
use crate::directory::Directory;
use crate::events::{EventSink, record};
use crate::gateway::Gateway;
use crate::guesses::Guesses;
use crate::leasing::Leasing;
use crate::lifecycle::Lifecycle;
use crate::live::LiveSession;
use crate::metrics::Metrics;
use crate::outbound::{Outbound, SystemOutbound};
use crate::places::Places;
use crate::proxy::Proxy;
use crate::redirect;
use crate::sites::Sites;
use crate::turns::Turns;
use crate::watch::watch;

/// In seconds. The drain itself may be changed by a reload.
const LONGER_THAN_ANY_DRAIN: u64 = 8 * 24 * 3_600;

/// Listeners, the store, logs.
const FEW_FILES: u64 = 512;

/// Idle connections to providers in Pingora's pool. All sessions share it, so it is larger than one can fill.
fn pool() -> usize {
    files::share(4_096, 32)
}

/// Requests that have a connection to their provider beside the one that is kept.
fn aside() -> usize {
    files::share(1_024, 32)
}

/// What is left for renters' connections. The control API may be in the same process.
fn files_for_renters(settings: &NodeSettings) -> u64 {
    let redirects = settings.gateway.redirect_listen.map_or(0, |_| redirect::connections());
    let control = if settings.control.enabled { files::control() } else { 0 };
    let others = FEW_FILES + (redirects + control + files::admin() + pool() + aside()) as u64;
    files::most().saturating_sub(others.min(files::most() / 2))
}

/// Pingora's configuration, as the settings have it.
pub fn server_conf(settings: &NodeSettings) -> ServerConf {
    let threads = match settings.gateway.threads {
        0 if settings.gateway.cores.is_empty() => std::thread::available_parallelism().map_or(1, NonZero::get),
        0 => settings.gateway.cores.len(),
        threads => threads,
    };
    ServerConf {
        threads,
        // Pingora takes so many for each thread.
        upstream_keepalive_pool_size: pool().div_ceil(threads.max(1)),
        ca_file: settings.upstream.ca_file.as_ref().map(|file| file.display().to_string()),
        // The end is not Pingora's to time: see `Lifecycle`.
        grace_period_seconds: Some(LONGER_THAN_ANY_DRAIN),
        upgrade_sock: settings.control.data_dir.join("upgrade.sock").display().to_string(),
        ..ServerConf::default()
    }
}

/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);

/// A node cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Two metrics of the same name, which a test rules out.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The listener's certificate cannot be used.
    #[error("gateway.tls")]
    Certificate(#[from] BadPair),
    /// No file for spent bytes.
    #[error("cannot make the file of spent bytes")]
    Spent(#[from] std::io::Error),
}

/// A node before it runs.
pub struct Node {
    authority: Arc<dyn Authority>,
    directory: Arc<Directory>,
    spent: Arc<SpentFile>,
    /// Where files of nodes that are gone are looked for.
    estates: PathBuf,
    metrics: Arc<Metrics>,
    leasing: Leasing,
    refills: mpsc::UnboundedReceiver<Arc<LiveSession>>,
    events: mpsc::Receiver<SecurityEvent>,
    gateway: Arc<Gateway>,
    settings: LiveSettings,
    outbound: Arc<dyn Outbound>,
    certificate: Option<Arc<Certificate>>,
    traces: Traces,
}

impl Node {
    /// A new node, with its file of spent bytes in the data directory. Each start of a process is a node of its own.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(
        settings: impl Into<LiveSettings>,
        authority: Arc<dyn Authority>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NodeError> {
        let settings = settings.into();
        let at_start = settings.load();
        let metrics = Arc::new(Metrics::new()?);
        let certificate = at_start.gateway.tls.as_ref().map(Certificate::open).transpose()?.map(Arc::new);
        if let Some(certificate) = &certificate {
            metrics.note_certificate(certificate.expires_at());
        }
        let (refill_queue, refills) = mpsc::unbounded_channel();
        let node = NodeId::from_uuid(Uuid::new_v4());
        let estates = at_start.control.data_dir.join("spent");
        let spent = SpentFile::create(&estates, node)?;
        let directory = Arc::new(Directory::new(Arc::clone(&spent), refill_queue));
        let (sink, events) = EventSink::new(Arc::clone(&authority));
        let gateway = Gateway {
            authority: Arc::clone(&authority),
            clock: Arc::clone(&clock),
            directory: Arc::clone(&directory),
            events: sink,
            guesses: Guesses::new(at_start.limits.guesses_per_address),
            turns: Turns::new(),
            metrics: Arc::clone(&metrics),
            settings: settings.clone(),
            sites: Sites::new(&at_start.gateway),
            secure: at_start.gateway.public_url.scheme() == "https",
        };
        let leasing = Leasing {
            authority: Arc::clone(&authority),
            clock,
            node,
            metrics: Arc::clone(&metrics),
            settings: settings.clone(),
        };
        Ok(Self {
            authority,
            directory,
            spent,
            estates,
            metrics,
            leasing,
            refills,
            events,
            gateway: Arc::new(gateway),
            settings,
            outbound: Arc::new(SystemOutbound),
            certificate,
            traces: Traces::default(),
        })
    }

    /// Has it reach providers through `outbound`, in place of the system's resolver and sockets.
    #[must_use]
    pub fn reaching_through(self, outbound: Arc<dyn Outbound>) -> Self {
        Self { outbound, ..self }
    }

    /// Has spans of its requests go there.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// The metrics of this node.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The listener's certificate, where it has one.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.clone()
    }

    /// The server app for Pingora.
    pub fn app(&self, conf: &Arc<ServerConf>, lifecycle: Lifecycle) -> GatewayApp {
        let proxy = Proxy {
            gateway: Arc::clone(&self.gateway),
            outbound: Arc::clone(&self.outbound),
            connector: TransportConnector::new(Some(ConnectorOptions::from_server_conf(conf))),
            aside: Arc::new(Semaphore::new(aside())),
            lifecycle: lifecycle.clone(),
            traces: self.traces.clone(),
        };
        let mut proxy = HttpProxy::new(proxy, Arc::clone(conf));
        proxy.handle_init_modules();
        GatewayApp {
            proxy: Arc::new(proxy),
            settings: self.settings.clone(),
            places: Places::new(files_for_renters(&self.settings.load())),
            metrics: Arc::clone(&self.metrics),
            lifecycle,
            tls: self.certificate.clone().map(server_config).map(Acceptor::from_server_config),
        }
    }

    /// Settles what nodes have left behind that were killed on this host; to be awaited before anybody is served. What
    /// cannot be settled now stays for the next start, or is charged in full when it expires.
    pub async fn settle_killed(&self) {
        settle_estates(&self.estates, &*self.authority).await;
    }

    /// Runs what runs beside the proxy: the directory, the leases, the events. When `stop` resolves, which must be after
    /// the last connection ended, it settles every lease and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { authority, directory, spent, metrics, leasing, refills, events, settings, certificate, .. } = self;
        let changes = authority.watch();
        let followed = Arc::clone(&directory);
        let watching = certificate
            .map(|certificate| tokio::spawn(runit_listener::watch(certificate, report_to(Arc::clone(&metrics)))));
        let tasks = [
            tokio::spawn(async move { followed.follow(changes).await }),
            tokio::spawn(record(events, authority)),
            tokio::spawn(watch(Arc::clone(&directory), settings)),
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(GAUGES);
                loop {
                    tick.tick().await;
                    metrics.sessions.set(i64::try_from(directory.len()).unwrap_or(i64::MAX));
                }
            }),
        ];
        let settled = leasing.run(refills, stop).await;
        for task in tasks.into_iter().chain(watching) {
            task.abort();
        }
        if settled && let Err(error) = spent.remove() {
            tracing::warn!(%error, "the file of spent bytes cannot be removed");
        }
    }
}

/// Shows what became of the certificate's files.
fn report_to(metrics: Arc<Metrics>) -> impl Fn(&Certificate, &Look) {
    move |certificate, look| {
        metrics.note_certificate(certificate.expires_at());
        metrics.note_certificate_change(matches!(look, Look::Replaced));
    }
}

async fn settle_estates(directory: &Path, authority: &dyn Authority) {
    let estates = match Estate::find(directory) {
        Ok(estates) => estates,
        Err(error) => {
            tracing::error!(%error, "files of spent bytes cannot be read; open leases will be charged in full");
            return;
        }
    };
    for estate in estates {
        let node = estate.node;
        let remains = estate.remains.iter().map(|remains| (remains.session, remains.spent)).collect();
        match authority.recover(node, remains).await {
            Ok(()) => {
                tracing::info!(%node, sessions = estate.remains.len(), "settled the leases of a node that was killed");
                if let Err(error) = estate.settled() {
                    tracing::warn!(%error, "a settled file of spent bytes cannot be removed");
                }
            }
            Err(error) => tracing::error!(%error, %node, "the leases of a killed node are not settled yet"),
        }
    }
}
