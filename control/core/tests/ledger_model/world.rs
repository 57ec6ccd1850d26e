//! One session's ledger, the nodes that spend from it, the wire between them, and time.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use runit_core::budget::{Budget, Direction, Reservation};
use runit_core::lease_book::LeaseBook;
use runit_core::ledger::{
    BUCKET, Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Shortage, Spent, Usage, WINDOW,
};
use runit_core::time::SteadyTime;
use runit_core::{LeaseId, LockId, NodeId, SessionId, Timestamp};
use uuid::Uuid;

use crate::oracle::Oracle;
use crate::steps::{Fate, Legacy, Span, Step};

pub(crate) const TTL: Duration = Duration::from_secs(60);
const MARGIN: Duration = Duration::from_secs(5);
/// A node without faults looks after its leases at least as often.
const TICK: Duration = Duration::from_secs(2);
const POLICY: LeasePolicy = LeasePolicy { min_bytes: 100, max_bytes: 1000, ttl: TTL };
/// 2026-11-22T00:00:00Z, so that a clock can step back from there.
const BEGINNING: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    /// Nodes die and leave behind what they had spent; no message is lost.
    CrashesOnly,
    Any,
}

/// Which time the ledger is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// [`SteadyTime`], as a process has it: windows are those of true time.
    Steady,
    /// The clock on the wall, steps and all. Windows are those of the latest time that the ledger was told.
    Stepping,
}

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    oracle: Oracle,
    cap: u64,
    /// What the cap was when bytes were last granted: nothing else raises the charge.
    cap_of_last_grant: u64,
    /// Bytes that crashes found in flight or on lost hosts, which are charged without having moved.
    in_flight: u64,
    granted: HashSet<LeaseId>,
    /// A late repetition had a lease granted that was settled before. What its node says of the first is then counted
    /// on top of the second, which is too much and no harm.
    granted_twice: bool,
    /// Which lock stands: only its connections move bytes.
    lock: u128,
    /// What moved under each lock, and what is in its record.
    locks: BTreeMap<LockId, (u64, Usage)>,
    nodes: Vec<Node>,
    held_up: VecDeque<Message>,
    names: u128,
    faults: Faults,
    time: Time,
    start: Instant,
    steady: SteadyTime,
    /// True time since the beginning.
    passed: Duration,
    /// How far the clock on the wall is off, milliseconds.
    off: i64,
    /// The latest time that the ledger was told.
    told: Timestamp,
}

struct Node {
    id: NodeId,
    /// Leaked, so that polls can hold their reservations from one step to another.
    budget: &'static Budget,
    book: LeaseBook,
    /// When it last asked for a lease and held none: that lease's name, and what had been spent.
    base: Option<(LeaseId, u64, u64)>,
    polls: VecDeque<(Reservation<'static>, usize)>,
    /// The lock that its leases are of; it spends for no other.
    lock: u128,
}

#[derive(Clone)]
enum Message {
    Ask(LeaseRequest),
    Report(Vec<LeaseReport>),
    Recover(NodeId, Spent),
}

impl World {
    pub(crate) fn new(nodes: usize, cap: u64, faults: Faults, time: Time) -> Self {
        let start = Instant::now();
        let mut world = Self {
            ledger: Ledger::default(),
            oracle: Oracle::default(),
            cap,
            cap_of_last_grant: cap,
            in_flight: 0,
            granted: HashSet::new(),
            granted_twice: false,
            lock: 1,
            locks: BTreeMap::new(),
            nodes: Vec::new(),
            held_up: VecDeque::new(),
            names: 0,
            faults,
            time,
            start,
            steady: SteadyTime::new(BEGINNING, start),
            passed: Duration::ZERO,
            off: 0,
            told: Timestamp::default(),
        };
        world.nodes = (0..nodes).map(|_| world.new_node()).collect();
        world
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::Spend { node, most, direction } => self.spend(node, most, direction),
            Step::Drain { node, direction } => self.spend(node, usize::MAX, direction),
            Step::BeginPoll { node, want, moves } => self.begin_poll(node, want, moves),
            Step::EndPoll { node } => self.node(node).end_poll(),
            Step::Ask { node, want, fate } => drop(self.ask(node, want, fate)),
            Step::Report { node, all, fate } => self.report(node, all, fate),
            Step::Deliver { message, again } => self.deliver_held_up(message, again),
            Step::Crash { node, legacy } => self.crash(node, legacy),
            Step::Pass(span) => self.pass(span),
            Step::MoveClock(ms) => self.move_clock(ms),
            Step::SetCap(cap) => self.cap = cap,
            Step::Relock => self.lock += 1,
        }
        self.record();
    }

