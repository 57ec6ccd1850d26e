//! The listener: accepts, shakes hands where it speaks TLS, gives each request its peer, and closes in an orderly way.
//!
//! Not `axum::serve`, because that has no deadline for a request's head: a few thousand silent connections would be
//! enough to keep everybody else out.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runit_config::LiveSettings;
use runit_core::RenterAddress;
use runit_core::client_address::client_address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::api::Peer;
use crate::occupancy::{Occupancy, Place};

/// Connections at one moment, and of one network; more are closed at once.
const CONNECTIONS: usize = 8_192;
const CONNECTIONS_PER_NETWORK: usize = 1_024;
/// For a request's whole head, and for the next request on a kept connection; longer than two heartbeats are apart.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest head.
const HEAD_BYTES: usize = 32 * 1024;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For requests that are under way when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections are served with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: Router,
    /// None: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) settings: LiveSettings,
}

/// Serves until `stop` turns true.
pub(crate) async fn serve(listener: TcpListener, service: Service, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let places = Occupancy::new(CONNECTIONS, CONNECTIONS_PER_NETWORK);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|&stopped| stopped) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = RenterAddress::new(peer.ip());
                if let Some(place) = places.enter(peer.network()) {
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

/// Speaks HTTP with a connection, inside TLS where there is TLS.
async fn receive(
    stream: TcpStream,
    peer: RenterAddress,
    place: Place,
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
    place: Place,
    service: Service,
    mut stop: watch::Receiver<bool>,
) {
    let Service { router, settings, .. } = service;
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let lines = request.headers().get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let client = client_address(peer, lines, &settings.load().control.trusted_proxies);
        request.extensions_mut().insert(Peer(client));
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request.map(Body::new)).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return drop(place),
        _ = stop.wait_for(|&stopped| stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
    drop(place);
}
