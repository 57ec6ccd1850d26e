//! `/admin/v1/providers`: who rents out, and how they are.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use runit_core::query::ProviderRecord;
use runit_core::session::{SessionState, SessionStatus};
use runit_core::{ProviderId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::access::Reader;
use crate::api::problem::Problem;

/// A workspace that takes longer to be made anew is stuck.
const STUCK: Duration = Duration::from_secs(5 * 60);

/// All providers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderList {
    providers: Vec<ProviderShown>,
}

/// A provider as an operator sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProviderShown {
    provider_id: String,
    health: Health,
    sessions: SessionCounts,
    /// When one of its agents was last heard of.
    #[schema(format = DateTime)]
    last_heartbeat_at: String,
    silent_seconds: u64,
}

/// `up`: heard of in time. `stuck`: a workspace has been recycling for longer than 5 minutes. `late`: half of the silence
/// that it may keep is over. `gone`: no session of it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Health {
    Up,
    Stuck,
    Late,
    Gone,
}

/// A provider's sessions by state; those that were removed within a week too.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionCounts {
    ready: u64,
    locked: u64,
    recycling: u64,
    removed: u64,
}

/// All providers, by name.
#[utoipa::path(get, path = "/admin/v1/providers", operation_id = "providers", tag = "providers",
    security(("operator" = [])), responses((status = 200, description = "All providers", body = ProviderList)))]
pub(super) async fn list(_: Reader, State(admin): State<Admin>) -> Result<Json<ProviderList>, Problem> {
    let control = &admin.control;
    let (records, now) = (control.sessions.store.providers().await?, control.sessions.clock.now());
    let allowed = Duration::from_secs(control.settings.load().control.provider_silent_seconds);
    let mut recycling_since: HashMap<ProviderId, Timestamp> = HashMap::new();
    let mut heard_at: HashMap<ProviderId, Timestamp> = HashMap::new();
    for session in control.sessions.directory.sessions() {
        let latest = heard_at.entry(session.provider.clone()).or_default();
        *latest = control.provider_seen_at(&session).max(*latest);
        if let SessionState::Recycling { since, .. } = session.state {
            let oldest = recycling_since.entry(session.provider.clone()).or_insert(since);
            *oldest = since.min(*oldest);
        }
    }
    let shown = |record: &ProviderRecord| {
        let (sessions, written_at) = summed(record);
        let seen_at = heard_at.get(&record.id).map_or(written_at, |&heard_at| heard_at.max(written_at));
        let stuck = recycling_since.get(&record.id).is_some_and(|since| now.since(*since) > STUCK);
        let silence = now.since(seen_at);
        ProviderShown {
            provider_id: record.id.to_string(),
            health: health(sessions, silence, allowed, stuck),
            sessions,
            last_heartbeat_at: seen_at.to_string(),
            silent_seconds: silence.as_secs(),
        }
    };
    Ok(Json(ProviderList { providers: records.iter().map(shown).collect() }))
}

fn summed(record: &ProviderRecord) -> (SessionCounts, Timestamp) {
    let mut counts = SessionCounts::default();
    for (status, count, _) in &record.sessions {
        match status {
            SessionStatus::Ready => counts.ready = *count,
            SessionStatus::Locked => counts.locked = *count,
            SessionStatus::Recycling => counts.recycling = *count,
            SessionStatus::Removed => counts.removed = *count,
        }
    }
    let seen_at = record.sessions.iter().map(|(.., seen_at)| *seen_at).max();
    (counts, seen_at.unwrap_or_default())
}

fn health(sessions: SessionCounts, silence: Duration, allowed: Duration, stuck: bool) -> Health {
    match () {
        () if sessions.ready + sessions.locked + sessions.recycling == 0 => Health::Gone,
        () if silence > allowed / 2 => Health::Late,
        () if stuck => Health::Stuck,
        () => Health::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_the_worst_that_is_true() {
        let live = SessionCounts { ready: 1, ..SessionCounts::default() };
        let allowed = Duration::from_secs(120);
        let health = |sessions, seconds, stuck| health(sessions, Duration::from_secs(seconds), allowed, stuck);
        assert_eq!(health(live, 60, false), Health::Up);
        assert_eq!(health(live, 60, true), Health::Stuck);
        assert_eq!(health(live, 61, true), Health::Late);
        assert_eq!(health(SessionCounts { removed: 3, ..SessionCounts::default() }, 0, false), Health::Gone);
    }
}
