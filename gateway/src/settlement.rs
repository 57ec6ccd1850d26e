//! What the leasing loop finds at a tick: who moved bytes, who is idle, and what there is to report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runit_core::SessionId;
use runit_core::ledger::LeaseReport;

use crate::live::LiveSession;
use crate::metrics::Metrics;

/// A session that spends nothing for so long gives its leases back.
const IDLE: Duration = Duration::from_secs(5);
/// How often the presence of a renter is reported at the most.
const PRESENCE: Duration = Duration::from_secs(5);
/// How often the ledger is asked how a session stands that moves bytes.
const QUOTA: Duration = Duration::from_secs(2);
/// Output alone shows presence only from so many bytes on: an answer to nobody, such as a ping, is shorter.
const PRESENT_OUTPUT_BYTES: u64 = 4096;

/// What there is to tell the ledger of a session.
pub(crate) struct Reported {
    pub(crate) session: Arc<LiveSession>,
    /// In the order of its leases.
    pub(crate) leases: Vec<LeaseReport>,
    /// All bytes that the ledger has heard of then.
    pub(crate) told: u64,
}

/// What there is to tell the authority.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) reports: Vec<Reported>,
    /// Sessions whose renters have shown up.
    pub(crate) present: Vec<SessionId>,
    /// Sessions of which the renter should hear how they stand.
    pub(crate) moved: Vec<Arc<LiveSession>>,
}

impl Round {
    pub(crate) const fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.present.is_empty() && self.moved.is_empty()
    }
}

/// A session that has leases, or had some at the last tick.
pub(crate) struct Active {
    session: Arc<LiveSession>,
    spent: (u64, u64),
    spent_at: Instant,
    /// What was spent when its renter was last reported as present.
    present: (u64, u64),
    present_at: Instant,
    quota_at: Instant,
    /// What was spent beyond the leases: nothing, ever.
    overshoot: u64,
}

impl Active {
    pub(crate) fn new(session: &Arc<LiveSession>) -> Self {
        let now = Instant::now();
        let spent = session.budget.spent();
        Self {
            session: Arc::clone(session),
            spent,
            spent_at: now,
            present: spent,
            present_at: now.checked_sub(PRESENCE).unwrap_or(now),
            quota_at: now,
            overshoot: 0,
        }
    }

    pub(crate) const fn session(&self) -> &Arc<LiveSession> {
        &self.session
    }

    /// Its rate since the last tick.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        let (bytes_in, bytes_out) = self.session.budget.spent();
        let moved = bytes_in + bytes_out - self.spent.0 - self.spent.1;
        let millis = u64::try_from(self.spent_at.elapsed().as_millis()).unwrap_or(u64::MAX).max(100);
        moved.saturating_mul(1000) / millis
    }

    /// Looks at the session at a tick; `false` when nothing of it is left open. A session whose refill is under way is
    /// left to that.
    pub(crate) fn survey(
        &mut self,
        metrics: &Metrics,
        round: &mut Round,
        may_report: bool,
        all: bool,
        now: Instant,
    ) -> bool {
        self.meter(metrics, now);
        if may_report && self.is_present(now) {
            round.present.push(self.session.id());
        }
        let changed_hands = self.session.changed_hands();
        let idle = all || changed_hands.is_some() || now.duration_since(self.spent_at) >= IDLE;
        let Ok(mut book) = self.session.book.try_lock() else { return true };
        let given_back = book.give_back(&self.session.budget, now, idle);
        self.session.withdrawn(given_back);
        self.session.note_end(&book);
        metrics.refunded_bytes.inc_by(given_back);
        if may_report {
            let leases = book.reports();
            if !leases.is_empty() {
                let (session, told) = (Arc::clone(&self.session), book.attributed());
                round.reports.push(Reported { session, leases, told });
                if now.duration_since(self.quota_at) >= QUOTA {
                    self.quota_at = now;
                    round.moved.push(Arc::clone(&self.session));
                }
            }
        }
        if let (Some(hands), true) = (changed_hands, book.is_empty()) {
            self.session.settle_hands(hands);
        }
        if !idle && !book.is_empty() && book.is_due(now) && self.session.drought().is_none() {
            self.session.ask_for_refill();
        }
        !(idle && book.is_empty())
    }

    fn meter(&mut self, metrics: &Metrics, now: Instant) {
        let spent = self.session.budget.spent();
        if spent != self.spent {
            metrics.bytes_in.inc_by(spent.0 - self.spent.0);
            metrics.bytes_out.inc_by(spent.1 - self.spent.1);
            self.spent = spent;
            self.spent_at = now;
        }
        let overshoot = (spent.0 + spent.1).saturating_sub(self.session.covered());
        metrics.overshoot_bytes.inc_by(overshoot.saturating_sub(self.overshoot));
        self.overshoot = self.overshoot.max(overshoot);
    }

    /// Whether the renter has shown up since this was last said.
    fn is_present(&mut self, now: Instant) -> bool {
        let (bytes_in, bytes_out) = self.spent;
        let moved = bytes_in > self.present.0 || bytes_out >= self.present.1 + PRESENT_OUTPUT_BYTES;
        let due = moved && now.duration_since(self.present_at) >= PRESENCE;
        if due {
            self.present = self.spent;
            self.present_at = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;
    use crate::testing::{spent_file, view};
    use runit_core::budget::Direction;
    use uuid::Uuid;

    /// Whether a renter counts as present after his session, active before and idle since, spends this once more.
    fn is_present_after(direction: Direction, bytes: usize) -> bool {
        let (_data, file) = spent_file();
        let (refills, _asked) = tokio::sync::mpsc::unbounded_channel();
        let id = SessionId::from_uuid(Uuid::new_v4());
        let session = Arc::new(LiveSession::new(view(id, 1), Counters::new(file, id), refills));
        assert!(session.deposit(1 << 20, Instant::now() + PRESENCE));
        for direction in [Direction::In, Direction::Out] {
            session.spend(session.reserve(50_000), direction, 50_000);
        }
        let mut active = Active::new(&session);
        session.spend(session.reserve(bytes), direction, bytes);
        active.spent = session.budget.spent();
        active.is_present(Instant::now() + PRESENCE)
    }

    #[test]
    fn a_providers_small_output_shows_no_renter_and_any_input_does() {
        assert!(!is_present_after(Direction::Out, 3));
        assert!(is_present_after(Direction::Out, 5_000));
        assert!(is_present_after(Direction::In, 1));
    }
}
