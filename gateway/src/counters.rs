//! Where a session's budget counts: in the node's file, which a `kill -9` leaves behind, or in plain memory when the
//! file is full.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use runit_core::budget::{BudgetIn, Cells, OwnCells};
use runit_core::{LeaseId, SessionId};
use runit_spent::{Slot, SpentFile};

/// A budget of this node.
pub(crate) type NodeBudget = BudgetIn<Counters>;

/// The counters of one session. They are zero until its first lease, and move to the file before that is deposited: the
/// counters in memory can give nothing away meanwhile, since nothing is in them.
#[derive(Debug)]
pub(crate) struct Counters {
    file: Arc<SpentFile>,
    session: SessionId,
    /// Decided at the first lease: in the file, or nowhere that survives.
    slot: OnceLock<Option<Slot>>,
    lost: OwnCells,
}

impl Counters {
    /// Counters for `session`, which will be in the file if there is room.
    pub(crate) fn new(file: Arc<SpentFile>, session: SessionId) -> Self {
        Self { file, session, slot: OnceLock::new(), lost: OwnCells::default() }
    }

    /// The session holds no lease, and asks for `since` next.
    pub(crate) fn rebase(&self, since: LeaseId) {
        let slot = self.slot.get_or_init(|| {
            let slot = self.file.slot(self.session);
            if slot.is_none() {
                tracing::warn!(session = %self.session, "no room for its spent bytes: a crash will forfeit its leases");
            }
            slot
        });
        if let Some(slot) = slot {
            slot.rebase(since);
        }
    }

    fn slot(&self) -> Option<&Slot> {
        self.slot.get()?.as_ref()
    }
}

impl Cells for Counters {
    fn balance(&self) -> &AtomicU64 {
        self.slot().map_or_else(|| self.lost.balance(), Cells::balance)
    }

    fn spent_in(&self) -> &AtomicU64 {
        self.slot().map_or_else(|| self.lost.spent_in(), Cells::spent_in)
    }

    fn spent_out(&self) -> &AtomicU64 {
        self.slot().map_or_else(|| self.lost.spent_out(), Cells::spent_out)
    }
}
