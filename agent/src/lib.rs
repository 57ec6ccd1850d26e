//! The provider's agent: rents out this machine as a notebook.
//!
//! It starts a hardened Jupyter container, puts the *gate* before it, opens a tunnel to the gate, registers the session
//! with control, and keeps all of that so until it is told to stop; then nothing is left behind.
//!
//! | module | answers |
//! | --- | --- |
//! | [`reconcile`], [`observed`] | what to do next (pure) |
//! | `supervisor`, `hands` | doing it |
//! | [`engine`] | container, volume, image |
//! | [`gate`] | who gets through to Jupyter |
//! | [`tunnel`] | how the gateway reaches the gate |
//! | [`api`] | what control is told and says |
//! | [`state`] | what survives a restart |
//! | [`console`] | what the provider sees |

pub mod api;
mod backoff;
pub mod console;
pub mod engine;
pub mod gate;
mod hands;
mod jupyter;
pub mod observed;
mod random;
pub mod reconcile;
pub mod state;
mod supervisor;
pub mod tunnel;

pub use random::NoRandomness;
pub use supervisor::{RunError, run};
pub use tunnel::{EXEC_BOUND, exec_bound};
