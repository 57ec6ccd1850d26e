//! What the data plane asks of the control plane. In one process that is a function call, between many nodes a database.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::event::{EventKind, SecurityEvent};
use crate::id::{NodeId, SessionId};
use crate::ledger::{Lease, LeaseReport, LeaseRequest, Shortage, Spent, Standing};
use crate::permit::Rejection;
use crate::session::{Claim, Reconnection, SessionView};

/// A change to the directory of sessions, which each node keeps a copy of.
#[derive(Clone, Debug)]
pub enum DirectoryChange {
    /// All sessions there are; what is not listed is gone. First on every watch, and after a gap.
    Snapshot(Vec<SessionView>),
    /// A session is new or has changed. Applies only if its revision is newer than the one known.
    Upsert(SessionView),
    /// A session is gone. Applies only if its revision is newer than the one known.
    Remove(SessionId, u64),
}

/// The authority could not be asked. Callers fail closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session authority is unavailable")]
pub struct Unavailable;

/// A claim was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Decided against.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The network has tried too many tokens, at all nodes together; one more may be tried after this time.
    #[error("too many tokens")]
    TooOften(Duration),
    /// Not decided.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A lock was not moved to another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReconnectError {
    /// Decided against.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The address has tried, or the lock has moved, too often; one more passes after this time.
    #[error("too many reconnections")]
    TooOften(Duration),
    /// Not decided.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A lease was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Nothing is left to lease.
    #[error("no bytes left to lease")]
    Short(Shortage),
    /// There is no such session.
    #[error("unknown session")]
    UnknownSession,
    /// The lock that asks has ended; the directory tells what there is now.
    #[error("the lock does not stand")]
    NoLock,
    /// Not decided.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What the data plane asks.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// The directory: a snapshot, then changes, for ever.
    fn watch(&self) -> BoxStream<'static, DirectoryChange>;

    /// A token's use that may take or join a lock. Finds the session by the token, and answers its new view.
    async fn claim(&self, claim: Claim) -> Result<SessionView, ClaimError>;

    /// Moves a lock to another address, and answers the session's new view.
    async fn reconnect(&self, reconnection: Reconnection) -> Result<SessionView, ReconnectError>;

    /// Leases bytes; durable before it answers.
    async fn lease(&self, request: LeaseRequest) -> Result<Lease, LeaseError>;

    /// Reports what was used of leases. Repeating a report is harmless.
    async fn settle(&self, reports: Vec<LeaseReport>) -> Result<(), Unavailable>;

    /// Settles what a node that died has left open, by its own records. Doing it again changes nothing.
    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>) -> Result<(), Unavailable>;

    /// What a session's ledger says now.
    async fn standing(&self, session: SessionId) -> Result<Option<Standing>, Unavailable>;

    /// What the ledgers of many sessions say now, asked for together; those that are unknown are left out.
    async fn standings(&self, sessions: Vec<SessionId>) -> Result<Vec<(SessionId, Standing)>, Unavailable>;

    /// These sessions' renters were present just now.
    async fn present(&self, sessions: Vec<SessionId>) -> Result<(), Unavailable>;

    /// Puts events of the data plane into the audit trail.
    async fn record(&self, events: Vec<SecurityEvent>) -> Result<(), Unavailable>;

    /// An event of the data plane that gets no place in the trail, as there are too many of its kind: it is counted.
    fn count(&self, _kind: EventKind) {}
}
