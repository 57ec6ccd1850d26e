//! The whole ledger against an oracle that keeps every byte with the time when it moved.
//!
//! Several nodes spend from one session's ledger, each with a budget and a lease book as in the gateway, over a wire that
//! loses, repeats and reorders; they crash, with and without leaving behind what they had spent; time passes by
//! milliseconds, over bucket edges and to a day after a byte plus or minus a bucket; clocks step; caps change. After every
//! step the oracle asks whether any window of 24 h could see more than is charged, now or at any time to come.
//!
//! The seeds are fixed. `PROPTEST_CASES` says how many runs each property makes, if not these.

mod oracle;
mod regressions;
mod steps;
mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::steps::{Step, steps};
use crate::world::{Faults, Time, World};

fn config(seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases: 4096,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn run(nodes: usize, cap: u64, faults: Faults, time: Time, steps: &[Step]) -> World {
    let mut world = World::new(nodes, cap, faults, time);
    for step in steps {
        world.take(step);
        world.check();
    }
    world
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn no_window_of_24_h_sees_more_than_the_cap_whatever_fails(
        nodes in 1..4usize, cap in steps::cap(), steps in steps(),
    ) {
        run(nodes, cap, Faults::Any, Time::Steady, &steps);
    }
}

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn clocks_that_step_free_nothing_early(nodes in 1..4usize, cap in steps::cap(), steps in steps()) {
        run(nodes, cap, Faults::Any, Time::Stepping, &steps);
    }
}

proptest! {
    #![proptest_config(config(3))]

    #[test]
    fn a_crash_that_leaves_its_spent_bytes_costs_only_what_was_in_flight(
        nodes in 1..4usize, cap in steps::cap(), steps in steps(),
    ) {
        let mut world = run(nodes, cap, Faults::CrashesOnly, Time::Steady, &steps);
        world.settle_all();
        world.check_records_exactly();
        world.check();
        world.check_charged_exactly();
    }
}

proptest! {
    #![proptest_config(config(4))]

    #[test]
    fn with_demand_and_no_faults_exactly_the_cap_passes_and_comes_free_again(
        nodes in 1..4usize, cap in steps::cap(), steps in steps(),
    ) {
        let mut world = run(nodes, cap, Faults::None, Time::Steady, &steps);
        world.spend_all_there_is();
        world.check_records_exactly();
        world.check();
        world.check_charged_exactly();
        world.check_all_comes_free();
    }
}
