//! The real gateway with its control API: settings as an operator would have them, save for what one load generator at one
//! address would run into.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use crate::client::Client;
use crate::machine::Allowed;
use crate::peer::{Demands, House, Way, beside_us, credential};
use crate::process::{Process, free_addresses};
use crate::tls::Certificate;

/// A gateway's addresses.
#[derive(Clone)]
pub(crate) struct Runit {
    pub(crate) gateway: SocketAddr,
    pub(crate) control: SocketAddr,
    /// Of clients, where the gateway speaks TLS.
    connector: Option<Arc<TlsConnector>>,
}

impl std::fmt::Debug for Runit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runit").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// A session that is registered, and locked by this machine's address.
#[derive(Debug, Clone)]
pub(crate) struct Rented {
    pub(crate) way: Way,
    pub(crate) id: String,
    /// The provider's, for heartbeats.
    pub(crate) secret: String,
    /// What taking the lock moved, which its cap counts.
    pub(crate) lock_bytes: u64,
}

impl Runit {
    /// Starts one with an empty store.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(house: &House, demands: Demands) -> Result<(Self, Process)> {
        let Demands { cap_bytes, tls, cores } = demands;
        let directory = house.directory.path().join(format!("runit-{}", Uuid::new_v4()));
        std::fs::create_dir(&directory)?;
        let data = directory.join("data");
        let [gateway, control, admin] = free_addresses()?;
        let unlimited = "{ requests = 1000000, seconds = 1 }";
        let fast = "{ per_second = 1000000, burst = 1000000 }";
        let own = if cores == Allowed::Apart { format!("cores = [{}]\n", house.cores.proxy) } else { String::new() };
        let scheme = if tls { "https" } else { "http" };
        let Certificate { chain, key, .. } = &house.certificate;
        let (chain, key) = (chain.display(), key.display());
        let pair = format!("hsts_seconds = 0\ntls = {{ certificate = \"{chain}\", key = \"{key}\" }}\n");
        let pair = if tls { pair.as_str() } else { "" };
        let settings = format!(
            "[gateway]\nlisten = \"{gateway}\"\npublic_url = \"{scheme}://{gateway}\"\nadmin_listen = \"{admin}\"\n\
             drain_seconds = 0\nthreads = 1\n{own}{pair}\
             [control]\nlisten = \"{control}\"\npublic_url = \"http://{control}\"\ndata_dir = \"{}\"\n\
             provider_silent_seconds = 86400\nrenter_absent_seconds = 86400\n\
             general_limit = {unlimited}\ncreation_limit = {unlimited}\nheartbeat_limit = {unlimited}\n\
             [limits]\nconnections = 20000\nconnections_per_address = 20000\nconnections_per_session = 20000\n\
             websockets_per_session = 20000\nwaiting_connections_per_address = 1024\n\
             waiting_connections = 512\narrivals_per_address = {fast}\n\
             requests_per_address = {fast}\nrequests_per_session = {fast}\nwebsocket_reads_per_session = {fast}\n\
             [upstream]\nplain_http_hosts = [\"127.0.0.1\"]\n\
             [quota]\ncap_bytes = {cap_bytes}\n",
            data.display()
        );
        let file = directory.join("runit.toml");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(beside_us("runit-gateway")?);
        command.arg("--config").arg(&file);
        let process = Process::start((&house.cores, cores), command, &directory.join("log"), gateway)?;
        let connector = tls.then(|| house.certificate.connector()).transpose()?.map(Arc::new);
        Ok((Self { gateway, control, connector }, process))
    }

    /// The control API as a client sees it.
    pub(crate) fn control(&self) -> Way {
        Way { address: self.control, tls_address: None, prefix: String::new(), credential: String::new() }
    }

    /// Registers a session and takes its lock.
    ///
    /// # Errors
    /// When control or gateway answer with anything but 200.
    pub(crate) async fn rent(&self, upstream: SocketAddr) -> Result<Rented> {
        let mut control = Client::connect(&self.control(), None).await?;
        let mut rented = self.register(&mut control, upstream).await?;
        rented.lock_bytes = self.lock(&rented).await?;
        Ok(rented)
    }

    /// Registers a session over a connection to the control API.
    ///
    /// # Errors
    /// When it answers with anything but 200.
    pub(crate) async fn register(&self, control: &mut Client, upstream: SocketAddr) -> Result<Rented> {
        let request = control.post("/provider/session", &registration(upstream), "");
        let (head, body) = control.call(&request).await?;
        ensure!(head.status() == 200, "{}{}", head.text, String::from_utf8_lossy(&body));
        let session: Value = serde_json::from_slice(&body)?;
        let text = |name: &str| session[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let id = text("sessionId")?;
        let way = Way {
            address: self.gateway,
            tls_address: self.connector.is_some().then_some(self.gateway),
            prefix: format!("/s/{id}"),
            credential: credential(&text("accessToken")?),
        };
        Ok(Rented { way, id, secret: text("providerSecret")?, lock_bytes: 0 })
    }

    /// The first use of its token; returns the bytes that it moved.
    ///
    /// # Errors
    /// When the gateway answers with anything but 200.
    pub(crate) async fn lock(&self, rented: &Rented) -> Result<u64> {
        let mut client = Client::connect(&rented.way, self.connector.as_deref()).await?;
        let request = client.get("/close/1", "Connection: close\r\n");
        let (head, body) = client.call(&request).await?;
        ensure!(head.status() == 200, "{}", head.text);
        Ok((request.len() + head.text.len() + body.len()) as u64)
    }
}

/// What a provider sends to register a session.
pub(crate) fn registration(upstream: SocketAddr) -> String {
    json!({ "providerId": "bench", "publicUrl": format!("http://{upstream}"), "token": "secret" }).to_string()
}
