//! `runit-gateway`: data plane and control API in one process.
//!
//! The proxy runs on Pingora's runtimes, everything else (control API, leases, directory) on one of its own, which
//! outlives the proxy so that the last bytes can be settled.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use pingora::apps::http_app::HttpServer;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;
use runit_config::{Log, LogFormat, NodeSettings};
use runit_control::{Control, SystemClock};
use runit_core::Clock;
use runit_gateway::{Admin, Node, server_conf};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// The RUNIT gateway with its control API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings, as TOML; `RUNIT_<SECTION>__<KEY>` in the environment comes before them.
    #[arg(long)]
    config: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = runit_config::load_node(arguments.config.as_deref())?;
    log_as(&settings.log)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let control = Control::open(&settings, Arc::clone(&clock)).context("the control plane cannot start")?;
    let node = Node::new(&settings, control.authority(), clock)?;
    let server = proxy_server(&settings, &node, &control)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let api = runtime.block_on(tokio::net::TcpListener::bind(settings.control.listen));
    let api = api.with_context(|| format!("control.listen: cannot listen on {}", settings.control.listen))?;
    let (proxy_ended, ended) = watch::channel(false);
    let (settled, all_settled) = watch::channel(false);
    let serving = runtime.spawn(control.serve(api, until(all_settled)));
    let settling = runtime.spawn(node.run(until(ended)));
    tracing::info!(gateway = %settings.gateway.listen, control = %settings.control.listen, "started");

    server.run(RunArgs::default());
    proxy_ended.send_replace(true);
    runtime.block_on(settling)?;
    settled.send_replace(true);
    runtime.block_on(serving)??;
    tracing::info!("stopped");
    Ok(())
}

fn proxy_server(settings: &NodeSettings, node: &Node, control: &Control) -> Result<Server> {
    let gateway = &settings.gateway;
    if let Some(file) = &settings.upstream.ca_file {
        std::fs::File::open(file).with_context(|| format!("upstream.ca_file: cannot read {}", file.display()))?;
    }
    let mut server = Server::new_with_opt_and_conf(None, server_conf(settings));
    server.bootstrap();
    let mut proxy = Service::new("gateway".to_owned(), node.app(&server.configuration));
    proxy.add_tcp(&available(gateway.listen, "gateway.listen")?);
    let (metrics, control) = (node.metrics(), control.clone());
    let admin = Admin {
        sources: vec![Arc::new(move || metrics.gather()), Arc::new(move || control.gather())],
        operator_key: gateway.operator_key.as_ref().map(runit_core::Secret::hash),
    };
    let mut admin = Service::new("admin".to_owned(), HttpServer::new_app(admin));
    admin.add_tcp(&available(gateway.admin_listen, "gateway.admin_listen")?);
    admin.threads = Some(1);
    server.add_service(proxy);
    server.add_service(admin);
    Ok(server)
}

/// The address as Pingora wants it, if it can be listened on: Pingora itself would panic.
fn available(address: SocketAddr, key: &str) -> Result<String> {
    TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))?;
    Ok(address.to_string())
}

async fn until(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = flag.wait_for(|&set| set).await;
}

fn log_as(settings: &Log) -> Result<()> {
    // Pingora's own lines can hold what renters and providers send.
    let filter = EnvFilter::try_new(format!("{},pingora_proxy=off,pingora_core=warn", settings.filter))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
