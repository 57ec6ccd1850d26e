//! Scenarios that need more than a loop of requests.

pub(crate) mod cap;
pub(crate) mod control;
pub(crate) mod fleet;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod page;
pub(crate) mod sessions;
