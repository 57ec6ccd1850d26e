//! The bytes that this node may still spend for one session: the atomic cell on the hot path.
//!
//! A stream *reserves* before it polls its socket, and *settles* what the poll used right after, in the same call; so
//! a reservation lives for microseconds and never across an await. Leases put bytes in ([`Budget::deposit`]) and take
//! unused ones out again ([`Budget::withdraw`]).
//!
//! Invariant, for every interleaving: `deposited == left + reserved + spent + withdrawn`. Nothing is ever spent that was
//! not left, so a node spends at most what it has leased.

use crate::sync::{AtomicU64, Ordering};

/// Which way bytes go, seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the renter.
    In,
    /// To the renter.
    Out,
}

/// Where a budget keeps its three counters, all zero in the beginning: in its own memory, or where they outlive the
/// process.
pub trait Cells {
    /// `left << 32 | reserved`, so that one load sees both and one exchange moves bytes between them.
    fn balance(&self) -> &AtomicU64;
    /// Bytes spent from the renter.
    fn spent_in(&self) -> &AtomicU64;
    /// Bytes spent to the renter.
    fn spent_out(&self) -> &AtomicU64;
}

/// Counters in memory of their own, which dies with the process.
#[derive(Debug, Default)]
pub struct OwnCells {
    balance: AtomicU64,
    spent_in: AtomicU64,
    spent_out: AtomicU64,
}

impl Cells for OwnCells {
    fn balance(&self) -> &AtomicU64 {
        &self.balance
    }

    fn spent_in(&self) -> &AtomicU64 {
        &self.spent_in
    }

    fn spent_out(&self) -> &AtomicU64 {
        &self.spent_out
    }
}

/// Bytes left, reserved and spent of one session on one node, in memory of their own.
pub type Budget = BudgetIn<OwnCells>;

/// Bytes left, reserved and spent of one session on one node.
#[derive(Debug, Default)]
pub struct BudgetIn<C> {
    cells: C,
}

/// Both halves of the cell at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Bytes that may be reserved.
    pub left: u32,
    /// Bytes reserved by polls that are running right now.
    pub reserved: u32,
}

impl Balance {
    /// Whether nothing can be spent before more is deposited. A reservation in flight may still come back.
    pub const fn is_empty(self) -> bool {
        self.left == 0 && self.reserved == 0
    }
}

/// More bytes than the cell can hold; nothing was deposited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a budget holds less than 4 GiB")]
pub struct TooMuch;

impl<C: Cells> BudgetIn<C> {
    /// A budget with nothing in it, which counts in `cells`.
    pub const fn new(cells: C) -> Self {
        Self { cells }
    }

    /// Where it counts.
    pub const fn cells(&self) -> &C {
        &self.cells
    }

    /// Puts leased bytes in.
    ///
    /// # Errors
    /// [`TooMuch`] if left and reserved together would pass 4 GiB.
    pub fn deposit(&self, bytes: u64) -> Result<(), TooMuch> {
        self.update(|balance| {
            let limit = u64::from(u32::MAX - balance.reserved);
            let left = u64::from(balance.left).checked_add(bytes).filter(|&left| left <= limit)?;
            Some(Balance { left: u32::try_from(left).ok()?, ..balance })
        })
        .map(drop)
        .ok_or(TooMuch)
    }

    /// Reserves up to `want` bytes; the reservation may be of fewer, or of none.
    pub fn reserve(&self, want: usize) -> Reservation<'_, C> {
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let before = self.update(|balance| {
            let bytes = balance.left.min(want);
            (bytes > 0).then(|| Balance { left: balance.left - bytes, reserved: balance.reserved + bytes })
        });
        Reservation { budget: self, bytes: before.map_or(0, |balance| balance.left.min(want)) }
    }

    /// Takes up to `bytes` unused ones out, to be given back to the ledger; returns how many.
    pub fn withdraw(&self, bytes: u64) -> u64 {
        let most = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.update(|balance| Some(Balance { left: balance.left - balance.left.min(most), ..balance }));
        before.map_or(0, |balance| u64::from(balance.left.min(most)))
    }

    /// Left and reserved at one moment.
    pub fn balance(&self) -> Balance {
        unpack(self.cells.balance().load(Ordering::SeqCst))
    }

    /// Bytes spent since the budget began: in, out. Only ever grows.
    ///
    /// Read *after* [`Self::balance`], it contains at least all that had been settled by then.
    pub fn spent(&self) -> (u64, u64) {
        (self.cells.spent_in().load(Ordering::Relaxed), self.cells.spent_out().load(Ordering::Relaxed))
    }

    /// The one function that adds bytes to what is spent. The counter is raised before the reservation is let go, and
    /// the exchange that lets it go is a release, so nobody sees bytes that are neither reserved nor spent.
    fn settle(&self, reserved: u32, direction: Direction, used: u32) {
        let counter = match direction {
            Direction::In => self.cells.spent_in(),
            Direction::Out => self.cells.spent_out(),
        };
        counter.fetch_add(u64::from(used), Ordering::Relaxed);
        self.update(|balance| {
            Some(Balance { left: balance.left + (reserved - used), reserved: balance.reserved - reserved })
        });
    }

    /// Compare-and-set loop: `change` sees a consistent balance, and its result is stored only if nothing came between.
    /// Returns the balance before the change, or `None` if `change` declined.
    ///
    /// Sequentially consistent, as is `balance`, for the sake of streams that wait: one says that it waits and then looks
    /// at the balance, the other changes the balance and then looks for who waits; one of the two sees the other.
    fn update(&self, change: impl Fn(Balance) -> Option<Balance>) -> Option<Balance> {
        let cell = self.cells.balance();
        let mut seen = cell.load(Ordering::Relaxed);
        loop {
            let new = pack(change(unpack(seen))?);
            match cell.compare_exchange_weak(seen, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(unpack(seen)),
                Err(current) => seen = current,
            }
        }
    }
}

