//! The gate: the only way from a tunnel to the container.
//!
//! A reverse proxy on loopback. A request gets through only with the *gate secret*, which never enters the container;
//! in its place the gate puts Jupyter's own token. So a renter's code, which can find out Jupyter's token and the
//! tunnel's name, still cannot go round the gateway.
//!
//! Answers for: who gets through (`check`), what is changed on the way (`head`: credentials, Host, hop-by-hop and
//! forwarding fields; never a byte of path, query or body), and the bytes in between (`relay`). Does not meter.
//!
//! Invariants: without the secret no byte reaches Jupyter; [`Gate::open`] and [`Gate::shut`] cut every connection
//! that was accepted before.

mod check;
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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use relay::Relay;

/// Heads of requests and of Jupyter's answers, in bytes and in fields.
const HEAD_BYTES: usize = 64 << 10;
const HEAD_FIELDS: usize = 128;
/// Also the time that an idle connection is kept: longer than cloudflared keeps its own (90 s), so that it is never
/// closed just as a request arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A page load has up to 38 requests in flight, cloudflared's edge allows 200.
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
    closed: CancellationToken,
}

/// One setting of the gate, and the end of the connections that were accepted under it.
#[derive(Debug, Default)]
struct Epoch {
    relay: Option<Relay>,
    over: CancellationToken,
}

impl Gate {
    /// Listens on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is not a loopback address, or cannot be bound.
    pub async fn bind(listen: SocketAddr) -> std::io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the gate listens on loopback only"));
        }
        let listener = TcpListener::bind(listen).await?;
        let gate = Self { address: listener.local_addr()?, current: Arc::default(), closed: CancellationToken::new() };
        tokio::spawn(accept(listener, Arc::clone(&gate.current), gate.closed.clone()));
        Ok(gate)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests through to `backend` from now on, and to no other.
    pub fn open(&self, backend: &Backend) {
        self.switch(Some(Relay::to(backend)));
    }

    /// Lets nothing through.
    pub fn shut(&self) {
        self.switch(None);
    }

    fn switch(&self, relay: Option<Relay>) {
        let next = Arc::new(Epoch { relay, over: self.closed.child_token() });
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, next).over.cancel();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
        self.closed.cancel();
    }
}

async fn accept(listener: TcpListener, current: Arc<RwLock<Arc<Epoch>>>, closed: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
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
        tokio::spawn(async move {
            serve(stream, epoch).await;
            drop(slot);
        });
    }
}

/// One connection, until it ends or its epoch does.
async fn serve(stream: TcpStream, epoch: Arc<Epoch>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY on a connection to the gate");
    }
    let over = epoch.over.clone();
    let service = service_fn(move |request| {
        let epoch = Arc::clone(&epoch);
        async move { Ok::<_, std::convert::Infallible>(relay::answer(epoch.relay.as_ref(), &epoch.over, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the gate ended early");
        },
        () = over.cancelled() => {}
    }
}
