//! The durable ledger of one session: how many bytes it has used in 24 h, and how many a node may still lease.
//!
//! Escrow as in telecom charging (RFC 8506): reserve before use, return what is unused, expire. The rules, and nothing
//! else; a store loads a [`Ledger`], calls one of these methods, and keeps the outcome in the same transaction.
//!
//! Invariant: `charged <= cap` after every grant, where *charged* is every open lease in full plus every closed
//! bucket whose **end** is less than 24 h ago. Bytes are booked into the bucket of *now* when a lease closes, so never
//! earlier than they moved, and a bucket's bytes come free only when its last moment is a whole day old: no window of
//! 24 h, wherever it starts, can hold more than the cap.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{LeaseId, LockId, NodeId, SessionId};
use crate::time::{Timestamp, millis};
use crate::usage::share_out;

/// Length of a bucket of closed usage.
pub const BUCKET: Duration = Duration::from_secs(5 * 60);
/// Length of the window that the cap holds for.
pub const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a renter, by direction, and those that were charged without being known to have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the renter.
    pub bytes_in: u64,
    /// To the renter.
    pub bytes_out: u64,
    /// Of leases that expired unsettled: charged in full, since they may have been spent.
    pub forfeited: u64,
}

impl Usage {
    /// Bytes that are known to have moved.
    pub const fn moved(&self) -> u64 {
        self.bytes_in.saturating_add(self.bytes_out)
    }

    /// Bytes charged.
    pub const fn total(&self) -> u64 {
        self.moved().saturating_add(self.forfeited)
    }

    /// Sum, saturating.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            forfeited: self.forfeited.saturating_add(other.forfeited),
        }
    }
}

/// How large leases are and how long they last.
#[derive(Clone, Copy, Debug)]
pub struct LeasePolicy {
    /// Smallest lease, bytes, where the cap leaves as much.
    pub min_bytes: u64,
    /// Largest lease, bytes; below 2^31.
    pub max_bytes: u64,
    /// How long a lease lasts.
    pub ttl: Duration,
}

/// A node asks for bytes.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// Name of the new lease; asking again with the same name answers the same lease.
    pub lease: LeaseId,
    /// Who asks.
    pub node: NodeId,
    /// For which session.
    pub session: SessionId,
    /// For which of its locks: bytes of this lease are spent for no other.
    pub lock: LockId,
    /// How many bytes would be good to have.
    pub want: u64,
}

/// Bytes that a node may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How many bytes.
    pub granted: u64,
    /// How long, counted from when the node asked.
    pub ttl: Duration,
}

/// No bytes can be leased now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The cap is used up; the next bytes come free then.
    CapReached {
        /// When the oldest counted bucket leaves the window.
        free_at: Timestamp,
    },
    /// What is left is leased, and may be given back soon.
    Leased,
}

/// What a node says of one of its leases. Cumulative: saying it again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// The lease.
    pub lease: LeaseId,
    /// The session that it is of.
    pub session: SessionId,
    /// Counts this lease's reports up; an older one changes nothing.
    pub sequence: u64,
    /// From the renter, bytes since the lease began.
    pub bytes_in: u64,
    /// To the renter, bytes since the lease began.
    pub bytes_out: u64,
    /// The node will spend nothing of it any more.
    pub closing: bool,
}

/// What a node that died had spent, as it left it behind; see [`Ledger::recover`].
///
/// All of it counts from when the node last held no lease of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The first lease that it held since then.
    pub since: LeaseId,
    /// From the renter, bytes.
    pub bytes_in: u64,
    /// To the renter, bytes.
    pub bytes_out: u64,
    /// Bytes that polls held reserved: they may have moved.
    pub reserved: u64,
}

/// What was settled of a node's leases since it last had no open one: the part of [`Spent`] that is booked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The first lease that was granted since then.
    pub since: LeaseId,
    /// From the renter, bytes.
    pub bytes_in: u64,
    /// To the renter, bytes.
    pub bytes_out: u64,
}

/// A lease that is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLease {
    /// Its name.
    pub id: LeaseId,
    /// Who holds it.
    pub node: NodeId,
    /// The lock that it was asked for.
    pub lock: LockId,
    /// How many bytes it is of: the charge while it is open.
    pub granted: u64,
    /// What its node has reported so far.
    pub used: Usage,
    /// The report that `used` is from.
    pub sequence: u64,
    /// When it is charged in full without further question.
    pub expires_at: Timestamp,
}

impl OpenLease {
    /// What counts against the cap while it is open: all of it.
    fn charge(&self) -> u64 {
        self.granted.max(self.used.total())
    }
}

