//! What this interface and the gateway's are, in OpenAPI 3.1, for programs and for people.
//!
//! The gateway's document comes from the gateway, where the two planes are one process: its own listener answers for
//! sessions, and for nothing else.

use std::sync::LazyLock;

use axum::extract::State;
use axum::response::Response;

use super::Api;
use super::problem::Problem;
use crate::openapi::Description;

static OURS: LazyLock<Description> = LazyLock::new(|| Description::new(&super::openapi(), "/openapi.json"));

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "description",
    responses((status = 200, description = "This document", body = Object)))]
pub(super) async fn document() -> Response {
    OURS.json()
}

/// This description, to be read by people.
#[utoipa::path(get, path = "/openapi", operation_id = "openapiPage", tag = "description",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn page() -> Response {
    OURS.page()
}

/// The description of the gateway in this process.
#[utoipa::path(get, path = "/openapi/gateway.json", operation_id = "gatewayOpenapi", tag = "description",
    responses((status = 200, description = "The document", body = Object)))]
pub(super) async fn gateway_document(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(api.control.gateway_description.as_ref().ok_or(Problem::NotFound)?.json())
}

/// The description of the gateway in this process, to be read by people.
#[utoipa::path(get, path = "/openapi/gateway", operation_id = "gatewayOpenapiPage", tag = "description",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn gateway_page(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(api.control.gateway_description.as_ref().ok_or(Problem::NotFound)?.page())
}
