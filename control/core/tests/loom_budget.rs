//! The credit cell under every interleaving that loom can think of, and under every value that a weakly ordered machine
//! may read. Run by `.ci/loom`.
//!
//! The waiting that is modelled here is that of the gateway's `live.rs`: the same operations on the same kinds of
//! fields in the same order. Variants that are known to be wrong stand beside it and have to be caught.
#![cfg(loom)]

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use loom::sync::Arc;
use loom::thread;
use runit_core::budget::{Balance, Budget, Direction, Reservation};
use runit_core::sync::{AtomicBool, AtomicU64};

/// Runs `model` under the interleavings with at most three preemptions.
///
/// Loom tries another order of two accesses when it meets the second one, and knows but the last access before that. So
/// whoever only looks is spawned last: looks of his that came first would be hidden behind those of the others.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn spawn<T: Send + Sync + 'static, R: 'static>(
    shared: &Arc<T>,
    act: impl FnOnce(&T) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

fn budget(bytes: u64) -> Budget {
    let budget = Budget::default();
    budget.deposit(bytes).expect("small");
    budget
}

/// Reserves up to `want` and spends up to `most` of it; returns how much.
fn spend(budget: &Budget, want: usize, most: usize, direction: Direction) -> u64 {
    let reservation = budget.reserve(want);
    let used = reservation.bytes().min(most);
    reservation.spend(direction, used);
    used as u64
}

#[test]
fn spending_dropping_depositing_and_withdrawing_conserve_every_byte() {
    check(|| {
        let budget = Arc::new(budget(3));
        let spender = spawn(&budget, |budget| spend(budget, 2, 1, Direction::Out));
        let dropper = spawn(&budget, |budget| drop(budget.reserve(2)));
        let lessor = spawn(&budget, |budget| {
            let withdrawn = budget.withdraw(1);
            budget.deposit(2).expect("small");
            withdrawn
        });
        let spent = spender.join().expect("no panic");
        dropper.join().expect("no panic");
        let withdrawn = lessor.join().expect("no panic");

        let left = 3 + 2 - withdrawn - spent;
        assert_eq!(budget.balance(), Balance { left: left as u32, reserved: 0 });
        assert_eq!(budget.spent(), (0, spent));
    });
}

#[test]
fn the_last_bytes_are_spent_once() {
    check(|| {
        let budget = Arc::new(budget(3));
        let spenders = [Direction::In, Direction::Out]
            .map(|direction| spawn(&budget, move |budget| spend(budget, 2, 2, direction)));
        let lessor = spawn(&budget, |budget| budget.withdraw(2));
        let withdrawn = lessor.join().expect("no panic");
        let theirs: u64 = spenders.into_iter().map(|spender| spender.join().expect("no panic")).sum();
        let (bytes_in, bytes_out) = budget.spent();
        assert_eq!(theirs, bytes_in + bytes_out);
        assert!(theirs + withdrawn <= 3, "nothing is spent that was not deposited");
        assert_eq!(u64::from(budget.balance().left), 3 - theirs - withdrawn);
    });
}

#[test]
fn no_byte_is_ever_neither_left_nor_reserved_nor_spent() {
    check(|| {
        let budget = Arc::new(budget(3));
        let spenders = [Direction::In, Direction::Out]
            .map(|direction| spawn(&budget, move |budget| spend(budget, 2, 2, direction)));
        let reader = spawn(&budget, |budget| {
            let balance = budget.balance();
            let (bytes_in, bytes_out) = budget.spent();
            let seen = u64::from(balance.left) + u64::from(balance.reserved) + bytes_in + bytes_out;
            assert!(seen >= 3, "{balance:?} and {bytes_in} + {bytes_out} spent");
            if balance.is_empty() {
                assert_eq!(bytes_in + bytes_out, 3, "whoever sees an empty budget sees all that was spent");
            }
        });
        for spender in spenders {
            spender.join().expect("no panic");
        }
        reader.join().expect("no panic");
    });
}

/// A cell that looks and then takes, in two steps.
#[derive(Default)]
struct RacyBudget {
    left: AtomicU64,
    spent: AtomicU64,
}

impl RacyBudget {
    fn spend(&self, want: u64) {
        let left = self.left.load(SeqCst);
        let bytes = left.min(want);
        self.left.store(left - bytes, SeqCst);
        self.spent.fetch_add(bytes, Relaxed);
    }
}

#[test]
#[should_panic(expected = "each byte goes once")]
fn a_cell_that_loads_and_then_stores_is_caught() {
    check(|| {
        let budget = Arc::new(RacyBudget::default());
        budget.left.store(3, SeqCst);
        for spender in [2, 2].map(|want| spawn(&budget, move |budget: &RacyBudget| budget.spend(want))) {
            spender.join().expect("no panic");
        }
        assert_eq!(budget.spent.load(SeqCst), 3, "each byte goes once");
    });
}

