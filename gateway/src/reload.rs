//! `SIGHUP`: settings and certificates are read again, and hold from the next request or connection on. None is dropped for it.

use std::path::PathBuf;
use std::sync::Arc;

use runit_config::{LiveSettings, Reload};
use runit_gateway::Metrics;
use runit_listener::Certificate;
use tokio::signal::unix::Signal;

use crate::log::{self, LogFilter};

/// Reads the settings again whenever it is told to.
pub(crate) struct Reloader {
    /// Where the settings came from; none: the environment alone.
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: LiveSettings,
    pub(crate) filter: LogFilter,
    pub(crate) metrics: Arc<Metrics>,
    /// Of both planes' listeners.
    pub(crate) certificates: Vec<Arc<Certificate>>,
}

impl Reloader {
    /// Runs for as long as the process does.
    pub(crate) async fn run(self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.certificates.iter().for_each(|certificate| certificate.look_soon());
            match self.reload() {
                Ok(Reload { changed, kept }) => {
                    self.metrics.note_reload(true);
                    for key in kept {
                        tracing::warn!(key, "needs a restart: the old value stays");
                    }
                    tracing::info!(?changed, "settings reloaded");
                }
                Err(error) => {
                    self.metrics.note_reload(false);
                    tracing::warn!(error = format!("{error:#}"), "settings not reloaded: the old ones stay");
                }
            }
        }
    }

    fn reload(&self) -> anyhow::Result<Reload> {
        let new = runit_config::load_node(self.file.as_deref())?;
        let filter = log::parse(&new.log.filter)?;
        let reload = self.settings.reload(&new);
        self.filter.set(filter);
        Ok(reload)
    }
}
