//! What the agent has seen of its three parts (workspace, tunnel, control) and how events change that.
//!
//! Answers for the bookkeeping that `reconcile` decides on. Invariant: an event of an action ends that action's
//! flight; a lost tunnel is the only event that comes by itself.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::reconcile::Action;

/// A part that stayed up this long starts its count of failures anew.
const STEADY: Duration = Duration::from_secs(60);
/// Longer than between two looks at a container.
const LONG_AGO: Duration = Duration::from_secs(60);
/// A session whose container and tunnel were not seen to be well for so long is taken for unreachable.
const UNSOUND: Duration = Duration::from_secs(31);

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
        /// When it was last seen to do something.
        busy_at: Instant,
    },
    /// The container ended by itself; the volume is as the renter left it.
    Stopped {
        /// Which workspace it was.
        number: WorkspaceNumber,
    },
    /// The container was stopped since nobody used it; the gate calls when somebody wants it.
    Asleep {
        /// Which workspace it is.
        number: WorkspaceNumber,
    },
}

/// How a session stands, as control says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Listed; nobody holds it.
    Ready,
    /// A renter holds it.
    Locked,
    /// Its renter is gone, and it waits for a fresh workspace.
    Recycling,
    /// Control said nothing of it, or something that is not known here.
    #[default]
    Unknown,
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
        /// How it said that the session stands.
        standing: Standing,
        /// Whether it was told that the session can be reached.
        reachable_told: bool,
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
        /// Whether it did something since it was last looked at.
        busy: bool,
    },
    /// The container was stopped, since nobody used it.
    FellAsleep,
    /// Somebody wants a container that is asleep.
    Wanted,
    /// The engine told that the container ended, or the like: it is looked at now.
    Stirred,
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
        /// How it says that the session stands.
        standing: Standing,
        /// Whether it was told that the session can be reached.
        reachable: bool,
    },
    /// Control told of a change between heartbeats.
    StandingHeard {
        /// Whether it wants a fresh workspace.
        recycle: bool,
        /// How it says that the session stands.
        standing: Standing,
        /// Which workspace it knew when it was asked: a newer one is not meant.
        workspace: WorkspaceNumber,
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
    /// When container and tunnel were last seen to be well.
    sound_at: Option<Instant>,
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
            sound_at: None,
            newest: WorkspaceNumber(0),
            stale: WorkspaceNumber(0),
        }
    }
}

impl Observed {
    /// The workspace that serves, or would if it were wanted.
    pub fn serving(&self) -> Option<WorkspaceNumber> {
        match self.workspace.state {
            WorkspaceState::Serving { number, .. } | WorkspaceState::Asleep { number } => Some(number),
            _ => None,
        }
    }

    /// Whether a request that came now would be answered, as far as can be seen. A container or tunnel that is being
    /// replaced is given the time for it; an engine that does not answer leaves the container as it was, but nobody
    /// knows how that is.
    pub fn is_reachable(&self, now: Instant) -> bool {
        let asleep = matches!(self.workspace.state, WorkspaceState::Asleep { .. });
        let open = matches!(self.tunnel.state, TunnelState::Open { .. });
        asleep && open || self.sound_at.is_some_and(|time| now < time + UNSOUND)
    }

