//! `/admin/v1/sessions`: list, one, release, cut, remove.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use runit_core::query::{EventFilter, EventsFrom};
use runit_core::session::{Session, SessionStatus};
use runit_core::{ProviderId, RenterAddress, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::access::{Actor, Reader};
use super::page::{page, parsed};
use super::view::{EventShown, SessionShown};
use crate::api::problem::Problem;
use crate::api::request::{Asked, Segment};
use crate::control::Control;
use crate::sessions::detached;

/// Sessions in one answer, unless asked for otherwise, and at the most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 500;
/// Events that are shown with a session.
const EVENTS: u32 = 50;

/// Which sessions, in which order.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// In this state.
    #[param(inline)]
    status: Option<StatusAsked>,
    /// Of this provider.
    provider: Option<String>,
    /// Locked from this address.
    address: Option<String>,
    /// In this order.
    #[serde(default)]
    #[param(inline, required = false)]
    sort: Sort,
    /// The other way round.
    #[serde(default)]
    #[param(required = false)]
    descending: bool,
    /// Pass over so many.
    #[serde(default)]
    #[param(required = false)]
    offset: u32,
    /// Show so many: 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum StatusAsked {
    Ready,
    Locked,
    Recycling,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Sort {
    #[default]
    RegisteredAt,
    Provider,
    Status,
    LockedAt,
    /// Bytes of the last 24 hours. Reads the ledgers of all that match.
    Usage,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionPage {
    /// How many there are of the kind.
    total: usize,
    offset: u32,
    sessions: Vec<SessionShown>,
}

/// A session and what happened to it last.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionDetail {
    #[serde(flatten)]
    session: SessionShown,
    /// The newest first, at most 50.
    events: Vec<EventShown>,
}

/// What became of a session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    #[schema(format = Uuid)]
    session_id: String,
    #[schema(example = "RECYCLING")]
    status: &'static str,
}

/// Live sessions, with their usage.
#[utoipa::path(get, path = "/admin/v1/sessions", operation_id = "sessions", tag = "sessions", params(Wanted),
    security(("operator" = [])), responses((status = 200, description = "A page", body = SessionPage)))]
