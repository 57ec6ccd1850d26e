//! What agents tell of themselves with heartbeats: kept in memory only, as the next heartbeat tells it again.
//!
//! Nothing of it is trusted: a provider that says that it cannot be reached is not handed out, and that is all.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runit_core::SessionId;
use runit_core::session::Session;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use utoipa::ToSchema;

/// A report's JSON text is at most so long, in bytes; what is longer is not kept.
const LONGEST: usize = 4_096;

/// What a container uses, as its agent tells it in the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resources {
    #[serde(flatten)]
    used: Amounts,
    limits: Amounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Amounts {
    /// Thousandths of a core; 0 until the agent has looked twice.
    #[serde(default)]
    millicores: u64,
    memory_bytes: u64,
    /// Threads, too.
    processes: u64,
}

/// The latest of each session.
#[derive(Default)]
pub(crate) struct Reports {
    by_session: Mutex<HashMap<SessionId, Told>>,
    changed: Notify,
}

#[derive(Default)]
struct Told {
    unreachable: bool,
    report: Option<Box<RawValue>>,
    resources: Option<Resources>,
}

impl Reports {
    /// Takes what a heartbeat told; what it did not mention stays.
    pub(crate) fn take(&self, session: SessionId, reachable: Option<bool>, report: Option<Box<RawValue>>) {
        if reachable.is_none() && report.is_none() {
            return;
        }
        let mut sessions = self.sessions();
        let told = sessions.entry(session).or_default();
        let before = told.unreachable;
        told.unreachable = reachable.map_or(before, |reachable| !reachable);
        if let Some(report) = report {
            told.report = Some(report).filter(|report| report.get().len() <= LONGEST);
            told.resources = told.report.as_ref().and_then(|report| serde_json::from_str(report.get()).ok());
        }
        if told.unreachable != before {
            self.changed.notify_one();
        }
    }

    /// The session was registered, or its place told anew: whoever does that can be reached.
    pub(crate) fn is_back(&self, session: SessionId) {
        self.take(session, Some(true), None);
    }

    /// Whether the session may be handed out, as far as its agent says.
    pub(crate) fn is_reachable(&self, session: SessionId) -> bool {
        self.sessions().get(&session).is_none_or(|told| !told.unreachable)
    }

    /// Leaves those that may be handed out, as far as their agents say.
    pub(crate) fn retain_reachable(&self, sessions: &mut Vec<Arc<Session>>) {
        let told = self.sessions();
        sessions.retain(|session| told.get(&session.id).is_none_or(|told| !told.unreachable));
    }

    /// The latest report, as it came.
    pub(crate) fn report(&self, session: SessionId) -> Option<Box<RawValue>> {
        self.sessions().get(&session)?.report.clone()
    }

    /// What the session's container uses, where the latest report tells it as our agent does.
    pub(crate) fn resources(&self, session: SessionId) -> Option<Resources> {
        self.sessions().get(&session)?.resources
    }

    /// What the containers of these sessions use together, and how many of them tell.
    pub(crate) fn resources_of(&self, sessions: impl Iterator<Item = SessionId>) -> (u64, Resources) {
        let known = self.sessions();
        let told = sessions.filter_map(|session| known.get(&session)?.resources);
        told.fold((0, Resources::default()), |(count, sum), one| (count + 1, sum.plus(one)))
    }

    /// Ends when a session could be reached before and cannot now, or the other way round.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Forgets all but the `live` sessions.
    pub(crate) fn retain(&self, live: &HashSet<SessionId>) {
        self.sessions().retain(|session, _| live.contains(session));
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Told>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resources {
    fn plus(self, other: Self) -> Self {
        Self { used: self.used.plus(other.used), limits: self.limits.plus(other.limits) }
    }
}

impl Amounts {
    fn plus(self, other: Self) -> Self {
        Self {
            millicores: self.millicores.saturating_add(other.millicores),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            processes: self.processes.saturating_add(other.processes),
        }
    }
}