/// What `LiveSession` and one `Connection` share, as far as waiting goes.
struct Session {
    budget: Budget,
    someone_starves: AtomicBool,
    refill_asked: AtomicBool,
    /// Of the one connection that waits.
    starved: AtomicBool,
    woken: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Moved,
    /// Nothing was left, and this one asked for a refill, which will wake all who starve.
    AskedForRefill,
    Waits,
}

impl Session {
    fn new(bytes: u64, refill_asked: bool) -> Self {
        let session = Self {
            budget: budget(bytes),
            someone_starves: AtomicBool::default(),
            refill_asked: AtomicBool::default(),
            starved: AtomicBool::default(),
            woken: AtomicBool::default(),
        };
        session.refill_asked.store(refill_asked, SeqCst);
        session
    }

    /// A poll that wants one byte: the guard's, and `LiveSession::starve`.
    fn poll(&self) -> Polled {
        if spend(&self.budget, 1, 1, Direction::In) > 0 {
            return Polled::Moved;
        }
        self.say_that_it_starves();
        self.look_at_the_balance()
    }

    /// The same in the wrong order.
    fn poll_racily(&self) -> Polled {
        if spend(&self.budget, 1, 1, Direction::In) > 0 {
            return Polled::Moved;
        }
        let polled = self.look_at_the_balance();
        self.say_that_it_starves();
        polled
    }

    fn say_that_it_starves(&self) {
        self.starved.store(true, SeqCst);
        self.someone_starves.store(true, SeqCst);
    }

    fn look_at_the_balance(&self) -> Polled {
        let balance = self.budget.balance();
        if balance.left > 0 {
            self.feed_all();
            return Polled::Waits;
        }
        if balance.reserved > 0 {
            return Polled::Waits;
        }
        if self.refill_asked.swap(true, SeqCst) { Polled::Waits } else { Polled::AskedForRefill }
    }

    /// `LiveSession::spend`.
    fn settle(&self, reservation: Reservation<'_>, used: usize) {
        reservation.spend(Direction::Out, used);
        if self.someone_starves.load(SeqCst) {
            self.feed_all();
        }
    }

    /// A lease that came in: `LiveSession::refill_decided`.
    fn refill(&self, bytes: u64) {
        self.budget.deposit(bytes).expect("small");
        self.refill_asked.store(false, SeqCst);
        self.feed_all();
    }

    /// `LiveSession::feed_all` and `Connection::feed`.
    fn feed_all(&self) {
        self.someone_starves.store(false, SeqCst);
        if self.starved.swap(false, SeqCst) {
            self.woken.store(true, SeqCst);
        }
    }

    fn assert_not_forgotten(&self, polled: &Polled) {
        let forgotten = *polled == Polled::Waits && !self.woken.load(SeqCst);
        assert!(!forgotten, "a stream waits for nobody: {:?}", self.budget.balance());
    }
}

/// One stream reserves both bytes and uses `used` of them, while another one polls.
fn holder_and_waiter(used: usize, poll: fn(&Session) -> Polled) {
    check(move || {
        let session = Arc::new(Session::new(2, false));
        let holder = spawn(&session, move |session| {
            let reservation = session.budget.reserve(2);
            let used = used.min(reservation.bytes());
            session.settle(reservation, used);
        });
        let waiter = spawn(&session, move |session| poll(session));
        holder.join().expect("no panic");
        let polled = waiter.join().expect("no panic");
        session.assert_not_forgotten(&polled);
    });
}

#[test]
fn a_stream_that_finds_all_reserved_is_woken_when_some_comes_back() {
    holder_and_waiter(1, Session::poll);
}

#[test]
fn a_stream_that_finds_all_reserved_is_woken_when_all_is_spent() {
    holder_and_waiter(2, Session::poll);
}

#[test]
#[should_panic(expected = "a stream waits for nobody")]
fn a_stream_that_looks_before_it_says_that_it_starves_is_caught() {
    holder_and_waiter(1, Session::poll_racily);
}

#[test]
fn a_stream_that_starves_during_a_refill_is_woken_by_it() {
    check(|| {
        let session = Arc::new(Session::new(0, true));
        let refill = spawn(&session, |session| session.refill(1));
        let waiter = spawn(&session, Session::poll);
        refill.join().expect("no panic");
        let polled = waiter.join().expect("no panic");
        session.assert_not_forgotten(&polled);
    });
}

#[test]
fn a_refill_and_a_holder_together_forget_nobody() {
    check(|| {
        let session = Arc::new(Session::new(1, true));
        let refill = spawn(&session, |session| session.refill(1));
        let holder = spawn(&session, |session| session.settle(session.budget.reserve(2), 0));
        let waiter = spawn(&session, Session::poll);
        refill.join().expect("no panic");
        holder.join().expect("no panic");
        let polled = waiter.join().expect("no panic");
        session.assert_not_forgotten(&polled);
    });
}
