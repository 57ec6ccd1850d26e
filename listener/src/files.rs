//! How many files this process may have open: connections are bounded by it, so that `accept` never runs out of them.
//!
//! Both planes may be in one process. Whatever is not a renter's connection has a [`share`], and renters have the rest.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets this process. Where that fails, the limit stays what it was.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::warn!(%error, limit = most(), "the limit of open files cannot be raised");
    }
}

/// The limit as it is.
pub fn most() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections the control API may have, which may be in a process of its own or in the gateway's.
pub fn control() -> usize {
    share(8_192, 16)
}

/// How many connections the operator's interface may have, in the same process as the control API.
pub fn admin() -> usize {
    share(256, 64)
}

/// How many connections there may be of a kind that is not the renters': so many, but no more than this part of all files.
pub fn share(connections: usize, part: u64) -> usize {
    connections.min(usize::try_from(most() / part).unwrap_or(usize::MAX))
}