    /// As a store does after each call.
    fn record(&mut self) {
        for (lock, booked) in std::mem::take(&mut self.ledger.bookings) {
            let (_, used) = self.locks.entry(lock).or_default();
            *used = used.plus(&booked);
        }
    }

    /// Every lock's record has what moved under it, and what was charged without having moved.
    pub(crate) fn check_records_exactly(&mut self) {
        self.record();
        for (lock, (moved, used)) in &self.locks {
            assert!(used.total() >= *moved, "{used:?} are recorded for {moved} of lock {lock}");
            assert!(used.moved() <= *moved, "{used:?} are recorded as moved for {moved} of lock {lock}");
        }
        let beyond: u64 = self.locks.values().map(|(moved, used)| used.total() - moved).sum();
        assert!(beyond <= self.in_flight, "{beyond} are recorded beyond what moved, {} in flight", self.in_flight);
    }

    /// What has to hold at any time, whatever happened.
    pub(crate) fn check(&mut self) {
        self.record();
        let now = match self.time {
            Time::Steady => self.clock(),
            Time::Stepping => self.told,
        };
        self.oracle.check(&self.ledger, now);
        let moved = self.oracle.moved_within_window(now);
        assert!(moved <= self.cap_of_last_grant, "{moved} bytes in 24 h under a cap of {}", self.cap_of_last_grant);
        let charged = self.ledger.charged();
        let within = charged <= self.cap_of_last_grant || self.granted_twice;
        assert!(within, "{charged} are charged under a cap of {}", self.cap_of_last_grant);
        let standing = self.ledger.standing(self.cap);
        assert_eq!(standing.used.total() + standing.reserved, charged, "what the renter sees is what is charged");
        let recorded = self.locks.values().fold(Usage::default(), |sum, (_, used)| sum.plus(used));
        assert_eq!(recorded, self.ledger.total, "the records add up to the ledger");
    }

    /// What has to hold besides when no message was lost and no lease is open: no byte is charged twice or too long.
    pub(crate) fn check_charged_exactly(&mut self) {
        self.ledger.advance(self.clock());
        assert!(self.ledger.open.is_empty() && self.ledger.settled.is_empty());
        let counted_for_at_most = WINDOW + BUCKET + TTL;
        let since = Timestamp::from_unix_ms(self.clock().unix_ms() - counted_for_at_most.as_millis() as u64);
        let moved = self.oracle.moved_since(since);
        let charged = self.ledger.charged();
        assert!(
            charged <= moved + self.in_flight,
            "{charged} are charged for {moved} and {} in flight",
            self.in_flight
        );
    }

    pub(crate) fn check_all_comes_free(&mut self) {
        self.pass(Span::Millis((WINDOW + BUCKET).as_millis() as u64));
        self.ledger.advance(self.clock());
        assert_eq!(self.ledger.charged(), 0, "all comes free after a window and a bucket");
    }

    pub(crate) fn charged_now(&self) -> u64 {
        let mut now = self.ledger.clone();
        now.advance(self.clock());
        now.charged()
    }

