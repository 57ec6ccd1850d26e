//! Runs that are worth keeping: each shows a way in which a ledger like this one goes wrong.

use runit_core::budget::Direction::{In, Out};
use runit_core::ledger::Shortage;

use crate::run;
use crate::steps::{BUCKET_MS, Fate, Legacy, Span, Step};
use crate::world::{Faults, Time, World};

const ASK: Step = Step::Ask { node: 0, want: 0, fate: Fate::Arrives };
const RETURN: Step = Step::Report { node: 0, all: true, fate: Fate::Arrives };
const CRASH: Step = Step::Crash { node: 0, legacy: Legacy::Prompt };

fn spend(most: usize) -> Step {
    Step::Spend { node: 0, most, direction: In }
}

fn charged(cap: u64, steps: &[Step]) -> u64 {
    run(1, cap, Faults::Any, Time::Steady, steps).ledger.charged()
}

#[test]
fn caps_of_nothing_one_byte_and_one_byte_beside_a_lease_pass_exactly() {
    for cap in [0, 1, 99, 100, 101, 999, 1000, 1001] {
        for nodes in 1..4 {
            let mut world = World::new(nodes, cap, Faults::None, Time::Steady);
            world.spend_all_there_is();
            world.check();
            assert_eq!(world.ledger.charged(), cap);
            world.check_all_comes_free();
        }
    }
}

#[test]
fn two_nodes_do_not_both_get_the_last_byte() {
    let mut world = World::new(2, 1, Faults::None, Time::Steady);
    assert!(world.ask(0, 1, Fate::Arrives).is_some_and(|answer| answer.is_ok()));
    assert_eq!(world.ask(1, 1, Fate::Arrives), Some(Err(Shortage::Leased)));
    world.take(&spend(1));
    world.take(&RETURN);
    assert!(matches!(world.ask(1, 1, Fate::Arrives), Some(Err(Shortage::CapReached { .. }))));
}

#[test]
fn a_byte_of_a_buckets_first_or_last_moment_stays_for_a_day_and_leaves_with_the_bucket() {
    for into_bucket in [0, BUCKET_MS - 1] {
        let moved = [Step::Pass(Span::BucketEdge(into_bucket)), ASK, spend(1), RETURN];
        let to_the_edge = BUCKET_MS - into_bucket;
        for (ms, expected) in [(0, 1), (to_the_edge - 1, 1), (to_the_edge, 0)] {
            let mut world = run(1, 1, Faults::Any, Time::Steady, &moved);
            world.take(&Step::Pass(Span::WindowAfterByte(0, ms)));
            world.check();
            assert_eq!(world.charged_now(), expected, "{into_bucket} ms into the bucket, a day and {ms} ms later");
        }
    }
}

#[test]
fn a_lost_host_forfeits_its_lease_and_a_dead_process_only_what_was_in_flight() {
    let spent = [ASK, spend(30), Step::BeginPoll { node: 0, want: 20, moves: 5 }];
    let lost = Step::Crash { node: 0, legacy: Legacy::Nothing };
    assert_eq!(charged(10_000, &[&spent[..], &[lost]].concat()), 100);
    assert_eq!(charged(10_000, &[&spent[..], &[CRASH]].concat()), 50);
}

#[test]
fn a_crash_after_a_settlement_that_was_not_acknowledged_counts_nothing_twice() {
    let unheard = Step::Report { node: 0, all: false, fate: Fate::AnswerLost };
    assert_eq!(charged(10_000, &[ASK, ASK, spend(130), unheard, CRASH]), 130);
}

#[test]
fn a_crash_after_a_grant_whose_answer_was_lost_hides_no_bytes() {
    let unheard = Step::Ask { node: 0, want: 0, fate: Fate::AnswerLost };
    assert_eq!(charged(10_000, &[ASK, unheard, spend(100), RETURN, ASK, spend(80), CRASH]), 180);
}

#[test]
fn a_recovery_that_comes_late_finds_one_lease_expired_and_another_open() {
    let die = Step::Crash { node: 0, legacy: Legacy::Late };
    let settle = Step::Deliver { message: 0, again: true };
    let seconds = |s: u64| Step::Pass(Span::Millis(s * 1000));
    let run = [ASK, spend(40), seconds(30), ASK, spend(90), die, seconds(31), settle.clone(), settle];
    // The first in full, the second by what the two reports had not covered: 40 were reported of the first.
    assert_eq!(charged(10_000, &run), 100 + 90);
}

#[test]
fn a_message_that_comes_again_after_its_lease_was_settled_charges_too_much_at_the_worst() {
    let ask = Step::Ask { node: 0, want: 0, fate: Fate::Repeated };
    let deliver = Step::Deliver { message: 0, again: false };
    assert_eq!(charged(10_000, &[ask, spend(60), RETURN, deliver]), 60 + 100);
}

#[test]
fn a_clock_that_steps_back_while_a_lease_is_open_frees_nothing_early() {
    let spent = [ASK, spend(100), Step::MoveClock(-3_600_000), RETURN, Step::MoveClock(3_600_000)];
    let world = run(1, 100, Faults::Any, Time::Stepping, &spent);
    assert_eq!(world.ledger.charged(), 100);
}

#[test]
fn a_lowered_cap_lets_leased_bytes_pass_and_no_others() {
    let mut world = run(1, 1000, Faults::None, Time::Steady, &[ASK, spend(10), Step::SetCap(5)]);
    world.take(&Step::Drain { node: 0, direction: Out });
    assert!(world.ask(0, 1, Fate::Arrives).is_some_and(|answer| answer.is_err()));
    world.check();
    assert_eq!(world.charged_now(), 100);
}
