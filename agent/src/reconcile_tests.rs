//! What `reconcile` decides, event by event, and in a small world where anything fails.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::observed::{Event, WorkspaceNumber};

/// An agent without hands: what it wants to do is taken down, what happens is played by the test.
struct Agent {
    desired: Desired,
    seen: Observed,
    now: Instant,
}

impl Agent {
    fn new() -> Self {
        let desired = Desired { goal: Goal::Up, heartbeat_every: Duration::from_secs(30) };
        Self { desired, seen: Observed::default(), now: Instant::now() }
    }

    fn up() -> Self {
        let mut agent = Self::new();
        agent.expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
        agent.expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);
        agent.expect(&[Action::OpenTunnel]).then(Event::TunnelOpened { url: "https://a".into() });
        let told = agent.told("https://a");
        agent.expect(&[Action::Register(told.clone())]).then(Event::Heard(told));
        agent.expect(&[]);
        agent
    }

    fn wants(&mut self) -> Vec<Action> {
        let actions = reconcile(&self.desired, &self.seen, self.now);
        for action in &actions {
            self.seen.begin(action);
        }
        actions
    }

    #[track_caller]
    fn expect(&mut self, actions: &[Action]) -> &mut Self {
        assert_eq!(self.wants(), actions, "in {:?}", self.seen);
        self
    }

    fn then(&mut self, event: Event) -> &mut Self {
        self.seen.apply(event, self.now, u16::MAX);
        self
    }

    fn after_secs(&mut self, secs: u64) -> &mut Self {
        self.now += Duration::from_secs(secs);
        self
    }

    fn told(&self, url: &str) -> Told {
        Told { url: url.into(), workspace: self.seen.serving().expect("a workspace serves") }
    }
}

fn running() -> Event {
    Event::ContainerChecked { running: true }
}

#[test]
fn leftovers_go_before_anything_starts_and_control_hears_last() {
    Agent::up();
}

#[test]
fn heartbeats_keep_their_interval() {
    let mut agent = Agent::up();
    agent.after_secs(29).expect(&[Action::CheckContainer]).then(running()).expect(&[]);
    agent.after_secs(1).expect(&[Action::Heartbeat]).then(Event::HeartbeatAnswered { recycle: false }).expect(&[]);
    agent.after_secs(29).expect(&[Action::CheckContainer]).then(running()).expect(&[]);
    agent.after_secs(1).expect(&[Action::Heartbeat]);
}

#[test]
fn recycle_replaces_the_workspace_once_and_tells_control_of_the_fresh_one() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]).then(running());
    agent.then(Event::HeartbeatAnswered { recycle: true }).expect(&[Action::RemoveWorkspace]);

    agent.after_secs(30).expect(&[Action::Heartbeat]).then(Event::HeartbeatAnswered { recycle: true });
    agent.then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);

    let fresh = agent.told("https://a");
    agent.expect(&[Action::Announce(fresh.clone())]).then(Event::Heard(fresh)).expect(&[]);
}

#[test]
fn a_recycle_answer_that_crossed_the_fresh_workspace_does_not_replace_it_again() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]).then(running());
    agent.then(Event::HeartbeatAnswered { recycle: true }).expect(&[Action::RemoveWorkspace]);
    agent.then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]);
    agent.after_secs(30).expect(&[Action::Heartbeat]).then(Event::WorkspaceStarted);
    agent.then(Event::HeartbeatAnswered { recycle: true });
    let fresh = agent.told("https://a");
    agent.expect(&[Action::Announce(fresh)]);
}

#[test]
fn a_forgotten_session_is_registered_again_with_a_fresh_workspace() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]).then(running());
    agent.then(Event::Unknown).expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    agent.expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);
    let told = agent.told("https://a");
    agent.expect(&[Action::Register(told)]);
}

