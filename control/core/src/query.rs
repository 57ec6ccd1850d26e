//! What operators ask of the store beside single sessions: events, and providers.

use crate::event::{EventKind, SecurityEvent};
use crate::id::{ProviderId, SessionId};
use crate::session::SessionStatus;
use crate::time::Timestamp;

/// Which events are asked for; what is not named does not matter.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// One of these kinds; empty: any.
    pub kinds: Vec<EventKind>,
    /// About this session.
    pub session: Option<SessionId>,
    /// About this provider.
    pub provider: Option<ProviderId>,
    /// Then or later.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

/// Where in the trail to begin, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsFrom {
    /// The newest first, going back.
    Newest,
    /// What is older than that place, the newest of it first.
    Before(u64),
    /// What is newer than that place, the oldest of it first.
    After(u64),
}

/// An event and its place in the trail, which only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedEvent {
    /// 1 for the first event of a store.
    pub place: u64,
    /// What happened.
    pub event: SecurityEvent,
}

/// What is known of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderRecord {
    /// What it calls itself.
    pub id: ProviderId,
    /// Its sessions by state, tombstones too, with when an agent of one was last heard of.
    pub sessions: Vec<(SessionStatus, u64, Timestamp)>,
}
