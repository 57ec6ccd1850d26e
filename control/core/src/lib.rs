//! The rules of RUNIT, without IO.
//!
//! Everything here takes values (and `now`, where time matters) and returns values. Sockets, clocks, randomness,
//! files and the environment live in the crates around this one. The two traits at the border are [`Authority`],
//! which is what the data plane asks, and [`Store`], which is what the control plane keeps.
//!
//! | module | answers |
//! | --- | --- |
//! | [`id`], [`secret`], [`time`], [`address`] | what a thing is called, and when and where from |
//! | [`label`] | the host name of a rental's own origin |
//! | [`session`] | which state a session is in, and what may change it |
//! | [`key`] | what operators and providers prove themselves with |
//! | [`permit`] | whether a request may pass |
//! | [`client_address`] | whose request it is behind proxies |
//! | [`upstream`] | whether a URL may be registered and an address dialled |
//! | [`query`] | what operators ask of the store |
//! | [`ledger`] | how many bytes a session may still lease (kept durably by the store) |
//! | [`usage`] | which lock used them |
//! | [`budget`] | how many leased bytes a node may still spend (atomics, on the hot path) |
//! | [`lease_book`] | which lease the spent bytes belong to |
//! | [`limit`], [`rate`] | how often somebody may come: exactly N in a window, or so many a second |
//! | [`event`] | what goes into the audit trail |
//! | [`webhook`] | what operators' receivers are told, how it is signed, and when it is tried again |
//! | [`trace`] | which trace of the client's a request is part of |
//! | [`trail`] | how its events hang together, and what has been done to them |

pub mod address;
pub mod authority;
pub mod budget;
pub mod client_address;
pub mod event;
pub mod id;
pub mod key;
pub mod label;
pub mod lease_book;
pub mod ledger;
pub mod limit;
pub mod permit;
pub mod query;
pub mod rate;
pub mod secret;
pub mod session;
pub mod store;
#[cfg(loom)]
pub mod sync;
#[cfg(not(loom))]
mod sync;
pub mod time;
pub mod trace;
pub mod trail;
pub mod upstream;
pub mod usage;
pub mod webhook;

pub use address::{LockMode, NetworkKey, RenterAddress};
pub use authority::{Authority, DirectoryChange};
pub use event::{EventKind, SecurityEvent};
pub use id::{KeyId, LeaseId, LockId, NodeId, ProviderId, SessionId};
pub use label::HostLabel;
pub use permit::{Permit, Presented, Rejection};
pub use secret::{AccessToken, Secret, SecretHash};
pub use session::{Lock, Session, SessionState, SessionStatus, SessionView};
pub use store::Store;
pub use time::{Clock, Timestamp};
pub use upstream::{UpstreamPolicy, UpstreamUrl};
