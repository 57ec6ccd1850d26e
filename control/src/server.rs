//! The listener: accepts, gives each request its peer, and closes in an orderly way.
//!
//! Not `axum::serve`, because that has no deadline for a request's head: a few thousand silent connections would be
//! enough to keep everybody else out.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runit_core::RenterAddress;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;

use crate::api::Peer;
use crate::occupancy::{Occupancy, Place};

/// Connections at one moment, and of one network; more are closed at once.
const CONNECTIONS: usize = 8_192;
const CONNECTIONS_PER_NETWORK: usize = 1_024;
/// For a request's whole head, and for the next request on a kept connection; longer than two heartbeats are apart.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest head.
const HEAD_BYTES: usize = 32 * 1024;
/// For requests that are under way when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` turns true.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let places = Occupancy::new(CONNECTIONS, CONNECTIONS_PER_NETWORK);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|&stopped| stopped) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = Peer(RenterAddress::new(peer.ip()));
                if let Some(place) = places.enter(peer.0.network()) {
                    connections.spawn(converse(stream, peer, place, router.clone(), stop.clone()));
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

async fn converse(stream: TcpStream, peer: Peer, place: Place, router: Router, mut stop: watch::Receiver<bool>) {
    // Answers are small; a connection that does not take the option works all the same.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
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
