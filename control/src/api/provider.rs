//! `/provider/...`: the calls of agents.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use runit_core::SessionId;
use runit_core::session::SessionStatus;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use super::request::{Bearer, Payload, ProviderKey, Segment, Sender};
use crate::registration::{NewSession, NewTunnel, Presented};
use crate::sessions::detached;

/// A heartbeat that waits for a change is answered by then, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a registration is answered with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    #[schema(value_type = String, format = Uuid)]
    session_id: SessionId,
    /// One for the provider to hand to a renter; none while the session is not free.
    access_token: Option<String>,
    /// Given out once; of a known session the one that was presented.
    provider_secret: String,
    /// Where its Jupyter has to be.
    #[schema(example = "/s/67e55044-10b1-426f-9247-bb680e5fe0c8/")]
    base_path: String,
}

/// A session as its provider sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owned {
    #[schema(value_type = String, format = Uuid)]
    session_id: SessionId,
    #[schema(example = "READY")]
    status: &'static str,
    provider_id: String,
    public_url: String,
    base_path: String,
    #[schema(format = DateTime)]
    registered_at: String,
    /// Bytes in any 24 hours, both directions.
    cap: u64,
    /// Whether its agent says that it can be reached.
    reachable: bool,
    /// What its agent told last.
    #[schema(value_type = Value)]
    report: Option<Box<RawValue>>,
}

/// What became of a session.
#[derive(Serialize, ToSchema)]
pub(super) struct Refreshed {
    ok: bool,
    #[schema(example = "READY")]
    status: &'static str,
}

/// Registers a session, or a known one again.
///
/// A known one keeps its id, its cap and what was used of it; whoever registers it again presents its secret.
#[utoipa::path(post, path = "/provider/session", operation_id = "register", tag = "providers", request_body = NewSession,
    security((), ("provider" = [])), params(("Runit-Provider-Key" = Option<String>, Header,
        description = "A key that an operator has made for this `providerId`, where registration needs one")),
    responses((status = 200, description = "The session", body = Registered)))]
pub(super) async fn register(
    State(api): State<Api>,
    Sender(from): Sender,
    Bearer(secret): Bearer,
    ProviderKey(key): ProviderKey,
    body: Result<Payload<NewSession>, Problem>,
) -> Result<Json<Registered>, Problem> {
    let body = body.map(|Payload(body)| body);
    let registered =
        detached(async move { api.control.register(body, Presented { secret, key }, from).await }).await??;
    Ok(Json(Registered {
        session_id: registered.session.id,
        access_token: registered.token.map(|token| token.expose()),
        provider_secret: registered.secret.expose().to_owned(),
        base_path: registered.session.base_path(),
    }))
}

/// A session, to its provider.
#[utoipa::path(get, path = "/provider/session/{id}", operation_id = "ownSession", tag = "providers",
    security(("provider" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The session", body = Owned)))]
pub(super) async fn show(
    State(api): State<Api>,
    Segment(id): Segment,
    Bearer(secret): Bearer,
) -> Result<Json<Owned>, Problem> {
    let session = api.control.owned(session_id(&id)?, secret.as_ref())?;
    Ok(Json(Owned {
        session_id: session.id,
        status: session.status().as_str(),
        provider_id: session.provider.to_string(),
        public_url: session.offer.upstream.to_string(),
        base_path: session.base_path(),
        registered_at: session.registered_at.to_string(),
        cap: session.cap_bytes,
        reachable: api.control.reports.is_reachable(session.id),
        report: api.control.reports.report(session.id),
    }))
}

/// A new URL, a fresh workspace behind it, or both. A lock that stands, stays.
#[utoipa::path(put, path = "/provider/session/{id}/tunnel", operation_id = "refresh", tag = "providers",
    security(("provider" = [])), params(("id" = String, Path, format = Uuid)), request_body = NewTunnel,
    responses((status = 200, description = "Taken over", body = Refreshed)))]
pub(super) async fn refresh(
    State(api): State<Api>,
    Segment(id): Segment,
    Bearer(secret): Bearer,
    Payload(body): Payload<NewTunnel>,
) -> Result<Json<Refreshed>, Problem> {
    let known = api.control.owned(session_id(&id)?, secret.as_ref())?;
    let session = detached(async move { api.control.refresh(&known, body).await }).await??;
    Ok(Json(Refreshed { ok: true, status: session.status().as_str() }))
}

/// Takes the session back: its tokens die with it.
#[utoipa::path(delete, path = "/provider/session/{id}", operation_id = "deregister", tag = "providers",
    security(("provider" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 204, description = "It is removed")))]
pub(super) async fn deregister(
    State(api): State<Api>,
    Segment(id): Segment,
    Bearer(secret): Bearer,
) -> Result<StatusCode, Problem> {
    let id = api.control.owned(session_id(&id)?, secret.as_ref())?.id;
    detached(async move { api.control.deregister(id).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// That an agent is there, and what it tells.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heartbeat {
    #[schema(format = Uuid)]
    session_id: String,
    /// Whether a renter would be served.
    reachable: Option<bool>,
    /// Any JSON up to 4096 bytes.
    #[schema(value_type = Value, required = false)]
    report: Option<Box<RawValue>>,
    /// With `waitSeconds`: the answer comes when the status is another one, or after that time. At once where too many wait.
    known_status: Option<String>,
    /// More than 60 is taken for 60.
    wait_seconds: Option<u64>,
}

/// What a heartbeat is answered with.
#[derive(Serialize, ToSchema)]
pub(super) struct HeartbeatAnswer {
    ok: bool,
    /// `READY`, `LOCKED` or `RECYCLING`.
    #[schema(example = "LOCKED")]
    status: &'static str,
    /// `recycle`: bring a fresh workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
}

/// The agent is there. Silent for long enough, its session is removed.
#[utoipa::path(post, path = "/provider/heartbeat", operation_id = "heartbeat", tag = "providers",
    security(("provider" = [])), request_body = Heartbeat,
    responses((status = 200, description = "Heard", body = HeartbeatAnswer)))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Sender(from): Sender,
    Bearer(secret): Bearer,
    Payload(body): Payload<Heartbeat>,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    let beat = |id: SessionId| {
        let status = api.control.heartbeat(id, secret.as_ref());
        status.map_err(|problem| if problem == Problem::UnknownSession { Problem::ReRegister } else { problem })
    };
    let id = session_id(&body.session_id).map_err(|_| Problem::ReRegister)?;
    let mut status = beat(id)?;
    api.control.reports.take(id, body.reachable, body.report);
    if let (Some(known), Some(seconds)) = (body.known_status, body.wait_seconds)
        && known == status.as_str()
        && let Some(_place) = api.waits.enter(from.network())
    {
        tokio::select! {
            () = api.control.sessions.directory.leaves(id, status) => {}
            () = tokio::time::sleep(Duration::from_secs(seconds).min(LONGEST_WAIT)) => {}
            () = api.live.stopping() => {}
        }
        status = beat(id)?;
    }
    let command = (status == SessionStatus::Recycling).then_some("recycle");
    Ok(Json(HeartbeatAnswer { ok: true, status: status.as_str(), command }))
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|_| Problem::UnknownSession)
}
