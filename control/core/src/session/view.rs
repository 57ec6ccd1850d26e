//! A session as the data plane knows it.

use super::{Ending, Lock, SessionStatus};
use crate::id::SessionId;
use crate::label::HostLabel;
use crate::secret::Secret;
use crate::upstream::UpstreamUrl;

/// The path that a session's Jupyter lives under: `/s/<id>/`.
pub fn base_path(id: SessionId) -> String {
    format!("/s/{id}/")
}

/// What the data plane knows of a session: enough to decide on a request and to reach the upstream.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// The revision that this is a view of; an older view never replaces a newer one.
    pub revision: u64,
    /// The state without its data.
    pub status: SessionStatus,
    /// How the last lock ended, until the workspace is fresh.
    pub ending: Option<Ending>,
    /// The lock, while there is one.
    pub lock: Option<Box<Lock>>,
    /// Where it is reached.
    pub upstream: UpstreamUrl,
    /// The credential that the upstream wants, opened.
    pub credential: Secret,
    /// Bytes, both directions, that any 24 h may see.
    pub cap_bytes: u64,
}

impl SessionView {
    /// The label of the rental, while there is one.
    pub fn label(&self) -> Option<HostLabel> {
        self.lock.as_ref().map(|lock| HostLabel::of(lock.token))
    }
}
