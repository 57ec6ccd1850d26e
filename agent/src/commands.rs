//! What a provider can ask for beside `up`: each command is one function that ends with an exit code's worth of answer.

mod down;

pub use down::{DownError, down};