/// Bytes set aside for one poll. Dropping it gives back all of them.
#[derive(Debug)]
#[must_use = "a reservation that is dropped spends nothing"]
pub struct Reservation<'a, C: Cells = OwnCells> {
    budget: &'a BudgetIn<C>,
    bytes: u32,
}

impl<C: Cells> Reservation<'_, C> {
    /// How many bytes the poll may move.
    pub const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The poll moved `used` bytes, at most [`Self::bytes`]; the rest goes back.
    pub fn spend(mut self, direction: Direction, used: usize) {
        debug_assert!(used <= self.bytes(), "a poll was given a slice of the reserved length");
        let used = u32::try_from(used).unwrap_or(u32::MAX).min(self.bytes);
        let reserved = std::mem::take(&mut self.bytes);
        self.budget.settle(reserved, direction, used);
    }
}

impl<C: Cells> Drop for Reservation<'_, C> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.settle(self.bytes, Direction::In, 0);
        }
    }
}

const fn unpack(cell: u64) -> Balance {
    Balance { left: (cell >> 32) as u32, reserved: cell as u32 }
}

const fn pack(balance: Balance) -> u64 {
    (balance.left as u64) << 32 | balance.reserved as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    fn budget(bytes: u64) -> Budget {
        let budget = Budget::default();
        budget.deposit(bytes).expect("small");
        budget
    }

    #[test]
    fn a_reservation_is_clipped_to_what_is_left() {
        let budget = budget(10);
        let first = budget.reserve(7);
        let second = budget.reserve(7);
        assert_eq!((first.bytes(), second.bytes(), budget.reserve(7).bytes()), (7, 3, 0));
    }

    #[test]
    fn unused_bytes_come_back_by_spending_less_or_by_dropping() {
        let budget = budget(10);
        budget.reserve(8).spend(Direction::Out, 3);
        drop(budget.reserve(5));
        assert_eq!(budget.balance(), Balance { left: 7, reserved: 0 });
        assert_eq!(budget.spent(), (0, 3));
    }

    #[test]
    fn a_reservation_in_flight_is_not_an_empty_budget() {
        let budget = budget(10);
        let reservation = budget.reserve(10);
        assert!(!budget.balance().is_empty());
        reservation.spend(Direction::In, 10);
        assert!(budget.balance().is_empty());
    }

    #[test]
    fn only_unreserved_bytes_can_be_withdrawn() {
        let budget = budget(10);
        let reservation = budget.reserve(4);
        assert_eq!(budget.withdraw(100), 6);
        drop(reservation);
        assert_eq!(budget.withdraw(3), 3);
        assert_eq!(budget.balance(), Balance { left: 1, reserved: 0 });
    }

    #[test]
    fn a_deposit_that_does_not_fit_changes_nothing() {
        let budget = budget(u64::from(u32::MAX) - 1);
        assert_eq!(budget.deposit(2), Err(TooMuch));
        assert_eq!(budget.deposit(u64::MAX), Err(TooMuch));
        assert_eq!(budget.deposit(1), Ok(()));
        assert_eq!(budget.balance().left, u32::MAX);
        let all = budget.reserve(usize::MAX);
        assert_eq!(budget.deposit(1), Err(TooMuch));
        drop(all);
        assert_eq!(budget.balance(), Balance { left: u32::MAX, reserved: 0 });
    }

    #[test]
    fn many_threads_spend_exactly_what_was_deposited() {
        const THREADS: usize = 8;
        const BYTES: u64 = 1_000_003;
        let budget = Arc::new(budget(BYTES));
        let workers: Vec<_> = (0..THREADS)
            .map(|n| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || {
                    let mut mine = 0;
                    while !budget.balance().is_empty() {
                        let reservation = budget.reserve(7 + n);
                        let used = reservation.bytes().div_ceil(2);
                        mine += used as u64;
                        assert!(mine <= BYTES, "more is spent than was deposited");
                        reservation.spend(if n % 2 == 0 { Direction::In } else { Direction::Out }, used);
                    }
                    mine
                })
            })
            .collect();
        let sum: u64 = workers.into_iter().map(|worker| worker.join().expect("no panic")).sum();
        let (bytes_in, bytes_out) = budget.spent();
        assert_eq!((sum, bytes_in + bytes_out), (BYTES, BYTES));
    }
}
