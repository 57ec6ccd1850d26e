//! Sessions and ledgers as JSON documents. The names here are what is on disk: they stay, whatever the types are called.
//!
//! Hashes are hexadecimal, ids are UUIDs, times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::net::IpAddr;

use runit_core::ledger::{Ledger, OpenLease, Settled, Usage};
use runit_core::session::{Ending, Lock, Offer, Session, SessionState, SessionStatus};
use runit_core::upstream::UpstreamUrl;
use runit_core::{KeyId, LeaseId, LockId, NodeId, RenterAddress, SecretHash, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use super::DbError;

/// What a session's row has beside its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionDocument {
    provider: String,
    provider_secret: Hex,
    upstream: String,
    credential_hash: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hardware: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pricing: Option<String>,
    revision: u64,
    registered_at: Timestamp,
    provider_seen_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<LockDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clean: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LockDocument {
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<Hex>,
    taken_at: Timestamp,
}

/// A session's columns beside its document.
pub(super) struct SessionRow {
    pub(super) id: SessionId,
    pub(super) status: String,
    pub(super) tokens: Vec<Vec<u8>>,
    pub(super) cap_bytes: u64,
    pub(super) sealed_credential: Vec<u8>,
    pub(super) provider_seen_at: Option<Timestamp>,
    pub(super) renter_seen_at: Option<Timestamp>,
}

impl SessionDocument {
    pub(super) fn of(session: &Session) -> Self {
        let Session {
            id: _,
            provider,
            provider_secret,
            provider_key,
            offer,
            revision,
            registered_at,
            provider_seen_at,
            cap_bytes: _,
            state,
        } = session;
        let Offer { upstream, sealed_credential: _, credential_hash, hardware, pricing } = offer;
        let (lock, since, cut, clean) = match state {
            SessionState::Ready { tokens: _ } => (None, None, false, None),
            SessionState::Locked(lock) => {
                let Lock { token: _, address, cookie, taken_at, renter_seen_at: _ } = &**lock;
                let lock = LockDocument { address: address.ip(), cookie: cookie.map(Hex), taken_at: *taken_at };
                (Some(lock), None, false, None)
            }
            SessionState::Recycling { since, ending } => (None, Some(*since), *ending == Ending::Cut, None),
            SessionState::Removed { since, clean } => (None, Some(*since), false, Some(*clean)),
        };
        Self {
            provider: provider.as_str().to_owned(),
            provider_secret: Hex(*provider_secret),
            upstream: upstream.to_string(),
            credential_hash: Hex(*credential_hash),
            hardware: hardware.clone(),
            pricing: pricing.clone(),
            revision: *revision,
            registered_at: *registered_at,
            provider_seen_at: *provider_seen_at,
            provider_key: *provider_key,
            lock,
            since,
            cut,
            clean,
        }
    }

    pub(super) fn into_session(self, row: SessionRow) -> Result<Session, DbError> {
        let state = self.state(&row)?;
        let offer = Offer {
            upstream: UpstreamUrl::read_back(&self.upstream).map_err(|_| DbError::Damaged("an upstream URL"))?,
            sealed_credential: row.sealed_credential,
            credential_hash: self.credential_hash.0,
            hardware: self.hardware,
            pricing: self.pricing,
        };
        Ok(Session {
            id: row.id,
            provider: self.provider.parse().map_err(|_| DbError::Damaged("a provider's name"))?,
            provider_secret: self.provider_secret.0,
            provider_key: self.provider_key,
            offer,
            revision: self.revision,
            registered_at: self.registered_at,
            provider_seen_at: row
                .provider_seen_at
                .map_or(self.provider_seen_at, |seen| seen.max(self.provider_seen_at)),
            cap_bytes: row.cap_bytes,
            state,
        })
    }

    fn state(&self, row: &SessionRow) -> Result<SessionState, DbError> {
        let mut tokens = row.tokens.iter().map(|token| hash(token));
        let since = self.since.ok_or(DbError::Damaged("a state without its time"));
        Ok(match row.status.as_str() {
            status if status == SessionStatus::Ready.as_str() => {
                SessionState::Ready { tokens: tokens.collect::<Result<_, _>>()? }
            }
            status if status == SessionStatus::Locked.as_str() => {
                let lock = self.lock.as_ref().ok_or(DbError::Damaged("a lock that is missing"))?;
                SessionState::Locked(Box::new(Lock {
                    token: tokens.next().ok_or(DbError::Damaged("a lock without a token"))??,
                    address: RenterAddress::new(lock.address),
                    cookie: lock.cookie.map(|cookie| cookie.0),
                    taken_at: lock.taken_at,
                    renter_seen_at: row.renter_seen_at.map_or(lock.taken_at, |seen| seen.max(lock.taken_at)),
                }))
            }
            status if status == SessionStatus::Recycling.as_str() => {
                let ending = if self.cut { Ending::Cut } else { Ending::Released };
                SessionState::Recycling { since: since?, ending }
            }
            status if status == SessionStatus::Removed.as_str() => {
                SessionState::Removed { since: since?, clean: self.clean.unwrap_or_default() }
            }
            _ => return Err(DbError::Damaged("a status")),
        })
    }
}

/// The tokens that a session's state names, as the column has them.
pub(super) fn tokens_of(session: &Session) -> Vec<&[u8]> {
    let tokens = match &session.state {
        SessionState::Ready { tokens } => tokens.as_slice(),
        SessionState::Locked(lock) => std::slice::from_ref(&lock.token),
        SessionState::Recycling { .. } | SessionState::Removed { .. } => &[],
    };
    tokens.iter().map(|token| token.as_bytes().as_slice()).collect()
}

/// A lease that is not settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseDocument {
    id: LeaseId,
    node: NodeId,
    lock: LockId,
    granted: u64,
    #[serde(rename = "in")]
    bytes_in: u64,
    #[serde(rename = "out")]
    bytes_out: u64,
    sequence: u64,
    expires_at: Timestamp,
}

