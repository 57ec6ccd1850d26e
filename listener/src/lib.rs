//! What the listeners of both planes share: TLS whose certificate can change while connections are open, the PROXY
//! protocol's header before it, how many files there are for connections, and who of too many has a place.
//!
//! Knows no HTTP: whose request it is behind proxies that speak HTTP is `runit_core::client_address`'s to say.

mod certificate;
pub mod files;
pub mod places;
pub mod proxy_protocol;

pub use certificate::{BadPair, Certificate, Look, server_config, watch};
