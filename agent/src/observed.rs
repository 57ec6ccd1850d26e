//! What the agent has seen of its three parts (workspace, tunnel, control) and how events change that.
//!
//! Answers for the bookkeeping that `reconcile` decides on. Invariant: an event of an action ends that action's
//! flight; a lost tunnel is the only event that comes by itself.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::reconcile::Action;

/// A part that stayed up this long starts its count of failures anew.
const STEADY: Duration = Duration::from_secs(60);

/// Counts the workspaces of this run: a higher number is a fresher one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkspaceNumber(u64);

/// The container and its volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceState {
    /// Containers or volumes of an earlier run, or of a failed start, may be there.
    Unswept,
    /// Nothing is there.
    Absent,
    /// Jupyter answered through the gate.
    Serving {
        /// Which workspace it is.
        number: WorkspaceNumber,
        /// When its container started to serve.
        since: Instant,
        /// When it was last seen to run.
        checked_at: Instant,
    },
    /// The container ended by itself; the volume is as the renter left it.
    Stopped {
        /// Which workspace it was.
        number: WorkspaceNumber,
    },
}

/// The way from the public to the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelState {
    /// None.
    Closed,
    /// It carries requests.
    Open {
        /// What to register.
        url: String,
        /// When it was opened.
        since: Instant,
    },
}

/// What control knows about us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlState {
    /// Nothing, or it forgot.
    Unregistered,
    /// The session.
    Registered {
        /// What it was told last.
        told: Told,
        /// When it last answered.
        heard_at: Instant,
    },
}

/// What control is told about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where the gateway finds it.
    pub url: String,
    /// Which workspace stands behind it.
    pub workspace: WorkspaceNumber,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Container and volumes are gone.
    WorkspaceRemoved,
    /// A new workspace serves.
    WorkspaceStarted,
    /// The same workspace serves again.
    ContainerRestarted,
    /// The container was looked at.
    ContainerChecked {
        /// Whether it runs.
        running: bool,
    },
    /// The tunnel carries requests.
    TunnelOpened {
        /// What to register.
        url: String,
    },
    /// The tunnel was closed as asked.
    TunnelClosed,
    /// The tunnel ended by itself.
    TunnelLost,
    /// Control took what it was told.
    Heard(Told),
    /// Control answered a heartbeat.
    HeartbeatAnswered {
        /// Whether it wants a fresh workspace: the renter is gone.
        recycle: bool,
    },
    /// Control does not know the session: it is gone with its tokens and its lock.
    Unknown,
    /// Control gives this session id to nobody who knows what we know.
    IdentityRefused,
    /// The session was taken back, or control could not be told and will find out by our silence.
    Deregistered,
    /// An action did not succeed.
    Failed {
        /// Which.
        action: Action,
        /// The pause that the other side asked for.
        pause: Duration,
    },
}

/// One part: its state, and how it stands with the actions for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<S> {
    /// What was seen last.
    pub state: S,
    attempts: Attempts,
}

/// Whether an action is in flight, and the pause after failures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Attempts {
    in_flight: bool,
    backoff: Backoff,
}

impl<S> Part<S> {
    fn new(state: S) -> Self {
        Self { state, attempts: Attempts::default() }
    }

    /// Whether an action may be started for this part.
    pub fn is_free(&self, now: Instant) -> bool {
        !self.attempts.in_flight && self.attempts.backoff.is_over(now)
    }

    fn done(&mut self, state: S) {
        self.state = state;
        self.attempts.in_flight = false;
    }

    /// A part that came up and went down again: pauses grow unless it had been up for a while.
    fn fell(&mut self, since: Instant, now: Instant, chance: u16) {
        if now >= since + STEADY {
            self.attempts.backoff.succeeded();
        }
        self.attempts.backoff.failed(now, chance);
    }
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The container and its volume.
    pub workspace: Part<WorkspaceState>,
    /// The tunnel.
    pub tunnel: Part<TunnelState>,
    /// The control API.
    pub control: Part<ControlState>,
    newest: WorkspaceNumber,
    /// Workspaces up to this one may have been used by a renter who is gone.
    stale: WorkspaceNumber,
}

impl Default for Observed {
    /// At the start of the agent.
    fn default() -> Self {
        Self {
            workspace: Part::new(WorkspaceState::Unswept),
            tunnel: Part::new(TunnelState::Closed),
            control: Part::new(ControlState::Unregistered),
            newest: WorkspaceNumber(0),
            stale: WorkspaceNumber(0),
        }
    }
}

impl Observed {
    /// The workspace that serves now, if one does.
    pub fn serving(&self) -> Option<WorkspaceNumber> {
        match self.workspace.state {
            WorkspaceState::Serving { number, .. } => Some(number),
            _ => None,
        }
    }

    /// Whether a workspace must not meet another renter.
    pub fn is_stale(&self, number: WorkspaceNumber) -> bool {
        number <= self.stale
    }

