//! The data plane of RUNIT: a Pingora proxy that checks token and address on every request and counts every byte.
//!
//! ```text
//!   renter ── TCP ── TLS ── Guard ── Pingora ───────────────── provider's tunnel
//!                     │         │ request_filter: admit, charge the head
//!                     │         │ upstream_request_filter: our credential for theirs
//!                     ▼         ▼
//!                 LiveSession: view, Budget ◀── Leasing ──▶ Authority (control)
//! ```
//!
//! This library knows the control plane only as a [`runit_core::Authority`]; the binary `runit-gateway` puts one in.

mod answer;
mod answer_policy;
mod app;
mod arrival;
mod connection;
mod counters;
mod credentials;
mod directory;
mod entrance;
mod events;
mod exchange;
mod fields;
mod frames;
mod gateway;
mod guard;
mod guesses;
mod head;
mod headers;
mod isolation;
mod kept;
mod leasing;
mod lifecycle;
mod live;
mod metrics;
mod monotonic;
mod node;
mod openapi;
mod outbound;
mod pace;
mod page;
mod peer;
mod places;
mod portions;
#[cfg(test)]
mod properties;
mod proxy;
mod quota;
mod rarely;
mod reception;
mod redirect;
mod request_policy;
mod settlement;
mod sites;
mod target;
#[cfg(test)]
mod testing;
mod ticket;
mod tunnel;
mod turns;
mod watch;

pub use app::GatewayApp;
pub use lifecycle::Lifecycle;
pub use metrics::Metrics;
pub use node::{Node, NodeError, server_conf};
pub use openapi::openapi;
pub use outbound::{Outbound, SystemOutbound};
pub use redirect::RedirectApp;
