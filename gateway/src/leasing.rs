//! Keeps the budgets of this node's sessions filled, and the ledger informed.
//!
//! One task for the whole node: it answers requests for refills (each in a task of its own, so that a slow one holds
//! nobody up), and at every tick it reports what was spent, gives back what is idle or past its time, and says which
//! renters are present. It runs outside of the proxy's runtime, so that it can settle after the last connection ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runit_core::authority::LeaseError;
use runit_core::ledger::{LeaseReport, LeaseRequest, Shortage};
use runit_core::{Authority, Clock, EventKind, LeaseId, NodeId, SecurityEvent};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::live::{Drought, LiveSession};
use crate::metrics::Metrics;
use crate::quota::Quota;

/// How often usage is reported and idleness looked for.
const TICK: Duration = Duration::from_millis(500);
/// A session that spends nothing for so long gives its leases back.
const IDLE: Duration = Duration::from_secs(5);
/// How often the presence of a renter is reported at the most.
const PRESENCE: Duration = Duration::from_secs(5);
/// How often the ledger is asked how a session stands that moves bytes.
const QUOTA: Duration = Duration::from_secs(2);
/// Before a lease's end nothing of it is spent any more, for as long.
const MARGIN: Duration = Duration::from_secs(5);
/// While others hold what is left of a cap, how often to ask whether some came back.
const RETRY: Duration = Duration::from_millis(20);
/// A session that could get nothing asks again no sooner than this, however many requests want it to.
const DROUGHT_PAUSE: Duration = Duration::from_millis(200);
/// Output alone shows presence only from so many bytes on: an answer to nobody, such as a ping, is shorter.
const PRESENT_OUTPUT_BYTES: u64 = 4096;
/// After this warning there is none.
const GRAVEST: EventKind = EventKind::Bandwidth95Percent;
/// A lease is to last for about so many seconds at the present rate.
const LEASE_SECONDS: u64 = 4;

/// What the leasing task needs.
pub(crate) struct Leasing {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) node: NodeId,
    pub(crate) metrics: Arc<Metrics>,
    /// How long a stream may wait for a lease.
    pub(crate) renewal_wait: Duration,
}

/// By the address of the session: one that was removed and came back under its old id is another one here.
type ActiveSessions = HashMap<usize, Active>;

/// A session that has leases, or had some at the last tick.
struct Active {
    session: Arc<LiveSession>,
    spent: (u64, u64),
    spent_at: Instant,
    present: (u64, u64),
    present_at: Instant,
    quota_at: Instant,
    /// What was spent beyond the leases: nothing, ever.
    overshoot: u64,
}

