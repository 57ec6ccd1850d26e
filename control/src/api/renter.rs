//! `/renter/...` and `/access/...`: the calls of renters and their pages.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use runit_core::ledger::WINDOW;
use runit_core::session::base_path;
use runit_core::{AccessToken, HostLabel, RenterAddress, Secret, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use super::request::{Bearer, OptionalPayload, Payload, Segment, Sender};
use crate::billing::{self, Statement};
use crate::rental::{Granted, Listed};
use crate::sessions::detached;

type Answer<T> = Result<Json<T>, Problem>;

/// It is done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    ok: bool,
}

const DONE: Json<Done> = Json(Done { ok: true });

/// The free sessions, oldest first.
#[utoipa::path(get, path = "/renter/sessions", operation_id = "freeSessions", tag = "renters",
    responses((status = 200, description = "The list", body = Vec<Listed>)))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Listed>> {
    Json(api.control.ready())
}

/// Which session.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    /// This one, or else the oldest free one.
    #[schema(format = Uuid)]
    session_id: Option<String>,
}

/// A session with a token that takes it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Given {
    #[serde(flatten)]
    listed: Listed,
    #[schema(format = Uuid)]
    access_token: String,
    /// The hand-over link: whoever opens it first has the session.
    #[schema(format = "uri")]
    url: String,
    /// The session as a Jupyter server, for programs that bring the token themselves.
    #[schema(format = "uri")]
    server_url: String,
    /// What lets the renter go on from another address; it is in no link.
    reconnect_secret: String,
}

/// A token for a free session. Its first use takes the lock.
#[utoipa::path(post, path = "/renter/request", operation_id = "request", tag = "renters",
    request_body(content = Option<Wanted>, description = "None means the oldest free session"),
    responses((status = 200, description = "The session", body = Given)))]
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

/// The way to the gateway, which decides what the token opens.
#[utoipa::path(get, path = "/access/{token}", operation_id = "access", tag = "renters", params(("token" = String, Path, format = Uuid)),
    responses((status = 302, description = "The gateway's own link", headers(("Location" = String)))))]
pub(super) async fn access(State(api): State<Api>, Segment(token): Segment) -> Result<impl IntoResponse, Problem> {
    redirect(&api, AccessToken::parse(&token))
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(get, path = "/access", operation_id = "accessBearer", tag = "renters", security(("renter" = [])),
    responses((status = 302, description = "The gateway's own link", headers(("Location" = String)))))]
pub(super) async fn access_bearer(State(api): State<Api>, bearer: Bearer) -> Result<impl IntoResponse, Problem> {
    redirect(&api, bearer.access_token().ok())
}

/// The renter is there.
#[utoipa::path(post, path = "/renter/heartbeat/{token}", operation_id = "renterHeartbeat", tag = "renters",
    params(("token" = String, Path, format = Uuid)), responses((status = 200, description = "Heard", body = Done)))]
pub(super) async fn heartbeat(State(api): State<Api>, Sender(from): Sender, Segment(token): Segment) -> Answer<Done> {
    present(api, parse(&token)?, from).await
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(post, path = "/renter/heartbeat", operation_id = "renterHeartbeatBearer", tag = "renters",
    security(("renter" = [])), responses((status = 200, description = "Heard", body = Done)))]
pub(super) async fn heartbeat_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer<Done> {
    present(api, bearer.access_token()?, from).await
}

/// The renter gives the session back.
#[utoipa::path(post, path = "/renter/release/{token}", operation_id = "giveBack", tag = "renters",
    params(("token" = String, Path, format = Uuid)), responses((status = 200, description = "It is given back", body = Done)))]
pub(super) async fn release(State(api): State<Api>, Sender(from): Sender, Segment(token): Segment) -> Answer<Done> {
    give_back(api, parse(&token)?, from).await
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(post, path = "/renter/release", operation_id = "giveBackBearer", tag = "renters",
    security(("renter" = [])), responses((status = 200, description = "It is given back", body = Done)))]
pub(super) async fn release_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer<Done> {
    give_back(api, bearer.access_token()?, from).await
}

/// The proof of who has the session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reconnect {
    reconnect_secret: String,
}

/// Moves the lock to the address that this comes from; what is connected from the old one is cut.
#[utoipa::path(post, path = "/renter/reconnect/{token}", operation_id = "reconnect", tag = "renters",
    params(("token" = String, Path, format = Uuid)), request_body = Reconnect, responses((status = 200, description = "It is moved", body = Done)))]
pub(super) async fn reconnect(
    State(api): State<Api>,
    Sender(from): Sender,
    Segment(token): Segment,
    Payload(body): Payload<Reconnect>,
) -> Answer<Done> {
    go_on(api, parse(&token)?, body, from).await
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(post, path = "/renter/reconnect", operation_id = "reconnectBearer", tag = "renters",
    security(("renter" = [])), request_body = Reconnect, responses((status = 200, description = "It is moved", body = Done)))]
