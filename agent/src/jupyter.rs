//! Whether Jupyter answers, asked through the gate, as the gateway will.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use runit_core::Secret;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A client for this machine's own servers: no proxy from the environment, no redirects.
///
/// # Errors
/// TLS cannot be set up on this machine (it is not used here, but made all the same).
pub(crate) fn local_client() -> Result<Client, reqwest::Error> {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(CALL_TIMEOUT).build()
}

/// Waits until Jupyter answers behind the gate. Ends by being dropped.
pub(crate) async fn answers(client: &Client, gate: SocketAddr, base_path: &str, gate_secret: &Secret) {
    let url = format!("http://{gate}{base_path}api/status");
    loop {
        let call = client.get(&url).header(header::AUTHORIZATION, format!("token {}", gate_secret.expose()));
        match call.send().await {
            Ok(response) if response.status() == StatusCode::OK => return,
            Ok(response) => tracing::debug!(status = %response.status(), "jupyter is not ready"),
            Err(error) => tracing::debug!(error = %error.without_url(), "the gate does not answer"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
