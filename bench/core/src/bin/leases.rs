//! `leases`: what leases cost a database that many nodes share. `docs/SCALING.md` has figures, and says what they rest on.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::Duration;

use clap::Parser;
use runit_bench_core::leases::{Load, simulate};
use runit_core::ledger::LeasePolicy;

/// Simulates the leases of many nodes in virtual time, with core's own ledgers, and prints what they make.
#[derive(Parser)]
struct Arguments {
    /// Nodes.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Rented sessions.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    sessions: u32,
    /// Nodes that each session's requests come through.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    spread: u32,
    /// Percent of the time that a session moves bytes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=99))]
    active: u32,
    /// How long it does at a time, on average.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    burst_seconds: u64,
    /// What it moves while it does, on average.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    bytes_per_second: u64,
    /// `quota.cap_bytes`.
    #[arg(long, default_value_t = 10 << 30)]
    cap_bytes: u64,
    /// `quota.lease_min_bytes`.
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    lease_min_bytes: u64,
    /// `quota.lease_max_bytes`.
    #[arg(long, default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    lease_max_bytes: u64,
    /// `quota.lease_ttl_seconds`.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    lease_ttl_seconds: u64,
    /// How long is simulated: a day at the most.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// The same seed gives the same answer.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let load = Load {
        nodes: arguments.nodes as usize,
        sessions: arguments.sessions as usize,
        spread: arguments.spread.min(arguments.nodes) as usize,
        active: f64::from(arguments.active) / 100.0,
        burst: Duration::from_secs(arguments.burst_seconds),
        rate: arguments.bytes_per_second,
        cap: arguments.cap_bytes,
        policy: LeasePolicy {
            min_bytes: arguments.lease_min_bytes,
            max_bytes: arguments.lease_max_bytes,
            ttl: Duration::from_secs(arguments.lease_ttl_seconds),
        },
        length: Duration::from_secs(60 * arguments.minutes),
        seed: arguments.seed,
    };
    println!("{}", simulate(&load));
    println!("no session passed its cap of {} bytes", load.cap);
}
