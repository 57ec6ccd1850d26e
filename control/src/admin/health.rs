//! `/livez`, `/readyz`, `/metrics`, and the description of this listener.

use std::sync::LazyLock;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TEXT_FORMAT, TextEncoder};

use super::Admin;
use super::access::Reader;
use crate::api::problem::Problem;
use crate::openapi::Description;

static OURS: LazyLock<Description> = LazyLock::new(|| Description::new(&super::openapi(), "/openapi.json"));

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "health",
    responses((status = 200, description = "It does", content_type = "text/plain", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether it can serve: the store takes a write, and was heard from lately.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health",
    responses((status = 200, description = "It can", content_type = "text/plain", body = String)))]
pub(super) async fn readyz(State(admin): State<Admin>) -> Result<&'static str, Problem> {
    admin.control.is_ready().await.map_err(|part| {
        tracing::warn!(part, "not ready");
        Problem::NotReady
    })?;
    Ok("ok\n")
}

/// All metrics, in Prometheus' text format. Wants a key where the settings have one.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", security((), ("operator" = [])),
    responses((status = 200, description = "All metrics", content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(admin): State<Admin>, request: Request) -> Result<Response, Problem> {
    if admin.control.keys.are_demanded() {
        let (mut parts, _) = request.into_parts();
        Reader::from_request_parts(&mut parts, &admin).await?;
    }
    let mut families: Vec<MetricFamily> = admin.control.gather();
    families.extend(admin.sources.iter().flat_map(|source| source()));
    let mut body = Vec::new();
    TextEncoder::new().encode(&families, &mut body).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::Unavailable
    })?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT))], body).into_response())
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "health",
    responses((status = 200, description = "This document", body = Object)))]
pub(super) async fn openapi() -> Response {
    OURS.json()
}

/// This description, to be read by people.
#[utoipa::path(get, path = "/openapi", operation_id = "openapiPage", tag = "health",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn page() -> Response {
    OURS.page()
}
