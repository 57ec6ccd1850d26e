//! The agent against real sockets, a real child process and a real Docker engine.

mod api;
mod box_limits;
mod box_probe;
mod commands;
mod egress;
mod engine;
mod gate;
mod lifecycle;
mod recovery;
mod steady;
mod support;
mod tunnel;
