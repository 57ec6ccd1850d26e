//! One session at one node: its budget and lease book, used as a node's loop uses them.

use std::time::{Duration, Instant};

use runit_core::budget::{Budget, Direction};
use runit_core::lease_book::LeaseBook;
use runit_core::ledger::{LeasePolicy, LeaseReport, LeaseRequest, Shortage};
use runit_core::{LeaseId, NodeId, SessionId, Timestamp};
use uuid::Uuid;

use super::Shared;
use super::traffic::{Knowledge, Traffic};

// The gateway's times, as in `leasing.rs` and `settlement.rs`; a test below looks whether they are still there.
pub(crate) const TICK: Duration = Duration::from_millis(500);
const LEASE_SECONDS: u64 = 4;
const IDLE: Duration = Duration::from_secs(5);
const PRESENCE: Duration = Duration::from_secs(5);
const QUOTA: Duration = Duration::from_secs(2);
/// `quota.renewal_wait_ms`, by default.
const RENEWAL_WAIT: Duration = Duration::from_secs(5);
/// What one poll moves at the most.
const POLL_BYTES: u64 = 64 * 1024;

/// Now, in all its forms.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) tick: u64,
    /// By the node's monotonic clock.
    pub(crate) at: Instant,
    /// By the ledger's.
    pub(crate) now: Timestamp,
}

/// One session at one node.
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) is_active: bool,
    budget: Budget,
    book: LeaseBook,
    /// The version of the ledger that the node knows.
    known: Option<u64>,
    low_water: u64,
    leases: u64,
    burst_ends: u64,
    bytes_a_tick: u64,
    spent_at: Option<Instant>,
    present_at: Option<Instant>,
    quota_at: Option<Instant>,
}

/// What the loop found at a tick.
pub(crate) struct Look {
    pub(crate) reports: Vec<LeaseReport>,
    pub(crate) is_present: bool,
    /// Its renter should hear how it stands.
    pub(crate) asks_standing: bool,
    /// Whether the loop looks again.
    pub(crate) stays: bool,
}

impl Place {
    pub(crate) fn new(session: SessionId, node: usize) -> Self {
        Self {
            node,
            is_active: false,
            budget: Budget::default(),
            book: LeaseBook::new(session),
            known: None,
            low_water: 0,
            leases: 0,
            burst_ends: 0,
            bytes_a_tick: 0,
            spent_at: None,
            present_at: None,
            quota_at: None,
        }
    }

    /// Bytes that may be spent here.
    pub(crate) fn left(&self) -> u64 {
        self.budget.balance().left.into()
    }

    pub(crate) fn known(&self, session: &Shared) -> Knowledge {
        match self.known {
            None => Knowledge::None,
            Some(version) if version == session.version => Knowledge::Current,
            Some(_) => Knowledge::Outdated,
        }
    }

    /// The renter moves so many bytes a second until then.
    pub(crate) fn begin(&mut self, ends: u64, bytes_a_second: f64) {
        self.burst_ends = ends;
        self.bytes_a_tick = (bytes_a_second * TICK.as_secs_f64()) as u64 + 1;
    }

    /// Moves what a tick moves, as far as there are bytes to be leased.
    pub(crate) fn pass_bytes(
        &mut self,
        node: NodeId,
        session: &mut Shared,
        policy: &LeasePolicy,
        moment: Moment,
        traffic: &mut Traffic,
    ) {
        let mut to_move = if moment.tick < self.burst_ends { self.bytes_a_tick } else { 0 };
        while to_move > 0 {
            if self.left() < self.low_water.max(1)
                && !self.refill(node, session, policy, moment, traffic)
                && self.left() == 0
            {
                return; // who waits for bytes moves none in this tick
            }
            let reservation = self.budget.reserve(usize::try_from(to_move.min(POLL_BYTES)).unwrap_or(usize::MAX));
            let bytes = reservation.bytes();
            reservation.spend(Direction::Out, bytes);
            session.moved += bytes as u64;
            to_move -= bytes as u64;
            self.spent_at = Some(moment.at);
        }
    }

