//! Connections to a session's provider that are open and idle, for the next request of that session.
//!
//! They belong to the session, so no other one ever meets them, and to the view that they were opened under: any change of
//! the session ends them. Nobody watches them; one that the provider has closed is found when it is wanted, or by the look
//! of the second after it has grown old.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use pingora::protocols::Stream;
use runit_core::SessionView;
use tokio::io::AsyncReadExt;

use crate::monotonic::{self, Millis};
use crate::peer::POOL_IDLE;

/// So many a session may have without connections of renters, which account for as many files.
const SPARE: usize = 2;

/// One of them.
pub(crate) struct Kept {
    provider: Stream,
    view: Arc<SessionView>,
    since: Millis,
}

/// Those of one session, the oldest first.
#[derive(Default)]
pub(crate) struct KeptConnections {
    kept: Mutex<Vec<Kept>>,
    /// How many there are, to be looked at without the lock. Relaxed: nothing is read by it.
    count: AtomicUsize,
}

impl Kept {
    /// A connection on which an answer has just ended.
    pub(crate) fn new(provider: Stream, view: Arc<SessionView>) -> Self {
        Self { provider, view, since: monotonic::coarse_now() }
    }

    fn is_stale(&self) -> bool {
        let idle = monotonic::coarse_now().saturating_sub(self.since);
        u128::from(idle) >= POOL_IDLE.as_millis()
    }

    /// Whether it is still what `view` says, and the provider has neither closed it nor said anything.
    fn does(&mut self, view: &Arc<SessionView>) -> bool {
        let mut unasked = [0];
        // Without tokio's budget, which would make a closed one look silent.
        let said = tokio::task::unconstrained(self.provider.read(&mut unasked)).now_or_never();
        Arc::ptr_eq(&self.view, view) && !self.is_stale() && said.is_none()
    }
}

impl KeptConnections {
    /// Takes the one that was used last, of those that still do.
    pub(crate) fn take(&self, view: &Arc<SessionView>) -> Option<Stream> {
        loop {
            let mut kept = self.change(Vec::pop)?;
            if kept.does(view) {
                return Some(kept.provider);
            }
        }
    }

    /// Keeps one more, for a session with so many connections of renters.
    pub(crate) fn keep(&self, kept: Kept, open: usize) {
        self.change(|all| all.push(kept));
        self.trim(open);
    }

    /// Drops what is more than a session with so many connections of renters may have.
    pub(crate) fn trim(&self, open: usize) {
        let most = open.max(SPARE);
        if self.count() > most {
            drop(self.change(|all| all.drain(..all.len().saturating_sub(most)).collect::<Vec<_>>()));
        }
    }

    /// Drops what has been idle for too long.
    pub(crate) fn forget_stale(&self) {
        if self.count() > 0 {
            drop(self.change(|all| all.extract_if(.., |kept| kept.is_stale()).collect::<Vec<_>>()));
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Kept>) -> T) -> T {
        // Whole values go in and out, so a panic elsewhere has not harmed the list.
        let mut all: MutexGuard<'_, Vec<Kept>> = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut all);
        self.count.store(all.len(), Ordering::Relaxed);
        outcome
    }
}

impl std::fmt::Debug for KeptConnections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeptConnections").field(&self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::testing::view;
    use pingora::protocols::l4::stream::Stream as Tcp;
    use runit_core::SessionId;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use uuid::Uuid;

    struct World {
        listener: TcpListener,
        view: Arc<SessionView>,
        kept: KeptConnections,
    }

    impl World {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let view = Arc::new(view(SessionId::from_uuid(Uuid::new_v4()), 1));
            Self { listener, view, kept: KeptConnections::default() }
        }

        /// One more, with the provider's end of it.
        async fn connect(&self) -> (Kept, TcpStream) {
            let ours = TcpStream::connect(self.listener.local_addr().expect("bound")).await.expect("it listens");
            let (theirs, _) = self.listener.accept().await.expect("a connection");
            (Kept::new(Box::new(Tcp::from(ours)), Arc::clone(&self.view)), theirs)
        }

        async fn keep(&self, open: usize) -> TcpStream {
            let (kept, theirs) = self.connect().await;
            self.kept.keep(kept, open);
            theirs
        }
    }

    #[tokio::test]
    async fn what_the_provider_has_closed_or_spoken_on_is_not_used_again() {
        let world = World::new().await;
        let (mut silent, _open) = world.connect().await;
        let (mut spoken_on, mut speaks) = world.connect().await;
        let (mut closed, closes) = world.connect().await;
        speaks.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("open");
        drop(closes);
        for used_up in [&mut spoken_on, &mut closed] {
            let noticed = async {
                while used_up.does(&world.view) {
                    tokio::task::yield_now().await
                }
            };
            tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the kernel tells");
        }
        assert!(silent.does(&world.view));
    }

    #[tokio::test]
    async fn what_was_opened_under_another_view_is_not_used() {
        let world = World::new().await;
        let _provider = world.keep(1).await;
        let changed = Arc::new(SessionView::clone(&world.view));
        assert!(world.kept.take(&changed).is_none());
        assert_eq!(world.kept.count(), 0);
    }

    #[tokio::test]
    async fn there_are_as_many_as_connections_of_renters_or_a_few() {
        let world = World::new().await;
        let mut ends = Vec::new();
        for _ in 0..5 {
            ends.push(world.keep(4).await);
        }
        assert_eq!(world.kept.count(), 4);
        world.kept.trim(3);
        assert_eq!(world.kept.count(), 3);
        world.kept.trim(0);
        assert_eq!(world.kept.count(), SPARE);
    }
}
