//! A session and its life.
//!
//! ```text
//!           register                  first use by (token, address)
//!   none ─────────────▶ READY ─────────────────────────────────────▶ LOCKED
//!                         ▲                                             │ released · renter absent · operator
//!                         │ a new credential: the workspace is fresh    ▼
//!                         └───────────────────────────────────── RECYCLING
//!   any state: no provider heartbeat, or deregistered ─▶ REMOVED (its tokens die with it)
//! ```
//!
//! REMOVED is kept as a tombstone: the id stays its provider's, and the ledger under it stays what it was, so that
//! leaving and coming back resets no cap.
//!
//! Invariant: a workspace that a renter has touched is never READY again. The sign of a fresh workspace is a *new
//! upstream credential*, since each workspace has its own; the same credential again means the same workspace.

mod change;
mod view;

pub use change::{Change, Claim, Proof, Reconnection};
pub use view::{SessionView, base_path};

use std::time::Duration;

use crate::address::{LockMode, RenterAddress};
use crate::id::{KeyId, LockId, ProviderId, SessionId};
use crate::permit::Rejection;
use crate::secret::{Secret, SecretHash};
use crate::time::Timestamp;
use crate::upstream::UpstreamUrl;

/// How many unused tokens a session may have outstanding; the oldest goes when one more is issued.
pub const OUTSTANDING_TOKENS: usize = 64;

/// All that is kept about a session, its ledger apart.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its name, and the identity of its cap.
    pub id: SessionId,
    /// Who rents it out.
    pub provider: ProviderId,
    /// Hash of the secret that its agent proves itself with.
    pub provider_secret: SecretHash,
    /// The provider's key that it was last registered with, where one was presented.
    pub provider_key: Option<KeyId>,
    /// Where it is reached and how it presents itself.
    pub offer: Offer,
    /// Counted up with each change that the data plane must hear of.
    pub revision: u64,
    /// When it was first registered.
    pub registered_at: Timestamp,
    /// When its agent was last heard of.
    pub provider_seen_at: Timestamp,
    /// Bytes, both directions, that any 24 h may see.
    pub cap_bytes: u64,
    /// Where in its life it is.
    pub state: SessionState,
}

/// What a provider offers: the part of a session that registration sets and a new tunnel replaces.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The tunnel, or a listed host.
    pub upstream: UpstreamUrl,
    /// The credential that the upstream wants, sealed by control (AEAD); never kept in the clear.
    pub sealed_credential: Vec<u8>,
    /// What tells one credential from another without opening either.
    pub credential_hash: SecretHash,
    /// Hardware as JSON text, as the provider describes it.
    pub hardware: Option<String>,
    /// Price as JSON text, as the provider describes it.
    pub pricing: Option<String>,
}

/// Where a session is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Free; each of these tokens would take the lock.
    Ready {
        /// Hashes of tokens that were issued and not used, oldest first.
        tokens: Vec<SecretHash>,
    },
    /// Rented. Apart, since most sessions of a large table are free.
    Locked(Box<Lock>),
    /// Waiting for its agent to bring a fresh workspace.
    Recycling {
        /// Since when.
        since: Timestamp,
        /// How the lock ended.
        ending: Ending,
    },
    /// Gone; a tombstone.
    Removed {
        /// Since when.
        since: Timestamp,
        /// Whether the workspace was untouched then.
        clean: bool,
    },
}

/// How a lock ended, as far as its renter should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Given back: by the renter or in the renter's name, or the renter was absent.
    Released,
    /// An operator took it away.
    Cut,
}

/// Who holds a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The token that took it.
    pub token: SecretHash,
    /// The address that took it, or that its renter went on from.
    pub address: RenterAddress,
    /// The cookie of the browser that took it or joined it first; none for programs.
    pub cookie: Option<SecretHash>,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// When its renter was last present: a heartbeat, payload, or a WebSocket that answers.
    pub renter_seen_at: Timestamp,
}

impl Lock {
    /// Its name: a token takes one lock in its life.
    pub fn id(&self) -> LockId {
        LockId::of(self.token)
    }
}

/// A session's state without its data, as APIs and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionStatus {
    /// Free.
    Ready,
    /// Rented.
    Locked,
    /// Being made clean.
    Recycling,
    /// Gone.
    Removed,
}

impl SessionStatus {
    /// The word in the public interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Locked => "LOCKED",
            Self::Recycling => "RECYCLING",
            Self::Removed => "REMOVED",
        }
    }
}

