//! The provider's agent: rents out this machine as a notebook.
//!
//! It starts a hardened Jupyter container, puts the *gate* before it, opens a tunnel to the gate, registers the session
//! with control, and keeps all of that so until it is told to stop; then nothing is left behind.
//!
//! | module | answers |
//! | --- | --- |
//! | [`reconcile`], [`observed`] | what to do next (pure) |
//! | `supervisor`, `hands` | doing it |
//! | [`activity`] | whether a container is used (pure) |
//! | [`engine`] | container, volume, network, image |
//! | [`egress`] | what the container may reach by itself |
//! | [`gate`] | who gets through to Jupyter |
//! | [`tunnel`] | how the gateway reaches the gate |
//! | [`api`] | what control is told and says |
//! | [`state`] | what survives a restart |
//! | [`status`] | what `status` shows |
//! | [`hardware`], [`runtime`] | what the machine has, and what is known of its runtime |
//! | [`instance`] | what this agent's things are called |
//! | [`console`] | what the provider sees |
//! | [`commands`] | what a provider asks for beside `up` |

pub mod activity;
pub mod api;
mod backoff;
pub mod commands;
pub mod console;
pub mod egress;
pub mod engine;
pub mod gate;
mod hands;
pub mod hardware;
pub mod instance;
mod jupyter;
pub mod observed;
mod random;
pub mod reconcile;
pub mod runtime;
pub mod state;
pub mod status;
mod supervisor;
pub mod tunnel;

pub use hands::{Limits, Report};
pub use random::NoRandomness;
pub use supervisor::{RunError, run};
pub use tunnel::{EXEC_BOUND, exec_bound};
