//! `[limits]`: what one renter, one session and all of them together may take of the gateway.

use serde::{Deserialize, Serialize};

use crate::check::Checks;
use crate::node::Limit;

/// `[limits]`
///
/// A JupyterLab page is 73 requests with up to 38 in flight, and every notebook holds a WebSocket: the defaults let three
/// such pages load at once from one address, and two in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of renters who were let in, in all; 1 to 1,000,000. Fewer where the process may not open as many
    /// files: each takes two.
    pub connections: usize,
    /// Connections from one address (an IPv6 /64 is one), let in or not; 1 to 1,000,000.
    pub connections_per_address: usize,
    /// Connections for one session; 1 to 1,000,000.
    pub connections_per_session: usize,
    /// WebSockets for one session; 1 to 1,000,000.
    pub websockets_per_session: usize,
    /// Connections that no request was admitted on yet, in all; 1 to 1,000,000. At the limit the oldest gives way.
    pub waiting_connections: usize,
    /// The same, from one address; 1 to 1,000,000.
    pub waiting_connections_per_address: usize,
    /// New connections from one address.
    pub arrivals_per_address: Rate,
    /// Requests from one address.
    pub requests_per_address: Rate,
    /// Admitted requests for one session.
    pub requests_per_session: Rate,
    /// Small parts (under 4 KiB) that are read of one session's WebSockets; what comes faster waits.
    pub websocket_reads_per_session: Rate,
    /// Tokens from one address that opened nothing and that the authority was asked about.
    pub guesses_per_address: Limit,
    /// What a renter must at least take of an answer, or send of a body, while there is something to take or send, in
    /// bytes a second; 0 (anything will do) to 1,048,576.
    pub slowest_bytes_per_second: u64,
    /// For how long it may be less, in seconds; 1 to 3,600.
    pub slow_seconds: u64,
}

/// `burst` at once, and `per_second` after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub per_second: u32,
    /// 1 to 1,000,000.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_address: 256,
            connections_per_session: 128,
            websockets_per_session: 32,
            waiting_connections: 1_024,
            waiting_connections_per_address: 128,
            arrivals_per_address: Rate { per_second: 200, burst: 1_000 },
            requests_per_address: Rate { per_second: 500, burst: 2_000 },
            requests_per_session: Rate { per_second: 250, burst: 1_000 },
            websocket_reads_per_session: Rate { per_second: 5_000, burst: 20_000 },
            guesses_per_address: Limit { requests: 30, seconds: 60 },
            slowest_bytes_per_second: 512,
            slow_seconds: 30,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        const MOST: usize = 1_000_000;
        checks.range("limits.connections", self.connections, 1..=MOST);
        checks.range("limits.connections_per_address", self.connections_per_address, 1..=MOST);
        checks.range("limits.connections_per_session", self.connections_per_session, 1..=MOST);
        checks.range("limits.websockets_per_session", self.websockets_per_session, 1..=MOST);
        checks.range("limits.waiting_connections", self.waiting_connections, 1..=MOST);
        checks.range("limits.waiting_connections_per_address", self.waiting_connections_per_address, 1..=MOST);
        checks.rate("limits.arrivals_per_address", self.arrivals_per_address);
        checks.rate("limits.requests_per_address", self.requests_per_address);
        checks.rate("limits.requests_per_session", self.requests_per_session);
        checks.rate("limits.websocket_reads_per_session", self.websocket_reads_per_session);
        checks.limit("limits.guesses_per_address", self.guesses_per_address);
        checks.range("limits.slowest_bytes_per_second", self.slowest_bytes_per_second, 0..=1 << 20);
        checks.range("limits.slow_seconds", self.slow_seconds, 1..=3_600);
    }
}
