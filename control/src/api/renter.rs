//! `/renter/...` and `/access/...`: the calls of renters and their pages.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use runit_core::ledger::WINDOW;
use runit_core::session::base_path;
use runit_core::{AccessToken, HostLabel, RenterAddress, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;
use super::request::{Bearer, OptionalPayload, Payload, Sender};
use crate::billing;
use crate::rental::{Granted, Listed};
use crate::sessions::detached;

type Answer = Result<Json<Value>, Problem>;

pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Listed>> {
    Json(api.control.ready())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    session_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Given {
    #[serde(flatten)]
    listed: Listed,
    access_token: String,
    url: String,
    server_url: String,
    reconnect_secret: String,
}

pub(super) async fn request(
    State(api): State<Api>,
    OptionalPayload(body): OptionalPayload<Wanted>,
) -> Result<Json<Given>, Problem> {
    let wanted = body.session_id.map(|text| text.parse().map_err(|_| Problem::NoSessions)).transpose()?;
    let granted = api.control.grant(wanted).await?;
    let url = access_url(&api, &granted.token);
    let server_url = server_url(&api, &granted);
    Ok(Json(Given {
        listed: granted.listed,
        access_token: granted.token.expose(),
        url,
        server_url,
        reconnect_secret: granted.reconnect_secret.expose().to_owned(),
    }))
}

pub(super) async fn access(State(api): State<Api>, Path(token): Path<String>) -> Result<impl IntoResponse, Problem> {
    redirect(&api, AccessToken::parse(&token))
}

pub(super) async fn access_bearer(State(api): State<Api>, bearer: Bearer) -> Result<impl IntoResponse, Problem> {
    redirect(&api, bearer.access_token().ok())
}

pub(super) async fn heartbeat(State(api): State<Api>, Sender(from): Sender, Path(token): Path<String>) -> Answer {
    present(api, parse(&token)?, from).await
}

pub(super) async fn heartbeat_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer {
    present(api, bearer.access_token()?, from).await
}

pub(super) async fn release(State(api): State<Api>, Sender(from): Sender, Path(token): Path<String>) -> Answer {
    give_back(api, parse(&token)?, from).await
}

pub(super) async fn release_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer {
    give_back(api, bearer.access_token()?, from).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reconnect {
    reconnect_secret: String,
}

pub(super) async fn reconnect(
    State(api): State<Api>,
    Sender(from): Sender,
    Path(token): Path<String>,
    Payload(body): Payload<Reconnect>,
) -> Answer {
    go_on(api, parse(&token)?, body, from).await
}

pub(super) async fn reconnect_bearer(
    State(api): State<Api>,
    Sender(from): Sender,
    bearer: Bearer,
    Payload(body): Payload<Reconnect>,
) -> Answer {
    go_on(api, bearer.access_token()?, body, from).await
}

pub(super) async fn usage(State(api): State<Api>, Sender(from): Sender, Path(token): Path<String>) -> Answer {
    standing(api, parse(&token)?, from).await
}

pub(super) async fn usage_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer {
    standing(api, bearer.access_token()?, from).await
}

pub(super) async fn statement(State(api): State<Api>, Sender(from): Sender, Path(token): Path<String>) -> Answer {
    statement_of(&api, &parse(&token)?, from).await
}

pub(super) async fn statement_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer {
    statement_of(&api, &bearer.access_token()?, from).await
}

async fn statement_of(api: &Api, token: &AccessToken, from: RenterAddress) -> Answer {
    let record = api.control.statement(token, from).await?;
    Ok(Json(billing::to_json(&record, api.control.sessions.clock.now())))
}

async fn present(api: Api, token: AccessToken, from: RenterAddress) -> Answer {
    api.control.renter_heartbeat(&token, from).await?;
    Ok(Json(json!({ "ok": true })))
}

async fn give_back(api: Api, token: AccessToken, from: RenterAddress) -> Answer {
    detached(async move { api.control.release(&token, from).await }).await??;
    Ok(Json(json!({ "ok": true })))
}

async fn go_on(api: Api, token: AccessToken, body: Reconnect, from: RenterAddress) -> Answer {
    let secret = Secret::new(body.reconnect_secret);
    detached(async move { api.control.reconnect(&token, secret, from).await }).await??;
    Ok(Json(json!({ "ok": true })))
}

async fn standing(api: Api, token: AccessToken, from: RenterAddress) -> Answer {
    Ok(Json(usage_of(&api, &token, from).await?))
}

/// The answer of `GET /renter/usage`, also sent as an event.
pub(super) async fn usage_of(api: &Api, token: &AccessToken, from: RenterAddress) -> Result<Value, Problem> {
    let (session, standing) = api.control.usage(token, from).await?;
    Ok(json!({
        "sessionId": session.id,
        "status": session.status().as_str(),
        "lockedAt": session.lock().map(|lock| lock.taken_at.to_string()),
        "usedIn": standing.used.bytes_in,
        "usedOut": standing.used.bytes_out,
        "forfeited": standing.used.forfeited,
        "reserved": standing.reserved,
        "cap": standing.cap,
        "remaining": standing.remaining,
        "nextFreeAt": standing.next_free_at.map(|at| at.to_string()),
        "windowSeconds": WINDOW.as_secs(),
    }))
}

pub(super) fn parse(token: &str) -> Result<AccessToken, Problem> {
    AccessToken::parse(token).ok_or(Problem::UnknownToken)
}

/// The gateway decides what the token opens; only what has a token's form is put into the URL.
fn redirect(api: &Api, token: Option<AccessToken>) -> Result<impl IntoResponse + use<>, Problem> {
    let location = access_url(api, &token.ok_or(Problem::NoToken)?);
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]))
}

/// The hand-over link: the one URL of ours that holds a token.
pub(super) fn access_url(api: &Api, token: &AccessToken) -> String {
    format!("{}/access/{}", api.control.settings.load().gateway.origin(), token.expose())
}

/// The session as a Jupyter server, for programs that bring the token themselves.
fn server_url(api: &Api, granted: &Granted) -> String {
    let origin = api.control.settings.load().gateway.session_origin(HostLabel::of(granted.token.hash()));
    format!("{origin}{}", base_path(granted.listed.session_id))
}
