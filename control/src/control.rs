//! The control plane as one value: opened from settings, asked through its authority, served on a listener.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use runit_config::{LiveSettings, NodeSettings};
use runit_core::authority::Authority;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::ledger::LeasePolicy;
use runit_core::session::{Change, Session};
use runit_core::store::{ChangeError, Store, StoreError};
use runit_core::time::Clock;
use runit_core::trail::MarkKind;
use runit_core::upstream::UpstreamPolicy;
use runit_core::{Secret, Timestamp};
use runit_listener::{BadPair, Certificate, Look, server_config};
use runit_traces::Traces;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::admin::{self, Source};
use crate::anchors::AnchorFile;
use crate::api::{self, LiveList};
use crate::authority::LocalAuthority;
use crate::clock::SystemClock;
use crate::data_dir::DataDir;
use crate::hearing::Hearing;
use crate::heartbeats::Heartbeats;
use crate::keys::Keys;
use crate::metered_store::MeteredStore;
use crate::metrics::Metrics;
use crate::openapi::Description;
use crate::operations::Swept;
use crate::postgres::{self, PostgresSettings, PostgresStore};
use crate::reconnects::Reconnects;
use crate::reports::Reports;
use crate::sealer::{KeyError, Sealer};
use crate::server::{self, Reception, Service};
use crate::sessions::Sessions;
use crate::sqlite::{OpenError, SqliteStore};
use crate::trail::Trail;
use crate::webhooks::{Target, TargetError, Webhooks};

/// Leases stay below 2^31 bytes (see [`LeasePolicy::max_bytes`]), so that two fit into a node's budget.
const LARGEST_LEASE: u64 = (1 << 31) - 1;

/// The control plane of one process; clones are the same one. Each layer of the API has one for each request, so a clone is
/// one count.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

/// What a control plane consists of.
#[derive(Clone)]
pub struct Parts {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: LiveSettings,
    /// None: the listener speaks plain HTTP.
    certificate: Option<Arc<Certificate>>,
    pub(crate) authority: Arc<LocalAuthority>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) swept: Arc<Swept>,
    webhook_targets: Arc<[Target]>,
    pub(crate) hearing: Arc<Hearing>,
    /// New work should be other nodes'. A word of its own, read by nothing but `/readyz`.
    leaving: Arc<AtomicBool>,
    pub(crate) started_at: Timestamp,
    pub(crate) gateway_description: Option<Arc<Description>>,
    pub(crate) reception: Reception,
    pub(crate) traces: Traces,
}