pub(super) async fn list(
    _: Reader,
    State(admin): State<Admin>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<SessionPage>, Problem> {
    let filter = Filter::parse(&wanted)?;
    let limit = page(wanted.limit, PAGE, LARGEST_PAGE)?;
    let control = &admin.control;
    let mut matching = control.sessions.directory.sessions();
    matching.retain(|session| filter.admits(session));
    let used = match wanted.sort {
        Sort::Usage => used_by(control, &matching).await?,
        _ => HashMap::new(),
    };
    matching.sort_unstable_by(|one, other| {
        let order = wanted.sort.compare(one, other, &used);
        if wanted.descending { order.reverse() } else { order }
    });
    let ids = matching.iter().skip(wanted.offset as usize).take(limit).map(|session| session.id).collect();
    let (records, now) = (control.records(ids).await?, control.sessions.clock.now());
    let shown = |(session, ledger): &(_, _)| SessionShown::new(session, ledger, control, now);
    let sessions = records.iter().map(shown).collect();
    Ok(Json(SessionPage { total: matching.len(), offset: wanted.offset, sessions }))
}

/// Bytes that each session has used.
async fn used_by(control: &Control, sessions: &[Arc<Session>]) -> Result<HashMap<SessionId, u64>, Problem> {
    let records = control.records(sessions.iter().map(|session| session.id).collect()).await?;
    Ok(records.iter().map(|(session, ledger)| (session.id, ledger.standing(session.cap_bytes).used.total())).collect())
}

/// One session, removed ones too, with its last events.
#[utoipa::path(get, path = "/admin/v1/sessions/{id}", operation_id = "session", tag = "sessions",
    security(("operator" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The session", body = SessionDetail)))]
pub(super) async fn show(
    _: Reader,
    State(admin): State<Admin>,
    Segment(id): Segment,
) -> Result<Json<SessionDetail>, Problem> {
    let id = parse(&id)?;
    let (session, ledger) = admin.control.record(id).await?;
    let filter = EventFilter { session: Some(id), ..EventFilter::default() };
    let events = admin.control.sessions.store.find_events(filter, EventsFrom::Newest, EVENTS).await?;
    let now = admin.control.sessions.clock.now();
    let session = SessionShown::new(&session, &ledger, &admin.control, now);
    Ok(Json(SessionDetail { session, events: events.iter().map(EventShown::new).collect() }))
}

/// Ends the lock in the renter's name; WebSockets close with 4001.
#[utoipa::path(post, path = "/admin/v1/sessions/{id}/release", operation_id = "release", tag = "sessions",
    security(("operator" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The lock has ended", body = Changed)))]
pub(super) async fn release(
    Actor(operator): Actor,
    State(admin): State<Admin>,
    Segment(id): Segment,
) -> Result<Json<Changed>, Problem> {
    let id = parse(&id)?;
    Ok(changed(&detached(async move { admin.control.release_by(operator, id).await }).await??))
}

/// Takes the session away from its renter; WebSockets close with 4003.
#[utoipa::path(post, path = "/admin/v1/sessions/{id}/cut", operation_id = "cut", tag = "sessions",
    security(("operator" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The lock has ended", body = Changed)))]
pub(super) async fn cut(
    Actor(operator): Actor,
    State(admin): State<Admin>,
    Segment(id): Segment,
) -> Result<Json<Changed>, Problem> {
    let id = parse(&id)?;
    Ok(changed(&detached(async move { admin.control.cut_by(operator, id).await }).await??))
}

/// Removes the session. Its agent is told to register again; revoke its key to keep it out.
#[utoipa::path(delete, path = "/admin/v1/sessions/{id}", operation_id = "remove", tag = "sessions",
    security(("operator" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 204, description = "It is removed")))]
pub(super) async fn remove(
    Actor(operator): Actor,
    State(admin): State<Admin>,
    Segment(id): Segment,
) -> Result<StatusCode, Problem> {
    let id = parse(&id)?;
    detached(async move { admin.control.remove_by(operator, id).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

struct Filter {
    status: Option<SessionStatus>,
    provider: Option<ProviderId>,
    address: Option<RenterAddress>,
}

impl Filter {
    fn parse(wanted: &Wanted) -> Result<Self, Problem> {
        let status = wanted.status.map(|status| match status {
            StatusAsked::Ready => SessionStatus::Ready,
            StatusAsked::Locked => SessionStatus::Locked,
            StatusAsked::Recycling => SessionStatus::Recycling,
        });
        let provider = parsed("provider", wanted.provider.as_deref())?;
        let address = parsed("address", wanted.address.as_deref())?.map(RenterAddress::new);
        Ok(Self { status, provider, address })
    }

    fn admits(&self, session: &Session) -> bool {
        self.status.is_none_or(|status| session.status() == status)
            && self.provider.as_ref().is_none_or(|provider| session.provider == *provider)
            && self.address.is_none_or(|address| session.lock().is_some_and(|lock| lock.address == address))
    }
}

impl Sort {
    /// The id last, so that the order is one and pages fit together.
    fn compare(self, one: &Session, other: &Session, used: &HashMap<SessionId, u64>) -> Ordering {
        let taken_at = |session: &Session| session.lock().map(|lock| lock.taken_at);
        let order = match self {
            Self::RegisteredAt => one.registered_at.cmp(&other.registered_at),
            Self::Provider => one.provider.cmp(&other.provider),
            Self::Status => one.status().as_str().cmp(other.status().as_str()),
            Self::LockedAt => taken_at(one).cmp(&taken_at(other)),
            Self::Usage => used.get(&one.id).cmp(&used.get(&other.id)),
        };
        order.then_with(|| one.id.cmp(&other.id))
    }
}

fn parse(id: &str) -> Result<SessionId, Problem> {
    id.parse().map_err(|_| Problem::UnknownSession)
}

fn changed(session: &Session) -> Json<Changed> {
    Json(Changed { session_id: session.id.to_string(), status: session.status().as_str() })
}
