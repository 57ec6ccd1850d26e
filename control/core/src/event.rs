//! Security events: what goes into the audit trail, with names that alerts and operators can rely on.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::address::RenterAddress;
use crate::id::{KeyId, ProviderId, SessionId};
use crate::key::Operator;
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
    /// The renter went on from this address, with proof; the files and the ledger stayed.
    SessionReconnected,
    /// The address that the lock was at before, of the same moment.
    SessionAddressLeft,
    /// The renter gave the session back.
    SessionReleased,
    /// The renter was absent for too long.
    SessionAutoUnlocked,
    /// An operator took the session away from its renter.
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
    /// An operator's key that opens nothing, or not this.
    OperatorDenied,
    /// An operator made a key for an operator.
    OperatorKeyCreated,
    /// An operator revoked an operator's key.
    OperatorKeyRevoked,
    /// An operator made a key for a provider.
    ProviderKeyCreated,
    /// An operator revoked a provider's key.
    ProviderKeyRevoked,
    /// The store was restored from a backup: what happened after that backup is not in the trail.
    StoreRestored,
    /// The trail is not what this node wrote: somebody changed it, put an older one in its place, or changed the sealing key.
    TrailTampered,
}

impl EventKind {
    /// Every kind, for metrics that start at zero.
    pub const ALL: [Self; 24] = [
        Self::NewProviderRegistered,
        Self::InvalidProviderRegistration,
        Self::SuspiciousProviderUrl,
        Self::SessionLocked,
        Self::SessionAlreadyLocked,
        Self::InvalidAccessAttempt,
        Self::SessionHijackAttempt,
        Self::SessionReconnected,
        Self::SessionAddressLeft,
        Self::SessionReleased,
        Self::SessionAutoUnlocked,
        Self::SessionCut,
        Self::SessionRemoved,
        Self::Bandwidth80Percent,
        Self::Bandwidth95Percent,
        Self::BandwidthExceeded,
        Self::RateLimited,
        Self::OperatorDenied,
        Self::OperatorKeyCreated,
        Self::OperatorKeyRevoked,
        Self::ProviderKeyCreated,
        Self::ProviderKeyRevoked,
        Self::StoreRestored,
        Self::TrailTampered,
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
            Self::SessionReconnected => "SESSION_RECONNECTED",
            Self::SessionAddressLeft => "SESSION_ADDRESS_LEFT",
            Self::SessionReleased => "SESSION_RELEASED",
            Self::SessionAutoUnlocked => "SESSION_AUTO_UNLOCKED",
            Self::SessionCut => "SESSION_CUT",
            Self::SessionRemoved => "SESSION_REMOVED",
            Self::Bandwidth80Percent => "BANDWIDTH_80_PERCENT",
            Self::Bandwidth95Percent => "BANDWIDTH_95_PERCENT",
            Self::BandwidthExceeded => "BANDWIDTH_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
            Self::OperatorDenied => "OPERATOR_DENIED",
            Self::OperatorKeyCreated => "OPERATOR_KEY_CREATED",
            Self::OperatorKeyRevoked => "OPERATOR_KEY_REVOKED",
            Self::ProviderKeyCreated => "PROVIDER_KEY_CREATED",
            Self::ProviderKeyRevoked => "PROVIDER_KEY_REVOKED",
            Self::StoreRestored => "STORE_RESTORED",
            Self::TrailTampered => "TRAIL_TAMPERED",
        }
    }
}

/// A text that names no kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no kind of event")]
pub struct UnknownKind;

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
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
    /// Which operator did it, where one did.
    pub operator: Option<Operator>,
    /// Which key it is about, where it is about one.
    pub key: Option<KeyId>,
}

impl SecurityEvent {
    /// An event about nothing in particular yet.
    pub const fn new(kind: EventKind, at: Timestamp) -> Self {
        Self { at, kind, session: None, provider: None, address: None, operator: None, key: None }
    }

    /// Whom and what it is about, as text under their names in exports.
    pub fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let mut add = |name: &str, text: Option<String>| text.map(|text| details.insert(name.into(), text.into()));
        add("address", self.address.map(|address| address.to_string()));
        add("key", self.key.map(|key| key.to_string()));
        add("operator", self.operator.map(|operator| operator.to_string()));
        add("provider", self.provider.as_ref().map(ToString::to_string));
        add("session", self.session.map(|id| id.to_string()));
        details
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

    /// Names the operator.
    #[must_use]
    pub const fn operator(mut self, operator: Operator) -> Self {
        self.operator = Some(operator);
        self
    }

    /// Names the key.
    #[must_use]
    pub const fn key(mut self, key: KeyId) -> Self {
        self.key = Some(key);
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
