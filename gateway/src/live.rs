//! A session as this node knows it: its view, its budget, and the connections that use both.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use runit_core::budget::{Direction, Reservation};
use runit_core::lease_book::LeaseBook;
use runit_core::rate::RateCell;
use runit_core::session::Ending;
use runit_core::{LeaseId, LockId, SecretHash, SessionId, SessionView, Timestamp};
use tokio::sync::{Notify, mpsc};

use crate::connection::{Connection, Cut};
use crate::counters::{Counters, NodeBudget};
use crate::kept::{Kept, KeptConnections};
use crate::monotonic;
use crate::outbound::Known;
use crate::pace::Patience;
use crate::quota::Quota;

/// Why the budget is not being refilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drought {
    /// The cap is reached; the next bytes come free then.
    CapReached(Timestamp),
    /// The ledger gave no answer in time, or no bytes.
    Unavailable,
}

/// Bytes set aside for one poll.
pub(crate) type NodeReservation<'a> = Reservation<'a, Counters>;

/// What one poll may set aside. A `kill -9` charges what is reserved at that moment, so this is the price of a crash for
/// each stream; see `docs/LEDGER.md`.
const LARGEST_RESERVATION: usize = 64 * 1024;
/// Tokens that are remembered as opening nothing any more.
const DEAD_TOKENS: usize = 16;

/// One session on this node.
#[derive(Debug)]
pub(crate) struct LiveSession {
    id: SessionId,
    view: ArcSwap<SessionView>,
    /// The bytes that may be spent.
    pub(crate) budget: NodeBudget,
    /// The leases that they come from; kept by the leasing task.
    pub(crate) book: tokio::sync::Mutex<LeaseBook>,
    /// All bytes that were ever leased, less those given back: what may have been spent.
    covered: AtomicU64,
    /// The lock that a lease was asked for, and the lease's name, until its answer comes.
    asked: Mutex<Option<(LockId, LeaseId)>>,
    /// Counted up when a change of hands begins, and again when it is done: odd in between.
    hands: AtomicU64,
    /// The count of hands that the leases are of. While it is another one nothing of them may be spent: what the last lock
    /// has left goes back first, so that no byte of one lock is charged to another.
    ///
    /// All sequentially consistent: whoever sees the view of a new lock has to see that it has no leases yet.
    hands_settled: AtomicU64,
    /// From when on nothing that is left may be spent, however long it takes to be given back. Written before bytes are
    /// deposited (a release), and read before they are reserved: whoever sees bytes sees their end.
    ends_at: AtomicU64,
    /// Below this many bytes left another lease is asked for.
    low_water: AtomicU32,
    /// Zero: none. One: unavailable. Else: when bytes come free, as Unix milliseconds.
    drought: AtomicU64,
    refill_asked: AtomicBool,
    refills: mpsc::UnboundedSender<Arc<Self>>,
    /// Told whenever a refill was decided, for or against.
    pub(crate) refilled: Notify,
    someone_starves: AtomicBool,
    quota: ArcSwapOption<Quota>,
    /// Of all that was spent, what the ledger has heard of. Relaxed: it is only shown.
    told: AtomicU64,
    connections: Mutex<Vec<Weak<Connection>>>,
    /// How many of them there are, and how many are WebSockets. Each is a counter of its own and publishes nothing.
    open: AtomicUsize,
    open_websockets: AtomicUsize,
    /// Open connections to its provider that nobody uses at the moment.
    pub(crate) kept: KeptConnections,
    /// What its requests have used of their rate.
    pub(crate) requests: RateCell,
    /// What its WebSockets have used of theirs.
    pub(crate) websocket_reads: RateCell,
    /// Tokens that the authority has refused, the last ones: a tab that goes on asking after its lock's end costs its network no
    /// guesses. A token that opens nothing never will again.
    dead_tokens: OnceLock<Box<Mutex<VecDeque<SecretHash>>>>,
    /// Where its provider is; made when somebody wants to know. A large table has most of its sessions idle.
    known_addresses: OnceLock<Box<tokio::sync::Mutex<Option<Known>>>>,
    /// When the last ticket that was taken here was issued, in Unix milliseconds. Relaxed: the maximum alone decides.
    last_ticket: AtomicU64,
}

/// One connection's place in its session.
#[derive(Debug)]
pub(crate) struct SessionPlace(Arc<LiveSession>);

