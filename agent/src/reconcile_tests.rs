//! What `reconcile` decides, event by event, and in a small world where anything fails.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::observed::{Event, Standing, WorkspaceNumber};

const IDLE: Duration = Duration::from_secs(600);
const HEARTBEAT: Action = Action::Heartbeat { reachable: true };
const UNREACHABLE: Action = Action::Heartbeat { reachable: false };

/// An agent without hands: what it wants to do is taken down, what happens is played by the test.
struct Agent {
    desired: Desired,
    seen: Observed,
    now: Instant,
}

impl Agent {
    fn new() -> Self {
        let desired = Desired { goal: Goal::Up, heartbeat_every: Duration::from_secs(30), sleep_after: Some(IDLE) };
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

    /// Looks at the container and heartbeats, which change nothing.
    fn idle_for(&mut self, secs: u64) -> &mut Self {
        for _ in 0..secs / 5 {
            for action in self.after_secs(5).wants() {
                match action {
                    Action::CheckContainer => self.then(running()),
                    HEARTBEAT => self.then(answered(Standing::Ready)),
                    other => panic!("{other:?} in {:?}", self.seen),
                };
            }
        }
        self
    }

    fn told(&self, url: &str) -> Told {
        Told { url: url.into(), workspace: self.seen.serving().expect("a workspace serves") }
    }
}

fn running() -> Event {
    Event::ContainerChecked { running: true, busy: false }
}

fn busy() -> Event {
    Event::ContainerChecked { running: true, busy: true }
}

fn stopped() -> Event {
    Event::ContainerChecked { running: false, busy: false }
}

fn answered(standing: Standing) -> Event {
    Event::HeartbeatAnswered { recycle: standing == Standing::Recycling, standing, reachable: true }
}

#[test]
fn leftovers_go_before_anything_starts_and_control_hears_last() {
    Agent::up();
}

#[test]
fn heartbeats_keep_their_interval() {
    let mut agent = Agent::up();
    agent.after_secs(29).expect(&[Action::CheckContainer]).then(running()).expect(&[]);
    agent.after_secs(1).expect(&[HEARTBEAT]).then(answered(Standing::Ready)).expect(&[]);
    agent.after_secs(29).expect(&[Action::CheckContainer]).then(running()).expect(&[]);
    agent.after_secs(1).expect(&[HEARTBEAT]);
}

#[test]
fn recycle_replaces_the_workspace_once_and_tells_control_of_the_fresh_one() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]).then(running());
    agent.then(answered(Standing::Recycling)).expect(&[Action::RemoveWorkspace]);

    agent.after_secs(30).expect(&[HEARTBEAT]).then(answered(Standing::Recycling));
    agent.then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);

    let fresh = agent.told("https://a");
    agent.expect(&[Action::Announce(fresh.clone())]).then(Event::Heard(fresh)).expect(&[]);
}

#[test]
fn a_recycle_answer_that_crossed_the_fresh_workspace_does_not_replace_it_again() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]).then(running());
    agent.then(answered(Standing::Recycling)).expect(&[Action::RemoveWorkspace]);
    agent.then(Event::WorkspaceRemoved).expect(&[Action::StartWorkspace]);
    agent.after_secs(30).expect(&[HEARTBEAT]).then(Event::WorkspaceStarted);
    agent.then(answered(Standing::Recycling));
    let fresh = agent.told("https://a");
    agent.expect(&[Action::Announce(fresh)]);
}

#[test]
fn a_forgotten_session_is_registered_again_with_a_fresh_workspace() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]).then(running());
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
    agent.idle_for(25).after_secs(5).expect(&[Action::CheckContainer, HEARTBEAT]);
    agent.then(stopped()).then(answered(Standing::Ready));
    agent.expect(&[]).after_secs(1).expect(&[Action::RestartContainer]);
    agent.after_secs(25).expect(&[UNREACHABLE]);
    agent.then(Event::HeartbeatAnswered { recycle: false, standing: Standing::Ready, reachable: false });
    agent.then(Event::ContainerRestarted).expect(&[HEARTBEAT]);
}

#[test]
fn a_dead_container_whose_renter_left_is_replaced() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]);
    agent.then(stopped()).then(answered(Standing::Recycling));
    agent.after_secs(1).expect(&[Action::RemoveWorkspace]);
}

#[test]
fn a_crash_loop_slows_down_and_a_steady_container_does_not() {
    let mut agent = Agent::up();
    let mut crash_after = |up_secs: u64| {
        agent.after_secs(up_secs.max(5));
        agent.wants();
        agent.then(stopped());
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
    agent.expect(&[Action::CheckContainer, Action::OpenTunnel, HEARTBEAT]);
}

#[test]
fn a_silent_control_is_asked_again_after_pauses() {
    let mut agent = Agent::up();
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]).then(running());
    agent.then(Event::Failed { action: HEARTBEAT, pause: Duration::ZERO }).expect(&[]);
    agent.after_secs(1).expect(&[HEARTBEAT]);
    agent.then(Event::Failed { action: HEARTBEAT, pause: Duration::from_secs(2) }).expect(&[]);
    agent.after_secs(2).expect(&[HEARTBEAT]);
}

