//! What the data plane asks, answered from this process's store.
//!
//! Also keeps the audit trail of claims: the lock taken, refused to a second browser, tried from another address, or
//! tried with a token that opens nothing. The data plane records what it decides itself, and no claim again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use runit_config::LiveSettings;
use runit_core::authority::{Authority, ClaimError, DirectoryChange, LeaseError, ReconnectError, Unavailable};
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::ledger::{Lease, LeaseReport, LeaseRequest, Spent, Standing};
use runit_core::limit::Limit;
use runit_core::session::{Change, Claim, Reconnection, Refusal, Session, SessionStatus, SessionView};
use runit_core::store::{ChangeError, GrantError, SharedRate, SharedVerdict, StoreError};
use runit_core::{LockMode, NodeId, Rejection, SessionId};
use tokio::time::Instant;

use crate::control::lease_policy;
use crate::reconnects::Reconnects;
use crate::sessions::{Sessions, detached};
use crate::trail::Trail;

/// A claim waits no longer than this for the last lock's leases to come back, which nodes that hear of its end return at once.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const CLAIM_RETRY: Duration = Duration::from_millis(50);

/// The authority of one process that has the store itself.
#[derive(Clone)]
pub(crate) struct LocalAuthority {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) settings: LiveSettings,
    pub(crate) reconnects: Arc<Reconnects>,
}

#[async_trait]
impl Authority for LocalAuthority {
    fn watch(&self) -> BoxStream<'static, DirectoryChange> {
        self.sessions.directory.watch()
    }

    async fn claim(&self, claim: Claim) -> Result<SessionView, ClaimError> {
        let authority = self.clone();
        detached(async move { authority.decide(claim).await }).await.map_err(unavailable)?
    }

    async fn reconnect(&self, reconnection: Reconnection) -> Result<SessionView, ReconnectError> {
        let authority = self.clone();
        let moved = detached(async move { authority.move_lock(reconnection).await }).await.map_err(unavailable)??;
        let credential = self.sessions.open(&moved).ok_or(Unavailable)?;
        Ok(moved.view(credential))
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Lease, LeaseError> {
        let now = self.sessions.clock.now();
        self.sessions.store.grant(request, lease_policy(&self.settings.load()), now).await.map_err(
            |error| match error {
                GrantError::Unknown => LeaseError::UnknownSession,
                GrantError::NoLock => LeaseError::NoLock,
                GrantError::Short(shortage) => LeaseError::Short(shortage),
                GrantError::Store(_) => Unavailable.into(),
            },
        )
    }

    async fn settle(&self, reports: Vec<LeaseReport>) -> Result<(), Unavailable> {
        self.sessions.store.settle(reports, self.sessions.clock.now()).await.map_err(unavailable)
    }

    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>) -> Result<(), Unavailable> {
        self.sessions.store.recover(node, spent, self.sessions.clock.now()).await.map_err(unavailable)
    }

    async fn standing(&self, session: SessionId) -> Result<Option<Standing>, Unavailable> {
        let Some(known) = self.sessions.store.session(session).await.map_err(unavailable)? else { return Ok(None) };
        let ledger = self.sessions.store.ledger(session, self.sessions.clock.now()).await.map_err(unavailable)?;
        Ok(Some(ledger.standing(known.cap_bytes)))
    }

    async fn standings(&self, sessions: Vec<SessionId>) -> Result<Vec<(SessionId, Standing)>, Unavailable> {
        let records = self.sessions.store.records(sessions, self.sessions.clock.now()).await.map_err(unavailable)?;
        Ok(records.iter().map(|(session, ledger)| (session.id, ledger.standing(session.cap_bytes))).collect())
    }

    async fn present(&self, sessions: Vec<SessionId>) -> Result<(), Unavailable> {
        self.sessions.store.renters_seen(sessions, self.sessions.clock.now()).await.map_err(unavailable)
    }

    async fn record(&self, events: Vec<SecurityEvent>) -> Result<(), Unavailable> {
        self.trail.record(events).await.map_err(unavailable)
    }

    fn count(&self, kind: EventKind) {
        self.trail.count(kind);
    }
}

impl LocalAuthority {
    /// How closely an address must match a lock's now.
    pub(crate) fn lock_mode(&self) -> LockMode {
        self.settings.load().lock.mode
    }

