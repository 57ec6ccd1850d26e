//! `runit-agent`: settings, log and signals around `runit_agent::run`.
//!
//! Exit codes: 0 done, or stopped as asked with nothing left; 1 something needed is missing, failed or could not be
//! removed; 2 the command line or the settings are wrong; 3 `status`: no agent runs; 4 `status`: one runs, but nobody would
//! be served; 130 told to stop a second time.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runit_agent::commands::{self, Answer};
use runit_config::AgentSettings;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Rents out this machine as a notebook.
#[derive(Debug, Parser)]
#[command(name = "runit-agent", version)]
struct Arguments {
    /// Settings; without it defaults, and RUNIT_<SECTION>__<KEY> variables on top either way.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a session and keep it until Ctrl-C (the default).
    Up,
    /// Stop the agent that runs with these settings, and remove everything of it, also after a crash.
    Down {
        /// The files of a persistent workspace too.
        #[arg(long)]
        delete_workspace: bool,
    },
    /// What the agent that runs with these settings does.
    Status {
        /// One JSON object, for programs.
        #[arg(long)]
        json: bool,
    },
    /// What the container wrote.
    Logs {
        /// So many last lines.
        #[arg(long, default_value_t = 100)]
        tail: u32,
        /// And what comes, until it ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Build the notebook's image, whether it is there or not.
    Build,
    /// Look whether this machine can rent out notebooks, and say what to do where it cannot.
    Doctor {
        /// One JSON object, for programs.
        #[arg(long)]
        json: bool,
    },
    #[command(name = runit_agent::EXEC_BOUND, hide = true)]
    ExecBound {
        parent: u32,
        program: OsString,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_standard_error();
    match arguments.command {
        None | Some(Command::Up) => with_settings(arguments.config, up),
        Some(Command::Down { delete_workspace }) => with_settings(arguments.config, async |settings| {
            ended(commands::down(settings, delete_workspace).await.map_err(|error| error.chain()))
        }),
        Some(Command::Status { json }) => {
            with_settings(arguments.config, async |settings| match commands::status(&settings, json) {
                Ok(Answer::Serving) => ExitCode::SUCCESS,
                Ok(Answer::NotRunning) => ExitCode::from(3),
                Ok(Answer::NotServing) => ExitCode::from(4),
                Err(error) => fail(1, &format!("cannot look at {}: {error}", settings.agent.state_dir.display())),
            })
        }
        Some(Command::Logs { tail, follow }) => with_settings(arguments.config, async |settings| {
            ended(commands::logs(&settings, tail, follow).await.map_err(|error| error.chain()))
        }),
        Some(Command::Build) => with_settings(arguments.config, async |settings| {
            ended(commands::build(&settings).await.map_err(|error| error.chain()))
        }),
        Some(Command::Doctor { json }) => with_settings(arguments.config, async |settings| {
            if commands::doctor(&settings, json).await { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }),
        Some(Command::ExecBound { parent, program, arguments }) => {
            let error = runit_agent::exec_bound(parent, &program, &arguments).map(|never: Infallible| match never {});
            fail(1, &format!("cannot start {}: {error:?}", program.display()))
        }
    }
}

/// Reads the settings and runs one command with them.
fn with_settings(config: Option<PathBuf>, command: impl AsyncFnOnce(AgentSettings) -> ExitCode) -> ExitCode {
    let settings = match runit_config::load_agent(config.as_deref()) {
        Ok(settings) => settings,
        Err(problems) => return fail(2, &problems.to_string()),
    };
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(command(settings)),
        Err(error) => fail(1, &error.to_string()),
    }
}

fn ended(how: Result<(), String>) -> ExitCode {
    how.map_or_else(|error| fail(1, &error), |()| ExitCode::SUCCESS)
}

async fn up(settings: AgentSettings) -> ExitCode {
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signals(stop.clone()));
    // A worker thread, because children end with the thread that started them.
    match tokio::spawn(runit_agent::run(settings, PathBuf::from("/proc/self/exe"), stop)).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(1, &error.chain()),
        Err(error) => fail(1, &error.to_string()),
    }
}

/// The first signal asks for an orderly end, the second ends at once; the next start then cleans up.
async fn stop_on_signals(stop: CancellationToken) {
    let streams = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate)] = streams else {
        tracing::error!("signals cannot be caught: the session will have to time out");
        return;
    };
    for again in [false, true] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if again {
            std::process::exit(130);
        }
        stop.cancel();
    }
}

/// `RUST_LOG` sets the level. Clients stay at INFO: at TRACE bollard writes request bodies, with the container's token.
fn log_to_standard_error() {
    let mut filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    for quiet in ["bollard=info", "hyper=info", "hyper_util=info", "reqwest=info"] {
        if let Ok(directive) = quiet.parse() {
            filter = filter.add_directive(directive);
        }
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    log.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
}

#[expect(clippy::print_stderr, reason = "the one message that ends the program")]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("runit-agent: {message}");
    ExitCode::from(code)
}
