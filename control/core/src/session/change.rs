//! What happens to a session, as a store is told it.

use std::time::Duration;

use super::{Lock, Offer};
use crate::address::{LockMode, RenterAddress};
use crate::id::{KeyId, SessionId};
use crate::permit::Rejection;
use crate::secret::{AccessToken, Secret, SecretHash};

/// A renter's attempt to take a session, or a browser's to join the lock that its renter's program took.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The token presented.
    pub token: SecretHash,
    /// The session that it was presented to; none for the hand-over link, which is for whichever the token opens.
    pub session: Option<SessionId>,
    /// Where from.
    pub address: RenterAddress,
    /// The cookie that the gateway would set, for browsers.
    pub cookie: Option<SecretHash>,
}

/// The renter goes on from another address than the lock's.
///
/// The token alone does not do, for it stands in a link that others may have seen: it would make the address worth
/// nothing. What does is something that never was in a link.
#[derive(Clone, Debug)]
pub struct Reconnection {
    /// The token of the lock.
    pub token: SecretHash,
    /// What proves that it is the renter.
    pub proof: Proof,
    /// Where from.
    pub address: RenterAddress,
}

/// What only the renter has.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The cookie of the browser that holds the lock.
    Cookie(SecretHash),
    /// The secret that came with the token, which [`AccessToken::behind`] makes the token of.
    Secret(Secret),
}

impl Reconnection {
    /// # Errors
    /// The [`Rejection`] of who does not hold the lock, or has the token alone.
    pub fn check(&self, lock: &Lock) -> Result<(), Rejection> {
        if lock.token != self.token {
            return Err(Rejection::InvalidToken);
        }
        let holds = match &self.proof {
            Proof::Cookie(cookie) => lock.cookie == Some(*cookie),
            Proof::Secret(secret) => AccessToken::behind(secret).hash() == lock.token,
        };
        if holds { Ok(()) } else { Err(Rejection::AddressMismatch) }
    }
}

/// One thing that happens to a session; a store applies it and keeps the outcome in one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    /// A token was issued to somebody who asked for one.
    IssueToken(SecretHash),
    /// A renter's first use.
    Claim(Claim, LockMode),
    /// The renter gives the session back.
    Release {
        /// The token of the lock.
        token: SecretHash,
        /// Where the request comes from.
        address: RenterAddress,
        /// How strictly the address is compared.
        mode: LockMode,
    },
    /// The renter's page says that somebody is there.
    RenterHeartbeat {
        /// The token of the lock.
        token: SecretHash,
        /// Where the request comes from.
        address: RenterAddress,
        /// How strictly the address is compared.
        mode: LockMode,
    },
    /// The renter goes on from another address.
    Reconnect(Reconnection),
    /// An operator gives the session back in the renter's name.
    ReleaseByOperator,
    /// The sweeper asks whether the renter has been gone for so long.
    RenterAbsent(Duration),
    /// The sweeper asks whether the provider has been silent for so long.
    ProviderSilent(Duration),
    /// This key is revoked.
    KeyRevoked(KeyId),
    /// An operator takes the session away from its renter.
    Cut,
    /// The agent reports a new URL, a fresh workspace, or both.
    Refresh(Offer),
    /// The provider deregisters.
    Remove,
}
