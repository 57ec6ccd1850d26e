//! What unit tests of this crate share: a session with counters in a file of its own.

use std::sync::Arc;

use runit_core::session::SessionStatus;
use runit_core::{NodeId, Secret, SessionId, SessionView, UpstreamPolicy, UpstreamUrl};
use runit_spent::SpentFile;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::counters::Counters;
use crate::live::LiveSession;

/// The view of a free session at one revision.
pub(crate) fn view(id: SessionId, revision: u64) -> SessionView {
    SessionView {
        id,
        revision,
        status: SessionStatus::Ready,
        ending: None,
        lock: None,
        upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).expect("valid"),
        credential: Secret::new("upstream"),
        cap_bytes: 1,
    }
}

/// A file of spent bytes, in a directory that lives as long as it is held.
pub(crate) fn spent_file() -> (tempfile::TempDir, Arc<SpentFile>) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = SpentFile::create(directory.path(), NodeId::from_uuid(Uuid::new_v4())).expect("created");
    (directory, file)
}

/// A session with counters of its own that nobody refills.
pub(crate) fn live_session(view: &SessionView) -> (tempfile::TempDir, Arc<LiveSession>) {
    let (directory, file) = spent_file();
    let (refills, _asked) = mpsc::unbounded_channel();
    (directory, Arc::new(LiveSession::new(view.clone(), Counters::new(file, view.id), refills)))
}
