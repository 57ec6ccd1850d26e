//! `/provider/...`: the calls of agents.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runit_core::SessionId;
use runit_core::session::SessionStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;
use super::request::{Bearer, Payload, Peer};
use crate::registration::{NewSession, NewTunnel};
use crate::sessions::detached;

pub(super) async fn register(
    State(api): State<Api>,
    Peer(from): Peer,
    Bearer(secret): Bearer,
    body: Result<Payload<NewSession>, Problem>,
) -> Result<Json<Value>, Problem> {
    let body = body.map(|Payload(body)| body);
    let registered = detached(async move { api.control.register(body, secret, from).await }).await??;
    Ok(Json(json!({
        "sessionId": registered.session.id,
        "accessToken": registered.token.map(|token| token.expose()),
        "providerSecret": registered.secret.expose(),
        "basePath": registered.session.base_path(),
    })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    Bearer(secret): Bearer,
) -> Result<Json<Value>, Problem> {
    let session = api.control.owned(session_id(&id)?, secret.as_ref())?;
    Ok(Json(json!({
        "sessionId": session.id,
        "status": session.status().as_str(),
        "providerId": session.provider,
        "publicUrl": session.offer.upstream.to_string(),
        "basePath": session.base_path(),
        "registeredAt": session.registered_at.to_string(),
        "cap": session.cap_bytes,
    })))
}

pub(super) async fn refresh(
    State(api): State<Api>,
    Path(id): Path<String>,
    Bearer(secret): Bearer,
    Payload(body): Payload<NewTunnel>,
) -> Result<Json<Value>, Problem> {
    let known = api.control.owned(session_id(&id)?, secret.as_ref())?;
    let session = detached(async move { api.control.refresh(&known, body).await }).await??;
    Ok(Json(json!({ "ok": true, "status": session.status().as_str() })))
}

pub(super) async fn deregister(
    State(api): State<Api>,
    Path(id): Path<String>,
    Bearer(secret): Bearer,
) -> Result<StatusCode, Problem> {
    let id = api.control.owned(session_id(&id)?, secret.as_ref())?.id;
    detached(async move { api.control.deregister(id).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heartbeat {
    session_id: String,
}

pub(super) async fn heartbeat(
    State(api): State<Api>,
    Bearer(secret): Bearer,
    Payload(body): Payload<Heartbeat>,
) -> Result<Json<Value>, Problem> {
    let status = session_id(&body.session_id)
        .and_then(|id| api.control.heartbeat(id, secret.as_ref()))
        .map_err(|problem| if problem == Problem::UnknownSession { Problem::ReRegister } else { problem })?;
    let mut answer = json!({ "ok": true, "status": status.as_str() });
    if status == SessionStatus::Recycling {
        answer["command"] = "recycle".into();
    }
    Ok(Json(answer))
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|_| Problem::UnknownSession)
}
