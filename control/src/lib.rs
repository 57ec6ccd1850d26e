//! The control plane of RUNIT: registers sessions, takes heartbeats, hands out access, and keeps locks and usage.
//!
//! It answers providers and renters over HTTP, and the data plane through [`runit_core::Authority`]. It never sees a
//! renter's traffic, and it does not know the gateway's crate.
//!
//! | module | answers for |
//! | --- | --- |
//! | [`control`] | the whole as one value, from settings to a listener |
//! | [`sqlite`] | what is durable, its backup and its check |
//! | [`DataDir`] | which file is where |
//! | [`sealer`] | credentials of upstreams at rest |
//! | [`clock`] | the time of day |
//! | `api`, `server` | HTTP: routes, limits, headers, the one table of problems |
//! | `registration`, `rental` | what providers and renters ask, behind the handlers |
//! | `admin`, `operations` | the operator's interface, and what is behind it |
//! | `keys` | whose key opens what |
//! | `openapi` | the description of both interfaces |
//! | `occupancy` | how many streams may be open |
//! | `reports` | what agents tell of themselves |
//! | `sweeper`, `heartbeats`, `hearing` | who has gone silent |
//! | `sessions`, `directory` | a change committed, then published |
//! | `authority` | what the data plane asks |
//! | [`anchors`] | whether the audit trail is what it was |
//! | [`billing`] | usage records as text |
//! | [`webhooks`] | operators' receivers of events |
//! | [`postgres`], [`moving`] | the store of many nodes, and the way there |
//! | `trail`, `tally`, `metrics`, `metered_store` | what operators see |

mod admin;
pub mod anchors;
mod api;
mod authority;
pub mod billing;
pub mod clock;
pub mod control;
mod data_dir;
mod directory;
mod hearing;
mod heartbeats;
mod keys;
mod metered_store;
mod metrics;
pub mod moving;
mod occupancy;
mod openapi;
mod operations;
pub mod postgres;
mod random;
mod reconnects;
mod registration;
mod rental;
mod reports;
pub mod sealer;
mod server;
mod sessions;
mod shared_limit;
pub mod sqlite;
mod sweeper;
mod tally;
mod trail;
pub mod webhooks;
mod wholeness;

pub use admin::Source;
pub use clock::SystemClock;
pub use control::{Control, StartError};
pub use data_dir::DataDir;
pub use random::NoRandomness;
pub use server::Reception;
