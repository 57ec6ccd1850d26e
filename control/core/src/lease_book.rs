//! Which of a node's leases the spent bytes belong to, and which unspent ones go back.
//!
//! The [budget](BudgetIn) knows only totals. Bytes are attributed to leases in the order in which these were taken; a lease that
//! shall end gives its unspent bytes back by shrinking to what is attributed to it, and closes when nothing of it is
//! left to spend.
//!
//! Invariant: the sum of the leases' (shrunk) sizes is what the budget holds left, reserved, or spent and not yet
//! attributed, plus what is attributed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::budget::{BudgetIn, Cells};
use crate::id::{LeaseId, SessionId};
use crate::ledger::{Lease, LeaseReport};

/// The open leases of one session on one node, oldest first.
#[derive(Debug)]
pub struct LeaseBook {
    session: SessionId,
    held: VecDeque<Held>,
    attributed_in: u64,
    attributed_out: u64,
}

#[derive(Debug)]
struct Held {
    id: LeaseId,
    /// What was granted, less what was given back.
    size: u64,
    bytes_in: u64,
    bytes_out: u64,
    reported: Option<(u64, u64)>,
    sequence: u64,
    /// From when on a new lease should take its place.
    renew_at: Instant,
    /// From when on what is left of it goes back.
    stop_at: Instant,
    /// From when on nothing of it may be spent, by a node that could not give it back in time either.
    end_at: Instant,
}

impl Held {
    const fn unspent(&self) -> u64 {
        self.size - self.bytes_in - self.bytes_out
    }
}

impl LeaseBook {
    /// No leases yet.
    pub const fn new(session: SessionId) -> Self {
        Self { session, held: VecDeque::new(), attributed_in: 0, attributed_out: 0 }
    }

    /// A lease came in and was deposited. `asked_at` is the monotonic time of the request, from which its time counts;
    /// `margin` before its end what is left of it goes back.
    pub fn add(&mut self, lease: &Lease, asked_at: Instant, margin: Duration) {
        self.held.push_back(Held {
            id: lease.id,
            size: lease.granted,
            bytes_in: 0,
            bytes_out: 0,
            reported: None,
            sequence: 0,
            renew_at: asked_at + lease.ttl / 2,
            stop_at: asked_at + lease.ttl.saturating_sub(margin),
            end_at: asked_at + lease.ttl,
        });
    }

    /// Whether no lease is open.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the youngest lease is past half of its time, so that one who is still spending needs another.
    pub fn is_due(&self, now: Instant) -> bool {
        self.held.back().is_none_or(|lease| lease.renew_at <= now)
    }

    /// When the first lease ends of which there are unspent bytes: from then on the budget holds bytes that may not be spent.
    pub fn ends_at(&self) -> Option<Instant> {
        self.held.iter().filter(|lease| lease.unspent() > 0).map(|lease| lease.end_at).min()
    }

    /// Attributes what the budget has spent by now.
    pub fn attribute<C: Cells>(&mut self, budget: &BudgetIn<C>) {
        let (spent_in, spent_out) = budget.spent();
        let mut rest_in = spent_in - self.attributed_in;
        let mut rest_out = spent_out - self.attributed_out;
        for lease in &mut self.held {
            let take_in = rest_in.min(lease.unspent());
            lease.bytes_in += take_in;
            let take_out = rest_out.min(lease.unspent());
            lease.bytes_out += take_out;
            rest_in -= take_in;
            rest_out -= take_out;
        }
        self.attributed_in = spent_in - rest_in;
        self.attributed_out = spent_out - rest_out;
    }

    /// Takes the unspent bytes of leases whose time is up (or of all, for an idle or ended session) out of the budget.
    ///
    /// Bytes that a poll holds reserved just now stay; the next call gets them. Answers how many go back.
    pub fn give_back<C: Cells>(&mut self, budget: &BudgetIn<C>, now: Instant, all: bool) -> u64 {
        self.attribute(budget);
        let mut given_back = 0;
        for lease in self.held.iter_mut().filter(|lease| all || lease.stop_at <= now) {
            let unspent = lease.unspent();
            if unspent > 0 {
                let withdrawn = budget.withdraw(unspent);
                lease.size -= withdrawn;
                given_back += withdrawn;
            }
        }
        given_back
    }

    /// What there is to tell the ledger. The caller sends all of it, in order, and calls [`Self::sent`] when it arrived.
    pub fn reports(&mut self) -> Vec<LeaseReport> {
        let session = self.session;
        self.held
            .iter_mut()
            .filter(|lease| lease.unspent() == 0 || lease.reported != Some((lease.bytes_in, lease.bytes_out)))
            .map(|lease| {
                lease.sequence += 1;
                LeaseReport {
                    lease: lease.id,
                    session,
                    sequence: lease.sequence,
                    bytes_in: lease.bytes_in,
                    bytes_out: lease.bytes_out,
                    closing: lease.unspent() == 0,
                }
            })
            .collect()
    }

