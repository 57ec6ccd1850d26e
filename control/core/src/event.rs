//! Security events: what goes into the audit trail, with names that alerts and operators can rely on.

use serde::{Deserialize, Serialize};

use crate::address::RenterAddress;
use crate::id::{ProviderId, SessionId};
use crate::time::Timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// A session was registered for the first time, or again after it was removed.
    NewProviderRegistered,
    /// A registration was refused: malformed, or for somebody else's session.
    InvalidProviderRegistration,
    /// A registration named a URL that is not allowed.
    SuspiciousProviderUrl,
    /// A renter took the lock.
    SessionLocked,
    /// The lock's token came from another browser.
    SessionAlreadyLocked,
    /// A token or cookie opened nothing.
    InvalidAccessAttempt,
    /// The lock's token or cookie came from another address.
    SessionHijackAttempt,
    /// The renter gave the session back.
    SessionReleased,
    /// The renter was absent for too long.
    SessionAutoUnlocked,
    /// An operator ended the lock.
    SessionCut,
    /// The session was deregistered, or its provider was silent for too long.
    SessionRemoved,
    /// Four fifths of the cap are used.
    #[serde(rename = "BANDWIDTH_80_PERCENT")]
    Bandwidth80Percent,
    /// All but a twentieth of the cap is used.
    #[serde(rename = "BANDWIDTH_95_PERCENT")]
    Bandwidth95Percent,
    /// The cap cut the session off.
    BandwidthExceeded,
    /// An address sent more requests than its limit.
    RateLimited,
}

impl EventKind {
    /// Every kind, for metrics that start at zero.
    pub const ALL: [Self; 15] = [
        Self::NewProviderRegistered,
        Self::InvalidProviderRegistration,
        Self::SuspiciousProviderUrl,
        Self::SessionLocked,
        Self::SessionAlreadyLocked,
        Self::InvalidAccessAttempt,
        Self::SessionHijackAttempt,
        Self::SessionReleased,
        Self::SessionAutoUnlocked,
        Self::SessionCut,
        Self::SessionRemoved,
        Self::Bandwidth80Percent,
        Self::Bandwidth95Percent,
        Self::BandwidthExceeded,
        Self::RateLimited,
    ];

    /// The name in logs, in the store and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewProviderRegistered => "NEW_PROVIDER_REGISTERED",
            Self::InvalidProviderRegistration => "INVALID_PROVIDER_REGISTRATION",
            Self::SuspiciousProviderUrl => "SUSPICIOUS_PROVIDER_URL",
            Self::SessionLocked => "SESSION_LOCKED",
            Self::SessionAlreadyLocked => "SESSION_ALREADY_LOCKED",
            Self::InvalidAccessAttempt => "INVALID_ACCESS_ATTEMPT",
            Self::SessionHijackAttempt => "SESSION_HIJACK_ATTEMPT",
            Self::SessionReleased => "SESSION_RELEASED",
            Self::SessionAutoUnlocked => "SESSION_AUTO_UNLOCKED",
            Self::SessionCut => "SESSION_CUT",
            Self::SessionRemoved => "SESSION_REMOVED",
            Self::Bandwidth80Percent => "BANDWIDTH_80_PERCENT",
            Self::Bandwidth95Percent => "BANDWIDTH_95_PERCENT",
            Self::BandwidthExceeded => "BANDWIDTH_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
        }
    }
}

/// One entry of the audit trail. It names ids and addresses, never a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Which session, where one is concerned.
    pub session: Option<SessionId>,
    /// Which provider, where one is concerned.
    pub provider: Option<ProviderId>,
    /// Where the request came from, where there was one.
    pub address: Option<RenterAddress>,
}

impl SecurityEvent {
    /// An event about nothing in particular yet.
    pub const fn new(kind: EventKind, at: Timestamp) -> Self {
        Self { at, kind, session: None, provider: None, address: None }
    }

    /// Names the session.
    #[must_use]
    pub const fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Names the provider.
    #[must_use]
    pub fn provider(mut self, provider: ProviderId) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Names the address.
    #[must_use]
    pub const fn address(mut self, address: RenterAddress) -> Self {
        self.address = Some(address);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_kinds_are_listed_once_under_their_own_name() {
        let names: HashSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        assert!(
            names.iter().all(|name| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        );
    }
}
