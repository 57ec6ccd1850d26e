//! What the tests share: servers that stand in for Jupyter and control, and waiting for a condition.

pub(crate) mod agent;
pub(crate) mod cloudflared;
pub(crate) mod jupyter;
pub(crate) mod private_engine;
pub(crate) mod server;
pub(crate) mod world;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks `condition` until it answers, at most `limit` long; then fails with what `state` shows.
pub(crate) async fn eventually<T, S: Debug>(
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
    state: impl Fn() -> S,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}; last state: {:#?}", state());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