/// The renter's view of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Bytes in the window that are known to have moved, by direction, and those forfeited.
    pub used: Usage,
    /// Bytes of open leases that are not reported as used.
    pub reserved: u64,
    /// Bytes that any 24 h may see.
    pub cap: u64,
    /// Cap less used, as far as is known now; reserved bytes may still be spent or come back.
    pub remaining: u64,
    /// When the oldest counted bytes come free; none when nothing is counted.
    pub next_free_at: Option<Timestamp>,
}

/// Usage and leases of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Closed usage by bucket number: milliseconds since the epoch, divided by [`BUCKET`].
    pub closed: BTreeMap<u64, Usage>,
    /// Leases that are not settled, oldest first.
    pub open: Vec<OpenLease>,
    /// For each node that has open leases, what was settled of its others.
    pub settled: BTreeMap<NodeId, Settled>,
    /// The latest time that was seen: a clock that steps back frees nothing.
    pub latest: Timestamp,
    /// All that was ever booked.
    pub total: Usage,
    /// What was booked since this was loaded, by lock: a store adds it to the usage records.
    pub bookings: BTreeMap<LockId, Usage>,
}

impl Ledger {
    /// Grants what the cap leaves, at most what the policy gives.
    ///
    /// # Errors
    /// A [`Shortage`] when not a single byte can be leased.
    pub fn grant(
        &mut self,
        request: &LeaseRequest,
        cap: u64,
        policy: &LeasePolicy,
        now: Timestamp,
    ) -> Result<Lease, Shortage> {
        let now = self.settle_time(now);
        if let Some(lease) = self.open.iter().find(|lease| lease.id == request.lease) {
            return Ok(Lease { id: lease.id, granted: lease.granted, ttl: lease.expires_at.since(now) });
        }
        let remaining = cap.saturating_sub(self.charged());
        if remaining == 0 {
            return Err(self.shortage(cap));
        }
        let granted = lease_size(request.want, remaining, policy);
        let expires_at = now.plus(policy.ttl);
        self.settled.entry(request.node).or_insert(Settled { since: request.lease, bytes_in: 0, bytes_out: 0 });
        let lease = OpenLease {
            id: request.lease,
            node: request.node,
            lock: request.lock,
            granted,
            used: Usage::default(),
            sequence: 0,
            expires_at,
        };
        self.open.push(lease);
        Ok(Lease { id: request.lease, granted, ttl: policy.ttl })
    }

    /// Takes a node's word for what it used of a lease; a closing report books it and returns the rest.
    ///
    /// A report for a lease that is not open (settled or expired) changes nothing: it is charged already. Usage
    /// beyond the grant cannot happen with an honest node; were it reported, it would be booked as it is.
    pub fn report(&mut self, report: &LeaseReport, now: Timestamp) {
        let now = self.settle_time(now);
        let Some(at) = self.open.iter().position(|lease| lease.id == report.lease) else { return };
        let lease = &mut self.open[at];
        if report.sequence > lease.sequence {
            lease.sequence = report.sequence;
            lease.used.bytes_in = lease.used.bytes_in.max(report.bytes_in);
            lease.used.bytes_out = lease.used.bytes_out.max(report.bytes_out);
        }
        if report.closing {
            let lease = self.open.remove(at);
            self.close(&lease, lease.used, now);
            self.forget_settled();
        }
    }

    /// Settles the leases of a node that died: charges what it had spent and not settled, and returns the rest.
    ///
    /// Charged are at least the bytes that moved, unless expired leases cover them, and at most what was granted.
    /// Reserved bytes count as forfeited. What was settled is set against `spent` only if both count from the same lease:
    /// a grant whose answer was lost keeps an entry here that the node has begun anew, and bytes would be missed. Doing
    /// it again changes nothing, as no lease is open any more.
    pub fn recover(&mut self, node: NodeId, spent: &Spent, now: Timestamp) {
        let now = self.settle_time(now);
        let (leases, open) = std::mem::take(&mut self.open).into_iter().partition(|lease| lease.node == node);
        self.open = open;
        let leases: Vec<OpenLease> = leases;
        let settled = self.settled.remove(&node).filter(|settled| settled.since == spent.since);
        let (settled_in, settled_out) = settled.map_or((0, 0), |settled| (settled.bytes_in, settled.bytes_out));
        let reported = leases.iter().fold(Usage::default(), |sum, lease| sum.plus(&lease.used));
        let mut room = leases.iter().map(OpenLease::charge).fold(0, u64::saturating_add);
        let mut clip = |bytes: u64| {
            let clipped = bytes.min(room);
            room -= clipped;
            clipped
        };
        // Into one bucket, so which lease the bytes were of matters to the locks only.
        let bytes_in = clip(spent.bytes_in.saturating_sub(settled_in).max(reported.bytes_in));
        let bytes_out = clip(spent.bytes_out.saturating_sub(settled_out).max(reported.bytes_out));
        let charge = Usage { bytes_in, bytes_out, forfeited: clip(spent.reserved) };
        for (lock, share) in share_out(charge, &leases) {
            self.book(lock, share, now);
        }
    }