    /// Whether control has nothing of ours, and nothing is under way to it.
    pub fn control_is_done(&self) -> bool {
        self.control.state == ControlState::Unregistered && !self.control.attempts.in_flight
    }

    /// Whether nothing is left and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.control_is_done()
            && self.workspace.state == WorkspaceState::Absent
            && self.tunnel.state == TunnelState::Closed
            && !self.workspace.attempts.in_flight
            && !self.tunnel.attempts.in_flight
    }

    /// The agent was told to stop: nothing waits for the end of a pause.
    pub fn end_pauses(&mut self) {
        self.workspace.attempts.backoff.succeeded();
        self.tunnel.attempts.backoff.succeeded();
        self.control.attempts.backoff.succeeded();
    }

    /// An action was started.
    pub fn begin(&mut self, action: &Action) {
        self.attempts_of(action).in_flight = true;
    }

    /// Something happened. `chance` is drawn by the caller, uniformly from `0..=u16::MAX`.
    pub fn apply(&mut self, event: Event, now: Instant, chance: u16) {
        match event {
            Event::WorkspaceRemoved => self.workspace.done(WorkspaceState::Absent),
            Event::WorkspaceStarted => {
                self.newest = WorkspaceNumber(self.newest.0.saturating_add(1));
                self.serve(self.newest, now);
            }
            Event::ContainerRestarted => match self.workspace.state {
                WorkspaceState::Stopped { number } | WorkspaceState::Serving { number, .. } => self.serve(number, now),
                WorkspaceState::Unswept | WorkspaceState::Absent => self.workspace.done(WorkspaceState::Unswept),
            },
            Event::ContainerChecked { running } => self.checked(running, now, chance),
            Event::TunnelOpened { url } => self.tunnel.done(TunnelState::Open { url, since: now }),
            Event::TunnelClosed => self.tunnel.done(TunnelState::Closed),
            Event::TunnelLost => {
                if let TunnelState::Open { since, .. } = self.tunnel.state {
                    self.tunnel.fell(since, now, chance);
                    self.tunnel.state = TunnelState::Closed;
                }
            }
            Event::Heard(told) => {
                self.control.done(ControlState::Registered { told, heard_at: now });
                self.control.attempts.backoff.succeeded();
            }
            Event::HeartbeatAnswered { recycle } => self.answered(recycle, now),
            Event::Unknown => {
                self.retire_what_control_knew();
                self.control.done(ControlState::Unregistered);
            }
            Event::IdentityRefused => {
                self.stale = self.newest;
                self.control.done(ControlState::Unregistered);
                self.control.attempts.backoff.failed(now, chance);
            }
            Event::Deregistered => self.control.done(ControlState::Unregistered),
            Event::Failed { action, pause } => self.failed(&action, pause, now, chance),
        }
    }

    fn serve(&mut self, number: WorkspaceNumber, now: Instant) {
        self.workspace.done(WorkspaceState::Serving { number, since: now, checked_at: now });
    }

    fn checked(&mut self, running: bool, now: Instant, chance: u16) {
        self.workspace.attempts.in_flight = false;
        if let WorkspaceState::Serving { number, since, checked_at } = &mut self.workspace.state {
            if running {
                *checked_at = now;
            } else {
                let (number, since) = (*number, *since);
                self.workspace.state = WorkspaceState::Stopped { number };
                self.workspace.fell(since, now, chance);
            }
        }
    }

    fn answered(&mut self, recycle: bool, now: Instant) {
        if recycle {
            self.retire_what_control_knew();
        }
        self.control.attempts.in_flight = false;
        self.control.attempts.backoff.succeeded();
        if let ControlState::Registered { heard_at, .. } = &mut self.control.state {
            *heard_at = now;
        }
    }

    /// The renter of the workspace that control was told of is gone. One that is newer stays: it is the answer.
    fn retire_what_control_knew(&mut self) {
        if let ControlState::Registered { told, .. } = &self.control.state {
            self.stale = self.stale.max(told.workspace);
        }
    }

    fn failed(&mut self, action: &Action, pause: Duration, now: Instant, chance: u16) {
        if *action == Action::StartWorkspace {
            self.workspace.state = WorkspaceState::Unswept;
        }
        let attempts = self.attempts_of(action);
        attempts.in_flight = false;
        attempts.backoff.failed_for_at_least(pause, now, chance);
    }

    fn attempts_of(&mut self, action: &Action) -> &mut Attempts {
        match action {
            Action::RemoveWorkspace | Action::StartWorkspace | Action::RestartContainer | Action::CheckContainer => {
                &mut self.workspace.attempts
            }
            Action::OpenTunnel | Action::CloseTunnel => &mut self.tunnel.attempts,
            Action::Register(_) | Action::Announce(_) | Action::Heartbeat | Action::Deregister => {
                &mut self.control.attempts
            }
        }
    }
}
