//! `runit-control`: the control plane by itself, without a data plane.

mod local;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use local::Finding;
use runit_config::{LogFormat, NodeSettings};
use runit_control::Control;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Registers sessions, takes heartbeats, hands out access.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the control API until SIGINT or SIGTERM.
    Serve {
        /// Settings; RUNIT_* in the environment wins over it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    #[command(flatten)]
    Local(local::Local),
}

/// What could not be done at all, as clap itself answers a command that it does not understand.
const NOT_DONE: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => match serve(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, ExitCode::FAILURE),
        },
        Command::Local(command) => match command.run() {
            Ok(Finding::Well) => ExitCode::SUCCESS,
            Ok(Finding::Wrong) => ExitCode::FAILURE,
            Err(error) => failed(&error, NOT_DONE.into()),
        },
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
    tokio::runtime::Runtime::new()?.block_on(async {
        let control = Control::start(&settings).await?;
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
        tokio::try_join!(serving, control.serve_admin(admin, Vec::new(), stopped()), asked)
            .context("the API failed")?;
        Ok(())
    })
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
