//! What leases made, and what it is in statements.

use std::fmt;
use std::time::Duration;

use super::{Load, Shared};

/// Statements to hear how sessions stand: rows, and ledgers (`LocalAuthority::standing` and `standings`).
const STANDING: u64 = 2;

/// How a node knows a ledger that it changes: see `control/src/postgres/ledger_rows.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// As it is: the write is all.
    Current,
    /// Another node has written since: the write does nothing, and it is read, and written again.
    Outdated,
    /// Not at all: it is read, and written.
    None,
}

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Leases granted.
    pub grants: u64,
    /// Requests for a lease that got none.
    pub refusals: u64,
    /// Reports of leases, also closing ones.
    pub reports: u64,
    /// Rounds of reports: a node reports all that it has together.
    pub rounds: u64,
    /// Statements that write ledgers, and were needed.
    pub writes: u64,
    /// Statements that read ledgers.
    pub reads: u64,
    /// Statements that found a ledger changed by another node and had to be made again.
    pub rewrites: u64,
    /// Times that it was asked how a session stands, or how all of a node's do that moved bytes.
    pub standings: u64,
    /// Statements that say which renters are present.
    pub presences: u64,
    /// Bytes that moved.
    pub moved: u64,
    /// The most that one session moved.
    pub most: u64,
    /// Sessions that moved their whole cap.
    pub sessions_at_cap: usize,
    /// Bytes that lay in leases.
    pub idle: Idle,
    seconds: f64,
}

/// Bytes in leases that were neither spent nor given back, looked at once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    sum: u128,
    looks: u128,
    /// The most there ever was.
    pub most: u64,
}

impl Idle {
    /// How often it is looked.
    pub(crate) const EVERY_TICKS: u64 = 2;

    pub(crate) fn note(&mut self, bytes: u64) {
        self.sum += u128::from(bytes);
        self.looks += 1;
        self.most = self.most.max(bytes);
    }

    /// On average, bytes.
    pub fn mean(&self) -> u64 {
        u64::try_from(self.sum / self.looks.max(1)).unwrap_or(u64::MAX)
    }
}

impl Traffic {
    /// Ledgers are written together.
    pub(crate) fn note_write(&mut self, knowledge: impl Iterator<Item = Knowledge>) {
        let (mut unknown, mut outdated) = (false, false);
        knowledge.for_each(|one| {
            unknown |= one == Knowledge::None;
            outdated |= one == Knowledge::Outdated;
        });
        self.writes += 1;
        self.reads += u64::from(unknown) + u64::from(outdated);
        self.rewrites += u64::from(outdated);
    }

    /// A ledger is only looked at: it would grant nothing. The store asks the ledger that it knows; here one that is outdated
    /// is read first.
    pub(crate) fn note_refusal(&mut self, knowledge: Knowledge) {
        self.refusals += 1;
        self.reads += u64::from(knowledge != Knowledge::Current);
    }

    pub(crate) fn sum_up(&mut self, load: &Load, sessions: &[Shared]) {
        self.seconds = load.length.max(Duration::from_secs(1)).as_secs_f64();
        self.moved = sessions.iter().map(|session| session.moved).sum();
        self.most = sessions.iter().map(|session| session.moved).max().unwrap_or(0);
        self.sessions_at_cap = sessions.iter().filter(|session| session.moved == session.cap).count();
    }

    /// All statements.
    pub const fn statements(&self) -> u64 {
        self.writes + self.reads + self.rewrites + STANDING * self.standings + self.presences
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |out: &mut fmt::Formatter<'_>, what: &str, count: u64| {
            writeln!(out, "{what:<44} {count:>12} {:>12.2}/s", count as f64 / self.seconds)
        };
        row(out, "leases granted", self.grants)?;
        row(out, "requests for a lease that got none", self.refusals)?;
        row(out, "reports", self.reports)?;
        row(out, "rounds of reports", self.rounds)?;
        row(out, "statements", self.statements())?;
        row(out, "  ledgers written", self.writes)?;
        row(out, "  ledgers written again", self.rewrites)?;
        row(out, "  ledgers read to be written", self.reads)?;
        row(out, "  how sessions stand", STANDING * self.standings)?;
        row(out, "  who is present", self.presences)?;
        row(out, "bytes moved", self.moved)?;
        let per_gb = self.statements() as f64 / (self.moved as f64 / 1e9).max(f64::MIN_POSITIVE);
        writeln!(out, "{:<44} {per_gb:>12.0}", "statements for each GB")?;
        writeln!(out, "{:<44} {:>12} mean {:>12} most", "bytes idle in leases", self.idle.mean(), self.idle.most)?;
        write!(
            out,
            "{:<44} {:>12} most {:>12} at it",
            "bytes of one session; sessions at their cap", self.most, self.sessions_at_cap
        )
    }
}
