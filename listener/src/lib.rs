//! What the listeners of both planes share: TLS whose certificate can change while connections are open, the PROXY
//! protocol's header before it, and how many files there are for connections.
//!
//! Knows no HTTP: whose request it is behind proxies that speak HTTP is `runit_core::client_address`'s to say.

mod certificate;
pub mod files;
pub mod proxy_protocol;

pub use certificate::{BadPair, Certificate, Look, server_config, watch};
