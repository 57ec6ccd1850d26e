//! `down`: the agent that runs with these settings ends, and nothing of it is left, whatever had become of it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runit_config::AgentSettings;
use rustix::process::{Pid, Signal, kill_process};

use crate::api::Api;
use crate::console::{Line, say};
use crate::egress::{EgressError, Firewall};
use crate::engine::{Engine, EngineError};
use crate::hands::chain;
use crate::instance::Instance;
use crate::random::{self, NoRandomness};
use crate::state::{StateError, StateFile, holder};

/// Longer than an agent gives itself.
const END_TIMEOUT: Duration = Duration::from_secs(75);
const ASK_EVERY: Duration = Duration::from_millis(100);
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what its source says")]
pub enum DownError {
    #[error("cannot look whether an agent runs with {}", .0.display())]
    Look(PathBuf, #[source] io::Error),
    #[error("the agent, process {0}, cannot be told to stop")]
    Signal(Pid, #[source] io::Error),
    #[error("the agent, process {0}, does not end")]
    StillRuns(Pid),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Egress(#[from] EgressError),
}

/// Stops the agent that runs with `settings`, if one does; takes its session back; removes container, volumes, network
/// and rules, also those of a run that was killed. A persistent workspace stays, unless `with_files`.
///
/// # Errors
/// Something could not be stopped or removed.
pub async fn down(settings: AgentSettings, with_files: bool) -> Result<(), DownError> {
    let directory = &settings.agent.state_dir;
    if !directory.exists() {
        say(Line::Stopped);
        return Ok(());
    }
    let ended = end_running(directory).await?;
    let state = StateFile::open(directory, settings.agent.control_url.as_str(), random::session_id()?)?;
    let instance = Instance::new(state.directory(), settings.container.name.as_deref());
    let firewall = Firewall::new(&settings.egress, &instance);
    let engine = Engine::connect(settings.container.clone(), Vec::new(), instance).await?;
    if !ended {
        take_back(&settings, &state).await;
    }
    engine.remove_all(with_files).await?;
    firewall.remove().await?;
    say(Line::Stopped);
    Ok(())
}

/// Whether there was one to end; it has taken its session back itself.
async fn end_running(directory: &Path) -> Result<bool, DownError> {
    let look = || holder(directory).map_err(|error| DownError::Look(directory.to_owned(), error));
    let Some(pid) = look()? else { return Ok(false) };
    say(Line::Stopping);
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(DownError::Signal(pid, error.into())),
    }
    let deadline = Instant::now() + END_TIMEOUT;
    while look()?.is_some() {
        if Instant::now() >= deadline {
            return Err(DownError::StillRuns(pid));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(true)
}

/// Where it fails control finds out by the agent's silence.
async fn take_back(settings: &AgentSettings, state: &StateFile) {
    let identity = state.identity();
    if identity.secret.is_none() {
        return;
    }
    let Ok(api) = Api::new(settings.agent.control_url.clone()) else { return };
    match tokio::time::timeout(DEREGISTER_TIMEOUT, api.deregister(&identity)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "the session could not be taken back"),
        Err(_) => tracing::warn!("the session could not be taken back in time"),
    }
}

impl DownError {
    /// The error and its sources, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}
