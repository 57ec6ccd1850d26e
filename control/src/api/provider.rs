//! `/provider/...`: the calls of agents.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runit_core::SessionId;
use runit_core::session::SessionStatus;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;
use super::request::{Bearer, Payload, ProviderKey, Sender};
use crate::registration::{NewSession, NewTunnel, Presented};
use crate::sessions::detached;

/// A heartbeat that waits for a change is answered by then, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn register(
    State(api): State<Api>,
    Sender(from): Sender,
    Bearer(secret): Bearer,
    ProviderKey(key): ProviderKey,
    body: Result<Payload<NewSession>, Problem>,
) -> Result<Json<Value>, Problem> {
    let body = body.map(|Payload(body)| body);
    let registered =
        detached(async move { api.control.register(body, Presented { secret, key }, from).await }).await??;
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
        "reachable": api.control.reports.is_reachable(session.id),
        "report": api.control.reports.report(session.id),
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
    reachable: Option<bool>,
    report: Option<Box<RawValue>>,
    known_status: Option<String>,
    wait_seconds: Option<u64>,
}

pub(super) async fn heartbeat(
    State(api): State<Api>,
    Bearer(secret): Bearer,
    Payload(body): Payload<Heartbeat>,
) -> Result<Json<Value>, Problem> {
    let beat = |id: SessionId| {
        let status = api.control.heartbeat(id, secret.as_ref());
        status.map_err(|problem| if problem == Problem::UnknownSession { Problem::ReRegister } else { problem })
    };
    let id = session_id(&body.session_id).map_err(|_| Problem::ReRegister)?;
    let mut status = beat(id)?;
    api.control.reports.take(id, body.reachable, body.report);
    if let (Some(known), Some(seconds)) = (body.known_status, body.wait_seconds)
        && known == status.as_str()
    {
        tokio::select! {
            () = api.control.sessions.directory.leaves(id, status) => {}
            () = tokio::time::sleep(Duration::from_secs(seconds).min(LONGEST_WAIT)) => {}
            () = api.live.stopping() => {}
        }
        status = beat(id)?;
    }
    let mut answer = json!({ "ok": true, "status": status.as_str() });
    if status == SessionStatus::Recycling {
        answer["command"] = "recycle".into();
    }
    Ok(Json(answer))
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|_| Problem::UnknownSession)
}