/// One WebSocket's place in its session.
#[derive(Debug)]
pub(crate) struct WebSocketPlace(Arc<LiveSession>);

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let before = self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.kept.trim(before.saturating_sub(1));
    }
}

impl Drop for WebSocketPlace {
    fn drop(&mut self) {
        self.0.open_websockets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, unless there are `most`.
fn count_up(counter: &AtomicUsize, most: usize) -> bool {
    let more = |count: usize| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl LiveSession {
    /// A session that has no budget yet; it asks for one through `refills`.
    pub(crate) fn new(view: SessionView, counters: Counters, refills: mpsc::UnboundedSender<Arc<Self>>) -> Self {
        Self {
            id: view.id,
            book: tokio::sync::Mutex::new(LeaseBook::new(view.id)),
            view: ArcSwap::from_pointee(view),
            budget: NodeBudget::new(counters),
            covered: AtomicU64::new(0),
            asked: Mutex::new(None),
            hands: AtomicU64::new(0),
            hands_settled: AtomicU64::new(0),
            ends_at: AtomicU64::new(monotonic::Millis::MAX),
            low_water: AtomicU32::new(0),
            drought: AtomicU64::new(0),
            refill_asked: AtomicBool::new(false),
            refills,
            refilled: Notify::new(),
            someone_starves: AtomicBool::new(false),
            quota: ArcSwapOption::empty(),
            told: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
            open: AtomicUsize::new(0),
            open_websockets: AtomicUsize::new(0),
            kept: KeptConnections::default(),
            requests: RateCell::default(),
            websocket_reads: RateCell::default(),
            dead_tokens: OnceLock::new(),
            known_addresses: OnceLock::new(),
            last_ticket: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub(crate) const fn id(&self) -> SessionId {
        self.id
    }

    /// What this node knows of it now.
    pub(crate) fn view(&self) -> Arc<SessionView> {
        self.view.load_full()
    }

    /// Takes a newer view. Connections of a lock that no longer stands are cut. Called under the directory's lock.
    pub(crate) fn update(self: &Arc<Self>, view: SessionView) {
        let old = self.view();
        if view.revision <= old.revision {
            return;
        }
        let lock_stands = same_lock(&old, &view);
        let reason = if view.ending == Some(Ending::Released) { Cut::Released } else { Cut::LockedOut };
        if lock_stands {
            self.view.store(Arc::new(view));
            return;
        }
        self.hands.fetch_add(1, Ordering::SeqCst);
        self.view.store(Arc::new(view));
        self.cut_all(reason);
        self.hands.fetch_add(1, Ordering::SeqCst);
        self.ask_for_refill(); // which gives back what the lock has left: the next one waits for it
    }

    /// Whether a lock has ended whose leases have to go back before anything is spent again; the count of hands.
    pub(crate) fn changed_hands(&self) -> Option<u64> {
        let hands = self.hands.load(Ordering::SeqCst);
        (hands != self.hands_settled.load(Ordering::SeqCst)).then_some(hands)
    }

    /// No lease is open, and none was asked for since the count was `hands`. False while a change is under way.
    pub(crate) fn settle_hands(&self, hands: u64) -> bool {
        let is_done = hands.is_multiple_of(2);
        if is_done {
            self.hands_settled.store(hands, Ordering::SeqCst);
        }
        is_done
    }

    /// The authority says that this token opens nothing here.
    pub(crate) fn note_dead(&self, token: SecretHash) {
        let dead = self.dead_tokens.get_or_init(Box::default);
        let mut dead = dead.lock().unwrap_or_else(PoisonError::into_inner);
        if dead.len() >= DEAD_TOKENS {
            dead.pop_front();
        }
        dead.push_back(token);
    }

    /// Whether it is known to have said so.
    pub(crate) fn is_dead(&self, token: SecretHash) -> bool {
        let dead = self.dead_tokens.get().map(|dead| dead.lock().unwrap_or_else(PoisonError::into_inner));
        dead.is_some_and(|dead| dead.contains(&token))
    }

    /// Where its provider is, as far as this node knows; locked while that is being found out.
    pub(crate) async fn known_addresses(&self) -> tokio::sync::MutexGuard<'_, Option<Known>> {
        self.known_addresses.get_or_init(Box::default).lock().await
    }

    /// A place for one more connection, if there are fewer than `most`.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<SessionPlace> {
        count_up(&self.open, most).then(|| SessionPlace(Arc::clone(self)))
    }

    /// A place for one more WebSocket, if there are fewer than `most`.
    pub(crate) fn enter_websocket(self: &Arc<Self>, most: usize) -> Option<WebSocketPlace> {
        count_up(&self.open_websockets, most).then(|| WebSocketPlace(Arc::clone(self)))
    }

    /// Takes a ticket that was issued then; `false` if it was taken before, or a later one was.
    pub(crate) fn take_ticket(&self, issued_at_ms: u64) -> bool {
        self.last_ticket.fetch_max(issued_at_ms, Ordering::Relaxed) < issued_at_ms
    }

    /// Remembers a connection, so that it can be cut and fed.
    pub(crate) fn attach(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections();
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(connection));
    }

    /// Looks at its connections, and ends those that are too slow.
    pub(crate) fn look(&self, now: Duration, patience: &Patience) {
        self.kept.forget_stale();
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        for connection in self.connections().iter().filter_map(Weak::upgrade) {
            if let Some(cut) = connection.look(now, patience) {
                connection.cut(cut);
            }
        }
    }

    /// Keeps a connection to its provider for its next request.
    pub(crate) fn keep(&self, kept: Kept) {
        self.kept.keep(kept, self.open.load(Ordering::Relaxed));
    }

    /// Forgets a connection that serves it no more.
    pub(crate) fn detach(&self, connection: &Connection) {
        self.connections().retain(|known| !std::ptr::eq(known.as_ptr(), connection));
    }

    /// Ends all its connections.
    pub(crate) fn cut_all(&self, reason: Cut) {
        for connection in self.connections().iter().filter_map(Weak::upgrade) {
            connection.cut(reason);
        }
    }

    /// Reserves up to `want` bytes for one poll, and sees to it that more come when few are left.
    pub(crate) fn reserve(self: &Arc<Self>, want: usize) -> NodeReservation<'_> {
        self.set_aside(want.min(LARGEST_RESERVATION))
    }

    /// The same for a head, which is charged whole or not at all.
    pub(crate) fn reserve_head(self: &Arc<Self>, bytes: usize) -> NodeReservation<'_> {
        self.set_aside(bytes)
    }