    /// Decides on a claim, which counts as a guess at all nodes together until it was none.
    async fn decide(&self, claim: Claim) -> Result<SessionView, ClaimError> {
        let limit = limit_of(self.settings.load().limits.guesses_per_address);
        let rate = SharedRate { name: "guesses", whom: claim.address.network().to_string(), limit };
        let now = self.sessions.clock.now();
        let counted_at = match self.sessions.store.admit(&rate, now).await.map_err(unavailable)? {
            SharedVerdict::Admitted(at) => at,
            SharedVerdict::TooMany { next_free, first } => {
                if first {
                    let event = SecurityEvent::new(EventKind::RateLimited, now).address(claim.address);
                    // The refusal stands; the store has logged that its event is missing.
                    let _ = self.trail.record(vec![event]).await;
                }
                return Err(ClaimError::TooOften(next_free));
            }
        };
        let outcome = self.claim_lock(claim).await;
        if !matches!(outcome, Err(ClaimError::Rejected(_))) {
            // The claim is decided. If it stays counted, its network has one guess less for a while.
            let _ = self.sessions.store.forgive(&rate, counted_at).await;
        }
        outcome
    }

    async fn claim_lock(&self, claim: Claim) -> Result<SessionView, ClaimError> {
        let known = self.sessions.by_token(claim.token).await.map_err(unavailable)?;
        let outcome = match &known {
            Some(known) if self.sessions.is_left_to_others(known) => Err(Unavailable.into()),
            Some(known) => self.take(known, claim.clone()).await,
            None => Err(Rejection::InvalidToken.into()),
        };
        let kind = match &outcome {
            Err(ClaimError::Unavailable(_) | ClaimError::TooOften(_)) => None,
            Err(ClaimError::Rejected(rejection)) => Some(event_of(*rejection)),
            Ok(view) => self.event_of_success(known.as_ref(), view, &claim),
        };
        if let Some(kind) = kind {
            let mut event = SecurityEvent::new(kind, self.sessions.clock.now()).address(claim.address);
            event.session = known.as_ref().map(|session| session.id);
            event.provider = known.map(|session| session.provider);
            // The claim is decided and committed; the store has logged that its event is missing.
            let _ = self.trail.record(vec![event]).await;
        }
        outcome
    }

    async fn take(&self, known: &Session, claim: Claim) -> Result<SessionView, ClaimError> {
        let change = || self.sessions.change(known.id, Change::Claim(claim.clone(), self.lock_mode()));
        let deadline = Instant::now() + CLAIM_PATIENCE;
        let mut outcome = change().await;
        while matches!(outcome, Err(ChangeError::Refused(Refusal::StillLeased))) && Instant::now() < deadline {
            tokio::time::sleep(CLAIM_RETRY).await;
            outcome = change().await;
        }
        match outcome {
            Ok(session) => {
                let credential = self.sessions.open(&session).ok_or(Unavailable)?;
                Ok(session.view(credential))
            }
            Err(ChangeError::Refused(Refusal::Rejected(rejection))) => Err(rejection.into()),
            Err(ChangeError::Refused(Refusal::StillLeased) | ChangeError::Store(_)) => Err(Unavailable.into()),
            Err(ChangeError::Refused(_) | ChangeError::Unknown) => Err(Rejection::InvalidToken.into()),
        }
    }

    /// A lock taken; or, where addresses are only observed, one joined from elsewhere.
    fn event_of_success(&self, before: Option<&Session>, view: &SessionView, claim: &Claim) -> Option<EventKind> {
        let elsewhere = view.lock.as_ref().is_some_and(|lock| lock.address != claim.address);
        match before.map(Session::status) {
            _ if elsewhere && self.lock_mode() == LockMode::Observe => Some(EventKind::SessionHijackAttempt),
            Some(SessionStatus::Ready) => Some(EventKind::SessionLocked),
            _ => None,
        }
    }
}

/// Which event a refusal is.
pub(crate) const fn event_of(rejection: Rejection) -> EventKind {
    match rejection {
        Rejection::NoCredential | Rejection::InvalidToken => EventKind::InvalidAccessAttempt,
        Rejection::AlreadyInUse => EventKind::SessionAlreadyLocked,
        Rejection::AddressMismatch => EventKind::SessionHijackAttempt,
    }
}

/// A limit of the settings.
pub(crate) const fn limit_of(limit: runit_config::Limit) -> Limit {
    Limit { requests: limit.requests, window: Duration::from_secs(limit.seconds) }
}

/// The store has logged why.
fn unavailable(_: StoreError) -> Unavailable {
    Unavailable
}
