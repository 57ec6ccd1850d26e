//! The gate: the only way from a tunnel to the container.
//!
//! A reverse proxy on loopback. A request gets through only with the *gate secret*, which never enters the container;
//! in its place the gate puts Jupyter's own token. So a renter's code, which can find out Jupyter's token and the
//! tunnel's name, still cannot go round the gateway.
//!
//! A gate that *dozes* keeps who is admitted waiting, and calls for the container to be started.
//!
//! Answers for: who gets through (`check`), what is changed on the way (`head`: credentials, Host, hop-by-hop and
//! forwarding fields; never a byte of path, query or body), and the bytes in between (`relay`). Counts them, and meters
//! nothing.
//!
//! Invariants: without the secret no byte reaches Jupyter; [`Gate::open`] and [`Gate::shut`] cut every connection
//! that was accepted before, but for those that waited for a dozing gate.

mod check;
mod counters;
mod head;
mod relay;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runit_core::Secret;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use counters::Counts;
use counters::{Counters, counted};
use relay::Relay;

/// Heads of requests and of Jupyter's answers, in bytes and in fields.
const HEAD_BYTES: usize = 64 << 10;
const HEAD_FIELDS: usize = 128;
/// Also the time that an idle connection is kept: longer than cloudflared keeps its own (90 s), so that it is never
/// closed just as a request arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections at one time, upgraded ones among them. A page load has up to 38 requests in flight, cloudflared's edge allows 200.
const CONNECTIONS: usize = 1_024;
/// Where nothing can be accepted for the moment (no file descriptors): try again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What stands behind an open gate.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The container's published port, on loopback.
    pub address: SocketAddr,
    /// What a request must bring: `Authorization: token <this>`.
    pub gate_secret: Secret,
    /// What Jupyter gets instead.
    pub jupyter_token: Secret,
}

/// A listening gate. Shut until [`Gate::open`]; dropping it closes everything.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    current: Arc<RwLock<Arc<Epoch>>>,
    shared: Arc<Shared>,
    closed: CancellationToken,
}

/// What all connections share, whatever the gate's setting.
#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    /// Told by requests that wait for a dozing gate.
    wanted: Notify,
}

/// One setting of the gate, and the end of the connections that were accepted under it.
#[derive(Debug)]
struct Epoch {
    /// None: shut.
    gate_secret: Option<Secret>,
    /// None, though there is a secret: dozing.
    relay: watch::Sender<Option<Arc<Relay>>>,
    over: CancellationToken,
}

/// One accepted connection; it counts as open until what it was upgraded to has ended too.
#[derive(Debug, Clone)]
struct Connection {
    epoch: Arc<Epoch>,
    shared: Arc<Shared>,
    _slot: Arc<OwnedSemaphorePermit>,
}

impl Gate {
    /// Listens on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is not a loopback address, or cannot be bound.
    pub async fn bind(listen: SocketAddr) -> std::io::Result<Self> {
        Self::with_room_for(CONNECTIONS, listen).await
    }

    /// The same for another number of connections at one time.
    ///
    /// # Errors
    /// As for [`Gate::bind`].
    pub async fn with_room_for(connections: usize, listen: SocketAddr) -> std::io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the gate listens on loopback only"));
        }
        let listener = TcpListener::bind(listen).await?;
        let closed = CancellationToken::new();
        let current = Arc::new(RwLock::new(Arc::new(Epoch::new(None, None, &closed))));
        let gate = Self { address: listener.local_addr()?, current, shared: Arc::default(), closed };
        let slots = Arc::new(Semaphore::new(connections));
        tokio::spawn(accept(listener, slots, Arc::clone(&gate.current), Arc::clone(&gate.shared), gate.closed.clone()));
        Ok(gate)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests through to `backend` from now on, and to no other. Who waits for a container that was asleep
    /// behind the same secret goes on.
    pub fn open(&self, backend: &Backend) {
        let relay = Arc::new(Relay::to(backend));
        let dozing = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let same_secret =
            dozing.gate_secret.as_ref().is_some_and(|secret| secret.expose() == backend.gate_secret.expose());
        if same_secret && dozing.relay.borrow().is_none() {
            dozing.relay.send_replace(Some(relay));
        } else {
            self.switch(Some(backend.gate_secret.clone()), Some(relay));
        }
    }

    /// Lets nothing through, but keeps who brings the secret waiting until the gate opens: see [`Gate::wanted`].
    pub fn doze(&self, gate_secret: &Secret) {
        self.switch(Some(gate_secret.clone()), None);
    }

    /// Lets nothing through.
    pub fn shut(&self) {
        self.switch(None, None);
    }

    /// Ends when somebody waits at a dozing gate.
    pub async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    fn switch(&self, gate_secret: Option<Secret>, relay: Option<Arc<Relay>>) {
        let next = Arc::new(Epoch::new(gate_secret, relay, &self.closed));
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, next).over.cancel();
    }
}

impl Epoch {
    fn new(gate_secret: Option<Secret>, relay: Option<Arc<Relay>>, closed: &CancellationToken) -> Self {
        Self { gate_secret, relay: watch::Sender::new(relay), over: closed.child_token() }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
        self.closed.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    slots: Arc<Semaphore>,
    current: Arc<RwLock<Arc<Epoch>>>,
    shared: Arc<Shared>,
    closed: CancellationToken,
) {
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the gate cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let epoch = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
        tokio::spawn(serve(stream, Connection { epoch, shared: Arc::clone(&shared), _slot: Arc::new(slot) }));
    }
}

/// One connection, until it ends or its epoch does.
async fn serve(stream: TcpStream, connection: Connection) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY on a connection to the gate");
    }
    let over = connection.epoch.over.clone();
    let stream = counted(stream, &connection.shared);
    let service = service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, std::convert::Infallible>(relay::answer(&connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the gate ended early");
        },
        () = over.cancelled() => {}
    }
}