    /// All bytes that were ever attributed to leases, which [`Self::reports`] covers.
    pub const fn attributed(&self) -> u64 {
        self.attributed_in.saturating_add(self.attributed_out)
    }

    /// The ledger has these reports: what was closed is forgotten.
    pub fn sent(&mut self, reports: &[LeaseReport]) {
        for report in reports {
            if report.closing {
                self.held.retain(|lease| lease.id != report.lease);
            } else if let Some(lease) = self.held.iter_mut().find(|lease| lease.id == report.lease) {
                lease.reported = Some((report.bytes_in, report.bytes_out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Direction};
    use uuid::Uuid;

    const TTL: Duration = Duration::from_secs(60);
    const MARGIN: Duration = Duration::from_secs(5);

    struct Node {
        budget: Budget,
        book: LeaseBook,
        start: Instant,
    }

    impl Node {
        fn new() -> Self {
            let book = LeaseBook::new(SessionId::from_uuid(Uuid::from_u128(1)));
            Self { budget: Budget::default(), book, start: Instant::now() }
        }

        fn lease(&mut self, id: u128, granted: u64, after: u64) {
            let lease = Lease { id: LeaseId::from_uuid(Uuid::from_u128(id)), granted, ttl: TTL };
            self.book.add(&lease, self.at(after), MARGIN);
            self.budget.deposit(granted).expect("small");
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn spend(&self, direction: Direction, bytes: usize) {
            let reservation = self.budget.reserve(bytes);
            assert_eq!(reservation.bytes(), bytes);
            reservation.spend(direction, bytes);
        }

        /// (lease, in, out, closing) of each report
        fn report(&mut self) -> Vec<(u128, u64, u64, bool)> {
            self.book.attribute(&self.budget);
            let reports = self.book.reports();
            self.book.sent(&reports);
            reports.iter().map(|r| (r.lease.as_uuid().as_u128(), r.bytes_in, r.bytes_out, r.closing)).collect()
        }
    }

    #[test]
    fn spent_bytes_fill_the_oldest_lease_first() {
        let mut node = Node::new();
        node.lease(1, 100, 0);
        node.lease(2, 100, 0);
        node.spend(Direction::In, 30);
        node.spend(Direction::Out, 90);
        assert_eq!(node.report(), [(1, 30, 70, true), (2, 0, 20, false)]);
        assert_eq!(node.report(), [], "nothing new");
        node.spend(Direction::Out, 80);
        assert_eq!(node.book.attributed(), 120, "what was spent since is not told of");
        assert_eq!(node.report(), [(2, 0, 100, true)]);
        assert!(node.book.is_empty());
        assert_eq!(node.book.attributed(), 200, "also of leases that are closed");
    }

    #[test]
    fn an_idle_session_gives_all_unspent_bytes_back() {
        let mut node = Node::new();
        node.lease(1, 100, 0);
        node.spend(Direction::In, 1);
        node.book.give_back(&node.budget, node.at(1), true);
        assert_eq!(node.report(), [(1, 1, 0, true)]);
        assert!(node.budget.balance().is_empty());
    }

    #[test]
    fn a_lease_past_its_time_is_not_spent_any_more_but_its_successor_is() {
        let mut node = Node::new();
        node.lease(1, 100, 0);
        assert!(!node.book.is_due(node.at(29)));
        assert!(node.book.is_due(node.at(30)));
        node.lease(2, 50, 30);
        node.book.give_back(&node.budget, node.at(54), false);
        assert_eq!(node.budget.balance().left, 150);
        node.book.give_back(&node.budget, node.at(55), false);
        assert_eq!(node.budget.balance().left, 50);
        assert_eq!(node.report(), [(1, 0, 0, true), (2, 0, 0, false)]);
    }

    #[test]
    fn the_end_is_that_of_the_first_lease_with_unspent_bytes() {
        let mut node = Node::new();
        assert_eq!(node.book.ends_at(), None);
        node.lease(1, 100, 0);
        node.lease(2, 50, 30);
        assert_eq!(node.book.ends_at(), Some(node.at(60)));
        node.spend(Direction::In, 100);
        node.book.attribute(&node.budget);
        assert_eq!(node.book.ends_at(), Some(node.at(90)));
        node.book.give_back(&node.budget, node.at(31), true);
        assert_eq!(node.book.ends_at(), None);
    }

    #[test]
    fn bytes_reserved_by_a_poll_keep_a_lease_open_until_they_are_settled() {
        let mut node = Node::new();
        node.lease(1, 100, 0);
        let reservation = node.budget.reserve(40);
        node.book.give_back(&node.budget, node.at(60), true);
        let reports = node.book.reports();
        assert!(!reports[0].closing);
        reservation.spend(Direction::Out, 10);
        node.book.give_back(&node.budget, node.at(61), true);
        assert_eq!(node.report(), [(1, 0, 10, true)]);
        assert!(node.budget.balance().is_empty());
    }
}