    fn set_aside(self: &Arc<Self>, bytes: usize) -> NodeReservation<'_> {
        let may_spend = self.changed_hands().is_none() && !self.leases_are_over();
        let reservation = self.budget.reserve(if may_spend { bytes } else { 0 });
        if self.budget.balance().left < self.low_water.load(Ordering::Relaxed) && self.drought().is_none() {
            self.ask_for_refill();
        }
        reservation
    }

    /// The poll is over: `used` bytes moved.
    pub(crate) fn spend(&self, reservation: NodeReservation<'_>, direction: Direction, used: usize) {
        reservation.spend(direction, used);
        // Whoever found nothing left because of this reservation can go on, or learn that it is over.
        if self.someone_starves.load(Ordering::SeqCst) {
            self.feed_all();
        }
    }

    /// A poll of `connection` found nothing left. Answers whether it has to end; otherwise it will be woken.
    pub(crate) fn starve(self: &Arc<Self>, connection: &Connection) -> Option<Cut> {
        connection.mark_starved();
        self.someone_starves.store(true, Ordering::SeqCst);
        if self.changed_hands().is_some() {
            self.ask_for_refill(); // which settles that first
            return None;
        }
        let balance = self.budget.balance();
        if balance.left > 0 && self.leases_are_over() {
            self.ask_for_refill(); // which gives them back first
            return None;
        }
        if balance.left > 0 {
            self.feed_all();
            return None;
        }
        if balance.reserved > 0 {
            return None; // who holds it will feed us
        }
        match self.drought() {
            Some(Drought::CapReached(_)) => {
                // Its siblings too: one that is idle would not find out.
                self.cut_all(Cut::CapReached);
                Some(Cut::CapReached)
            }
            Some(Drought::Unavailable) => Some(Cut::LedgerUnavailable),
            None => {
                self.ask_for_refill();
                None
            }
        }
    }

    /// Has the leasing task look at this session, unless it was asked already.
    pub(crate) fn ask_for_refill(self: &Arc<Self>) {
        if !self.refill_asked.swap(true, Ordering::SeqCst) {
            // The receiver is gone only when the process is about to end.
            let _ = self.refills.send(Arc::clone(self));
        }
    }

    /// Why the budget is not being refilled, if it is not.
    pub(crate) fn drought(&self) -> Option<Drought> {
        match self.drought.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Drought::Unavailable),
            ms => Some(Drought::CapReached(Timestamp::from_unix_ms(ms))),
        }
    }

    /// The leasing task has decided: bytes were deposited (`Ok`, with the new low-water mark), or none could be had.
    pub(crate) fn refill_decided(&self, outcome: Result<u32, Drought>) {
        let drought = match outcome {
            Ok(low_water) => {
                self.low_water.store(low_water, Ordering::Relaxed);
                0
            }
            Err(Drought::Unavailable) => 1,
            Err(Drought::CapReached(free_at)) => free_at.unix_ms().max(2),
        };
        self.drought.store(drought, Ordering::SeqCst);
        self.refill_asked.store(false, Ordering::SeqCst);
        self.refilled.notify_waiters();
        self.feed_all();
    }

    /// What the renter can be told of the cap, once it is known.
    pub(crate) fn quota(&self) -> Option<Arc<Quota>> {
        self.quota.load_full()
    }

    /// Notes what the ledger says; returns what was noted before.
    pub(crate) fn note_quota(&self, quota: Quota) -> Option<Arc<Quota>> {
        self.quota.swap(Some(Arc::new(quota)))
    }

    /// Whether a lease has ended of which there may be bytes left. The loop that gives leases back does so long before; a
    /// process that was stopped, or a loop that is held up, comes here.
    fn leases_are_over(&self) -> bool {
        monotonic::coarse_now() >= self.ends_at.load(Ordering::Acquire)
    }

    /// What is left ends with the first of the book's leases.
    pub(crate) fn note_end(&self, book: &LeaseBook) {
        self.ends_at.store(book.ends_at().map_or(monotonic::Millis::MAX, monotonic::just_before), Ordering::Release);
    }

    /// Puts bytes into the budget that may be spent until then; `false` if they do not fit.
    pub(crate) fn deposit(&self, bytes: u64, ends_at: Instant) -> bool {
        self.ends_at.fetch_min(monotonic::just_before(ends_at), Ordering::AcqRel);
        // Counted first: whoever sees them spent sees them covered.
        self.covered.fetch_add(bytes, Ordering::SeqCst);
        let fits = self.budget.deposit(bytes).is_ok();
        if !fits {
            self.covered.fetch_sub(bytes, Ordering::SeqCst);
        }
        fits
    }

    /// Bytes were taken out of the budget again.
    pub(crate) fn withdrawn(&self, bytes: u64) {
        self.covered.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// All bytes that were ever leased, less those given back.
    pub(crate) fn covered(&self) -> u64 {
        self.covered.load(Ordering::SeqCst)
    }

    /// The name to ask for a lease under: that of an attempt for the same lock without an answer, or a new one.
    pub(crate) fn next_lease(&self, lock: LockId, draw: impl FnOnce() -> LeaseId) -> LeaseId {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, lease) = asked.filter(|&(of, _)| of == lock).unwrap_or_else(|| (lock, draw()));
        *asked = Some((lock, lease));
        lease
    }

    /// The lease that was asked for is here.
    pub(crate) fn lease_answered(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// All that this node has spent for it.
    pub(crate) fn spent(&self) -> u64 {
        let (bytes_in, bytes_out) = self.budget.spent();
        bytes_in.saturating_add(bytes_out)
    }

    /// The ledger has heard of that much, and keeps it.
    pub(crate) fn note_told(&self, bytes: u64) {
        self.told.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Of all that this node has spent for it, what the ledger has heard of at the least.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    fn feed_all(&self) {
        self.someone_starves.store(false, Ordering::SeqCst);
        for connection in self.connections().iter().filter_map(Weak::upgrade) {
            connection.feed();
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Connection>>> {
        // The list is whole at every step, so a panic elsewhere while it was held has not harmed it.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the lock of `old` still stands in `new`, and where it did. A browser's cookie may have joined it meanwhile.
pub(crate) fn same_lock(old: &SessionView, new: &SessionView) -> bool {
    match (&old.lock, &new.lock) {
        (Some(old), Some(new)) => old.token == new.token && old.taken_at == new.taken_at && old.address == new.address,
        (None, _) => true, // nobody was let in
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