impl Deref for Control {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be created.
    #[error("cannot create the data directory")]
    Directory(#[source] io::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    /// The sealing key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shared database was last written with another key, so that this node could open nothing, and others nothing of
    /// its.
    #[error("the audit trail in the shared database is sealed with another key: all its nodes need one credential.key")]
    OtherKey,
    /// The listener's certificate cannot be used.
    #[error("control.tls")]
    Certificate(#[from] BadPair),
    /// The first anchor of the audit trail cannot be written.
    #[error("the audit trail's anchor cannot be written: audit.anchor_file, or control.data_dir")]
    Anchor(#[source] io::Error),
    /// A webhook's target cannot be used.
    #[error(transparent)]
    Webhooks(#[from] TargetError),
    /// The metrics contradict each other.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

impl Control {
    /// Opens the embedded store and the key in the data directory, both created at the first start, and loads the
    /// sessions. Blocks for that time; needs no runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(settings: impl Into<LiveSettings>, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let settings = settings.into();
        let directory = DataDir::of(&settings.load());
        directory.create().map_err(StartError::Directory)?;
        let sealer = Sealer::from_file(&directory.sealing_key())?;
        let store = SqliteStore::open(&directory.database(), sealer.trail_key())?;
        futures::executor::block_on(Self::with_store(settings, clock, Arc::new(store), sealer))
    }

    /// Opens the store that the settings name, and loads the sessions. The time is the system's; with a store that nodes
    /// share it is the store's, so that no node frees bytes before another would.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: impl Into<LiveSettings>) -> Result<Self, StartError> {
        let settings = settings.into();
        let now = settings.load();
        let Some(url) = &now.store.url else { return Self::open(settings, Arc::new(SystemClock::start())) };
        let directory = DataDir::of(&now);
        directory.create().map_err(StartError::Directory)?;
        let sealer = Sealer::from_file(&directory.sealing_key())?;
        let place = PostgresSettings { url: url.clone(), ca_file: now.store.ca_file.clone() };
        let store = PostgresStore::connect(&place, sealer.trail_key()).await?;
        let clock = SystemClock::from(store.time().await?);
        Self::with_store(settings, Arc::new(clock), Arc::new(store), sealer).await
    }

    /// What time it is for this control plane and for all that share its store.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.sessions.clock)
    }

    /// The same over any store.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn with_store(
        settings: impl Into<LiveSettings>,
        clock: Arc<dyn Clock>,
        store: Arc<dyn Store>,
        sealer: Sealer,
    ) -> Result<Self, StartError> {
        let settings = settings.into();
        let metrics = Arc::new(Metrics::new()?);
        let certificate = settings.load().control.tls.as_ref().map(Certificate::open).transpose()?.map(Arc::new);
        let store: Arc<dyn Store> = Arc::new(MeteredStore { inner: store, metrics: Arc::clone(&metrics) });
        if store.is_shared() && !sealer.trail_key().holds(MarkKind::Head, &store.trail_marks().await?.head) {
            return Err(StartError::OtherKey);
        }
        let started_at = clock.now();
        let sessions = Arc::new(Sessions::new(Arc::clone(&store), sealer, clock, settings.clone()));
        let known = Arc::clone(&sessions);
        let provider_of = move |session| known.directory.session(session).map(|session| session.provider.clone());
        let trail = Arc::new(Trail::new(store, Arc::clone(&metrics), Box::new(provider_of)));
        let authority = Arc::new(LocalAuthority {
            sessions: Arc::clone(&sessions),
            trail: Arc::clone(&trail),
            settings: settings.clone(),
            reconnects: Arc::new(Reconnects::new(settings.load().control.reconnect_limit)),
        });
        let webhook_targets = Target::all(&settings.load())?.into();
        let configured = settings.load().gateway.operator_key.as_ref().map(Secret::hash);
        let keys = Arc::new(Keys::load(Arc::clone(&sessions.store), configured).await?);
        trail.count_past(started_at).await?;
        let interval = Duration::from_millis(settings.load().control.sweep_interval_ms);
        let hearing = Arc::new(Hearing::new(started_at, Instant::now(), interval));
        let (heartbeats, swept, reports) = Default::default();
        let control = Self(Arc::new(Parts {
            sessions,
            trail,
            metrics,
            settings,
            certificate,
            authority,
            heartbeats,
            reports,
            keys,
            swept,
            webhook_targets,
            hearing,
            leaving: Arc::default(),
            started_at,
            gateway_description: None,
            reception: Reception::of_api(),
            traces: Traces::default(),
        }));
        control.load().await?;
        Ok(control)
    }

    /// The same, with the OpenAPI document of the gateway in this process, which it shows beside its own.
    pub fn beside_gateway(self, document: &Value) -> Self {
        let description = Description::new(document, "/openapi/gateway.json");
        Self(Arc::new(Parts { gateway_description: Some(Arc::new(description)), ..Parts::clone(&self) }))
    }

    /// The same, letting others in to the API than this process's files would allow.
    #[must_use]
    pub fn receiving(self, reception: Reception) -> Self {
        Self(Arc::new(Parts { reception, ..Parts::clone(&self) }))
    }

    /// The same, with spans of its requests going there.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self(Arc::new(Parts { traces, ..Parts::clone(&self) }))
    }

