//! What leases cost a database that thousands of nodes share: a simulation in virtual time.
//!
//! Ledgers, lease books and budgets are core's own. The load, the loop of a node (`gateway/src/leasing.rs` and
//! `settlement.rs`, whose times are repeated in `place`) and the count of statements (`control/src/postgres`, repeated in
//! `traffic`) are modelled. The network and the database take no time, and nobody fails: failures are the ledger's model
//! tests'. A session is of a few nodes, and its renter comes in bursts.

mod place;
mod traffic;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use runit_core::ledger::{LeasePolicy, Ledger};
use runit_core::{LockId, NodeId, SecretHash, SessionId};
use uuid::Uuid;

use crate::NOW;
use place::{Moment, Place, TICK};
pub use traffic::{Idle, Traffic};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Nodes.
    pub nodes: usize,
    /// Rented sessions.
    pub sessions: usize,
    /// How many nodes each session's requests come through.
    pub spread: usize,
    /// The share of the time that a session moves bytes, above 0 and below 1.
    pub active: f64,
    /// How long it does at a time, on average.
    pub burst: Duration,
    /// Bytes a second while it does, on average over bursts.
    pub rate: u64,
    /// Bytes of a session in any 24 hours.
    pub cap: u64,
    /// How large leases are.
    pub policy: LeasePolicy,
    /// How long is simulated; at most 24 h, so that all of it is one window of the cap.
    pub length: Duration,
    /// The same seed gives the same answer.
    pub seed: u64,
}

/// One session: its ledger as the database has it, and what all nodes moved of it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: SessionId,
    pub(crate) lock: LockId,
    pub(crate) cap: u64,
    pub(crate) ledger: Ledger,
    /// The row's version: a node that knows another one reads it anew.
    pub(crate) version: u64,
    pub(crate) moved: u64,
}

