//! What the phases of a request and the connection guard know of one renter's connection together.
//!
//! A connection is polled by one task; the phases run on that task too, and only revocation and refills come from
//! others. So every field is an atomic of its own, written on one side and read on the other, and [`Connection::wake`]
//! after a write is what makes it seen.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::task::AtomicWaker;
use runit_config::Limits;
use runit_core::RenterAddress;
use runit_core::budget::Direction;
use tokio::sync::Notify;

use crate::answer::Refusal;
use crate::guard::Guard;
use crate::live::{LiveSession, SessionPlace};
use crate::pace::{Holdups, Moved, Pace, Patience, WaitsFor};
use crate::places::Place;
use crate::tunnel::Tunnel;

/// Why a connection was ended by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The session was given back, or its renter was away for too long.
    Released = 1,
    /// The session is another renter's now, or gone.
    LockedOut = 2,
    /// The byte cap is reached.
    CapReached = 3,
    /// No lease could be had in time.
    LedgerUnavailable = 4,
    /// This process is about to end.
    Restart = 5,
    /// It waited for too long, and all places were taken.
    GaveWay = 6,
    /// The renter took an answer, or sent a body, too slowly.
    SlowRenter = 7,
    /// The provider went silent.
    SlowProvider = 8,
    /// It said nothing.
    NoHead = 9,
    /// A head began, and did not end in time.
    SlowHead = 10,
    /// A WebSocket on which nothing moved for too long.
    Idle = 11,
}

impl Cut {
    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::LockedOut => "locked_out",
            Self::CapReached => "cap_reached",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::Restart => "restart",
            Self::GaveWay => "gave_way",
            Self::SlowRenter => "slow_renter",
            Self::SlowProvider => "slow_provider",
            Self::NoHead => "no_head",
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
        }
    }

    /// The code of the close frame that a WebSocket gets: 1012 to 1014 are registered with IANA, 4000 to 4999 are for
    /// private use (RFC 6455, section 7.4.2).
    pub(crate) const fn close_code(self) -> u16 {
        match self {
            Self::Released => 4001,
            Self::LockedOut => 4003,
            Self::CapReached => 4290,
            Self::LedgerUnavailable | Self::GaveWay => 1013, // try again later
            Self::Restart => 1012,
            Self::SlowRenter | Self::NoHead | Self::SlowHead => 4008,
            Self::Idle => 1001,         // going away
            Self::SlowProvider => 1014, // bad gateway
        }
    }

    /// Whether the renter is given time to read what was said to him before.
    pub(crate) const fn lingers(self) -> bool {
        !matches!(self, Self::GaveWay | Self::NoHead | Self::SlowHead)
    }

    pub(crate) const ALL: [Self; 11] = [
        Self::Released,
        Self::LockedOut,
        Self::CapReached,
        Self::LedgerUnavailable,
        Self::Restart,
        Self::GaveWay,
        Self::SlowRenter,
        Self::SlowProvider,
        Self::NoHead,
        Self::SlowHead,
        Self::Idle,
    ];
}

/// One renter's connection.
pub(crate) struct Connection {
    place: Place,
    /// Who is at its other end: a renter, or a proxy.
    peer: RenterAddress,
    /// Whose request is being served.
    renter: Mutex<RenterAddress>,
    /// Its other end is a listed proxy, so that the next request may be another renter's.
    shared: AtomicBool,
    /// The one session that it serves, once it serves one; where it is shared, during one request.
    session: ArcSwapOption<LiveSession>,
    session_place: Mutex<Option<SessionPlace>>,
    /// From the end of a request to the binding of the next: bytes read are counted here, and charged when bound.
    reading_head: AtomicBool,
    head_bytes: AtomicU64,
    /// What is written is the gateway's own answer, which is not charged.
    answering: AtomicBool,
    /// Waiting for a refill.
    starved: AtomicBool,
    holdups: Holdups,
    pace: Mutex<Pace>,
    cut: AtomicU8,
    waker: AtomicWaker,
    cut_seen: Notify,
    /// Bytes by what became of them: charged as they passed, read as heads, the gateway's own, read and never delivered.
    charged_in: AtomicU64,
    charged_out: AtomicU64,
    heads: AtomicU64,
    own: AtomicU64,
    dropped: AtomicU64,
    /// Bytes that the socket took and gave, counted apart from all of these.
    wire: AtomicU64,
    /// Set while an agreed upgrade waits for the guard to let go of the socket.
    tunnel: Mutex<Option<Box<Tunnel>>>,
    /// A request that could not be read is to be answered with this, on the socket itself.
    unreadable: Mutex<Option<Refusal>>,
    handing_over: AtomicBool,
    handed_over: Mutex<Option<Guard>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection from `peer` that serves nobody yet.
    pub(crate) fn new(peer: RenterAddress, place: Place) -> Self {
        Self {
            place,
            peer,
            renter: Mutex::new(peer),
            shared: AtomicBool::new(false),
            session: ArcSwapOption::empty(),
            session_place: Mutex::new(None),
            reading_head: AtomicBool::new(true),
            head_bytes: AtomicU64::new(0),
            answering: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            holdups: Holdups::default(),
            pace: Mutex::default(),
            cut: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            cut_seen: Notify::new(),
            charged_in: AtomicU64::new(0),
            charged_out: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            own: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            wire: AtomicU64::new(0),
            tunnel: Mutex::new(None),
            unreadable: Mutex::new(None),
            handing_over: AtomicBool::new(false),
            handed_over: Mutex::new(None),
        }
    }