#[test]
fn a_container_that_nobody_holds_and_that_does_nothing_sleeps_until_it_is_wanted() {
    let mut agent = Agent::up();
    agent.idle_for(595).after_secs(6).wants();
    agent.then(running()).then(answered(Standing::Ready)).expect(&[Action::PutToSleep]).then(Event::FellAsleep);
    agent.after_secs(29).expect(&[]).after_secs(1).expect(&[HEARTBEAT]).then(answered(Standing::Ready)).expect(&[]);
    agent.then(Event::Wanted).expect(&[Action::RestartContainer]).then(Event::ContainerRestarted).expect(&[]);
    agent.idle_for(300);
}

#[test]
fn a_busy_or_rented_container_does_not_sleep() {
    let mut agent = Agent::up();
    agent.idle_for(590).after_secs(10).wants();
    agent.then(busy()).then(answered(Standing::Ready)).idle_for(595);
    agent.after_secs(30).wants();
    agent.then(running()).then(answered(Standing::Locked)).expect(&[]);
    agent.after_secs(5).expect(&[Action::CheckContainer]).then(running()).expect(&[]);

    let mut agent = Agent::up();
    agent.desired.sleep_after = None;
    agent.idle_for(3_000);
}

#[test]
fn a_container_is_looked_at_before_it_is_put_to_sleep() {
    let mut agent = Agent::up();
    agent.desired.sleep_after = Some(Duration::from_secs(1));
    agent.after_secs(4).expect(&[]).after_secs(1).expect(&[Action::CheckContainer]).then(busy()).expect(&[]);
    agent.after_secs(5).expect(&[Action::CheckContainer]).then(running()).expect(&[Action::PutToSleep]);
}

#[test]
fn a_sleeping_workspace_whose_renter_left_is_replaced() {
    let mut agent = Agent::up();
    agent.then(Event::FellAsleep).after_secs(30).expect(&[HEARTBEAT]).then(answered(Standing::Recycling));
    agent.expect(&[Action::RemoveWorkspace]);
}

#[test]
fn a_session_that_cannot_be_reached_is_told_of_and_when_it_can_again() {
    let mut agent = Agent::up();
    // The engine hangs: the look at the container does not end.
    agent.after_secs(30).expect(&[Action::CheckContainer, HEARTBEAT]).then(answered(Standing::Ready)).expect(&[]);
    agent.after_secs(1).expect(&[UNREACHABLE]);
    agent.then(Event::HeartbeatAnswered { recycle: false, standing: Standing::Ready, reachable: false }).expect(&[]);
    agent.then(running()).expect(&[HEARTBEAT]).then(answered(Standing::Ready)).expect(&[]);
}

#[test]
fn a_container_that_stirred_is_looked_at_at_once() {
    let mut agent = Agent::up();
    agent.then(Event::Stirred).expect(&[Action::CheckContainer]).then(stopped());
    agent.after_secs(1).expect(&[Action::RestartContainer]);
}

#[test]
fn an_end_heard_between_heartbeats_counts_for_the_workspace_that_was_asked_about() {
    let mut agent = Agent::up();
    let before = agent.told("https://a").workspace;
    let recycled = Event::StandingHeard { recycle: true, standing: Standing::Recycling, workspace: before };
    agent.then(recycled.clone()).expect(&[Action::RemoveWorkspace]).then(Event::WorkspaceRemoved);
    agent.expect(&[Action::StartWorkspace]).then(Event::WorkspaceStarted);
    let fresh = agent.told("https://a");
    agent.expect(&[Action::Announce(fresh.clone())]).then(Event::Heard(fresh)).expect(&[]);
    agent.then(recycled).expect(&[]);
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
        Action::CheckContainer => Event::ContainerChecked { running: luck > 90, busy: luck > 200 },
        Action::PutToSleep => Event::FellAsleep,
        Action::OpenTunnel => Event::TunnelOpened { url: format!("https://{serial}") },
        Action::CloseTunnel => Event::TunnelClosed,
        Action::Register(_) if luck < 90 => Event::IdentityRefused,
        Action::Heartbeat { .. } | Action::Announce(_) if luck < 90 => Event::Unknown,
        Action::Register(told) | Action::Announce(told) => Event::Heard(told.clone()),
        Action::Heartbeat { reachable } => {
            let standing = match luck {
                ..150 => Standing::Recycling,
                150..200 => Standing::Locked,
                _ => Standing::Ready,
            };
            Event::HeartbeatAnswered { recycle: standing == Standing::Recycling, standing, reachable: *reachable }
        }
        Action::Deregister => Event::Deregistered,
    }
}

fn part_of(action: &Action) -> u8 {
    match action {
        Action::RemoveWorkspace
        | Action::StartWorkspace
        | Action::RestartContainer
        | Action::CheckContainer
        | Action::PutToSleep => 0,
        Action::OpenTunnel | Action::CloseTunnel => 1,
        Action::Register(_) | Action::Announce(_) | Action::Heartbeat { .. } | Action::Deregister => 2,
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
            match luck % 16 {
                0 => drop(agent.then(Event::TunnelLost)),
                1 => drop(agent.then(Event::Wanted)),
                2 => drop(agent.then(Event::Stirred)),
                _ => {}
            }
            if !in_flight.is_empty() {
                let action = in_flight.swap_remove(usize::from(pick) % in_flight.len());
                let event = outcome(&action, luck, serial);
                if matches!(event, Event::Unknown | Event::HeartbeatAnswered { recycle: true, .. })
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
