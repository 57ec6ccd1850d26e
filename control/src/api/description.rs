//! What this interface and the gateway's are, in OpenAPI 3.1, for programs and for people.
//!
//! The gateway's document comes from the gateway, where the two planes are one process: its own listener answers for
//! sessions, and for nothing else.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::problem::Problem;
use crate::openapi;

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "description",
    responses((status = 200, description = "This document", body = Object)))]
pub(super) async fn document() -> Json<Value> {
    Json(super::openapi())
}

/// This description, to be read by people.
#[utoipa::path(get, path = "/openapi", operation_id = "openapiPage", tag = "description",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn page() -> Response {
    openapi::page(&super::openapi(), "/openapi.json")
}

/// The description of the gateway in this process.
#[utoipa::path(get, path = "/openapi/gateway.json", operation_id = "gatewayOpenapi", tag = "description",
    responses((status = 200, description = "The document", body = Object)))]
pub(super) async fn gateway_document(State(api): State<Api>) -> Result<Response, Problem> {
    let document = api.control.gateway_document.as_ref().ok_or(Problem::NotFound)?;
    Ok(Json(&**document).into_response())
}

/// The description of the gateway in this process, to be read by people.
#[utoipa::path(get, path = "/openapi/gateway", operation_id = "gatewayOpenapiPage", tag = "description",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn gateway_page(State(api): State<Api>) -> Result<Response, Problem> {
    let document = api.control.gateway_document.as_ref().ok_or(Problem::NotFound)?;
    Ok(openapi::page(document, "/openapi/gateway.json"))
}
