//! Keeps the budgets of this node's sessions filled, and the ledger informed.
//!
//! One loop for the whole node, which never waits for the authority itself: requests for refills are answered in tasks of
//! their own, and so is each round of reports. What the loop does at every tick without fail is to take leases that
//! are idle or near their end out of the budgets: that is what makes a node's own deadline hold when the authority hangs.
//!
//! It runs outside of the proxy's runtime, so that it can settle after the last connection ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runit_config::LiveSettings;
use runit_core::authority::LeaseError;
use runit_core::ledger::{LeaseRequest, Shortage};
use runit_core::{Authority, Clock, EventKind, LeaseId, Lock, NodeId, SecurityEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::live::{Drought, LiveSession};
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::settlement::{Active, Reported, Round};

/// How often usage is reported and idleness looked for.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// While others hold what is left of a cap: how soon to ask again, doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));
/// A session that could get nothing asks again no sooner than this, however many requests want it to.
const DROUGHT_PAUSE: Duration = Duration::from_millis(200);
/// A refill waits no longer than this to hear how the session stands.
const QUOTA_PATIENCE: Duration = Duration::from_millis(250);
/// After this warning there is none.
const GRAVEST: EventKind = EventKind::Bandwidth95Percent;
/// A lease is to last for about so many seconds at the present rate.
const LEASE_SECONDS: u64 = 4;

/// What the leasing loop needs.
pub(crate) struct Leasing {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) node: NodeId,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: LiveSettings,
}

