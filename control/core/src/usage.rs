//! Usage records: what each lock has used, for bills. One record a lock, and every byte that the ledger books is in one.
//!
//! A lease is of the lock that it was asked for, and a node spends nothing of it for another one. So bytes belong to the
//! lock under whose connections they moved, however late they are booked: by a report after the release, by the lease's
//! expiry (as forfeited), or by the recovery of a node that died.
//!
//! Records that nobody needs one by one any more are deleted, and what they add up to is carried on.
//!
//! Invariant: the sum of a session's records and of what is carried is its ledger's total
//! ([`Ledger::total`](crate::ledger::Ledger)).

use std::collections::BTreeMap;

use crate::id::{LockId, ProviderId, SessionId};
use crate::ledger::{OpenLease, Usage};
use crate::session::Session;
use crate::time::Timestamp;

/// What one lock has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// The lock, and what makes a bill idempotent.
    pub lock: LockId,
    /// Of which session.
    pub session: SessionId,
    /// Who rented it out.
    pub provider: ProviderId,
    /// The price as JSON text, as it was offered when the lock was taken.
    pub pricing: Option<String>,
    /// When the lock was taken.
    pub started_at: Timestamp,
    /// When it ended; none while it stands.
    pub ended_at: Option<Timestamp>,
    /// What was booked.
    pub used: Usage,
    /// Nothing will be added any more: the lock has ended, and none of its leases is open.
    pub is_final: bool,
}

impl UsageRecord {
    /// For how long the lock has stood, in whole seconds, begun ones counted.
    pub fn seconds(&self, now: Timestamp) -> u64 {
        self.ended_at.unwrap_or(now).since(self.started_at).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }
}

/// What deleted records of one session add up to. There is one for each provider and registration of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedUsage {
    /// Of which session.
    pub session: SessionId,
    /// Who rented it out.
    pub provider: ProviderId,
    /// When the session was registered; 1970 if it was forgotten before its records were deleted.
    pub registered_at: Timestamp,
    /// How many records.
    pub records: u64,
    /// Their seconds ([`UsageRecord::seconds`]).
    pub seconds: u64,
    /// When the first lock was taken.
    pub started_at: Timestamp,
    /// When the last lock ended.
    pub ended_at: Timestamp,
    /// What was booked.
    pub used: Usage,
}

/// Which records are asked for; what is not named does not matter.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this provider's sessions.
    pub provider: Option<ProviderId>,
    /// Of locks that ended then or later.
    pub ended_since: Option<Timestamp>,
    /// Of locks that ended before then.
    pub ended_before: Option<Timestamp>,
}

/// What a change to a session does to its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// A lock was taken: its record begins.
    Began(UsageRecord),
    /// A lock ended then.
    Ended(UsageRecord),
}

/// What becomes of the records when a session changes.
pub fn record_change(before: &Session, after: &Session, now: Timestamp) -> Option<RecordChange> {
    let lock = |session: &Session| session.lock().map(|lock| (lock.id(), lock.taken_at));
    match (lock(before), lock(after)) {
        (None, Some((lock, taken_at))) => Some(RecordChange::Began(record(after, lock, taken_at, None))),
        (Some((lock, taken_at)), None) => {
            // The offer of before: a change may have brought another one.
            Some(RecordChange::Ended(record(before, lock, taken_at, Some(now.max(taken_at)))))
        }
        _ => None,
    }
}

fn record(session: &Session, lock: LockId, started_at: Timestamp, ended_at: Option<Timestamp>) -> UsageRecord {
    UsageRecord {
        lock,
        session: session.id,
        provider: session.provider.clone(),
        pricing: session.offer.pricing.clone(),
        started_at,
        ended_at,
        used: Usage::default(),
        is_final: false,
    }
}

