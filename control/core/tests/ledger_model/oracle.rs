//! Every byte with the time when it moved, and what a ledger has to say of them.

use std::collections::BTreeMap;

use runit_core::Timestamp;
use runit_core::ledger::{Ledger, WINDOW};
use runit_core::time::millis;

#[derive(Default)]
pub(crate) struct Oracle {
    moved: BTreeMap<Timestamp, u64>,
}

impl Oracle {
    pub(crate) fn moved(&mut self, bytes: u64, at: Timestamp) {
        if bytes > 0 {
            *self.moved.entry(at).or_default() += bytes;
        }
    }

    /// When the `n`th batch of bytes moved.
    pub(crate) fn moment(&self, n: usize) -> Option<Timestamp> {
        self.moved.keys().nth(n % self.moved.len().max(1)).copied()
    }

    pub(crate) fn moved_since(&self, since: Timestamp) -> u64 {
        self.moved.range(since..).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of the 24 h that end at `end`.
    pub(crate) fn moved_within_window(&self, end: Timestamp) -> u64 {
        self.moved_since(Timestamp::from_unix_ms(end.unix_ms().saturating_sub(millis(WINDOW))))
    }

    /// Were nothing to happen any more, then at each moment from `now` on the bytes of the window that ends there would
    /// have to be charged. That can only fail where a byte is about to leave its window, so these moments are looked at.
    pub(crate) fn check(&mut self, ledger: &Ledger, now: Timestamp) {
        self.moved.retain(|at, _| at.plus(2 * WINDOW) >= now);
        let moments = self.moved.keys().map(|at| at.plus(WINDOW)).filter(|&moment| moment > now);
        for moment in moments.chain([now]) {
            let moved = self.moved_within_window(moment);
            let mut then = ledger.clone();
            then.advance(moment);
            let charged = then.charged();
            assert!(charged >= moved, "{moved} bytes moved in the 24 h before {moment}, {charged} are charged");
        }
    }
}
