//! The control plane of RUNIT: registers sessions, takes heartbeats, hands out access, and keeps locks and usage.
//!
//! It answers providers and renters over HTTP, and the data plane through [`runit_core::Authority`]. It never sees a
//! renter's traffic, and it does not know the gateway's crate.
//!
//! | module | answers for |
//! | --- | --- |
//! | [`control`] | the whole as one value, from settings to a listener |
//! | [`sqlite`] | what is durable |
//! | [`sealer`] | credentials of upstreams at rest |
//! | [`limit`] | how often somebody may come |
//! | [`clock`] | the time of day |
//! | `sessions`, `directory` | a change committed, then published |
//! | `authority` | what the data plane asks |
//! | `trail`, `metrics`, `metered_store` | what operators see |

mod authority;
pub mod clock;
pub mod control;
mod directory;
pub mod limit;
mod metered_store;
mod metrics;
mod random;
pub mod sealer;
mod sessions;
pub mod sqlite;
mod trail;

pub use clock::SystemClock;
pub use control::{Control, StartError};