    /// Everybody reports and gives back.
    pub(crate) fn settle_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].end_polls();
            self.report(node, true, Fate::Arrives);
        }
    }

    /// Every node spends whatever it can get, until the cap is reached; then exactly that has passed.
    pub(crate) fn spend_all_there_is(&mut self) {
        self.settle_all();
        self.ledger.advance(self.clock());
        let expected = self.cap.max(self.ledger.charged());
        let mut dry = false;
        for round in 0.. {
            if dry {
                break;
            }
            assert!(round <= self.cap + 1, "every round but the last gets a byte");
            dry = true;
            for node in 0..self.nodes.len() {
                dry &= matches!(self.ask(node, 1000, Fate::Arrives), Some(Err(Shortage::CapReached { .. })));
                self.spend(node, usize::MAX, Direction::Out);
                self.report(node, false, Fate::Arrives);
            }
        }
        self.settle_all();
        assert_eq!(self.ledger.charged(), expected, "exactly the cap passes");
        assert_eq!(self.ledger.standing(self.cap).used.forfeited, 0);
    }

    fn spend(&mut self, node: usize, most: usize, direction: Direction) {
        let Some(budget) = self.spendable(node) else { return };
        let reservation = budget.reserve(most);
        let moves = reservation.bytes();
        self.moved(moves as u64);
        reservation.spend(direction, moves);
    }

    fn begin_poll(&mut self, node: usize, want: usize, moves: usize) {
        let Some(budget) = self.spendable(node) else { return };
        let reservation = budget.reserve(want);
        let moves = moves.min(reservation.bytes());
        self.node(node).polls.push_back((reservation, moves));
        self.moved(moves as u64);
    }

    /// A node spends nothing for a lock that its leases are not of.
    fn spendable(&mut self, node: usize) -> Option<&'static Budget> {
        let lock = self.lock;
        let node = self.node(node);
        (node.lock == lock).then_some(node.budget)
    }

    fn moved(&mut self, bytes: u64) {
        self.oracle.moved(bytes, self.moment());
        self.locks.entry(lock(self.lock)).or_default().0 += bytes;
    }

    /// Leases of a lock that has ended go back before the node asks for one of the next. Whether they have.
    fn change_hands(&mut self, node: usize) -> bool {
        let stands = self.lock;
        if self.node(node).lock != stands {
            self.node(node).end_polls();
            self.report_now(node, true, Fate::Arrives);
            if !self.node(node).book.is_empty() {
                return false;
            }
            self.node(node).lock = stands;
        }
        true
    }

    /// As the gateway's leasing task does it. The answer, if there was one.
    pub(crate) fn ask(&mut self, node: usize, want: u64, fate: Fate) -> Option<Result<Lease, Shortage>> {
        let fate = self.possible(fate);
        if fate != Fate::Lost {
            self.report_now(node, false, Fate::Arrives);
        }
        if !self.change_hands(node) {
            return None;
        }
        let (lease, lock) = (LeaseId::from_uuid(self.name()), lock(self.lock));
        let request = LeaseRequest { lease, lock, node: self.node(node).id, ..request(want) };
        self.node(node).rebase(request.lease);
        if matches!(fate, Fate::Late | Fate::Repeated) {
            self.held_up.push_back(Message::Ask(request));
        }
        if matches!(fate, Fate::Late | Fate::Lost) {
            return None;
        }
        let answer = self.grant(&request);
        if fate == Fate::AnswerLost {
            return None;
        }
        if let Ok(lease) = &answer {
            let asked_at = self.instant();
            let node = self.node(node);
            node.budget.deposit(lease.granted).expect("small");
            node.book.add(lease, asked_at, MARGIN);
        }
        Some(answer)
    }

    fn report(&mut self, node: usize, all: bool, fate: Fate) {
        self.report_now(node, all, self.possible(fate));
    }

    fn report_now(&mut self, node: usize, all: bool, fate: Fate) {
        let now = self.instant();
        let node_now = self.node(node);
        node_now.book.give_back(node_now.budget, now, all);
        let reports = node_now.book.reports();
        if matches!(fate, Fate::Late | Fate::Repeated) {
            self.held_up.push_back(Message::Report(reports.clone()));
        }
        if matches!(fate, Fate::Arrives | Fate::Repeated | Fate::AnswerLost) {
            self.deliver(Message::Report(reports.clone()));
        }
        if matches!(fate, Fate::Arrives | Fate::Repeated) {
            self.node(node).book.sent(&reports);
        }
    }

    fn crash(&mut self, node: usize, legacy: Legacy) {
        let legacy = match self.faults {
            Faults::None => return,
            Faults::CrashesOnly => Legacy::Prompt,
            Faults::Any => legacy,
        };
        let successor = self.new_node();
        let at = node % self.nodes.len();
        let dead = std::mem::replace(&mut self.nodes[at], successor);
        let spent = dead.spent();
        self.in_flight += u64::from(dead.budget.balance().reserved);
        std::mem::forget(dead.polls);
        match (legacy, spent) {
            (Legacy::Prompt, Some(spent)) => self.deliver(Message::Recover(dead.id, spent)),
            (Legacy::Late, Some(spent)) => self.held_up.push_back(Message::Recover(dead.id, spent)),
            (Legacy::Nothing, _) | (_, None) => {}
        }
    }

    fn deliver_held_up(&mut self, message: usize, again: bool) {
        let at = message % self.held_up.len().max(1);
        let Some(message) = self.held_up.remove(at) else { return };
        if again {
            self.held_up.push_back(message.clone());
        }
        self.deliver(message);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask(request) => drop(self.grant(&request)),
            Message::Report(reports) => {
                for report in reports {
                    let now = self.tell_time();
                    self.ledger.report(&report, now);
                }
            }
            Message::Recover(node, spent) => {
                let now = self.tell_time();
                self.ledger.recover(node, &spent, now);
            }
        }
    }

    fn grant(&mut self, request: &LeaseRequest) -> Result<Lease, Shortage> {
        let now = self.tell_time();
        self.ledger.advance(now);
        let known = self.ledger.open.iter().any(|lease| lease.id == request.lease);
        let answer = self.ledger.grant(request, self.cap, &POLICY, now);
        if answer.is_ok() && !known {
            self.cap_of_last_grant = self.cap;
            self.granted_twice |= !self.granted.insert(request.lease);
        }
        answer
    }

    fn pass(&mut self, span: Span) {
        let now = self.clock().unix_ms();
        let bucket = BUCKET.as_millis() as u64;
        let to = match span {
            Span::Millis(ms) => now + ms,
            Span::BucketEdge(ms) => ((now / bucket + 1) * bucket).saturating_add_signed(ms),
            Span::WindowAfterByte(byte, ms) => {
                self.oracle.moment(byte).map_or(now, |at| at.plus(WINDOW).unix_ms().saturating_add_signed(ms))
            }
        };
        self.pass_for(Duration::from_millis(to.saturating_sub(now)));
    }

    /// Polls last for microseconds, and a node stops spending a lease in time: neither waits for the network.
    fn pass_for(&mut self, span: Duration) {
        let tended = self.faults != Faults::Any;
        if tended && span > TICK {
            self.settle_all();
        }
        self.passed += span;
        let now = self.instant();
        for node in &mut self.nodes {
            node.end_polls();
            node.book.give_back(node.budget, now, false);
        }
        if tended {
            for node in 0..self.nodes.len() {
                self.report(node, false, Fate::Arrives);
            }
        }
    }

    /// A step forward expires leases that their nodes may still spend, as if the bytes had moved before it. That is what
    /// [`SteadyTime`] is there to prevent; here nothing is left to spend when it happens.
    fn move_clock(&mut self, ms: i64) {
        self.off += ms;
        if ms > 0 {
            let now = self.instant();
            for node in &mut self.nodes {
                node.end_polls();
                node.book.give_back(node.budget, now, true);
            }
        }
    }

    fn possible(&self, fate: Fate) -> Fate {
        if self.faults == Faults::Any { fate } else { Fate::Arrives }
    }

    fn node(&mut self, node: usize) -> &mut Node {
        let at = node % self.nodes.len();
        &mut self.nodes[at]
    }

    fn new_node(&mut self) -> Node {
        Node {
            id: NodeId::from_uuid(self.name()),
            budget: Box::leak(Box::default()),
            book: LeaseBook::new(request(0).session),
            base: None,
            polls: VecDeque::new(),
            lock: self.lock,
        }
    }

    fn name(&mut self) -> Uuid {
        self.names += 1;
        Uuid::from_u128(self.names)
    }

    fn instant(&self) -> Instant {
        self.start + self.passed
    }

    /// What a look at the clock says now.
    fn clock(&self) -> Timestamp {
        match self.time {
            Time::Steady => self.steady.at(self.instant()),
            Time::Stepping => {
                let wall = BEGINNING.plus(self.passed).unix_ms().saturating_add_signed(self.off);
                Timestamp::from_unix_ms(wall)
            }
        }
    }

    fn tell_time(&mut self) -> Timestamp {
        let now = self.clock();
        self.told = self.told.max(now);
        now
    }

    /// The time that a byte moves at now, by the oracle's account.
    fn moment(&self) -> Timestamp {
        match self.time {
            Time::Steady => self.clock(),
            Time::Stepping => self.told,
        }
    }
}

