//! The way through the gate: one request to Jupyter, its answer back, and the bytes of an upgraded connection.
//!
//! Bodies stream both ways and are never held; a slow reader slows its writer down. A request is sent once: what was
//! not answered is a 502.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::check::{Admitted, Refusal, admit};
use super::head::{self, Local};
use super::{Backend, Connection, HEAD_BYTES, HEAD_FIELDS};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A container starts in seconds; the gateway waits for up to 100 s.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Who waits calls again: the gate may have begun to doze before anybody listened.
const CALL_EVERY: Duration = Duration::from_secs(1);
const IDLE_CONNECTIONS: usize = 64;

pub(super) type Body = Either<Incoming, Full<Bytes>>;

/// The way to one backend; its connections end with it.
#[derive(Debug)]
pub(super) struct Relay {
    local: Local,
    authority: hyper::http::uri::Authority,
    client: Client<HttpConnector, Incoming>,
}

impl Relay {
    pub(super) fn to(backend: &Backend) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD_BYTES)
            .http1_max_headers(HEAD_FIELDS)
            .retry_canceled_requests(false)
            .set_host(false)
            .build(connector);
        let authority = backend.address.to_string();
        Self {
            local: Local::new(backend.address, &backend.jupyter_token),
            authority: authority.parse().expect("a socket address is an authority"),
            client,
        }
    }
}

/// Answers one request: through to Jupyter if it is admitted, else with a refusal.
pub(super) async fn answer(connection: &Connection, request: Request<Incoming>) -> Response<Body> {
    match through(connection, request).await {
        Ok(response) => response,
        Err(refusal) => {
            connection.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            refuse(refusal)
        }
    }
}

async fn through(connection: &Connection, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let gate_secret = connection.epoch.gate_secret.as_ref().ok_or(Refusal::Shut)?;
    let renter_side = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let admitted = admit(&parts, gate_secret)?;
    connection.shared.counters.admitted.fetch_add(1, Ordering::Relaxed);
    let relay = awake(connection).await?;

    let protocol = head::upgrade(&parts.headers);
    let asked_upgrade = protocol.is_some();
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = relay.uri(&admitted)?;
    *onward.headers_mut() = relay.local.request(parts.headers, protocol);

    let mut response = relay.client.request(onward).await.map_err(|error| {
        tracing::debug!(%error, "jupyter did not answer");
        Refusal::Upstream
    })?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(packed(response, |headers| head::response(headers, None)));
    }
    let (true, Some(protocol)) = (asked_upgrade, head::upgrade(response.headers())) else {
        return Err(Refusal::Upstream);
    };
    tokio::spawn(join(renter_side, hyper::upgrade::on(&mut response), connection.clone()));
    Ok(packed(response, |headers| head::response(headers, Some(protocol))))
}

/// The way through, at once where the gate is open; a dozing gate calls for the container and waits.
async fn awake(connection: &Connection) -> Result<Arc<Relay>, Refusal> {
    let mut relay = connection.epoch.relay.subscribe();
    let opened = async {
        loop {
            if let Some(relay) = relay.borrow_and_update().clone() {
                return Ok(relay);
            }
            connection.shared.wanted.notify_one();
            if let Ok(Err(_)) = tokio::time::timeout(CALL_EVERY, relay.changed()).await {
                return Err(Refusal::Shut);
            }
        }
    };
    tokio::time::timeout(WAKE_TIMEOUT, opened).await.unwrap_or(Err(Refusal::Shut))
}

impl Relay {
    fn uri(&self, admitted: &Admitted) -> Result<Uri, Refusal> {
        Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(admitted.target().clone())
            .build()
            .map_err(|_| Refusal::Target)
    }
}

fn packed(response: Response<Incoming>, change: impl FnOnce(HeaderMap) -> HeaderMap) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers = change(std::mem::take(&mut parts.headers));
    // The version is that of the other connection.
    parts.version = hyper::Version::HTTP_11;
    Response::from_parts(parts, Either::Left(body))
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let (status, code, message) = refusal.answer();
    let body = format!("{{\"error\":\"{message}\",\"code\":\"{code}\"}}");
    let mut response = Response::new(Either::Right(Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if refusal == Refusal::Shut {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    }
    response
}

/// Carries an upgraded connection's bytes, whatever they are, until both sides have ended or the epoch has.
async fn join(renter: OnUpgrade, jupyter: OnUpgrade, connection: Connection) {
    let counters = &connection.shared.counters;
    counters.upgraded.fetch_add(1, Ordering::Relaxed);
    counters.upgraded_open.fetch_add(1, Ordering::Relaxed);
    let carried = async {
        let (renter, jupyter) = tokio::try_join!(renter, jupyter)?;
        copy(renter, jupyter).await
    };
    tokio::select! {
        ended = carried => if let Err(error) = ended {
            tracing::debug!(%error, "an upgraded connection ended early");
        },
        () = connection.epoch.over.cancelled() => {}
    }
    counters.upgraded_open.fetch_sub(1, Ordering::Relaxed);
}

async fn copy(renter: Upgraded, jupyter: Upgraded) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut renter, mut jupyter) = (TokioIo::new(renter), TokioIo::new(jupyter));
    tokio::io::copy_bidirectional(&mut renter, &mut jupyter).await?;
    Ok(())
}
