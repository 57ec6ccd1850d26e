//! The listener: accepts, shakes hands where it speaks TLS, gives each request its peer, and closes in an orderly way.
//!
//! Not `axum::serve`, because that has no deadline for a request's head: a few thousand silent connections would be
//! enough to keep everybody else out. Here a connection that has asked for nothing yet has little time, and one that asks for
//! nothing at the moment gives way when all places are taken: many more agents than places beat in turn.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderValue;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runit_config::LiveSettings;
use runit_core::RenterAddress;
use runit_core::client_address::{client_address, is_listed};
use runit_listener::files;
use runit_listener::places::{Bounds, Place, Places};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::api::Peer;
use crate::metrics::{Metrics, TurnedAway};

/// Connections of one network to the API, if there are places for four such networks; and those that have not asked.
const PER_NETWORK: usize = 1_024;
const WAITING_PER_NETWORK: usize = 128;
/// From the connection to its first request's head, which comes at once from whoever means to ask.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// For the next request's head on a kept connection; longer than two heartbeats are apart.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// Longest head.
const HEAD_BYTES: usize = 32 * 1024;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For requests that are under way when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom a listener lets in, and how long it waits to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Reception {
    /// How many connections there may be.
    pub bounds: Bounds,
    /// From a connection to the end of its first request's head.
    pub first_head: Duration,
    /// From an answer to the end of the next request's head.
    pub next_head: Duration,
}

impl Reception {
    /// The API's, by the files that this process may open.
    pub fn of_api() -> Self {
        let connections = files::control();
        let per_network = PER_NETWORK.min(connections / 4).max(1);
        Self::with(Bounds { connections, per_network, waiting_per_network: WAITING_PER_NETWORK })
    }

    /// The operator's: who can reach it at all comes from few networks, if not from one.
    pub(crate) fn of_admin() -> Self {
        let connections = files::admin();
        Self::with(Bounds { connections, per_network: connections, waiting_per_network: connections })
    }

    const fn with(bounds: Bounds) -> Self {
        Self { bounds, first_head: FIRST_HEAD, next_head: NEXT_HEAD }
    }
}

/// What connections are served with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: Router,
    /// None: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) settings: LiveSettings,
    pub(crate) reception: Reception,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stop` turns true.
pub(crate) async fn serve(listener: TcpListener, service: Service, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let places = Places::new(service.reception.bounds);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|&stopped| stopped) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = RenterAddress::new(peer.ip());
                if let Some(place) = service.admit(&places, peer) {
                    connections.spawn(receive(stream, peer, place, service.clone(), stop.clone()));
                }
            }
            // Gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

impl Service {
    /// A place for a connection from `peer`. A listed proxy has the connections of many, so it is not bounded as one.
    fn admit(&self, places: &Arc<Places>, peer: RenterAddress) -> Option<Arc<Place>> {
        let entered = if is_listed(peer, &self.settings.load().control.trusted_proxies) {
            places.enter_for_many(peer.network())
        } else {
            places.enter(peer.network())
        };
        entered.map(Arc::new).map_err(|full| self.metrics.turned_away(full.into())).ok()
    }
}

/// Serves a connection for as long as it may keep its place.
async fn receive(
    stream: TcpStream,
    peer: RenterAddress,
    place: Arc<Place>,
    service: Service,
    stop: watch::Receiver<bool>,
) {
    let (metrics, first_head) = (Arc::clone(&service.metrics), service.reception.first_head);
    tokio::select! {
        biased;
        why = dismissed(&place, first_head) => metrics.turned_away(why),
        () = shake_hands(stream, peer, Arc::clone(&place), service, stop) => {}
    }
}

/// Resolves when a connection has to go: another takes its place while it does not ask, or it has not asked in time.
async fn dismissed(place: &Place, first_head: Duration) -> TurnedAway {
    tokio::select! {
        () = place.gave_way() => return TurnedAway::GaveWay,
        () = tokio::time::sleep(first_head) => {}
    }
    if place.has_asked() {
        place.gave_way().await;
        return TurnedAway::GaveWay;
    }
    TurnedAway::NoHead
}

/// Speaks HTTP with a connection, inside TLS where there is TLS.
async fn shake_hands(
    stream: TcpStream,
    peer: RenterAddress,
    place: Arc<Place>,
    service: Service,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small; a connection that does not take the option works all the same.
    let _ = stream.set_nodelay(true);
    let Some(tls) = service.tls.clone() else { return converse(stream, peer, place, service, stop).await };
    let received = tokio::select! {
        received = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => received,
        _ = stop.wait_for(|&stopped| stopped) => return,
    };
    if let Ok(Ok(stream)) = received {
        converse(stream, peer, place, service, stop).await;
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: RenterAddress,
    place: Arc<Place>,
    service: Service,
    mut stop: watch::Receiver<bool>,
) {
    let Service { router, settings, reception, .. } = service;
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let stays = place.ask();
        let in_use = InUse(Arc::clone(&place));
        let lines = request.headers().get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let client = client_address(peer, lines, &settings.load().control.trusted_proxies);
        request.extensions_mut().insert(Peer(client));
        let mut router = router.clone();
        async move {
            if !stays {
                // It came too late: nothing is begun that nobody would hear the end of.
                return Err("gave way");
            }
            let answer = router.call(request.map(Body::new)).await.unwrap_or_else(|never| match never {});
            Ok(answer.map(|body| Answered { body, _in_use: in_use }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(reception.next_head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|&stopped| stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A connection's place while a request of it is answered.
struct InUse(Arc<Place>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// An answer, with the place that it keeps until all of it is handed over to be written.
struct Answered {
    body: Body,
    _in_use: InUse,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
