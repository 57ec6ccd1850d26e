//! What every answer has: headers that keep browsers careful, and a count in the metrics.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use runit_config::LiveSettings;
use runit_core::trace::{TRACEPARENT, TraceId};
use tracing::Instrument;

use super::problem::ProblemCode;
use crate::metrics::Metrics;

/// For answers that say nothing else. An API answer is no document: nothing may be loaded from it or framed.
const DEFAULTS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in DEFAULTS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// What browsers are told of `https://` (RFC 6797), where it is how they come here.
pub(super) async fn add_hsts(State(settings): State<LiveSettings>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let settings = settings.load();
    let seconds = settings.gateway.hsts_seconds;
    if settings.control.public_url.scheme() == "https" && seconds > 0 {
        let hsts = HeaderValue::try_from(format!("max-age={seconds}")).expect("digits");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    response
}

/// Whatever is logged for a request of a trace names the trace.
pub(crate) async fn trace(request: Request, next: Next) -> Response {
    match request.headers().get(TRACEPARENT).and_then(|field| TraceId::of(field.as_bytes())) {
        Some(trace) => next.run(request).instrument(tracing::info_span!("request", %trace)).await,
        None => next.run(request).await,
    }
}

pub(crate) async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, status) = (route.as_ref().map_or("unknown", MatchedPath::as_str), response.status().as_u16());
    metrics.request(route, status);
    tracing::debug!(route, status, "answered");
    if let Some(ProblemCode(code)) = response.extensions().get() {
        metrics.problem(code);
    }
    response
}