    /// Brings the ledger to `now`: leases past their time are charged in full, buckets out of the window are dropped.
    pub fn advance(&mut self, now: Timestamp) {
        self.settle_time(now);
    }

    /// Whether a lease of another lock than this is open, as of the time that the ledger was last brought to.
    pub fn is_leased_for_another(&self, lock: LockId) -> bool {
        self.open.iter().any(|lease| lease.lock != lock)
    }

    /// What the renter can be told.
    pub fn standing(&self, cap: u64) -> Standing {
        let closed = self.closed.values().fold(Usage::default(), |sum, usage| sum.plus(usage));
        let used = self.open.iter().fold(closed, |sum, lease| sum.plus(&lease.used));
        let granted: u64 = self.open.iter().map(|lease| lease.granted).fold(0, u64::saturating_add);
        let reported: u64 = self.open.iter().map(|lease| lease.used.total()).fold(0, u64::saturating_add);
        Standing {
            used,
            reserved: granted.saturating_sub(reported),
            cap,
            remaining: cap.saturating_sub(used.total()),
            next_free_at: self.closed.keys().next().map(|&bucket| free_at(bucket)),
        }
    }

    /// Bytes that count against the cap.
    pub fn charged(&self) -> u64 {
        let closed = self.closed.values().map(Usage::total);
        let open = self.open.iter().map(OpenLease::charge);
        closed.chain(open).fold(0, u64::saturating_add)
    }

    fn settle_time(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        let now = self.latest;
        let (expired, open) = std::mem::take(&mut self.open).into_iter().partition(|lease| lease.expires_at <= now);
        self.open = open;
        let expired: Vec<OpenLease> = expired;
        for lease in &expired {
            let forfeited = lease.granted.saturating_sub(lease.used.total());
            self.close(lease, Usage { forfeited, ..lease.used }, now);
        }
        self.forget_settled();
        self.closed.retain(|&bucket, _| free_at(bucket) > now);
        now
    }

    /// Books what an open lease is charged. Settled is only what was reported of it, not what it forfeits: bytes that
    /// its node spends of *other* leases later must not be set against a charge of now.
    fn close(&mut self, lease: &OpenLease, charge: Usage, now: Timestamp) {
        if let Some(settled) = self.settled.get_mut(&lease.node) {
            settled.bytes_in = settled.bytes_in.saturating_add(lease.used.bytes_in);
            settled.bytes_out = settled.bytes_out.saturating_add(lease.used.bytes_out);
        }
        self.book(lease.lock, charge, now);
    }

    /// Drops what was settled of nodes that have no open lease left.
    fn forget_settled(&mut self) {
        let Self { open, settled, .. } = self;
        settled.retain(|&node, _| open.iter().any(|lease| lease.node == node));
    }

    fn book(&mut self, lock: LockId, usage: Usage, now: Timestamp) {
        if usage.total() > 0 {
            self.total = self.total.plus(&usage);
            let booked = self.bookings.entry(lock).or_default();
            *booked = booked.plus(&usage);
            let bucket = self.closed.entry(bucket_of(now)).or_default();
            *bucket = bucket.plus(&usage);
        }
    }

    fn shortage(&self, cap: u64) -> Shortage {
        let unspent = self.open.iter().any(|lease| lease.used.total() < lease.granted);
        let first = self.closed.keys().next().map(|&bucket| free_at(bucket));
        match (unspent, first) {
            (true, _) => Shortage::Leased,
            (false, Some(free_at)) => Shortage::CapReached { free_at },
            // Nothing closed: open leases that are spent to the last byte, or a cap of nothing.
            (false, None) if cap == 0 => Shortage::CapReached { free_at: self.latest.plus(WINDOW) },
            (false, None) => Shortage::CapReached { free_at: free_at(bucket_of(self.latest)) },
        }
    }
}

fn bucket_of(now: Timestamp) -> u64 {
    now.unix_ms() / millis(BUCKET)
}

/// When a bucket's bytes come free: a window after its end.
fn free_at(bucket: u64) -> Timestamp {
    let end = bucket.saturating_add(1).saturating_mul(millis(BUCKET));
    Timestamp::from_unix_ms(end).plus(WINDOW)
}

/// A quarter of what remains at the most, so that several nodes can share the end of a cap; all of it at the very end.
fn lease_size(want: u64, remaining: u64, policy: &LeasePolicy) -> u64 {
    let wanted = want.clamp(policy.min_bytes, policy.max_bytes.max(policy.min_bytes));
    let share = (remaining / 4).max(SMALLEST_SHARE.min(policy.min_bytes));
    wanted.min(share).min(remaining).max(1)
}

/// Below this a remainder is leased whole: 64 KiB is one read of the proxy.
const SMALLEST_SHARE: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