    /// How control says that the session stands.
    pub fn standing(&self) -> Standing {
        match self.control.state {
            ControlState::Registered { standing, .. } => standing,
            ControlState::Unregistered => Standing::Unknown,
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
        let looked = matches!(
            event,
            Event::ContainerChecked { running: true, .. }
                | Event::WorkspaceStarted
                | Event::ContainerRestarted
                | Event::TunnelOpened { .. }
        );
        self.take(event, now, chance);
        let sound = self.serving().is_some() && matches!(self.tunnel.state, TunnelState::Open { .. });
        if looked && sound {
            self.sound_at = Some(now);
        }
    }

    fn take(&mut self, event: Event, now: Instant, chance: u16) {
        match event {
            Event::WorkspaceRemoved => self.workspace.done(WorkspaceState::Absent),
            Event::WorkspaceStarted => {
                self.newest = WorkspaceNumber(self.newest.0.saturating_add(1));
                self.serve(self.newest, now);
            }
            Event::ContainerRestarted => match self.workspace.state {
                WorkspaceState::Stopped { number }
                | WorkspaceState::Serving { number, .. }
                | WorkspaceState::Asleep { number } => self.serve(number, now),
                WorkspaceState::Unswept | WorkspaceState::Absent => self.workspace.done(WorkspaceState::Unswept),
            },
            Event::ContainerChecked { running, busy } => self.checked(running, busy, now, chance),
            Event::FellAsleep => {
                if let Some(number) = self.serving() {
                    self.workspace.done(WorkspaceState::Asleep { number });
                }
            }
            Event::Wanted => {
                if let WorkspaceState::Asleep { number } = self.workspace.state {
                    self.workspace.state = WorkspaceState::Stopped { number };
                }
            }
            Event::Stirred => self.look_now(now),
            Event::TunnelOpened { url } => self.tunnel.done(TunnelState::Open { url, since: now }),
            Event::TunnelClosed => self.tunnel.done(TunnelState::Closed),
            Event::TunnelLost => {
                if let TunnelState::Open { since, .. } = self.tunnel.state {
                    self.tunnel.fell(since, now, chance);
                    self.tunnel.state = TunnelState::Closed;
                }
            }
            Event::Heard(told) => {
                // A fresh workspace ends a lock's end; a new URL leaves what was.
                let standing = match &self.control.state {
                    ControlState::Registered { told: former, standing, .. } if former.workspace == told.workspace => {
                        *standing
                    }
                    _ => Standing::Ready,
                };
                let registered = ControlState::Registered { told, heard_at: now, standing, reachable_told: true };
                self.control.done(registered);
                self.control.attempts.backoff.succeeded();
            }
            Event::HeartbeatAnswered { recycle, standing, reachable } => {
                self.answered(recycle, standing, reachable, now);
            }
            Event::StandingHeard { recycle, standing, workspace } => self.heard(recycle, standing, workspace),
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
        self.workspace.done(WorkspaceState::Serving { number, since: now, checked_at: now, busy_at: now });
    }

    fn checked(&mut self, running: bool, busy: bool, now: Instant, chance: u16) {
        self.workspace.attempts.in_flight = false;
        if let WorkspaceState::Serving { number, since, checked_at, busy_at } = &mut self.workspace.state {
            if running {
                *checked_at = now;
                if busy {
                    *busy_at = now;
                }
            } else {
                let (number, since) = (*number, *since);
                self.workspace.state = WorkspaceState::Stopped { number };
                self.workspace.fell(since, now, chance);
            }
        }
    }

    /// The next look is due, whenever the last one was.
    fn look_now(&mut self, now: Instant) {
        if let WorkspaceState::Serving { checked_at, .. } = &mut self.workspace.state {
            *checked_at = now.checked_sub(LONG_AGO).unwrap_or(now);
        }
    }

    fn answered(&mut self, recycle: bool, said: Standing, reachable: bool, now: Instant) {
        if recycle {
            self.retire_what_control_knew();
        }
        self.control.attempts.in_flight = false;
        self.control.attempts.backoff.succeeded();
        if let ControlState::Registered { heard_at, standing, reachable_told, .. } = &mut self.control.state {
            (*heard_at, *standing, *reachable_told) = (now, said, reachable);
        }
    }

    /// Between heartbeats, and perhaps overtaken by what control was told since.
    fn heard(&mut self, recycle: bool, said: Standing, workspace: WorkspaceNumber) {
        let ControlState::Registered { told, standing, .. } = &mut self.control.state else { return };
        if told.workspace != workspace {
            return;
        }
        *standing = said;
        if recycle {
            self.retire_what_control_knew();
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
            Action::RemoveWorkspace
            | Action::StartWorkspace
            | Action::RestartContainer
            | Action::CheckContainer
            | Action::PutToSleep => &mut self.workspace.attempts,
            Action::OpenTunnel | Action::CloseTunnel => &mut self.tunnel.attempts,
            Action::Register(_) | Action::Announce(_) | Action::Heartbeat { .. } | Action::Deregister => {
                &mut self.control.attempts
            }
        }
    }
}