pub(super) async fn reconnect_bearer(
    State(api): State<Api>,
    Sender(from): Sender,
    bearer: Bearer,
    Payload(body): Payload<Reconnect>,
) -> Answer<Done> {
    go_on(api, bearer.access_token()?, body, from).await
}

/// How far the session is used. Counts as no presence, and works over the cap.
#[utoipa::path(get, path = "/renter/usage/{token}", operation_id = "usage", tag = "renters",
    params(("token" = String, Path, format = Uuid)), responses((status = 200, description = "As far as nodes have reported", body = UsageNow)))]
pub(super) async fn usage(State(api): State<Api>, Sender(from): Sender, Segment(token): Segment) -> Answer<UsageNow> {
    standing(api, parse(&token)?, from).await
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(get, path = "/renter/usage", operation_id = "usageBearer", tag = "renters",
    security(("renter" = [])), responses((status = 200, description = "As far as nodes have reported", body = UsageNow)))]
pub(super) async fn usage_bearer(State(api): State<Api>, Sender(from): Sender, bearer: Bearer) -> Answer<UsageNow> {
    standing(api, bearer.access_token()?, from).await
}

/// What the lock has used that this token took, also after its end.
#[utoipa::path(get, path = "/renter/statement/{token}", operation_id = "statement", tag = "renters",
    params(("token" = String, Path, format = Uuid)), responses((status = 200, description = "The statement", body = Statement)))]
pub(super) async fn statement(
    State(api): State<Api>,
    Sender(from): Sender,
    Segment(token): Segment,
) -> Answer<Statement> {
    statement_of(&api, &parse(&token)?, from).await
}

/// The same, with the token as `Authorization: Bearer`.
#[utoipa::path(get, path = "/renter/statement", operation_id = "statementBearer", tag = "renters",
    security(("renter" = [])), responses((status = 200, description = "The statement", body = Statement)))]
pub(super) async fn statement_bearer(
    State(api): State<Api>,
    Sender(from): Sender,
    bearer: Bearer,
) -> Answer<Statement> {
    statement_of(&api, &bearer.access_token()?, from).await
}

async fn statement_of(api: &Api, token: &AccessToken, from: RenterAddress) -> Answer<Statement> {
    let record = api.control.statement(token, from).await?;
    Ok(Json(billing::statement(&record, api.control.sessions.clock.now())))
}

async fn present(api: Api, token: AccessToken, from: RenterAddress) -> Answer<Done> {
    api.control.renter_heartbeat(&token, from).await?;
    Ok(DONE)
}

async fn give_back(api: Api, token: AccessToken, from: RenterAddress) -> Answer<Done> {
    detached(async move { api.control.release(&token, from).await }).await??;
    Ok(DONE)
}

async fn go_on(api: Api, token: AccessToken, body: Reconnect, from: RenterAddress) -> Answer<Done> {
    let secret = Secret::new(body.reconnect_secret);
    detached(async move { api.control.reconnect(&token, secret, from).await }).await??;
    Ok(DONE)
}

async fn standing(api: Api, token: AccessToken, from: RenterAddress) -> Answer<UsageNow> {
    Ok(Json(usage_of(&api, &token, from).await?))
}

/// How far a session is used, in bytes of the last 24 hours.
#[derive(PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageNow {
    #[schema(value_type = String, format = Uuid)]
    session_id: SessionId,
    #[schema(example = "LOCKED")]
    status: &'static str,
    #[schema(format = DateTime)]
    locked_at: Option<String>,
    /// From the renter, as far as nodes have reported.
    used_in: u64,
    /// To the renter, as far as nodes have reported.
    used_out: u64,
    /// Charged for leases whose node was lost with them.
    forfeited: u64,
    /// What nodes hold leased and have not reported as used.
    reserved: u64,
    cap: u64,
    /// The cap less used and forfeited.
    remaining: u64,
    /// When the oldest counted bytes leave the window.
    #[schema(format = DateTime)]
    next_free_at: Option<String>,
    window_seconds: u64,
}

/// The answer of `GET /renter/usage`, also sent as an event.
pub(super) async fn usage_of(api: &Api, token: &AccessToken, from: RenterAddress) -> Result<UsageNow, Problem> {
    let (session, standing) = api.control.usage(token, from).await?;
    Ok(UsageNow {
        session_id: session.id,
        status: session.status().as_str(),
        locked_at: session.lock().map(|lock| lock.taken_at.to_string()),
        used_in: standing.used.bytes_in,
        used_out: standing.used.bytes_out,
        forfeited: standing.used.forfeited,
        reserved: standing.reserved,
        cap: standing.cap,
        remaining: standing.remaining,
        next_free_at: standing.next_free_at.map(|at| at.to_string()),
        window_seconds: WINDOW.as_secs(),
    })
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