    /// Is not ready any more, so that balancers send nobody; serves whoever comes all the same.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The listener's certificate, where it has one.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.clone()
    }

    /// Which servers may be registered now.
    pub(crate) fn upstream_policy(&self) -> UpstreamPolicy {
        self.sessions.upstream_policy()
    }

    fn webhooks(&self) -> Webhooks {
        Webhooks {
            targets: self.webhook_targets.clone(),
            store: Arc::clone(&self.sessions.store),
            clock: Arc::clone(&self.sessions.clock),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// What the data plane asks.
    pub fn authority(&self) -> Arc<dyn Authority> {
        self.authority.clone()
    }

    /// Serves the API and the renter's pages on `listener`, and sweeps, until `shutdown` is done.
    ///
    /// # Errors
    /// When the listener fails.
    pub fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let control = self.clone();
        async move {
            let (stopping, stop) = watch::channel(false);
            let live = LiveList::new(stop.clone());
            let service = Service {
                router: api::router(control.clone(), Arc::clone(&live)),
                tls: control.certificate.clone().map(server_config).map(TlsAcceptor::from),
                settings: control.settings.clone(),
                reception: control.reception,
                metrics: Arc::clone(&control.metrics),
            };
            let watching = control.clone().watch_certificate(stop.clone());
            let following = live.follow(control.clone());
            let webhooks = control.webhooks().run(stop.clone());
            let sweeping = control.clone().keep_sweeping(stop.clone());
            let mut stopped_following = stop.clone();
            let hearing_others = async move {
                tokio::select! {
                    () = control.follow_store() => {}
                    _ = stopped_following.wait_for(|&stopped| stopped) => {}
                }
            };
            let stopped = async move {
                shutdown.await;
                // Everything that serves holds a receiver until it has ended.
                let _ = stopping.send(true);
            };
            let serving = server::serve(listener, service, stop);
            let (served, ..) = tokio::join!(serving, following, sweeping, webhooks, watching, hearing_others, stopped);
            served
        }
    }

    /// Hears of what other processes change in the store, for ever.
    pub(crate) async fn follow_store(&self) {
        self.sessions.follow_store(|| self.keys.reload()).await;
    }

    /// Takes over another certificate when its files change, and shows when it ends.
    async fn watch_certificate(self, mut stop: watch::Receiver<bool>) {
        let Some(certificate) = self.certificate.clone() else { return };
        self.metrics.certificate(certificate.expires_at());
        let watching = runit_listener::watch(certificate, |certificate, look| {
            self.metrics.certificate(certificate.expires_at());
            self.metrics.certificate_change(matches!(look, Look::Replaced));
        });
        tokio::select! {
            () = watching => {}
            _ = stop.wait_for(|&stopped| stopped) => {}
        }
    }

    /// Serves the operator's interface on `listener` until `shutdown` is done; its metrics are the control plane's own
    /// and those of `sources`.
    ///
    /// # Errors
    /// When the listener fails.
    pub fn serve_admin(
        &self,
        listener: TcpListener,
        sources: Vec<Source>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (stopping, stop) = watch::channel(false);
        let mut settings = NodeSettings::clone(&self.settings.load());
        // Who may ask is decided by the connection: no proxy speaks for somebody else here.
        settings.control.trusted_proxies.clear();
        let router = admin::router(self.clone(), sources, stop.clone());
        let service = Service {
            router,
            tls: None,
            settings: LiveSettings::new(settings),
            reception: Reception::of_admin(),
            metrics: Arc::clone(&self.metrics),
        };
        async move {
            let stopped = async move {
                shutdown.await;
                let _ = stopping.send(true);
            };
            tokio::join!(server::serve(listener, service, stop), stopped).0
        }
    }

    /// The metrics as they are now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let forfeited = self.sessions.store.forfeited_bytes();
        self.metrics.gather(self.sessions.directory.counts(), forfeited, self.sessions.store.silence())
    }

    /// Sessions that nobody can serve any more are removed, so that their agents are told to register again.
    async fn load(&self) -> Result<(), StartError> {
        let head = self.sessions.store.trail_marks().await?.head;
        AnchorFile::of(&self.settings.load()).begin(&head).map_err(StartError::Anchor)?;
        for id in self.sessions.load(|keys| self.keys.standing(keys)).await? {
            tracing::warn!(
                session = %id,
                "removed: its host is no longer allowed, its credential cannot be opened, or its provider has no key"
            );
            let session = match self.sessions.store.change(id, Change::Remove, self.started_at).await {
                Ok(session) => session,
                Err(ChangeError::Store(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            self.trail.record(vec![removed(&session, self.started_at)]).await?;
        }
        Ok(())
    }
}

/// The event of a session's removal.
pub(crate) fn removed(session: &Session, now: Timestamp) -> SecurityEvent {
    SecurityEvent::new(EventKind::SessionRemoved, now).session(session.id).provider(session.provider.clone())
}

/// How leases are cut to size.
pub(crate) fn lease_policy(settings: &NodeSettings) -> LeasePolicy {
    let max_bytes = settings.quota.lease_max_bytes.min(LARGEST_LEASE);
    LeasePolicy {
        min_bytes: settings.quota.lease_min_bytes.min(max_bytes),
        max_bytes,
        ttl: Duration::from_secs(settings.quota.lease_ttl_seconds),
    }
}
