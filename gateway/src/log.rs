//! The log: set up once, and its filter changed by a reload.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use runit_config::{Log, LogFormat};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// What decides which lines are written.
pub(crate) struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Starts logging to standard error.
pub(crate) fn start(settings: &Log) -> Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("the log cannot be set up")?;
    Ok(LogFilter(handle))
}

impl LogFilter {
    /// Goes by another filter from now on.
    pub(crate) fn set(&self, filter: EnvFilter) {
        // Fails only when the subscriber is gone, and then nobody reads.
        let _ = self.0.reload(filter);
    }
}

/// Reads `log.filter`. Pingora's own lines can hold what renters and providers send, so most are off.
pub(crate) fn parse(filter: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(format!("{filter},pingora_proxy=off,pingora_core=warn")).context("log.filter")
}