/// A change that a session's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing of the kind is there, or no longer.
    #[error("the session is {}", .0.as_str())]
    WrongState(SessionStatus),
    /// The caller is not who the lock or the registration belongs to.
    #[error("not the caller's session")]
    NotYours,
    /// Leases of an earlier lock are open: a node that has not heard of its end may still spend them.
    #[error("bytes of the last lock are still leased")]
    StillLeased,
    /// The one who would be dropped was heard of in the meantime.
    #[error("still present")]
    StillPresent,
    /// The renter's token, cookie or address does not do.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl Session {
    /// A session registered for the first time.
    pub fn register(
        id: SessionId,
        provider: ProviderId,
        provider_secret: SecretHash,
        provider_key: Option<KeyId>,
        offer: Offer,
        cap_bytes: u64,
        now: Timestamp,
    ) -> Self {
        let state = SessionState::Ready { tokens: Vec::new() };
        Self {
            id,
            provider,
            provider_secret,
            provider_key,
            offer,
            revision: 1,
            registered_at: now,
            provider_seen_at: now,
            cap_bytes,
            state,
        }
    }

    /// The same agent registers its session again, after a restart or a silence.
    ///
    /// # Errors
    /// [`Refusal::NotYours`] if provider or secret are not the ones that it was registered with.
    pub fn register_again(
        &mut self,
        provider: &ProviderId,
        provider_secret: SecretHash,
        provider_key: Option<KeyId>,
        offer: Offer,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.provider != *provider || self.provider_secret != provider_secret {
            return Err(Refusal::NotYours);
        }
        let fresh = self.offer.credential_hash != offer.credential_hash;
        match self.state {
            SessionState::Removed { clean, .. } if clean || fresh => {
                self.state = SessionState::Ready { tokens: Vec::new() };
            }
            SessionState::Removed { .. } => {
                self.state = SessionState::Recycling { since: now, ending: Ending::Released };
            }
            SessionState::Recycling { .. } if fresh => self.state = SessionState::Ready { tokens: Vec::new() },
            SessionState::Ready { .. } | SessionState::Locked(_) | SessionState::Recycling { .. } => {}
        }
        self.provider_key = provider_key;
        self.offer = offer;
        self.provider_seen_at = now;
        self.revision += 1;
        Ok(())
    }

    /// Applies one change.
    ///
    /// # Errors
    /// A [`Refusal`], with the session unchanged.
    pub fn apply(&mut self, change: Change, now: Timestamp) -> Result<(), Refusal> {
        match change {
            Change::IssueToken(token) => self.issue_token(token)?,
            Change::Claim(claim, mode) => self.claim(claim, mode, now)?,
            Change::Release { token, address, mode } => {
                self.holder(token, address, mode)?;
                self.end_lock(Ending::Released, now)?;
            }
            Change::RenterHeartbeat { token, address, mode } => {
                let lock = self.holder(token, address, mode)?;
                lock.renter_seen_at = lock.renter_seen_at.max(now);
                return Ok(()); // nothing that the data plane must hear of
            }
            Change::Reconnect(reconnection) => self.reconnect(&reconnection, now)?,
            Change::RenterAbsent(limit) => self.renter_absent(limit, now)?,
            Change::ProviderSilent(limit) => {
                if now.since(self.provider_seen_at) < limit {
                    return Err(Refusal::StillPresent);
                }
                self.remove(now)?;
            }
            Change::KeyRevoked(key) => {
                if self.provider_key != Some(key) {
                    return Err(Refusal::StillPresent);
                }
                self.remove(now)?;
            }
            Change::ReleaseByOperator => self.end_lock(Ending::Released, now)?,
            Change::Cut => self.end_lock(Ending::Cut, now)?,
            Change::Refresh(offer) => self.refresh(offer, now)?,
            Change::Remove => self.remove(now)?,
        }
        self.revision += 1;
        Ok(())
    }

    /// The store was restored from a backup. Who has been here since is unknown: the lock ends, the tokens die, and the
    /// workspace counts as used.
    pub fn restored(&mut self, now: Timestamp) {
        let since = match self.state {
            SessionState::Removed { since, .. } => since,
            _ => now,
        };
        self.state = SessionState::Removed { since, clean: false };
        self.revision += 1;
    }

    /// The state without its data.
    pub const fn status(&self) -> SessionStatus {
        match self.state {
            SessionState::Ready { .. } => SessionStatus::Ready,
            SessionState::Locked(_) => SessionStatus::Locked,
            SessionState::Recycling { .. } => SessionStatus::Recycling,
            SessionState::Removed { .. } => SessionStatus::Removed,
        }
    }

    /// The lock, while there is one.
    pub fn lock(&self) -> Option<&Lock> {
        match &self.state {
            SessionState::Locked(lock) => Some(lock),
            _ => None,
        }
    }

    /// The cap that bytes may be leased under for a lock; none when that lock does not stand.
    pub fn cap_of(&self, lock: LockId) -> Option<u64> {
        self.lock().filter(|standing| standing.id() == lock).map(|_| self.cap_bytes)
    }

    /// The lock that was taken between `before` and now, if one was. No lease of an earlier one may be open then:
    /// [`Ledger::is_leased_for_another`](crate::ledger::Ledger::is_leased_for_another).
    pub fn lock_taken_since(&self, before: &Self) -> Option<LockId> {
        self.lock().filter(|_| before.lock().is_none()).map(Lock::id)
    }

    /// Gives back what its parts have room for and do not use: for tables of many sessions.
    pub fn shrink_to_fit(&mut self) {
        if let SessionState::Ready { tokens } = &mut self.state {
            tokens.shrink_to_fit();
        }
        let Offer { sealed_credential, hardware, pricing, .. } = &mut self.offer;
        sealed_credential.shrink_to_fit();
        [hardware, pricing].into_iter().flatten().for_each(String::shrink_to_fit);
    }

    /// How the last lock ended, until the workspace is fresh.
    pub const fn ending(&self) -> Option<Ending> {
        match self.state {
            SessionState::Recycling { ending, .. } => Some(ending),
            _ => None,
        }
    }

    /// The path that the session's Jupyter lives under: `/s/<id>/`.
    pub fn base_path(&self) -> String {
        base_path(self.id)
    }

    /// What the data plane is told of the session, with its upstream's credential opened.
    pub fn view(&self, credential: Secret) -> SessionView {
        SessionView {
            id: self.id,
            revision: self.revision,
            status: self.status(),
            ending: self.ending(),
            lock: self.lock().cloned().map(Box::new),
            upstream: self.offer.upstream.clone(),
            credential,
            cap_bytes: self.cap_bytes,
        }
    }

    fn issue_token(&mut self, token: SecretHash) -> Result<(), Refusal> {
        let SessionState::Ready { tokens } = &mut self.state else { return Err(self.wrong_state()) };
        if tokens.len() >= OUTSTANDING_TOKENS {
            tokens.remove(0);
        }
        tokens.push(token);
        Ok(())
    }

    fn claim(&mut self, claim: Claim, mode: LockMode, now: Timestamp) -> Result<(), Refusal> {
        if claim.session.is_some_and(|session| session != self.id) {
            return Err(Rejection::InvalidToken.into());
        }
        match &mut self.state {
            SessionState::Ready { tokens } if tokens.contains(&claim.token) => {
                self.state = SessionState::Locked(Box::new(Lock {
                    token: claim.token,
                    address: claim.address,
                    cookie: claim.cookie,
                    taken_at: now,
                    renter_seen_at: now,
                }));
                Ok(())
            }
            SessionState::Locked(lock) if lock.token == claim.token => {
                if !mode.admits(lock.address, claim.address) {
                    return Err(Rejection::AddressMismatch.into());
                }
                if claim.cookie.is_some() && lock.cookie.is_some() {
                    return Err(Rejection::AlreadyInUse.into());
                }
                lock.cookie = lock.cookie.or(claim.cookie);
                lock.renter_seen_at = lock.renter_seen_at.max(now);
                Ok(())
            }
            _ => Err(Rejection::InvalidToken.into()),
        }
    }

    fn holder(&mut self, token: SecretHash, address: RenterAddress, mode: LockMode) -> Result<&mut Lock, Refusal> {
        match &mut self.state {
            SessionState::Locked(lock) if lock.token == token => {
                if mode.admits(lock.address, address) {
                    Ok(lock)
                } else {
                    Err(Rejection::AddressMismatch.into())
                }
            }
            _ => Err(Rejection::InvalidToken.into()),
        }
    }

    /// Token, cookie, workspace and ledger stay; connections of the old address do not.
    fn reconnect(&mut self, reconnection: &Reconnection, now: Timestamp) -> Result<(), Refusal> {
        let SessionState::Locked(lock) = &mut self.state else { return Err(Rejection::InvalidToken.into()) };
        reconnection.check(lock)?;
        lock.address = reconnection.address;
        lock.renter_seen_at = lock.renter_seen_at.max(now);
        Ok(())
    }

    fn renter_absent(&mut self, limit: Duration, now: Timestamp) -> Result<(), Refusal> {
        let Some(lock) = self.lock() else { return Err(self.wrong_state()) };
        if now.since(lock.renter_seen_at) < limit {
            return Err(Refusal::StillPresent);
        }
        self.end_lock(Ending::Released, now)
    }

    fn end_lock(&mut self, ending: Ending, now: Timestamp) -> Result<(), Refusal> {
        let SessionState::Locked(_) = self.state else { return Err(self.wrong_state()) };
        self.state = SessionState::Recycling { since: now, ending };
        Ok(())
    }

    fn refresh(&mut self, offer: Offer, now: Timestamp) -> Result<(), Refusal> {
        let fresh = self.offer.credential_hash != offer.credential_hash;
        match self.state {
            SessionState::Removed { .. } => return Err(self.wrong_state()),
            SessionState::Recycling { .. } if fresh => self.state = SessionState::Ready { tokens: Vec::new() },
            _ => {}
        }
        self.offer = offer;
        self.provider_seen_at = self.provider_seen_at.max(now);
        Ok(())
    }

    fn remove(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let clean = match self.state {
            SessionState::Removed { .. } => return Err(self.wrong_state()),
            SessionState::Ready { .. } => true,
            SessionState::Locked(_) | SessionState::Recycling { .. } => false,
        };
        self.state = SessionState::Removed { since: now, clean };
        Ok(())
    }

    const fn wrong_state(&self) -> Refusal {
        Refusal::WrongState(self.status())
    }
}

#[cfg(test)]
mod tests;