impl Leasing {
    /// Runs until `stop` resolves, then settles everything.
    ///
    /// Answers whether nothing is left open.
    pub(crate) async fn run(
        self,
        mut refills: mpsc::UnboundedReceiver<Arc<LiveSession>>,
        stop: impl Future<Output = ()>,
    ) -> bool {
        let leasing = Arc::new(self);
        let mut active = ActiveSessions::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(session) = refills.recv() => {
                    let rate = leasing.note(&mut active, &session);
                    tokio::spawn(Arc::clone(&leasing).refill(session, rate));
                }
                _ = tick.tick() => leasing.maintain(&mut active, false).await,
            }
        }
        leasing.maintain(&mut active, true).await;
        if !active.is_empty() {
            tracing::warn!(sessions = active.len(), "leases could not be settled; the next start will");
        }
        active.is_empty()
    }

    /// Remembers the session as active; returns its bytes per second of late.
    fn note(&self, active: &mut ActiveSessions, session: &Arc<LiveSession>) -> u64 {
        let now = Instant::now();
        let entry = active.entry(Arc::as_ptr(session).addr()).or_insert_with(|| Active {
            session: Arc::clone(session),
            spent: session.budget.spent(),
            spent_at: now,
            present: (0, 0),
            present_at: now - PRESENCE,
            quota_at: now,
            overshoot: 0,
        });
        let (bytes_in, bytes_out) = session.budget.spent();
        let moved = bytes_in + bytes_out - entry.spent.0 - entry.spent.1;
        let millis = u64::try_from(now.duration_since(entry.spent_at).as_millis()).unwrap_or(u64::MAX).max(100);
        moved.saturating_mul(1000) / millis
    }

    /// Gets a lease, or finds out why there is none, within the time that a stream may wait.
    async fn refill(self: Arc<Self>, session: Arc<LiveSession>, rate: u64) {
        if session.drought().is_some() {
            tokio::time::sleep(DROUGHT_PAUSE).await;
        }
        let deadline = tokio::time::sleep(self.renewal_wait);
        let outcome = tokio::select! {
            outcome = self.lease(&session, rate.saturating_mul(LEASE_SECONDS)) => outcome,
            () = deadline => Err(Drought::Unavailable),
        };
        match outcome {
            Err(Drought::CapReached(_)) if !matches!(session.drought(), Some(Drought::CapReached(_))) => {
                let event = SecurityEvent::new(EventKind::BandwidthExceeded, self.clock.now()).session(session.id());
                self.metrics.caps_reached.inc();
                self.record(event).await;
            }
            Err(Drought::Unavailable) => {
                self.metrics.leases_failed.inc();
                tracing::warn!(session = %session.id(), "no lease in time: failing closed");
            }
            _ => {}
        }
        self.note_quota(&session).await;
        session.refill_decided(outcome);
    }

    /// Hears how the session stands, for the renter to see, and says so when the cap comes near.
    async fn note_quota(&self, session: &LiveSession) {
        let spent = session.spent();
        let Ok(Some(standing)) = self.authority.standing(session.id()).await else { return };
        let quota = Quota::new(&standing, spent);
        let before = session.note_quota(quota).and_then(|before| before.warning());
        if let Some(kind) = quota.warning().filter(|kind| before != Some(*kind) && before != Some(GRAVEST)) {
            self.record(SecurityEvent::new(kind, self.clock.now()).session(session.id())).await;
        }
    }

    async fn record(&self, event: SecurityEvent) {
        if self.authority.record(vec![event]).await.is_err() {
            tracing::warn!("a security event could not be recorded");
        }
    }

    async fn lease(&self, session: &Arc<LiveSession>, want: u64) -> Result<u32, Drought> {
        let mut book = session.book.lock().await;
        loop {
            // What is spent is settled first, or our own leases would look like bytes that may come back.
            book.attribute(&session.budget);
            let reports = book.reports();
            if !reports.is_empty() {
                self.authority.settle(reports.clone()).await.map_err(|_| Drought::Unavailable)?;
                book.sent(&reports);
            }
            let lease = LeaseId::from_uuid(Uuid::new_v4());
            if book.is_empty() {
                session.budget.cells().rebase(lease);
            }
            let request = LeaseRequest { lease, node: self.node, session: session.id(), want };
            let asked_at = Instant::now();
            match self.authority.lease(request).await {
                Ok(lease) => {
                    if !session.deposit(lease.granted) {
                        tracing::error!(session = %session.id(), "a lease did not fit into the budget");
                        return Err(Drought::Unavailable); // the ledger forfeits it when it expires
                    }
                    book.add(&lease, asked_at, MARGIN.min(lease.ttl / 4));
                    self.metrics.leased_bytes.inc_by(lease.granted);
                    return Ok(u32::try_from(lease.granted / 2).unwrap_or(u32::MAX));
                }
                Err(LeaseError::Short(Shortage::CapReached { free_at })) => return Err(Drought::CapReached(free_at)),
                Err(LeaseError::Short(Shortage::Leased)) if session.budget.balance().left > 0 => {
                    return Ok(0); // there is still some: nobody has to wait
                }
                Err(LeaseError::Short(Shortage::Leased)) => tokio::time::sleep(RETRY).await,
                Err(LeaseError::UnknownSession | LeaseError::Unavailable(_)) => return Err(Drought::Unavailable),
            }
        }
    }

    /// Reports and gives back, for all active sessions in one go. `all`: everything goes back, the node is stopping.
    async fn maintain(&self, active: &mut ActiveSessions, all: bool) {
        let now = Instant::now();
        let mut books = Vec::new();
        let mut reports = Vec::new();
        let mut present = Vec::new();
        let mut moved = Vec::new();
        for entry in active.values_mut() {
            let session = Arc::clone(&entry.session);
            self.meter(entry, now);
            if entry.is_present(now) {
                present.push(session.id());
            }
            if entry.needs_renewal(now) {
                session.ask_for_refill();
            }
            let idle = now.duration_since(entry.spent_at) >= IDLE;
            let (given_back, mine) = wind_down(&session, now, idle, all).await;
            self.metrics.refunded_bytes.inc_by(given_back);
            let overshoot = session.spent().saturating_sub(session.deposited());
            self.metrics.overshoot_bytes.inc_by(overshoot.saturating_sub(entry.overshoot));
            entry.overshoot = entry.overshoot.max(overshoot);
            if !mine.is_empty() && now.duration_since(entry.quota_at) >= QUOTA {
                entry.quota_at = now;
                moved.push(Arc::clone(&session));
            }
            if !mine.is_empty() {
                reports.extend(mine.iter().copied());
                books.push((session, mine));
            }
        }
        if !reports.is_empty() {
            match self.authority.settle(reports).await {
                Ok(()) => {
                    self.metrics.settlement_lag.set(0.0);
                    for (session, mine) in &books {
                        session.book.lock().await.sent(mine);
                    }
                }
                Err(_) => {
                    self.metrics.settlement_lag.add(TICK.as_secs_f64());
                    tracing::warn!("usage could not be reported; it will be again");
                }
            }
        }
        for session in &moved {
            self.note_quota(session).await;
        }
        if !present.is_empty() && self.authority.present(present).await.is_err() {
            tracing::warn!("presence could not be reported");
        }
        active.retain(|_, entry| {
            let idle = all || now.duration_since(entry.spent_at) >= IDLE;
            !(idle && entry.session.book.try_lock().is_ok_and(|book| book.is_empty()))
        });
    }

    fn meter(&self, entry: &mut Active, now: Instant) {
        let spent = entry.session.budget.spent();
        if spent != entry.spent {
            self.metrics.bytes_in.inc_by(spent.0 - entry.spent.0);
            self.metrics.bytes_out.inc_by(spent.1 - entry.spent.1);
            entry.spent = spent;
            entry.spent_at = now;
        }
    }
}

