//! The way back of a renter whose address has changed: who may move a lock, how often, and what is kept of it.
//!
//! Tries are counted by the network that they come from, and moves by session: whoever has a token alone cannot use up its
//! renter's moves. Both counts are exact, and of all processes that share the store.

use runit_core::authority::ReconnectError;
use runit_core::authority::Unavailable;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::limit::Verdict;
use runit_core::session::{Change, Reconnection, Refusal, Session};
use runit_core::store::{ChangeError, StoreError};
use runit_core::{NetworkKey, Rejection, RenterAddress, SessionId};

use crate::authority::{LocalAuthority, event_of, limit_of};
use crate::shared_limit::SharedLimit;

/// How often locks have moved of late.
pub(crate) struct Reconnects {
    tries: SharedLimit<NetworkKey>,
    moves: SharedLimit<SessionId>,
}

impl Reconnects {
    pub(crate) fn new(limit: runit_config::Limit) -> Self {
        let limit = limit_of(limit);
        Self { tries: SharedLimit::new("reconnect tries", limit), moves: SharedLimit::new("reconnects", limit) }
    }
}

impl LocalAuthority {
    /// Moves a lock to where its renter is now.
    pub(crate) async fn move_lock(&self, reconnection: Reconnection) -> Result<Session, ReconnectError> {
        let (now, to) = (self.sessions.clock.now(), reconnection.address);
        let store = &*self.sessions.store;
        let tried = self.reconnects.tries.admit(store, &to.network(), now).await.map_err(unavailable)?;
        self.within_limit(tried, to, None).await?;
        let known = self.sessions.by_token(reconnection.token).await.map_err(unavailable)?;
        let Some((known, lock)) = known.as_ref().and_then(|known| Some((known, known.lock()?))) else {
            return Err(self.refuse(Rejection::InvalidToken, to, None).await);
        };
        if let Err(rejection) = reconnection.check(lock) {
            return Err(self.refuse(rejection, to, Some(known.id)).await);
        }
        if lock.address == to {
            return Ok(known.clone());
        }
        let moved = self.reconnects.moves.admit(store, &known.id, now).await.map_err(unavailable)?;
        self.within_limit(moved, to, Some(known.id)).await?;
        let from = lock.address;
        match self.sessions.change(known.id, Change::Reconnect(reconnection)).await {
            Ok(session) => {
                let event = |kind, address| SecurityEvent::new(kind, now).session(known.id).address(address);
                let events = vec![event(EventKind::SessionAddressLeft, from), event(EventKind::SessionReconnected, to)];
                // The move is decided and committed; the store has logged that its events are missing.
                let _ = self.trail.record(events).await;
                Ok(session)
            }
            Err(ChangeError::Refused(Refusal::Rejected(rejection))) => {
                Err(self.refuse(rejection, to, Some(known.id)).await)
            }
            Err(ChangeError::Refused(_) | ChangeError::Unknown) => Err(Rejection::InvalidToken.into()),
            Err(ChangeError::Store(error)) => Err(unavailable(error).into()),
        }
    }

    async fn within_limit(
        &self,
        verdict: Verdict,
        from: RenterAddress,
        session: Option<SessionId>,
    ) -> Result<(), ReconnectError> {
        if verdict.first_refusal {
            self.keep(EventKind::RateLimited, from, session).await;
        }
        if verdict.admitted { Ok(()) } else { Err(ReconnectError::TooOften(verdict.next_free)) }
    }

    async fn refuse(&self, rejection: Rejection, from: RenterAddress, session: Option<SessionId>) -> ReconnectError {
        self.keep(event_of(rejection), from, session).await;
        rejection.into()
    }

    async fn keep(&self, kind: EventKind, from: RenterAddress, session: Option<SessionId>) {
        let mut event = SecurityEvent::new(kind, self.sessions.clock.now()).address(from);
        event.session = session;
        // The refusal stands; the store has logged that its event is missing.
        let _ = self.trail.record(vec![event]).await;
    }
}

/// The store has logged why.
fn unavailable(_: StoreError) -> Unavailable {
    Unavailable
}