impl Node {
    fn end_poll(&mut self) {
        if let Some((reservation, moved)) = self.polls.pop_front() {
            reservation.spend(Direction::Out, moved);
        }
    }

    fn end_polls(&mut self) {
        while !self.polls.is_empty() {
            self.end_poll();
        }
    }

    /// About to ask for `lease`. While no lease is held, all that was spent is settled.
    fn rebase(&mut self, lease: LeaseId) {
        if self.book.is_empty() {
            let (bytes_in, bytes_out) = self.budget.spent();
            self.base = Some((lease, bytes_in, bytes_out));
        }
    }

    /// What is found of it when it is dead.
    fn spent(&self) -> Option<Spent> {
        let (since, base_in, base_out) = self.base?;
        let (bytes_in, bytes_out) = self.budget.spent();
        Some(Spent {
            since,
            bytes_in: bytes_in - base_in,
            bytes_out: bytes_out - base_out,
            reserved: u64::from(self.budget.balance().reserved),
        })
    }
}

fn lock(number: u128) -> LockId {
    LockId::from_uuid(Uuid::from_u128(number))
}

fn request(want: u64) -> LeaseRequest {
    LeaseRequest {
        lease: LeaseId::from_uuid(Uuid::nil()),
        node: NodeId::from_uuid(Uuid::nil()),
        session: SessionId::from_uuid(Uuid::nil()),
        lock: LockId::from_uuid(Uuid::nil()),
        want,
    }
}
