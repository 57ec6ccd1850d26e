//! The control plane over real sockets: each call of its interface, with the exact texts and codes.
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod admin;
mod app;
mod authority;
mod commands;
mod documents;
mod limits;
mod listener;
mod pages;
mod provider_keys;
mod providers;
mod reconnecting;
mod renters;
mod restart;
mod secrets;
mod sign_in;
mod sweeping;
mod webhooks;