#[test]
fn a_refused_identity_means_another_workspace_and_a_pause() {
    let mut agent = Agent::new();
    agent.expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    agent.expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);
    agent.expect(&[Action::OpenTunnel]).then(Event::TunnelOpened { url: "https://a".into() });
    let told = agent.told("https://a");
    agent.expect(&[Action::Register(told)]).then(Event::IdentityRefused);
    agent.expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    agent.expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted).expect(&[]);
    let told = agent.told("https://a");
    agent.after_secs(1).expect(&[Action::Register(told)]);
}

#[test]
fn a_dead_container_comes_back_with_its_renters_files_while_heartbeats_go_on() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]);
    agent.then(Event::ContainerChecked { running: false }).then(Event::HeartbeatAnswered { recycle: false });
    agent.expect(&[]).after_secs(1).expect(&[Action::RestartContainer]);
    agent.after_secs(30).expect(&[Action::Heartbeat]).then(Event::HeartbeatAnswered { recycle: false });
    agent.then(Event::ContainerRestarted).expect(&[]);
}

#[test]
fn a_dead_container_whose_renter_left_is_replaced() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]);
    agent.then(Event::ContainerChecked { running: false }).then(Event::HeartbeatAnswered { recycle: true });
    agent.after_secs(1).expect(&[Action::RemoveWorkspace]);
}

#[test]
fn a_crash_loop_slows_down_and_a_steady_container_does_not() {
    let mut agent = Agent::up();
    let mut crash_after = |up_secs: u64| {
        agent.after_secs(up_secs.max(3));
        agent.wants();
        agent.then(Event::ContainerChecked { running: false });
        let died_at = agent.now;
        while !agent.wants().contains(&Action::RestartContainer) {
            agent.after_secs(1);
        }
        agent.then(Event::ContainerRestarted);
        (agent.now - died_at).as_secs()
    };
    assert_eq!([3, 3, 3, 3].map(&mut crash_after), [1, 2, 4, 8]);
    assert_eq!(crash_after(61), 1);
}

#[test]
fn a_lost_tunnel_is_reopened_and_only_its_url_is_told() {
    let mut agent = Agent::up();
    agent.then(Event::TunnelLost).expect(&[]);
    agent.after_secs(1).expect(&[Action::OpenTunnel]).then(Event::TunnelOpened { url: "https://b".into() });
    let told = agent.told("https://b");
    agent.expect(&[Action::Announce(told.clone())]).then(Event::Heard(told)).expect(&[]);
}

#[test]
fn heartbeats_go_on_while_there_is_no_tunnel() {
    let mut agent = Agent::up();
    agent.then(Event::TunnelLost).after_secs(30);
    agent.expect(&[Action::CheckContainer, Action::OpenTunnel, Action::Heartbeat]);
}

#[test]
fn a_silent_control_is_asked_again_after_pauses() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, Action::Heartbeat]).then(running());
    agent.then(Event::Failed { action: Action::Heartbeat, pause: Duration::ZERO }).expect(&[]);
    agent.after_secs(1).expect(&[Action::Heartbeat]);
    agent.then(Event::Failed { action: Action::Heartbeat, pause: Duration::from_secs(2) }).expect(&[]);
    agent.after_secs(2).expect(&[Action::CheckContainer, Action::Heartbeat]);
}

#[test]
fn a_failed_start_is_swept_before_the_next() {
    let mut agent = Agent::new();
    agent.expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]);
    agent.then(Event::Failed { action: Action::StartWorkspace, pause: Duration::ZERO }).expect(&[]);
    agent.after_secs(1).expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    agent.expect(&[Action::StartWorkspace]);
}

#[test]
fn stopping_takes_the_session_back_before_its_parts_go() {
    let mut agent = Agent::up();
    agent.desired.goal = Goal::Down;
    agent.seen.end_pauses();
    agent.expect(&[Action::Deregister]).expect(&[]).then(Event::Deregistered);
    agent.expect(&[Action::RemoveWorkspace, Action::CloseTunnel]);
    agent.then(Event::WorkspaceRemoved).then(Event::TunnelClosed);
    assert!(agent.seen.is_empty());
    agent.expect(&[]);
}

