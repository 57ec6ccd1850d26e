//! What the last 24 hours saw: how many events of each kind, and how many sessions were rented out at the most, in steps of
//! a quarter of an hour.
//!
//! Kept in memory, so that a page that asks every few seconds costs the store nothing. A start counts what the trail holds;
//! of refusals the trail keeps not all, so from then on this counts more than it.

use std::collections::VecDeque;
use std::time::Duration;

use runit_core::Timestamp;
use runit_core::event::EventKind;
use runit_core::time::millis;

/// Length of a step.
pub(crate) const STEP: Duration = Duration::from_secs(15 * 60);
/// Steps that are kept: 24 hours, and the one that is not over.
const STEPS: usize = 97;

/// Counts by step.
#[derive(Default)]
pub(crate) struct Tally {
    /// Oldest first, without gaps.
    steps: VecDeque<Step>,
}

/// One step's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Since 1970, in steps.
    number: u64,
    events: [u64; EventKind::ALL.len()],
    /// Most sessions that were rented out at one time.
    pub(crate) most_locked: u64,
}

impl Step {
    /// When it began.
    pub(crate) fn began(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.number.saturating_mul(millis(STEP)))
    }

    /// Events of one kind.
    pub(crate) fn events(&self, kind: EventKind) -> u64 {
        index(kind).map_or(0, |index| self.events[index])
    }
}

impl Tally {
    /// `count` events of a kind.
    pub(crate) fn add(&mut self, kind: EventKind, count: u64, at: Timestamp) {
        if let Some((step, index)) = self.step(at).zip(index(kind)) {
            step.events[index] = step.events[index].saturating_add(count);
        }
    }

    /// So many sessions are rented out.
    pub(crate) fn locked(&mut self, count: u64, at: Timestamp) {
        if let Some(step) = self.step(at) {
            step.most_locked = step.most_locked.max(count);
        }
    }

    /// The steps of the 24 hours before `now`, oldest first.
    pub(crate) fn steps(&mut self, now: Timestamp) -> Vec<Step> {
        self.step(now);
        self.steps.iter().cloned().collect()
    }

    /// The step of that time, if it is not too long ago.
    fn step(&mut self, at: Timestamp) -> Option<&mut Step> {
        let number = at.unix_ms() / millis(STEP);
        let empty = |number| Step { number, events: [0; EventKind::ALL.len()], most_locked: 0 };
        let newest = self.steps.back().map_or(number, |newest| newest.number);
        if self.steps.is_empty() || number.saturating_sub(newest) >= STEPS as u64 {
            self.steps = (0..STEPS as u64).rev().map(|age| empty(number.saturating_sub(age))).collect();
        }
        for number in newest.saturating_add(1)..=number {
            if self.steps.back().is_some_and(|newest| newest.number < number) {
                self.steps.push_back(empty(number));
                self.steps.pop_front();
            }
        }
        self.steps.iter_mut().rev().find(|step| step.number == number)
    }
}

fn index(kind: EventKind) -> Option<usize> {
    EventKind::ALL.iter().position(|one| *one == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_334_400_000;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_unix_ms(START + minutes * 60_000)
    }

    fn total(tally: &mut Tally, now: Timestamp) -> u64 {
        tally.steps(now).iter().map(|step| step.events(EventKind::RateLimited)).sum()
    }

    #[test]
    fn a_day_is_counted_and_what_is_older_goes() {
        let mut tally = Tally::default();
        tally.add(EventKind::RateLimited, 2, at(0));
        tally.add(EventKind::RateLimited, 1, at(14));
        tally.add(EventKind::RateLimited, 1, at(15));
        assert_eq!(total(&mut tally, at(24 * 60)), 4);
        assert_eq!(tally.steps(at(24 * 60)).len(), STEPS);
        assert_eq!(total(&mut tally, at(24 * 60 + 15)), 1);
        assert_eq!(total(&mut tally, at(100 * 24 * 60)), 0, "long after");
    }

    #[test]
    fn what_comes_late_is_counted_where_it_belongs_and_what_is_too_old_is_not() {
        let mut tally = Tally::default();
        tally.locked(3, at(0));
        tally.locked(5, at(60));
        tally.locked(4, at(1));
        tally.add(EventKind::RateLimited, 1, at(30));
        tally.add(EventKind::RateLimited, 1, Timestamp::from_unix_ms(START - 3 * 24 * 3_600_000));
        assert_eq!(total(&mut tally, at(60)), 1);
        let most: Vec<u64> = tally.steps(at(60)).iter().map(|step| step.most_locked).filter(|most| *most > 0).collect();
        assert_eq!(most, [4, 5]);
    }
}
