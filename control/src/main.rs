//! `runit-control`: the control plane by itself, without a data plane, and the operator's commands for any node.

mod local;
mod remote;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use runit_config::{LogFormat, NodeSettings};
use runit_control::Control;
use runit_traces::Traces;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// RUNIT's control plane, and what its operator does with a node.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, parsed once")]
enum Command {
    /// Serve the control API until SIGINT or SIGTERM.
    Serve {
        /// Settings; RUNIT_* in the environment wins over it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    #[command(flatten)]
    Remote(remote::Remote),
    #[command(flatten)]
    Local(local::Local),
    /// Write what a shell needs to complete these commands.
    Completions { shell: Shell },
}

const AFTER_HELP: &str = "\
sessions to keys ask a running node (runit-gateway, or runit-control serve) at its admin listener, on this machine or
elsewhere (--url), with an operator's key in the environment (RUNIT_OPERATOR_KEY) or in a file (--key-file):

    export RUNIT_OPERATOR_KEY=...
    runit-control sessions --watch
    runit-control events --kind SESSION_HIJACK_ATTEMPT --since 2026-11-01T00:00:00Z
    runit-control keys create --operator 'night shift' --role read

backup to webhooks, `events verify`, `events export`, `events reseal` and `usage export` work on this machine's own files, as
the node's settings name them (--config), and as the node's user; the node may run.

Exit codes:
    0  done, and all is well
    1  done, and something is wrong: check, events verify, webhooks test; serve has failed
    2  not done: the command, the settings or a file is not as it must be
    3  there is no such session or key
    4  not allowed: no key, a key that opens nothing, or one that may only read
    5  not in this state: nobody holds the session
    6  no answer: the node cannot be reached, or cannot tell now";

/// What could not be done at all, as clap itself answers a command that it does not understand.
const NOT_DONE: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => match serve(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, ExitCode::FAILURE),
        },
        Command::Remote(command) => command.run(),
        Command::Local(command) => local::ended(command.run()),
        Command::Completions { shell } => complete(shell),
    }
}

fn complete(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "runit-control", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.into(), NOT_DONE.into()),
    }
}

fn failed(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the log may not have been set up yet")]
    {
        eprintln!("runit-control: {error:#}");
    }
    code
}

fn serve(config: Option<PathBuf>) -> anyhow::Result<()> {
    let settings = runit_config::load_node(config.as_deref())?;
    start_log(&settings)?;
    runit_listener::files::raise_limit();
    let traces = Traces::start(&settings.traces, "runit-control").context("traces")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let control = Control::start(&settings).await?.traced(traces.clone());
        // Before anybody can know that it runs: until then a signal ends the process at once.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (api, admin) = (settings.control.listen, settings.gateway.admin_listen);
        let admin = TcpListener::bind(admin).await.with_context(|| format!("gateway.admin_listen: {admin}"))?;
        let api = TcpListener::bind(api).await.with_context(|| format!("control.listen: {api}"))?;
        tracing::info!(listen = %api.local_addr()?, admin = %admin.local_addr()?, "the control API listens");
        let (stopping, stop) = watch::channel(false);
        let stopped = || {
            let mut stop = stop.clone();
            async move { stop.wait_for(|&stopped| stopped).await.map_or((), drop) }
        };
        let asked = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopping.send_replace(true);
            Ok(())
        };
        let serving = control.serve(api, stopped());
        tokio::try_join!(serving, control.serve_admin(admin, Vec::new(), stopped()), asked).context("the API failed")
    })?;
    traces.stop();
    Ok(())
}

fn start_log(settings: &NodeSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log.filter).context("log.filter")?;
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match settings.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
