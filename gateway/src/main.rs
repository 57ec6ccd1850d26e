//! `runit-gateway`: data plane and control API in one process.
//!
//! The proxy runs on Pingora's runtimes, everything else (control API, leases, directory) on one of its own, which
//! outlives the proxy so that the last bytes can be settled.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::configuration::Opt;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;
use runit_config::{LiveSettings, NodeSettings};
use runit_control::{Control, Source};
use runit_gateway::{Lifecycle, Node, RedirectApp, server_conf};
use runit_traces::Traces;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

mod cores;
mod log;
mod process_file;
mod reload;

use cores::Cores;
use process_file::ProcessFile;
use reload::Reloader;

/// How long a predecessor may take to let go of the control API's socket.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// Bytes, for each connection.
const WRITE_BUFFER: usize = 4 * 1024;

/// A seventh of the proxy's own time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The RUNIT gateway with its control API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings, as TOML; `RUNIT_<SECTION>__<KEY>` in the environment comes before them.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Take over the listening sockets of the process that runs with the same data directory. It keeps its open
    /// connections until they end, or until its drain deadline.
    #[arg(long)]
    upgrade: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = runit_config::load_node(arguments.config.as_deref())?;
    let filter = log::start(&settings.log)?;
    runit_listener::files::raise_limit();
    let cores = Cores::share(&settings.gateway.cores).context("gateway.cores")?;
    let traces = Traces::start(&settings.traces, "runit-gateway").context("traces")?;
    let live = LiveSettings::new(settings.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // From now on it does not end the process, however long the start takes.
    let hangups = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let control = runtime.block_on(Control::start(&live)).context("the control plane cannot start")?;
    let control = control.beside_gateway(&runit_gateway::openapi()).traced(traces.clone());
    let node = Node::new(&live, control.authority(), control.clock())?.traced(traces.clone());
    let lifecycle = Lifecycle::default();
    let process = ProcessFile::beside(&settings.control.data_dir);
    if arguments.upgrade {
        process.retire_predecessor()?;
    }
    let server = proxy_server(&settings, &node, &lifecycle, arguments.upgrade)?;

    let api = match settings.control.enabled {
        true => Some(runtime.block_on(listen("control.listen", settings.control.listen, arguments.upgrade))?),
        false => None,
    };
    let listeners = Listeners {
        api,
        admin: runtime.block_on(listen("gateway.admin_listen", settings.gateway.admin_listen, arguments.upgrade))?,
    };
    runtime.block_on(node.settle_killed());
    let metrics = node.metrics();
    let reloader = Reloader {
        file: arguments.config,
        settings: live.clone(),
        filter,
        metrics: Arc::clone(&metrics),
        certificates: node.certificate().into_iter().chain(control.certificate()).collect(),
    };
    runtime.spawn(reloader.run(hangups));
    process.claim()?;
    let ended = Arc::new(Notify::new());
    let settled = Arc::new(Notify::new());
    let gathered = Arc::clone(&metrics);
    let sources: Vec<Source> = vec![Arc::new(move || gathered.gather())];
    runtime.spawn({
        let (lifecycle, control) = (lifecycle.clone(), control.clone());
        async move {
            lifecycle.leaving().await;
            control.leave();
        }
    });
    let serving =
        runtime.spawn(serve_until_settled(control, listeners, sources, lifecycle.clone(), Arc::clone(&settled)));
    let settling = runtime.spawn({
        let ended = Arc::clone(&ended);
        async move { node.run(ended.notified()).await }
    });
    tracing::info!(gateway = %settings.gateway.listen, control = %settings.control.listen, "started");

    let signals = Box::new(lifecycle.clone());
    // It only returns long after the end that `lifecycle` times.
    std::thread::spawn(move || {
        if let Some(Err(error)) = cores.map(|cores| cores.confine_proxy()) {
            tracing::warn!(%error, "gateway.cores: the proxy cannot keep to its cores any more");
        }
        server.run(RunArgs { shutdown_signal: signals })
    });
    let handed_over = runtime.block_on(lifecycle.ended(&metrics, &live));
    ended.notify_one();
    runtime.block_on(settling)?;
    settled.notify_one();
    let served = runtime.block_on(serving)?;
    if !handed_over {
        process.release();
    }
    traces.stop();
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// What the control plane listens on.
struct Listeners {
    /// None for a data plane only.
    api: Option<tokio::net::TcpListener>,
    admin: tokio::net::TcpListener,
}

/// Serves control and admin API while this process is the current one; then, or without an API, only
/// follows what others change.
async fn serve_until_settled(
    control: Control,
    listeners: Listeners,
    sources: Vec<Source>,
    lifecycle: Lifecycle,
    settled: Arc<Notify>,
) -> std::io::Result<()> {
    let retired = || {
        let lifecycle = lifecycle.clone();
        async move { lifecycle.retired().await }
    };
    let api = async {
        match listeners.api {
            Some(api) => control.serve(api, retired()).await?,
            None => control.clone().follow_successor(retired()).await,
        }
        Ok(())
    };
    tokio::try_join!(api, control.serve_admin(listeners.admin, sources, retired()))?;
    control.follow_successor(settled.notified()).await;
    Ok(())
}

/// A socket of the control plane. A predecessor lets go of it as soon as it is told to retire.
async fn listen(key: &str, address: SocketAddr, upgrade: bool) -> Result<tokio::net::TcpListener> {
    let patience = if upgrade { TAKE_OVER } else { Duration::ZERO };
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => {
                return Err(error).with_context(|| format!("{key}: cannot listen on {address}"));
            }
        }
    }
}

fn proxy_server(settings: &NodeSettings, node: &Node, lifecycle: &Lifecycle, upgrade: bool) -> Result<Server> {
    let gateway = &settings.gateway;
    if let Some(file) = &settings.upstream.ca_file {
        std::fs::File::open(file).with_context(|| format!("upstream.ca_file: cannot read {}", file.display()))?;
    }
    let mut server = Server::new_with_opt_and_conf(Some(Opt { upgrade, ..Opt::default() }), server_conf(settings));
    server.bootstrap();
    let mut proxy = Service::new("gateway".to_owned(), node.app(&server.configuration, lifecycle.clone()));
    // The guard reads heads in pieces of its own, and bodies into buffers that are large enough: 64 KiB in between would
    // only be filled and copied from. TLS reads in smaller pieces. The head of an answer and a small body leave together.
    let buffer = L4BufferSettings::default().write(WRITE_BUFFER);
    let buffer = if gateway.tls.is_none() { buffer.read(0) } else { buffer };
    let address = available(gateway.listen, "gateway.listen", upgrade)?;
    proxy.add_listener(ListenerConfig::tcp(address).l4_buffer(buffer));
    if let Some(listen) = gateway.redirect_listen {
        let mut redirect = Service::new("redirect".to_owned(), RedirectApp::new(gateway, &node.metrics()));
        redirect.add_tcp(&available(listen, "gateway.redirect_listen", upgrade)?);
        redirect.threads = Some(1);
        server.add_service(redirect);
    }
    server.add_service(proxy);
    Ok(server)
}

/// The address as Pingora wants it, if it can be listened on: Pingora itself would panic. An inherited socket can.
fn available(address: SocketAddr, key: &str, inherited: bool) -> Result<String> {
    if inherited {
        return Ok(address.to_string());
    }
    TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))?;
    Ok(address.to_string())
}
