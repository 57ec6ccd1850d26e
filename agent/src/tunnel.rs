//! The way from the public to the gate: a cloudflared quick tunnel, or none on one machine.
//!
//! Answers for opening it, noticing that it ended, and closing it. Where a tunnel's failure leads is decided in
//! `reconcile`.

mod child;
mod cloudflared;
mod rules;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use runit_config::TunnelKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use child::{EXEC_BOUND, exec_bound};
pub use cloudflared::{Cloudflared, checked_version};

/// Quick tunnels are given out at a limited rate; nobody says which.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(300);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The program is not there.
    #[error(
        "cloudflared was not found at {}: install it (https://developers.cloudflare.com/cloudflare-one/connections/\
         connect-networks/downloads/), or set [tunnel] cloudflared_bin to where it is; if gateway and agent share this \
         machine, set [tunnel] kind = \"direct\"",
        .0.display()
    )]
    Missing(PathBuf),
    /// The program is there but does not tell its version.
    #[error("{} --version did not work: {reason}", .program.display())]
    Unusable {
        /// Which program.
        program: PathBuf,
        /// What it did instead.
        reason: String,
    },
    /// This version changes paths on their way.
    #[error(
        "cloudflared {0} rewrites request paths, which breaks notebooks with / or % in their names: install another version"
    )]
    Broken(String),
    /// A named tunnel's token is not there.
    #[error("the tunnel's token cannot be read from {}: put it there, for this user to read", .0.display())]
    NoToken(PathBuf, #[source] std::io::Error),
    /// Cloudflare wants a pause.
    #[error("no tunnel is to be had for another {} s: the rate limit for quick tunnels was reached", .pause.as_secs())]
    RateLimited {
        /// How long.
        pause: Duration,
    },
    /// The program ended before the tunnel carried requests.
    #[error("cloudflared ended early ({status}); its last output:\n{last_lines}")]
    Ended {
        /// How it ended.
        status: String,
        /// The end of its output.
        last_lines: String,
    },
    /// The tunnel does not come up.
    #[error("the tunnel did not come up within {} s: is outgoing UDP blocked? Then set [tunnel] protocol = \"http2\". Last output:\n{last_lines}", .after.as_secs())]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// The end of the program's output.
        last_lines: String,
    },
    /// The operating system refused.
    #[error("cannot run cloudflared")]
    Io(#[from] std::io::Error),
}

impl TunnelError {
    /// How long not to try again.
    pub fn pause(&self) -> Duration {
        match self {
            Self::RateLimited { pause } => *pause,
            _ => Duration::ZERO,
        }
    }
}

/// What opens tunnels.
#[derive(Debug)]
pub enum Opener {
    /// cloudflared, with quick tunnels or a named one.
    Cloudflared(Cloudflared),
    /// None is needed: the gateway dials the gate.
    Direct,
}

impl Opener {
    /// Checks that what is configured can be used.
    ///
    /// # Errors
    /// cloudflared is missing, broken, or of a version that must not be used.
    pub async fn new(
        settings: &runit_config::Tunnel,
        launcher: PathBuf,
        empty_home: PathBuf,
    ) -> Result<Self, TunnelError> {
        match settings.kind {
            TunnelKind::Direct => Ok(Self::Direct),
            TunnelKind::Cloudflared | TunnelKind::Named => {
                Ok(Self::Cloudflared(Cloudflared::check(settings, launcher, empty_home).await?))
            }
        }
    }

    /// Opens a tunnel to the gate; done when it carries requests. Dropping the future ends what was started.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub async fn open(&self, gate: SocketAddr) -> Result<OpenTunnel, TunnelError> {
        match self {
            Self::Cloudflared(cloudflared) => cloudflared.open(gate).await,
            Self::Direct => Ok(OpenTunnel::direct(gate)),
        }
    }
}

/// A tunnel that carries requests. Dropping it closes it, without waiting for the end.
#[derive(Debug)]
pub struct OpenTunnel {
    url: String,
    lost: CancellationToken,
    close: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

impl OpenTunnel {
    fn direct(gate: SocketAddr) -> Self {
        Self {
            url: format!("http://{gate}"),
            lost: CancellationToken::new(),
            close: CancellationToken::new(),
            keeper: None,
        }
    }

    /// What to register.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends when the tunnel has ended by itself.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Closes the tunnel and waits until its process is gone.
    pub async fn close(mut self) {
        self.close.cancel();
        if let Some(keeper) = self.keeper.take()
            && let Err(error) = keeper.await
        {
            tracing::warn!(%error, "the tunnel's process was not seen to end");
        }
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.close.cancel();
    }
}
