//! Where a session's budget counts: in the node's file, which a `kill -9` leaves behind, or in plain memory when the
//! file is full.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use runit_core::budget::{BudgetIn, Cells, OwnCells};
use runit_core::{LeaseId, SessionId};
use runit_spent::{Slot, SpentFile};

/// A budget of this node.
pub(crate) type NodeBudget = BudgetIn<Counters>;

/// The counters of one session.
#[derive(Debug)]
pub(crate) enum Counters {
    /// They outlive the process.
    Kept(Slot),
    /// They do not: a crash forfeits the session's open leases.
    Lost(OwnCells),
}

impl Counters {
    /// Counters for `session`, in the file if there is room.
    pub(crate) fn new(file: &Arc<SpentFile>, session: SessionId) -> Self {
        match file.slot(session) {
            Some(slot) => Self::Kept(slot),
            None => {
                tracing::warn!(%session, "no room in the file of spent bytes: a crash will forfeit its leases");
                Self::Lost(OwnCells::default())
            }
        }
    }

    /// The session holds no lease, and asks for `since` next.
    pub(crate) fn rebase(&self, since: LeaseId) {
        if let Self::Kept(slot) = self {
            slot.rebase(since);
        }
    }

    fn cells(&self) -> &dyn Cells {
        match self {
            Self::Kept(slot) => slot,
            Self::Lost(cells) => cells,
        }
    }
}

impl Cells for Counters {
    fn balance(&self) -> &AtomicU64 {
        self.cells().balance()
    }

    fn spent_in(&self) -> &AtomicU64 {
        self.cells().spent_in()
    }

    fn spent_out(&self) -> &AtomicU64 {
        self.cells().spent_out()
    }
}