    /// The address at its other end.
    pub(crate) const fn peer(&self) -> RenterAddress {
        self.peer
    }

    /// The address of the renter whose request is being served.
    pub(crate) fn address(&self) -> RenterAddress {
        *locked(&self.renter)
    }

    /// Says whose request was just read, and whether the next may be another's.
    pub(crate) fn identify(&self, renter: RenterAddress, shared: bool) {
        *locked(&self.renter) = renter;
        self.shared.store(shared, Ordering::Relaxed);
        if shared {
            self.leave();
        }
    }

    /// Whether it may carry several renters in turn.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Its place among all connections.
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// The session that it serves.
    pub(crate) fn session(&self) -> Option<Arc<LiveSession>> {
        self.session.load_full()
    }

    /// Makes it serve `session`, if it serves no other one and there is a place. Called by its own task only.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(crate) fn serve(self: &Arc<Self>, session: &Arc<LiveSession>, limits: &Limits) -> Result<(), Refusal> {
        if let Some(served) = self.session() {
            return if Arc::ptr_eq(&served, session) { Ok(()) } else { Err(Refusal::Misdirected) };
        }
        if !self.place.admit(limits) {
            return Err(Refusal::NodeFull);
        }
        let place = session.enter(limits.connections_per_session).ok_or(Refusal::TooManyConnections)?;
        *locked(&self.session_place) = Some(place);
        self.session.store(Some(Arc::clone(session)));
        session.attach(self);
        Ok(())
    }

    /// Serves nobody any more: what becomes of the session is no longer this connection's affair.
    fn leave(&self) {
        if let Some(session) = self.session.swap(None) {
            session.detach(self);
            drop(locked(&self.session_place).take());
        }
    }

    /// Bytes of the head that was just read.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.head_bytes.load(Ordering::Relaxed)
    }

    /// The guard delivered bytes of a head.
    pub(crate) fn add_head_bytes(&self, bytes: usize) {
        self.head_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heads.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether what is read now belongs to a head that is not charged yet.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.reading_head.load(Ordering::Relaxed)
    }

    /// The head was charged: from here on every byte is, in both directions.
    pub(crate) fn begin_request(&self) {
        self.holdups.begin();
        self.answering.store(false, Ordering::Relaxed);
        self.reading_head.store(false, Ordering::Relaxed);
    }

    /// The request is over; the next head begins. What is still written belongs to the answer that just went out.
    pub(crate) fn end_request(&self) {
        self.head_bytes.store(0, Ordering::Relaxed);
        self.reading_head.store(true, Ordering::Relaxed);
        if self.is_shared() && !self.is_handing_over() {
            self.leave();
        }
    }

    /// What is written from here to the next request is the gateway's own.
    pub(crate) fn answer_ourselves(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// The session to charge what is written now to, if anybody.
    pub(crate) fn charged_for_writes(&self) -> Option<Arc<LiveSession>> {
        if self.answering.load(Ordering::Relaxed) { None } else { self.session() }
    }

    /// The guard charged bytes that passed.
    pub(crate) fn add_charged(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::In => &self.charged_in,
            Direction::Out => &self.charged_out,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the gateway's own were written.
    pub(crate) fn add_own(&self, bytes: usize) {
        self.own.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes were read from the socket and never delivered.
    pub(crate) fn add_dropped(&self, bytes: usize) {
        self.dropped.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The socket took or gave bytes.
    pub(crate) fn add_wire(&self, bytes: usize) {
        self.wire.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How far what the socket saw is from what was accounted for; zero, once the connection has ended.
    pub(crate) fn audit(&self) -> u64 {
        let accounted = [&self.charged_in, &self.charged_out, &self.heads, &self.own, &self.dropped];
        let accounted: u64 = accounted.iter().map(|counter| counter.load(Ordering::Relaxed)).sum();
        self.wire.load(Ordering::Relaxed).abs_diff(accounted)
    }

    /// All that was charged on this connection, heads apart.
    pub(crate) fn moved(&self) -> Moved {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moved { bytes_in: read(&self.charged_in), bytes_out: read(&self.charged_out) }
    }

    /// What the connection waits for, noted by whoever polls it.
    pub(crate) const fn holdups(&self) -> &Holdups {
        &self.holdups
    }

    /// Looks at how fast it goes; answers whether it has to end.
    pub(crate) fn look(&self, now: Duration, patience: &Patience) -> Option<Cut> {
        let waits = self.holdups.waits(!self.is_reading_head());
        let mut moved = self.moved();
        let mut pace = locked(&self.pace);
        if waits == WaitsFor::Reader {
            moved.bytes_out = self.holdups.acknowledged.load(Ordering::Relaxed);
        }
        if pace.wants_measure(waits, now, patience) {
            self.holdups.measure.store(true, Ordering::Relaxed);
            self.wake();
        }
        pace.look(waits, moved, now, patience)
    }

    /// An upgrade was agreed: when Pingora lets go of its stream, the socket is the tunnel's.
    pub(crate) fn hand_over_to(&self, tunnel: Box<Tunnel>) {
        *locked(&self.tunnel) = Some(tunnel);
        self.handing_over.store(true, Ordering::Relaxed);
    }

    /// What comes is no request: when Pingora lets go of its stream, the socket is ours to say so.
    pub(crate) fn refuse_unread(&self, refusal: Refusal) {
        *locked(&self.unreadable) = Some(refusal);
        self.handing_over.store(true, Ordering::Relaxed);
    }

    /// Whether the socket is to outlive Pingora's stream.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    /// Pingora has dropped its stream.
    pub(crate) fn hand_over(&self, guard: Guard) {
        *locked(&self.handed_over) = Some(guard);
        self.handing_over.store(false, Ordering::Relaxed);
    }

    /// The socket, if it was handed over and Pingora is done.
    pub(crate) fn take_guard(&self) -> Option<Guard> {
        locked(&self.handed_over).take()
    }

    /// The tunnel that was agreed.
    pub(crate) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        locked(&self.tunnel).take()
    }

    /// What to answer to a request that could not be read.
    pub(crate) fn take_unreadable(&self) -> Option<Refusal> {
        locked(&self.unreadable).take()
    }

    /// Ends the connection as soon as its task runs, for the first reason given.
    pub(crate) fn cut(&self, reason: Cut) {
        let _ = self.cut.compare_exchange(0, reason as u8, Ordering::SeqCst, Ordering::SeqCst);
        self.wake();
        self.cut_seen.notify_waiters();
    }

    /// Resolves when it is cut, also while its task waits for the provider and does not come by the guard.
    pub(crate) async fn until_cut(&self) {
        let seen = self.cut_seen.notified();
        tokio::pin!(seen);
        seen.as_mut().enable();
        if self.cut_reason().is_none() {
            seen.await;
        }
    }

    /// Why it is being ended, if it is.
    pub(crate) fn cut_reason(&self) -> Option<Cut> {
        let reason = self.cut.load(Ordering::SeqCst);
        Cut::ALL.into_iter().find(|cut| *cut as u8 == reason)
    }

    /// The task that polls, to be woken by [`Self::wake`]. Registered before the state is looked at.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Makes the task look at the state again.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Says that the task waits for a refill.
    pub(crate) fn mark_starved(&self) {
        self.starved.store(true, Ordering::SeqCst);
    }

    /// Wakes the task if it waits for a refill.
    pub(crate) fn feed(&self) {
        if self.starved.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }
}

/// Each holds whole values, so a panic elsewhere has not harmed them.
fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
