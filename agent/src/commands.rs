//! What a provider can ask for beside `up`: each command is one function.

mod doctor;
mod down;
mod engine;
mod status;

pub use doctor::{Check, Verdict, doctor};
pub use down::{DownError, down};
pub use engine::{build, logs};
pub use status::{Answer, status};