#[test]
fn stopping_while_a_container_starts_waits_for_it_and_removes_it() {
    let mut agent = Agent::new();
    agent.expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]);
    agent.desired.goal = Goal::Down;
    agent.expect(&[]);
    assert!(!agent.seen.is_empty());
    agent.then(Event::Failed { action: Action::StartWorkspace, pause: Duration::ZERO });
    agent.after_secs(1).expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    assert!(agent.seen.is_empty());
}

/// How one action ends in the small world: well, with a failure, or with what control may say instead.
fn outcome(action: &Action, luck: u8, serial: usize) -> Event {
    if luck < 60 {
        return Event::Failed { action: action.clone(), pause: Duration::ZERO };
    }
    match action {
        Action::RemoveWorkspace => Event::WorkspaceRemoved,
        Action::StartWorkspace => Event::WorkspaceStarted,
        Action::RestartContainer => Event::ContainerRestarted,
        Action::CheckContainer => Event::ContainerChecked { running: luck > 90 },
        Action::OpenTunnel => Event::TunnelOpened { url: format!("https://{serial}") },
        Action::CloseTunnel => Event::TunnelClosed,
        Action::Register(_) if luck < 90 => Event::IdentityRefused,
        Action::Heartbeat | Action::Announce(_) if luck < 90 => Event::Unknown,
        Action::Register(told) | Action::Announce(told) => Event::Heard(told.clone()),
        Action::Heartbeat => Event::HeartbeatAnswered { recycle: luck < 150 },
        Action::Deregister => Event::Deregistered,
    }
}

fn part_of(action: &Action) -> u8 {
    match action {
        Action::RemoveWorkspace | Action::StartWorkspace | Action::RestartContainer | Action::CheckContainer => 0,
        Action::OpenTunnel | Action::CloseTunnel => 1,
        Action::Register(_) | Action::Announce(_) | Action::Heartbeat | Action::Deregister => 2,
    }
}

proptest! {
    #[test]
    fn whatever_fails_no_used_workspace_is_told_and_all_ends_well(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), 0_u64..40), 1..200),
    ) {
        let mut agent = Agent::new();
        let mut in_flight: Vec<Action> = Vec::new();
        // The newest workspace that control said "recycle" or "unknown" about.
        let mut used = WorkspaceNumber::default();

        for (serial, (luck, pick, secs)) in steps.into_iter().enumerate() {
            agent.after_secs(secs);
            for action in agent.wants() {
                prop_assert!(in_flight.iter().all(|other| part_of(other) != part_of(&action)), "two for one part");
                if let Action::Register(told) | Action::Announce(told) = &action {
                    prop_assert!(told.workspace > used, "{action:?} though {used:?} was used");
                }
                in_flight.push(action);
            }
            if luck % 16 == 0 {
                agent.then(Event::TunnelLost);
            }
            if !in_flight.is_empty() {
                let action = in_flight.swap_remove(usize::from(pick) % in_flight.len());
                let event = outcome(&action, luck, serial);
                if matches!(event, Event::Unknown | Event::HeartbeatAnswered { recycle: true })
                    && let ControlState::Registered { told, .. } = &agent.seen.control.state
                {
                    used = used.max(told.workspace);
                }
                agent.then(event);
            }
        }

        settle(&mut agent, &mut in_flight, |agent| {
            matches!(agent.seen.control.state, ControlState::Registered { .. }) && agent.seen.serving().is_some()
        })?;
        agent.desired.goal = Goal::Down;
        agent.seen.end_pauses();
        settle(&mut agent, &mut in_flight, |agent| agent.seen.is_empty())?;
    }
}

/// Lets everything succeed from now on, until `done`.
fn settle(agent: &mut Agent, in_flight: &mut Vec<Action>, done: impl Fn(&Agent) -> bool) -> Result<(), TestCaseError> {
    for serial in 0..300 {
        in_flight.extend(agent.wants());
        if in_flight.is_empty() && done(agent) {
            return Ok(());
        }
        for action in in_flight.drain(..) {
            agent.then(outcome(&action, u8::MAX, 1_000 + serial));
        }
        agent.after_secs(1);
    }
    Err(TestCaseError::fail(format!("not settled: {:?}", agent.seen)))
}
