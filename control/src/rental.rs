//! What renters ask: which sessions are free, one of them, and, with its token, presence, release and usage.
//!
//! Invariant: what is listed names no token, URL or address; what is done with a token is done from the lock's address.

use std::sync::Arc;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::ledger::Standing;
use runit_core::session::{Change, Proof, Reconnection, Session, SessionStatus};
use runit_core::store::ChangeError;
use runit_core::usage::UsageRecord;
use runit_core::{AccessToken, LockId, Rejection, RenterAddress, Secret, SessionId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::authority::event_of;
use crate::control::Control;
use crate::random;

/// One free session, as everybody may see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    #[schema(value_type = String, format = Uuid)]
    pub(crate) session_id: SessionId,
    /// Any JSON of the provider's.
    #[schema(value_type = Value)]
    pub(crate) hardware: Option<Box<RawValue>>,
    /// Any JSON of the provider's.
    #[schema(value_type = Value)]
    pub(crate) pricing: Option<Box<RawValue>>,
}

/// A session with a token that takes it.
pub(crate) struct Granted {
    pub(crate) listed: Listed,
    pub(crate) token: AccessToken,
    /// For the renter alone: it is in no link.
    pub(crate) reconnect_secret: Secret,
}

impl Control {
    /// The free sessions, the oldest first.
    pub(crate) fn ready(&self) -> Vec<Listed> {
        self.ready_among(self.sessions.directory.sessions()).iter().map(|session| listed(session)).collect()
    }

    /// A token for the oldest free session, or for a given one.
    pub(crate) async fn grant(&self, wanted: Option<SessionId>) -> Result<Granted, Problem> {
        let directory = &self.sessions.directory;
        let candidates = match wanted {
            None => directory.sessions(),
            Some(wanted) => directory.session(wanted).into_iter().collect(),
        };
        for session in self.ready_among(candidates) {
            // Somebody may have been faster.
            if let Some((token, reconnect_secret)) = self.issue_token(session.id).await? {
                return Ok(Granted { listed: listed(&session), token, reconnect_secret });
            }
        }
        Err(Problem::NoSessions)
    }

    /// A new token for a session, with the secret behind it; none when it is not free any more.
    pub(crate) async fn issue_token(&self, id: SessionId) -> Result<Option<(AccessToken, Secret)>, Problem> {
        let (token, secret) = random::access_token()?;
        match self.sessions.change(id, Change::IssueToken(token.hash())).await {
            Ok(_) => Ok(Some((token, secret))),
            Err(ChangeError::Unknown | ChangeError::Refused(_)) => Ok(None),
            Err(ChangeError::Store(error)) => Err(error.into()),
        }
    }

    /// The renter is there.
    pub(crate) async fn renter_heartbeat(&self, token: &AccessToken, from: RenterAddress) -> Result<(), Problem> {
        let change = Change::RenterHeartbeat { token: token.hash(), address: from, mode: self.authority.lock_mode() };
        self.change_by_token(token, change, from).await.map(drop)
    }

    /// The renter gives the session back.
    pub(crate) async fn release(&self, token: &AccessToken, from: RenterAddress) -> Result<(), Problem> {
        let change = Change::Release { token: token.hash(), address: from, mode: self.authority.lock_mode() };
        let session = self.change_by_token(token, change, from).await?;
        let now = self.sessions.clock.now();
        self.note(SecurityEvent::new(EventKind::SessionReleased, now).session(session.id).address(from)).await;
        Ok(())
    }

    /// The renter goes on from another address.
    pub(crate) async fn reconnect(
        &self,
        token: &AccessToken,
        secret: Secret,
        from: RenterAddress,
    ) -> Result<(), Problem> {
        let proof = Proof::Secret(secret);
        let reconnection = Reconnection { token: token.hash(), proof, address: from };
        Ok(self.authority.move_lock(reconnection).await.map(drop)?)
    }

    /// What the ledger says; changes nothing, not even presence.
    pub(crate) async fn usage(&self, token: &AccessToken, from: RenterAddress) -> Result<(Session, Standing), Problem> {
        let Some(session) = self.sessions.by_token(token.hash()).await? else {
            return Err(self.rejected(Rejection::InvalidToken, None, from).await);
        };
        if session.lock().is_some_and(|lock| !self.authority.lock_mode().admits(lock.address, from)) {
            return Err(self.rejected(Rejection::AddressMismatch, Some(session.id), from).await);
        }
        let ledger = self.sessions.store.ledger(session.id, self.sessions.clock.now()).await?;
        let standing = ledger.standing(session.cap_bytes);
        Ok((session, standing))
    }

    /// What the lock that this token took has used, also after its end. While it stands, its address alone may ask.
    pub(crate) async fn statement(&self, token: &AccessToken, from: RenterAddress) -> Result<UsageRecord, Problem> {
        let session = self.sessions.by_token(token.hash()).await?;
        let lock = session.as_ref().and_then(|session| session.lock().map(|lock| (session.id, lock.address)));
        if let Some((id, address)) = lock
            && !self.authority.lock_mode().admits(address, from)
        {
            return Err(self.rejected(Rejection::AddressMismatch, Some(id), from).await);
        }
        match self.sessions.store.usage_record(LockId::of(token.hash())).await? {
            Some(record) => Ok(record),
            None => Err(self.rejected(Rejection::InvalidToken, None, from).await),
        }
    }

    async fn change_by_token(
        &self,
        token: &AccessToken,
        change: Change,
        from: RenterAddress,
    ) -> Result<Session, Problem> {
        let Some(known) = self.sessions.by_token(token.hash()).await? else {
            return Err(self.rejected(Rejection::InvalidToken, None, from).await);
        };
        match self.sessions.change(known.id, change).await {
            Err(ChangeError::Refused(runit_core::session::Refusal::Rejected(rejection))) => {
                Err(self.rejected(rejection, Some(known.id), from).await)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn rejected(&self, rejection: Rejection, session: Option<SessionId>, from: RenterAddress) -> Problem {
        let mut event = SecurityEvent::new(event_of(rejection), self.sessions.clock.now()).address(from);
        event.session = session;
        self.note(event).await;
        rejection.into()
    }

    /// Those that are free, the oldest first.
    fn ready_among(&self, mut sessions: Vec<Arc<Session>>) -> Vec<Arc<Session>> {
        sessions.retain(|session| session.status() == SessionStatus::Ready);
        self.reports.retain_reachable(&mut sessions);
        sessions.sort_unstable_by_key(|session| (session.registered_at, session.id));
        sessions
    }
}

fn listed(session: &Session) -> Listed {
    let json = |text: &Option<String>| text.clone().and_then(|text| RawValue::from_string(text).ok());
    Listed { session_id: session.id, hardware: json(&session.offer.hardware), pricing: json(&session.offer.pricing) }
}