/// By the address of the session: one that was removed and came back under its old id is another one here.
pub(crate) type ActiveSessions = HashMap<usize, Active>;

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
        let mut reporting: Option<JoinHandle<()>> = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(session) = refills.recv() => {
                    let entry = active.entry(Arc::as_ptr(&session).addr()).or_insert_with(|| Active::new(&session));
                    let want = entry.bytes_per_second().saturating_mul(LEASE_SECONDS);
                    tokio::spawn(Arc::clone(&leasing).refill(session, want));
                }
                _ = tick.tick() => {
                    let may_report = reporting.as_ref().is_none_or(JoinHandle::is_finished);
                    let round = leasing.survey(&mut active, may_report, false);
                    if may_report && !round.is_empty() {
                        reporting = Some(tokio::spawn(Arc::clone(&leasing).report(round)));
                    }
                }
            }
        }
        if let Some(reporting) = reporting {
            // Its end is what counts: whatever did not arrive is reported once more below.
            let _ = reporting.await;
        }
        leasing.close(&mut active).await
    }

    /// Gives everything back and reports it.
    async fn close(self: &Arc<Self>, active: &mut ActiveSessions) -> bool {
        for entry in active.values() {
            drop(entry.session().book.lock().await); // a refill that is under way ends first
        }
        let round = self.survey(active, true, true);
        Arc::clone(self).report(round).await;
        self.survey(active, false, true);
        if !active.is_empty() {
            tracing::warn!(sessions = active.len(), "leases could not be settled; the next start will");
        }
        active.is_empty()
    }

    /// One look at all active sessions, without waiting for anybody. `all`: everything goes back.
    fn survey(&self, active: &mut ActiveSessions, may_report: bool, all: bool) -> Round {
        let mut round = Round::default();
        let now = Instant::now();
        active.retain(|_, entry| entry.survey(&self.metrics, &mut round, may_report, all, now));
        round
    }

    /// Sends a round of reports.
    async fn report(self: Arc<Self>, round: Round) {
        let Round { reports, present, moved } = round;
        let all = reports.iter().flat_map(|one| one.leases.iter().copied()).collect::<Vec<_>>();
        let began = Instant::now();
        if !all.is_empty() {
            match timeout(self.renewal_wait(), self.authority.settle(all)).await {
                Ok(Ok(())) => {
                    self.metrics.settlement_lag.set(0.0);
                    for Reported { session, leases, told } in &reports {
                        session.book.lock().await.sent(leases);
                        session.note_told(*told);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.metrics.settlement_lag.add((began.elapsed() + TICK).as_secs_f64());
                    tracing::warn!("usage could not be reported; it will be again");
                }
            }
        }
        if !present.is_empty()
            && !matches!(timeout(self.renewal_wait(), self.authority.present(present)).await, Ok(Ok(())))
        {
            tracing::warn!("presence could not be reported");
        }
        if !moved.is_empty() {
            // The next round tells if this one does not.
            let _ = timeout(self.renewal_wait(), self.note_quotas(&moved)).await;
        }
    }

    /// Gets a lease, or finds out why there is none, within the time that a stream may wait.
    async fn refill(self: Arc<Self>, session: Arc<LiveSession>, want: u64) {
        let before = session.drought();
        if before.is_some() {
            tokio::time::sleep(DROUGHT_PAUSE).await;
        }
        let outcome = timeout(self.renewal_wait(), self.lease(&session, want)).await;
        let outcome = outcome.unwrap_or(Err(Drought::Unavailable));
        if outcome != Err(Drought::Unavailable) {
            // So that the answer which waits for this can tell its renter.
            let _ = timeout(QUOTA_PATIENCE, self.note_quota(&session)).await;
        }
        session.refill_decided(outcome);
        match outcome {
            Err(Drought::CapReached(_)) if !matches!(before, Some(Drought::CapReached(_))) => {
                self.metrics.caps_reached.inc();
                self.record(EventKind::BandwidthExceeded, &session).await;
            }
            Err(Drought::Unavailable) => {
                self.metrics.leases_failed.inc();
                tracing::warn!(session = %session.id(), "no lease in time: failing closed");
            }
            Ok(_) | Err(Drought::CapReached(_)) => {}
        }
    }

    async fn lease(&self, session: &Arc<LiveSession>, want: u64) -> Result<u32, Drought> {
        let mut book = session.book.lock().await;
        let mut retry = RETRY.0;
        loop {
            let changed_hands = session.changed_hands();
            let given_back = book.give_back(&session.budget, Instant::now(), changed_hands.is_some());
            session.withdrawn(given_back);
            session.note_end(&book);
            self.metrics.refunded_bytes.inc_by(given_back);
            // What is spent is settled first, or our own leases would look like bytes that may come back.
            let reports = book.reports();
            if !reports.is_empty() {
                self.authority.settle(reports.clone()).await.map_err(|_| Drought::Unavailable)?;
                book.sent(&reports);
                session.note_told(book.attributed());
            }
            if let Some(hands) = changed_hands {
                if !book.is_empty() || !session.settle_hands(hands) {
                    tokio::time::sleep(RETRY.0).await; // for a poll of the last lock
                }
                continue;
            }
            let Some(lock) = session.view().lock.as_deref().map(Lock::id) else {
                return Ok(0); // whoever asked is cut, or about to be
            };
            // An attempt whose answer was lost is made again under its name, so that it leaves no second lease behind.
            let lease = session.next_lease(lock, || LeaseId::from_uuid(Uuid::new_v4()));
            if book.is_empty() {
                session.budget.cells().rebase(lease);
            }
            let request = LeaseRequest { lease, node: self.node, session: session.id(), lock, want };
            let asked_at = Instant::now();
            match self.authority.lease(request).await {
                Ok(lease) => {
                    session.lease_answered();
                    if !session.deposit(lease.granted, asked_at + lease.ttl) {
                        tracing::error!(session = %session.id(), "a lease did not fit into the budget");
                        return Err(Drought::Unavailable); // the ledger forfeits it when it expires
                    }
                    book.add(&lease, asked_at, self.margin(lease.ttl));
                    session.note_end(&book);
                    self.metrics.leased_bytes.inc_by(lease.granted);
                    return Ok(u32::try_from(lease.granted / 2).unwrap_or(u32::MAX));
                }
                Err(LeaseError::Short(Shortage::CapReached { free_at })) => return Err(Drought::CapReached(free_at)),
                Err(LeaseError::Short(Shortage::Leased)) if session.budget.balance().left > 0 => {
                    return Ok(0); // there is still some: nobody has to wait
                }
                Err(LeaseError::Short(Shortage::Leased)) => {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
                Err(LeaseError::NoLock) => {
                    session.lease_answered();
                    tokio::time::sleep(retry).await; // until this node has heard what there is now
                    retry = (retry * 2).min(RETRY.1);
                }
                Err(LeaseError::UnknownSession | LeaseError::Unavailable(_)) => return Err(Drought::Unavailable),
            }
        }
    }

    /// How long a stream may wait for a lease, and a round of reports for its answer.
    fn renewal_wait(&self) -> Duration {
        Duration::from_millis(self.settings.load().quota.renewal_wait_ms)
    }

    /// So long before its end nothing of a lease is spent any more: longer than a refill can keep the loop from the
    /// session's leases, and two ticks.
    fn margin(&self, ttl: Duration) -> Duration {
        (self.renewal_wait() + 2 * TICK).min(ttl / 2)
    }

    /// Hears how the session stands, for the renter to see.
    async fn note_quota(&self, session: &LiveSession) {
        let told = session.told();
        let Ok(Some(standing)) = self.authority.standing(session.id()).await else { return };
        self.note_standing(session, Quota::new(&standing, told)).await;
    }

    /// The same for many sessions by one question.
    async fn note_quotas(&self, sessions: &[Arc<LiveSession>]) {
        let mut by_id: HashMap<_, _> =
            sessions.iter().map(|session| (session.id(), (session, session.told()))).collect();
        let Ok(standings) = self.authority.standings(by_id.keys().copied().collect()).await else { return };
        for (id, standing) in standings {
            if let Some((session, told)) = by_id.remove(&id) {
                self.note_standing(session, Quota::new(&standing, told)).await;
            }
        }
    }

    /// Keeps how the session stands, and says so when the cap comes near.
    async fn note_standing(&self, session: &LiveSession, quota: Quota) {
        let now = quota.warning();
        let before = session.note_quota(quota).and_then(|before| before.warning());
        if let Some(kind) = now.filter(|kind| before != Some(*kind) && before != Some(GRAVEST)) {
            self.record(kind, session).await;
        }
    }

    async fn record(&self, kind: EventKind, session: &LiveSession) {
        let event = SecurityEvent::new(kind, self.clock.now()).session(session.id());
        if !matches!(timeout(self.renewal_wait(), self.authority.record(vec![event])).await, Ok(Ok(()))) {
            tracing::warn!("a security event could not be recorded");
        }
    }
}