/// Runs it.
///
/// # Panics
/// When a session passes its cap, or a ledger charges more than the cap: then leases do not do what they are for.
pub fn simulate(load: &Load) -> Traffic {
    assert!(load.length <= Duration::from_secs(24 * 60 * 60), "more than one window");
    let mut house = House::new(load);
    let ticks = u64::try_from(load.length.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
    for tick in 1..=ticks {
        house.tick(tick);
    }
    house.traffic.sum_up(load, &house.sessions);
    house.traffic
}

struct House {
    load: Load,
    rng: Rng,
    start: Instant,
    sessions: Vec<Shared>,
    /// Each session's, one after the other: `spread` of them.
    places: Vec<Place>,
    /// By node, the places that have leases.
    active: Vec<Vec<usize>>,
    /// When bursts begin, by tick.
    bursts: BinaryHeap<Reverse<(u64, usize)>>,
    traffic: Traffic,
}

impl House {
    fn new(load: &Load) -> Self {
        let mut rng = Rng::with_seed(load.seed);
        let session = |number: usize| Shared {
            id: SessionId::from_uuid(Uuid::from_u128(number as u128)),
            lock: LockId::of(SecretHash::of(&number.to_string())),
            cap: load.cap,
            ledger: Ledger::default(),
            version: 1,
            moved: 0,
        };
        let sessions: Vec<Shared> = (0..load.sessions).map(session).collect();
        let mut places = Vec::with_capacity(load.sessions * load.spread);
        for session in &sessions {
            let first = rng.usize(..load.nodes);
            for at in 0..load.spread {
                places.push(Place::new(session.id, (first + at) % load.nodes));
            }
        }
        let mut house = Self {
            load: *load,
            rng,
            start: Instant::now(),
            sessions,
            places,
            active: vec![Vec::new(); load.nodes],
            bursts: BinaryHeap::new(),
            traffic: Traffic::default(),
        };
        for session in 0..load.sessions {
            house.plan_burst(session, 0);
        }
        house
    }

    /// The next burst of a session, after a pause as long as it takes to be active for its share of the time.
    fn plan_burst(&mut self, session: usize, after: u64) {
        let pause = self.load.burst.as_secs_f64() * (1.0 - self.load.active) / self.load.active;
        let begins = after + 1 + ticks(exponential(&mut self.rng, pause));
        self.bursts.push(Reverse((begins, session)));
    }

    fn tick(&mut self, tick: u64) {
        while let Some(&Reverse((begins, session))) = self.bursts.peek() {
            if begins > tick {
                break;
            }
            self.bursts.pop();
            let lasts = 1 + ticks(exponential(&mut self.rng, self.load.burst.as_secs_f64()));
            let mean = self.load.rate as f64 / self.load.spread as f64;
            for at in session * self.load.spread..(session + 1) * self.load.spread {
                let place = &mut self.places[at];
                place.begin(tick + lasts, exponential(&mut self.rng, mean));
                if !place.is_active {
                    place.is_active = true;
                    self.active[place.node].push(at);
                }
            }
            self.plan_burst(session, tick + lasts);
        }
        let passed = TICK * u32::try_from(tick).expect("a day at the most");
        let moment = Moment { tick, at: self.start + passed, now: NOW.plus(passed) };
        for node in 0..self.active.len() {
            self.look_after(node, moment);
        }
        if tick.is_multiple_of(Idle::EVERY_TICKS) {
            self.traffic.idle.note(self.active.iter().flatten().map(|&at| self.places[at].left()).sum());
        }
    }

    /// One tick of a node's loop: bytes move, leases are taken, and what there is to report is reported together.
    fn look_after(&mut self, node: usize, moment: Moment) {
        let mut active = std::mem::take(&mut self.active[node]);
        let mut round = Vec::new();
        let (mut is_anybody_present, mut asks_standings) = (false, false);
        let name = NodeId::from_uuid(Uuid::from_u128(node as u128));
        active.retain(|&at| {
            let (place, session) = (&mut self.places[at], &mut self.sessions[at / self.load.spread]);
            place.pass_bytes(name, session, &self.load.policy, moment, &mut self.traffic);
            let look = place.survey(name, session, &self.load.policy, moment, &mut self.traffic);
            is_anybody_present |= look.is_present;
            asks_standings |= look.asks_standing;
            if !look.reports.is_empty() {
                round.push((at, look.reports));
            }
            place.is_active = look.stays;
            look.stays
        });
        self.active[node] = active;
        self.traffic.presences += u64::from(is_anybody_present);
        self.traffic.standings += u64::from(asks_standings);
        if round.is_empty() {
            return;
        }
        self.traffic.rounds += 1;
        let knowledge = round.iter().map(|(at, _)| self.places[*at].known(&self.sessions[at / self.load.spread]));
        self.traffic.note_write(knowledge);
        for (at, reports) in round {
            let (place, session) = (&mut self.places[at], &mut self.sessions[at / self.load.spread]);
            place.settle(session, &reports, moment, &mut self.traffic);
            assert!(session.moved <= session.cap, "a session passed its cap");
        }
    }
}

fn ticks(seconds: f64) -> u64 {
    (seconds / TICK.as_secs_f64()) as u64
}

/// Drawn from an exponential distribution.
fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -(1.0 - rng.f64()).ln() * mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MIB, POLICY};

    const LOAD: Load = Load {
        nodes: 50,
        sessions: 300,
        spread: 1,
        active: 0.1,
        burst: Duration::from_secs(20),
        rate: 20_000,
        cap: 10_240 * MIB,
        policy: POLICY,
        length: Duration::from_secs(600),
        seed: 1,
    };

    #[test]
    fn the_same_seed_gives_the_same_traffic_and_another_one_another() {
        let first = simulate(&LOAD);
        assert!(first.grants > 0);
        assert_eq!(first, simulate(&LOAD));
        assert_ne!(first, simulate(&Load { seed: 2, ..LOAD }));
    }

    #[test]
    fn with_more_demand_than_the_cap_every_session_gets_exactly_the_cap_through_three_nodes() {
        let load = Load { spread: 3, active: 0.9, rate: 1_000_000, cap: 50 * MIB, sessions: 40, ..LOAD };
        let traffic = simulate(&load);
        assert_eq!(traffic.sessions_at_cap, load.sessions);
        assert_eq!(traffic.moved, load.sessions as u64 * load.cap);
    }

    #[test]
    fn a_session_of_one_node_is_written_without_being_read_but_once() {
        let traffic = simulate(&LOAD);
        assert_eq!(traffic.rewrites, 0);
        assert!(traffic.reads <= LOAD.sessions as u64);
        assert!(simulate(&Load { spread: 2, ..LOAD }).rewrites > 0);
    }

    #[test]
    fn idle_sessions_hold_no_bytes() {
        // Bursts of a second, an hour apart: by the minute mostly nobody holds anything.
        let load = Load { active: 0.0003, burst: Duration::from_secs(1), ..LOAD };
        let traffic = simulate(&load);
        assert!(traffic.grants > 0);
        assert!(traffic.idle.mean() < 5 * MIB, "{:?}", traffic.idle);
    }
}