    /// `Active::survey`.
    pub(crate) fn survey(
        &mut self,
        node: NodeId,
        session: &mut Shared,
        policy: &LeasePolicy,
        moment: Moment,
        traffic: &mut Traffic,
    ) -> Look {
        let has_passed = |since: Option<Instant>, time| since.is_none_or(|since| moment.at - since >= time);
        let is_idle = has_passed(self.spent_at, IDLE);
        let is_present = self.spent_at == Some(moment.at) && has_passed(self.present_at, PRESENCE);
        if is_present {
            self.present_at = Some(moment.at);
        }
        if !is_idle && !self.book.is_empty() && self.book.is_due(moment.at) {
            self.refill(node, session, policy, moment, traffic);
        }
        self.book.give_back(&self.budget, moment.at, is_idle);
        let reports = self.book.reports();
        let asks_standing = !reports.is_empty() && has_passed(self.quota_at, QUOTA);
        if asks_standing {
            self.quota_at = Some(moment.at);
        }
        let is_done = self.book.is_empty() || reports.iter().all(|report| report.closing);
        Look { reports, is_present, asks_standing, stays: !(is_idle && is_done) || moment.tick < self.burst_ends }
    }

    /// The ledger hears of these.
    pub(crate) fn settle(
        &mut self,
        session: &mut Shared,
        reports: &[LeaseReport],
        moment: Moment,
        traffic: &mut Traffic,
    ) {
        for report in reports {
            session.ledger.report(report, moment.now);
        }
        self.written(session);
        self.book.sent(reports);
        traffic.reports += reports.len() as u64;
    }

    /// `Leasing::lease`: whether there is another lease.
    fn refill(
        &mut self,
        node: NodeId,
        session: &mut Shared,
        policy: &LeasePolicy,
        moment: Moment,
        traffic: &mut Traffic,
    ) -> bool {
        self.book.give_back(&self.budget, moment.at, false);
        let reports = self.book.reports();
        if !reports.is_empty() {
            traffic.note_write([self.known(session)].into_iter());
            self.settle(session, &reports, moment, traffic);
        }
        let lease = Uuid::from_u64_pair(self.node as u64, self.leases);
        self.leases += 1;
        let request = LeaseRequest {
            lease: LeaseId::from_uuid(lease),
            node,
            session: session.id,
            lock: session.lock,
            want: self.bytes_a_tick * 2 * LEASE_SECONDS,
        };
        let knowledge = self.known(session);
        match session.ledger.grant(&request, session.cap, policy, moment.now) {
            Ok(lease) => {
                assert!(session.ledger.charged() <= session.cap, "a ledger charges more than the cap");
                traffic.grants += 1;
                traffic.note_write([knowledge].into_iter());
                traffic.standings += 1;
                self.written(session);
                self.budget.deposit(lease.granted).expect("the gateway's fit as well");
                self.book.add(&lease, moment.at, (RENEWAL_WAIT + 2 * TICK).min(lease.ttl / 2));
                self.low_water = lease.granted / 2;
                true
            }
            Err(shortage) => {
                traffic.note_refusal(knowledge);
                traffic.standings += u64::from(matches!(shortage, Shortage::CapReached { .. }));
                self.known = Some(session.version);
                self.low_water = 0;
                false
            }
        }
    }

    /// The row has a new version, which is known here.
    fn written(&mut self, session: &mut Shared) {
        session.ledger.bookings.clear();
        session.version += 1;
        self.known = Some(session.version);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_gateway_has_the_times_that_are_repeated_here() {
        let leasing = include_str!("../../../../gateway/src/leasing.rs");
        let settlement = include_str!("../../../../gateway/src/settlement.rs");
        for (file, line) in [
            (leasing, "const TICK: Duration = Duration::from_millis(500);"),
            (leasing, "const LEASE_SECONDS: u64 = 4;"),
            (leasing, "u32::try_from(lease.granted / 2)"),
            (leasing, "(self.renewal_wait() + 2 * TICK).min(ttl / 2)"),
            (settlement, "const IDLE: Duration = Duration::from_secs(5);"),
            (settlement, "const PRESENCE: Duration = Duration::from_secs(5);"),
            (settlement, "const QUOTA: Duration = Duration::from_secs(2);"),
        ] {
            assert!(file.contains(line), "{line}");
        }
    }
}
