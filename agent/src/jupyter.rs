//! Whether Jupyter answers, asked through the gate, as the gateway will; and what it is busy with, asked beside the gate.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use runit_core::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::activity::{Jupyter, Kernel, Terminal};

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What answers there is the renter's to change.
const ANSWER_BYTES: usize = 256 << 10;
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A client for this machine's own servers: no proxy from the environment, no redirects.
///
/// # Errors
/// TLS cannot be set up on this machine (it is not used here, but made all the same).
pub(crate) fn local_client() -> Result<Client, reqwest::Error> {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(CALL_TIMEOUT).build()
}

/// Waits until Jupyter answers at `address`, its own or the gate's, to who brings `secret`. Ends by being dropped.
pub(crate) async fn answers(client: &Client, address: SocketAddr, base_path: &str, secret: &Secret) {
    let url = format!("http://{address}{base_path}api/status");
    loop {
        let call = client.get(&url).header(header::AUTHORIZATION, format!("token {}", secret.expose()));
        match call.send().await {
            Ok(response) if response.status() == StatusCode::OK => return,
            Ok(response) => tracing::debug!(status = %response.status(), "jupyter is not ready"),
            Err(error) => tracing::debug!(error = %error.without_url(), "jupyter does not answer"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What Jupyter is busy with; none where it does not say. Asking is no activity.
pub(crate) async fn activity(
    client: &Client,
    jupyter: SocketAddr,
    base_path: &str,
    jupyter_token: &Secret,
) -> Option<Jupyter> {
    #[derive(Deserialize)]
    struct Status {
        kernels: usize,
    }
    let ask = Ask { client, jupyter, base_path, jupyter_token };
    let status: Status = ask.json("api/status").await?;
    let kernels: Vec<Kernel> = match status.kernels {
        0 => Vec::new(),
        _ => ask.json("api/kernels?no_track_activity=1").await?,
    };
    let terminals: Vec<Terminal> = ask.json("api/terminals?no_track_activity=1").await?;
    Some(Jupyter { kernels, terminals })
}

struct Ask<'a> {
    client: &'a Client,
    jupyter: SocketAddr,
    base_path: &'a str,
    jupyter_token: &'a Secret,
}

impl Ask<'_> {
    async fn json<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let url = format!("http://{}{}{path}", self.jupyter, self.base_path);
        let call = self.client.get(url).header(header::AUTHORIZATION, format!("token {}", self.jupyter_token.expose()));
        let mut response = call.send().await.ok().filter(|response| response.status() == StatusCode::OK)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).ok()
    }
}
