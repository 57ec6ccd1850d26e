//! `runit-bench`: the gateway and its peers, side by side, in one run. `bench/README.md` says how to read it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(clippy::cast_precision_loss, reason = "measured numbers need no 53 bits")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::machine::{Cores, Machine, raise_open_files};
use crate::measure::Effort;
use crate::peer::{House, Kind};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tls::Certificate;

mod client;
mod load;
mod machine;
mod measure;
mod peer;
mod plot;
mod process;
mod report;
mod runit;
mod scenario;
mod scenarios;
mod schedule;
mod targets;
mod tls;
mod upstream;
mod wire;

/// Measures the gateway beside its peers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Names the scenarios.
    List,
    /// Runs some of them.
    Run {
        #[arg(required = true)]
        scenarios: Vec<Scenario>,
        #[command(flatten)]
        how: How,
    },
    /// Runs all of them.
    All {
        #[command(flatten)]
        how: How,
    },
    /// Puts two results beside each other.
    Compare { a: PathBuf, b: PathBuf },
}

#[derive(clap::Args)]
struct How {
    /// Few and short rounds, small sizes: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Only these peers, and not all that a scenario has.
    #[arg(long)]
    only: Vec<Kind>,
    /// Where the report goes: `NAME.json`, `NAME.md` and `NAME-<scenario>.svg`.
    #[arg(long, default_value = "target/bench/latest")]
    out: PathBuf,
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::List => {
            for &scenario in Scenario::value_variants() {
                println!("{:12} {}", scenario.name(), scenario.about());
            }
            Ok(())
        }
        What::Run { scenarios, how } => measure(&scenarios, &how),
        What::All { how } => measure(Scenario::value_variants(), &how),
        What::Compare { a, b } => {
            println!("{}", Report::read(&a)?.compared_with(&Report::read(&b)?));
            Ok(())
        }
    }
}

fn measure(scenarios: &[Scenario], how: &How) -> Result<()> {
    let effort = if how.quick { Effort::QUICK } else { Effort::FULL };
    let kinds = if how.only.is_empty() { Kind::ALL.to_vec() } else { how.only.clone() };
    let folder = how.out.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let cores = Cores::pin()?;
    raise_open_files()?;
    let mut report = Report::new(Machine::describe(&cores), effort.rounds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = async {
        // On a disk, not in memory: the store waits for it. Never beside a report that is kept: keys are in it.
        let workshop = std::path::absolute("target/bench")?;
        std::fs::create_dir_all(&workshop)?;
        let directory = tempfile::tempdir_in(workshop)?;
        let certificate = Certificate::make(directory.path())?;
        let house = House { cores, upstream: upstream::start().await?, directory, certificate, kinds };
        for &scenario in scenarios {
            eprintln!("{}: {}", scenario.name(), scenario.about());
            let measured = scenario.run(&house, effort).await.with_context(|| scenario.name())?;
            plot::bars(
                &beside(&how.out, &format!("-{}.svg", scenario.name())),
                &scenario.name(),
                scenario.main_metric(),
                &measured,
            )?;
            report.scenarios.insert(scenario, measured);
            // After each, so that what was measured is kept if a later one fails.
            report.write(&beside(&how.out, ".json"))?;
            std::fs::write(beside(&how.out, ".md"), report.to_markdown())?;
        }
        anyhow::Ok(())
    };
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        // Peers are stopped when what holds them is dropped.
        tokio::select! {
            result = run => result,
            _ = terminated.recv() => anyhow::bail!("told to stop"),
            _ = tokio::signal::ctrl_c() => anyhow::bail!("told to stop"),
        }
    })?;
    println!("{}", report.to_markdown());
    Ok(())
}

fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
