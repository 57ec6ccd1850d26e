//! `/admin/v1/summary` and `/admin/v1/usage`: the whole at a glance.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use runit_core::event::EventKind;
use runit_core::ledger::{Standing, Usage};
use runit_core::session::SessionStatus;
use runit_core::store::StoreError;
use runit_core::{ProviderId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::access::Reader;
use super::page::{page, parsed};
use super::view::UsageShown;
use crate::api::problem::Problem;
use crate::api::request::Asked;
use crate::control::Control;
use crate::reports::Resources;
use crate::tally::{STEP, Step};

/// Sessions in one answer, unless asked for otherwise, and at the most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// The last 24 hours.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    #[schema(format = DateTime)]
    now: String,
    sessions: LiveCounts,
    containers: ContainersShown,
    /// Security events by kind.
    #[schema(value_type = HashMap<String, u64>)]
    events: BTreeMap<&'static str, u64>,
    /// Length of a step of the series.
    step_seconds: u64,
    /// Steps, the oldest first; the last is not over.
    series: Vec<StepShown>,
}

/// Live sessions by state.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveCounts {
    ready: u64,
    locked: u64,
    recycling: u64,
}

/// What the containers of live sessions use of what they may, in sum.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ContainersShown {
    /// Those whose agents tell.
    reporting: u64,
    #[serde(flatten)]
    resources: Resources,
}

/// One step of the series.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StepShown {
    #[schema(format = DateTime)]
    began_at: String,
    /// Most sessions that were rented out at one time.
    most_locked: u64,
    rate_limited: u64,
    invalid_access: u64,
    hijack_attempts: u64,
    bandwidth_exceeded: u64,
}

/// The last 24 hours in numbers.
#[utoipa::path(get, path = "/admin/v1/summary", operation_id = "summary", tag = "overview",
    security(("operator" = [])), responses((status = 200, description = "In numbers", body = Summary)))]
pub(super) async fn summary(_: Reader, State(admin): State<Admin>) -> Json<Summary> {
    let control = &admin.control;
    let now = control.sessions.clock.now();
    let steps = control.trail.with_tally(|tally| tally.steps(now));
    let total = |kind| steps.iter().map(|step| step.events(kind)).sum();
    let counts = control.sessions.directory.counts();
    let live = control.sessions.directory.sessions();
    let (reporting, resources) = control.reports.resources_of(live.iter().map(|session| session.id));
    Json(Summary {
        now: now.to_string(),
        sessions: LiveCounts { ready: counts.ready, locked: counts.locked, recycling: counts.recycling },
        containers: ContainersShown { reporting, resources },
        events: EventKind::ALL.into_iter().map(|kind| (kind.as_str(), total(kind))).collect(),
        step_seconds: STEP.as_secs(),
        series: steps.iter().map(StepShown::new).collect(),
    })
}

impl StepShown {
    fn new(step: &Step) -> Self {
        Self {
            began_at: step.began().to_string(),
            most_locked: step.most_locked,
            rate_limited: step.events(EventKind::RateLimited),
            invalid_access: step.events(EventKind::InvalidAccessAttempt),
            hijack_attempts: step.events(EventKind::SessionHijackAttempt),
            bandwidth_exceeded: step.events(EventKind::BandwidthExceeded),
        }
    }
}

/// Whose usage.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this provider's sessions.
    provider: Option<String>,
    /// Pass over so many.
    #[serde(default)]
    #[param(required = false)]
    offset: u32,
    /// Show so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What sessions used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsagePage {
    /// Sessions that have used something.
    total: usize,
    offset: u32,
    /// Bytes from renters, of all of them.
    used_in: u64,
    /// Bytes to renters.
    used_out: u64,
    forfeited: u64,
    reserved: u64,
    /// Who used most first.
    sessions: Vec<SessionUsage>,
}

/// What one session used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionUsage {
    #[schema(format = Uuid)]
    session_id: String,
    provider_id: String,
    status: &'static str,
    usage: UsageShown,
}

/// A session that has used something.
pub(super) struct Used {
    session: SessionId,
    provider: ProviderId,
    status: SessionStatus,
    standing: Standing,
}

/// All of them, who used most first.
async fn used(control: &Control) -> Result<Vec<Used>, StoreError> {
    let records = control.records(control.sessions.store.sessions_with_ledgers().await?).await?;
    let mut used: Vec<Used> = records
        .into_iter()
        .map(|(session, ledger)| Used {
            session: session.id,
            status: session.status(),
            standing: ledger.standing(session.cap_bytes),
            provider: session.provider,
        })
        .filter(|used| used.standing.used.total() > 0 || used.standing.reserved > 0)
        .collect();
    used.sort_by_key(|used| (Reverse(used.standing.used.total()), used.session));
    Ok(used)
}

/// What sessions used in the last 24 hours, those that are removed too. Where it takes long to find out, the answer may be up to 30 s old.
#[utoipa::path(get, path = "/admin/v1/usage", operation_id = "usage", tag = "overview", params(Wanted),
    security(("operator" = [])), responses((status = 200, description = "A page, and sums", body = UsagePage)))]
pub(super) async fn usage(
    _: Reader,
    State(admin): State<Admin>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<UsagePage>, Problem> {
    let provider: Option<ProviderId> = parsed("provider", wanted.provider.as_deref())?;
    let limit = page(wanted.limit, PAGE, LARGEST_PAGE)?;
    let all = admin.used.get(async || used(&admin.control).await).await?;
    let of_provider = |used: &&Used| provider.as_ref().is_none_or(|provider| used.provider == *provider);
    let used: Vec<&Used> = all.iter().filter(of_provider).collect();
    let sum = used.iter().fold(Usage::default(), |sum, used| sum.plus(&used.standing.used));
    let shown = used.iter().skip(wanted.offset as usize).take(limit).map(|used| SessionUsage {
        session_id: used.session.to_string(),
        provider_id: used.provider.to_string(),
        status: used.status.as_str(),
        usage: UsageShown::new(&used.standing),
    });
    Ok(Json(UsagePage {
        total: used.len(),
        offset: wanted.offset,
        used_in: sum.bytes_in,
        used_out: sum.bytes_out,
        forfeited: sum.forfeited,
        reserved: used.iter().map(|used| used.standing.reserved).sum(),
        sessions: shown.collect(),
    }))
}