/// What was settled of a node's leases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SettledDocument {
    node: NodeId,
    since: LeaseId,
    #[serde(rename = "in")]
    bytes_in: u64,
    #[serde(rename = "out")]
    bytes_out: u64,
}

/// Closed usage: bucket, bytes in, bytes out, forfeited.
type BucketDocument = (u64, u64, u64, u64);

pub(super) fn open_leases(ledger: &Ledger) -> Vec<LeaseDocument> {
    let document = |lease: &OpenLease| LeaseDocument {
        id: lease.id,
        node: lease.node,
        lock: lease.lock,
        granted: lease.granted,
        bytes_in: lease.used.bytes_in,
        bytes_out: lease.used.bytes_out,
        sequence: lease.sequence,
        expires_at: lease.expires_at,
    };
    ledger.open.iter().map(document).collect()
}

pub(super) fn settled(ledger: &Ledger) -> Vec<SettledDocument> {
    let document = |(&node, settled): (&NodeId, &Settled)| SettledDocument {
        node,
        since: settled.since,
        bytes_in: settled.bytes_in,
        bytes_out: settled.bytes_out,
    };
    ledger.settled.iter().map(document).collect()
}

pub(super) fn closed(ledger: &Ledger) -> Vec<BucketDocument> {
    let document = |(&bucket, usage): (&u64, &Usage)| (bucket, usage.bytes_in, usage.bytes_out, usage.forfeited);
    ledger.closed.iter().map(document).collect()
}

pub(super) fn total(ledger: &Ledger) -> (u64, u64, u64) {
    (ledger.total.bytes_in, ledger.total.bytes_out, ledger.total.forfeited)
}

pub(super) fn ledger(
    latest: Timestamp,
    (total_in, total_out, total_forfeited): (u64, u64, u64),
    open: Vec<LeaseDocument>,
    settled: Vec<SettledDocument>,
    closed: Vec<BucketDocument>,
) -> Ledger {
    let usage = |bytes_in, bytes_out, forfeited| Usage { bytes_in, bytes_out, forfeited };
    let open = open.into_iter().map(|lease| OpenLease {
        id: lease.id,
        node: lease.node,
        lock: lease.lock,
        granted: lease.granted,
        used: usage(lease.bytes_in, lease.bytes_out, 0),
        sequence: lease.sequence,
        expires_at: lease.expires_at,
    });
    let settled = settled
        .into_iter()
        .map(|one| (one.node, Settled { since: one.since, bytes_in: one.bytes_in, bytes_out: one.bytes_out }));
    let closed = closed
        .into_iter()
        .map(|(bucket, bytes_in, bytes_out, forfeited)| (bucket, usage(bytes_in, bytes_out, forfeited)));
    Ledger {
        closed: closed.collect(),
        open: open.collect(),
        settled: settled.collect(),
        latest,
        total: usage(total_in, total_out, total_forfeited),
        bookings: BTreeMap::new(),
    }
}

/// A hash as hexadecimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hex(SecretHash);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |at: usize| text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let mut bytes = [0; 32];
        for (at, place) in bytes.iter_mut().enumerate() {
            *place = byte(at).ok_or_else(|| serde::de::Error::custom("not a hash"))?;
        }
        Ok(Self(SecretHash::from_bytes(bytes)))
    }
}

pub(super) fn hash(bytes: &[u8]) -> Result<SecretHash, DbError> {
    bytes.try_into().map(SecretHash::from_bytes).map_err(|_| DbError::Damaged("a hash"))
}
