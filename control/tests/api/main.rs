//! The control plane over real sockets: each call of its interface, with the exact texts and codes.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod app;
mod authority;
mod limits;
mod listener;
mod pages;
mod providers;
mod reconnecting;
mod renters;
mod restart;
mod secrets;
mod sweeping;