/// Gives back what is idle or past its time, and says what there is to report. Nothing while a refill is under way,
/// unless everything has to go: the next tick will do.
async fn wind_down(session: &LiveSession, now: Instant, idle: bool, all: bool) -> (u64, Vec<LeaseReport>) {
    let book = if all { Some(session.book.lock().await) } else { session.book.try_lock().ok() };
    match book {
        Some(mut book) => {
            let given_back = book.give_back(&session.budget, now, idle || all);
            (given_back, book.reports())
        }
        None => (0, Vec::new()),
    }
}

impl Active {
    /// Whether the renter has shown up since this was last said.
    fn is_present(&mut self, now: Instant) -> bool {
        let (bytes_in, bytes_out) = self.spent;
        let moved = bytes_in > self.present.0 || bytes_out >= self.present.1 + PRESENT_OUTPUT_BYTES;
        let due = now.duration_since(self.present_at) >= PRESENCE;
        if moved && due {
            self.present = self.spent;
            self.present_at = now;
        }
        moved && due
    }

    /// Whether the session still spends while its youngest lease grows old.
    fn needs_renewal(&self, now: Instant) -> bool {
        let spending = now.duration_since(self.spent_at) < IDLE;
        spending
            && self.session.drought().is_none()
            && self.session.book.try_lock().is_ok_and(|book| !book.is_empty() && book.is_due(now))
    }
}
