//! What the agent should do next: one pure function from (desired, observed, now) to actions.
//!
//! Answers for every decision of the agent: when a container is started, replaced or started again, when a tunnel is
//! opened, what control is told and when. Does nothing itself: `supervisor` carries the actions out and reports back.
//!
//! ```text
//!   reconcile(desired, observed, now) ──▶ actions ──▶ carried out (supervisor)
//!            ▲                                              │
//!            └────────── observed.apply(event) ◀────────────┘
//! ```
//!
//! Invariants: at most one action is in flight per part (workspace, tunnel, control); control is never told of a
//! workspace that a renter may have used, once that renter is gone; nothing is left when the goal is `Down`.

use std::time::{Duration, Instant};

use crate::observed::{ControlState, Observed, Standing, Told, TunnelState, WorkspaceState};

/// How often the container is looked at. Its end is told by the engine; a look finds out what is not.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Whether a session should be there at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A session, registered and ready.
    Up,
    /// Nothing: deregistered, and no container, volume or tunnel left.
    Down,
}

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Whether there should be a session.
    pub goal: Goal,
    /// How often control hears from the agent.
    pub heartbeat_every: Duration,
    /// A container that nobody holds and that does nothing is stopped after this; none: never.
    pub sleep_after: Option<Duration>,
}

/// One step that changes the world or looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Remove this agent's container and volumes, also those of an earlier run.
    RemoveWorkspace,
    /// A new volume, new secrets, a new container; done when Jupyter answers through the gate.
    StartWorkspace,
    /// The container is gone but its renter may not be: a new container on the same volume, with the same secrets.
    RestartContainer,
    /// See whether the container runs, what it does, and whether its rules stand.
    CheckContainer,
    /// Stop the container, until somebody wants it.
    PutToSleep,
    /// Open the tunnel to the gate; done when it carries requests.
    OpenTunnel,
    /// Close the tunnel.
    CloseTunnel,
    /// Register the session.
    Register(Told),
    /// Tell control a new URL, or of a fresh workspace by its new secret.
    Announce(Told),
    /// Say that the agent is there.
    Heartbeat {
        /// And whether a renter would be served.
        reachable: bool,
    },
    /// Take the session back.
    Deregister,
}

/// What to do now, given what should be and what is; at most one action for each part that is not busy or pausing.
pub fn reconcile(desired: &Desired, seen: &Observed, now: Instant) -> Vec<Action> {
    let workspace = seen.workspace.is_free(now).then(|| workspace_action(desired, seen, now));
    let tunnel = seen.tunnel.is_free(now).then(|| tunnel_action(desired, seen));
    let control = seen.control.is_free(now).then(|| control_action(desired, seen, now));
    [workspace, tunnel, control].into_iter().flatten().flatten().collect()
}

fn workspace_action(desired: &Desired, seen: &Observed, now: Instant) -> Option<Action> {
    match (desired.goal, &seen.workspace.state) {
        (Goal::Down, WorkspaceState::Absent) => None,
        (Goal::Down, _) => seen.control_is_done().then_some(Action::RemoveWorkspace),
        (Goal::Up, WorkspaceState::Unswept) => Some(Action::RemoveWorkspace),
        (Goal::Up, WorkspaceState::Absent) => Some(Action::StartWorkspace),
        (
            Goal::Up,
            WorkspaceState::Serving { number, .. }
            | WorkspaceState::Stopped { number }
            | WorkspaceState::Asleep { number },
        ) if seen.is_stale(*number) => Some(Action::RemoveWorkspace),
        (Goal::Up, WorkspaceState::Stopped { .. }) => Some(Action::RestartContainer),
        (Goal::Up, WorkspaceState::Asleep { .. }) => None,
        (Goal::Up, WorkspaceState::Serving { checked_at, .. }) if now >= *checked_at + CHECK_EVERY => {
            Some(Action::CheckContainer)
        }
        (Goal::Up, WorkspaceState::Serving { checked_at, busy_at, .. }) => {
            // As of the last look: what came after it nobody has seen.
            let idle = desired.sleep_after.is_some_and(|after| *checked_at >= *busy_at + after);
            (idle && seen.standing() == Standing::Ready).then_some(Action::PutToSleep)
        }
    }
}

/// The first tunnel waits for the first container: quick tunnels are rate limited, a container that cannot start is no
/// reason to use one up.
fn tunnel_action(desired: &Desired, seen: &Observed) -> Option<Action> {
    match (desired.goal, &seen.tunnel.state) {
        (Goal::Up, TunnelState::Closed) => seen.serving().map(|_| Action::OpenTunnel),
        (Goal::Down, TunnelState::Open { .. }) => seen.control_is_done().then_some(Action::CloseTunnel),
        (Goal::Up, TunnelState::Open { .. }) | (Goal::Down, TunnelState::Closed) => None,
    }
}

fn control_action(desired: &Desired, seen: &Observed, now: Instant) -> Option<Action> {
    match (desired.goal, &seen.control.state) {
        (Goal::Down, ControlState::Registered { .. }) => Some(Action::Deregister),
        (Goal::Down, ControlState::Unregistered) => None,
        (Goal::Up, ControlState::Unregistered) => to_tell(seen).map(Action::Register),
        (Goal::Up, ControlState::Registered { told, heard_at, reachable_told, .. }) => {
            let reachable = seen.is_reachable(now);
            if now >= *heard_at + desired.heartbeat_every {
                return Some(Action::Heartbeat { reachable });
            }
            let announce = to_tell(seen).filter(|current| current != told).map(Action::Announce);
            let matters = seen.standing() != Standing::Recycling && reachable != *reachable_told;
            announce.or_else(|| matters.then_some(Action::Heartbeat { reachable }))
        }
    }
}

/// What control should know: only of a workspace that is fit for its next renter, behind a tunnel that is open.
fn to_tell(seen: &Observed) -> Option<Told> {
    let workspace = seen.serving().filter(|number| !seen.is_stale(*number))?;
    match &seen.tunnel.state {
        TunnelState::Open { url, .. } => Some(Told { url: url.clone(), workspace }),
        TunnelState::Closed => None,
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