/// Shares out among locks what a node that died is charged for its leases.
///
/// A node holds leases of one lock only, the last one that it asked for; of an earlier one the ledger can know a lease whose
/// grant the node never heard of, and never spent. So each lock gets what was reported of its leases, and the last one
/// the rest, as far as its leases go.
pub(crate) fn share_out(charge: Usage, leases: &[OpenLease]) -> BTreeMap<LockId, Usage> {
    let mut shares: BTreeMap<LockId, Usage> = BTreeMap::new();
    let mut rest = charge;
    let mut give = |lock: LockId, share: Usage| {
        let given = shares.entry(lock).or_default();
        *given = given.plus(&share);
    };
    for lease in leases {
        give(lease.lock, take(&mut rest, lease.used, u64::MAX));
    }
    for lease in leases.iter().rev() {
        let room = lease.granted.saturating_sub(lease.used.total());
        let all = rest;
        give(lease.lock, take(&mut rest, all, room));
    }
    if let Some(last) = leases.last() {
        give(last.lock, rest);
    }
    shares
}

/// Takes of each part what `most` says, and `room` bytes at the most.
fn take(rest: &mut Usage, most: Usage, mut room: u64) -> Usage {
    let mut clip = |rest: &mut u64, most: u64| {
        let taken = most.min(*rest).min(room);
        *rest -= taken;
        room -= taken;
        taken
    };
    Usage {
        bytes_in: clip(&mut rest.bytes_in, most.bytes_in),
        bytes_out: clip(&mut rest.bytes_out, most.bytes_out),
        forfeited: clip(&mut rest.forfeited, most.forfeited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LeaseId, NodeId};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn lease(lock: u128, granted: u64, used: (u64, u64)) -> OpenLease {
        OpenLease {
            id: LeaseId::from_uuid(Uuid::nil()),
            node: NodeId::from_uuid(Uuid::nil()),
            lock: self::lock(lock),
            granted,
            used: usage(used.0, used.1, 0),
            sequence: 0,
            expires_at: Timestamp::default(),
        }
    }

    fn lock(number: u128) -> LockId {
        LockId::from_uuid(Uuid::from_u128(number))
    }

    fn usage(bytes_in: u64, bytes_out: u64, forfeited: u64) -> Usage {
        Usage { bytes_in, bytes_out, forfeited }
    }

    #[test]
    fn what_a_dead_node_spent_is_of_its_last_lock_and_not_of_one_whose_grant_it_never_heard_of() {
        let leases = [lease(1, 1_000, (0, 0)), lease(2, 500, (10, 20)), lease(2, 500, (0, 0))];
        let shares = share_out(usage(300, 500, 64), &leases);
        assert_eq!(shares[&lock(2)], usage(300, 500, 64));
        assert_eq!(shares[&lock(1)], Usage::default());
    }

    #[test]
    fn each_lock_has_what_was_reported_of_it_and_the_rest_goes_back_to_front_as_far_as_leases_go() {
        let leases = [lease(1, 100, (7, 3)), lease(2, 50, (10, 20)), lease(3, 30, (0, 5))];
        let shares = share_out(usage(20, 40, 30), &leases);
        // Of the rest (3, 12, 30) the last lock takes 25 bytes, the one before it 20: its room.
        assert_eq!(shares[&lock(3)], usage(3, 17, 10));
        assert_eq!(shares[&lock(2)], usage(10, 20, 20));
        assert_eq!(shares[&lock(1)], usage(7, 3, 0));
        let beyond = share_out(usage(20, 40, 1_000), &leases);
        assert_eq!(beyond[&lock(1)], usage(7, 3, 90));
        assert_eq!(beyond[&lock(3)].forfeited, 10 + 880, "beyond all leases");
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_charge(
            leases in prop::collection::vec((0..3u128, 0..100u64, 0..60u64, 0..60u64), 1..5),
            charge in (0..400u64, 0..400u64, 0..400u64),
        ) {
            let leases: Vec<_> = leases.iter().map(|&(lock, granted, i, o)| lease(lock, granted, (i, o))).collect();
            let charge = usage(charge.0, charge.1, charge.2);
            let shares = share_out(charge, &leases);
            prop_assert_eq!(shares.values().fold(Usage::default(), |sum, share| sum.plus(share)), charge);
        }
    }
}
