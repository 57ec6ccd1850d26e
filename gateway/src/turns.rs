//! Requests that would ask the authority for the same thing at the same time take turns, so that one asks for all.
//!
//! A turn is one of a fixed number of locks, which one is decided by the token: two tokens rarely meet, and no token takes
//! memory of its own.

use runit_core::SecretHash;
use tokio::sync::{Mutex, MutexGuard};

/// One for each first byte of a token's hash.
const LOCKS: usize = 1 << u8::BITS;

/// The turns of a node.
pub(crate) struct Turns(Box<[Mutex<()>]>);

impl Turns {
    /// Nobody's turn yet.
    pub(crate) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    /// Waits until nobody else asks about `token`; without one there is nothing to wait for.
    pub(crate) async fn wait_for(&self, token: Option<&SecretHash>) -> Option<MutexGuard<'_, ()>> {
        let [first, ..] = token?.as_bytes();
        Some(self.0[usize::from(*first)].lock().await)
    }
}
