//! Carries out one action at a time per part, and says what came of it.
//!
//! Answers for the order of steps within an action. Decides nothing: that is `reconcile`. Errors end here, in the log.

mod look;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runit_core::Secret;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, Beat, Registration};
use crate::console::{Line, say};
use crate::egress::{EgressError, Firewall};
use crate::engine::{Engine, EngineError, Workspace, base_path};
use crate::gate::{Backend, Gate};
use crate::jupyter;
use crate::observed::{Event, Standing, Told, WorkspaceNumber};
use crate::random::{self, NoRandomness};
use crate::reconcile::Action;
use crate::state::{Identity, StateError, StateFile};
use crate::status::{Phase, Status};
use crate::tunnel::{OpenTunnel, Opener, TunnelError};

pub(crate) use look::Books;
pub use look::{Limits, Report};

const JUPYTER_TIMEOUT: Duration = Duration::from_secs(90);
/// Within what proxies let an answer take.
const WAIT_SECONDS: u64 = 25;
const STILL_RUNNING_EVERY: Duration = Duration::from_secs(1);
/// A session that cannot be taken back in this time is left to control, which misses the heartbeats.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// A pause that was kept over a restart is believed up to this: the clock may have been set.
const LONGEST_KEPT_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What came of an action.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// For the books only.
    Event(Event),
    /// A tunnel, to be kept.
    Tunnel(OpenTunnel),
}

/// What the agent works with.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) settings: runit_config::AgentSettings,
    pub(crate) hardware: serde_json::Value,
    pub(crate) pricing: serde_json::Value,
    pub(crate) engine: Engine,
    pub(crate) firewall: Firewall,
    pub(crate) gate: Gate,
    pub(crate) opener: Opener,
    pub(crate) api: Api,
    pub(crate) local: reqwest::Client,
    pub(crate) identity: Mutex<Identity>,
    pub(crate) state: Mutex<StateFile>,
    pub(crate) workspace: Mutex<Option<Workspace>>,
    pub(crate) books: Mutex<Books>,
    /// Ends what would otherwise be waited for when the agent stops.
    pub(crate) stop: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum HandsError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("there is no workspace")]
    NoWorkspace,
    #[error("jupyter did not answer within {} s", JUPYTER_TIMEOUT.as_secs())]
    Silent,
    #[error("the agent stops")]
    Stopping,
}

impl HandsError {
    fn pause(&self) -> Duration {
        match self {
            Self::Tunnel(error) => error.pause(),
            Self::Api(ApiError::Refused { pause: Some(pause), .. }) => *pause,
            _ => Duration::ZERO,
        }
    }
}

impl Hands {
    /// Does it. `tunnel` is the open one, where the action is to close it.
    pub(crate) async fn carry_out(&self, action: Action, tunnel: Option<OpenTunnel>) -> Outcome {
        let done = match &action {
            Action::RemoveWorkspace => self.remove_workspace().await.map(Outcome::Event),
            Action::StartWorkspace => self.start_workspace().await.map(Outcome::Event),
            Action::RestartContainer => self.restart_container().await.map(Outcome::Event),
            Action::CheckContainer => self.check_container().await.map(Outcome::Event),
            Action::OpenTunnel => self.open_tunnel().await.map(Outcome::Tunnel),
            Action::CloseTunnel => Ok(Outcome::Event(close(tunnel).await)),
            Action::Register(told) => self.register(told).await.map(Outcome::Event),
            Action::Announce(told) => self.announce(told).await.map(Outcome::Event),
            Action::PutToSleep => self.put_to_sleep().await.map(Outcome::Event),
            Action::Heartbeat { reachable } => self.heartbeat(*reachable).await.map(Outcome::Event),
            Action::Deregister => Ok(Outcome::Event(self.deregister().await)),
        };
        done.unwrap_or_else(|error| {
            let pause = error.pause();
            if !matches!(error, HandsError::Stopping) {
                tracing::warn!(error = chain(&error), "{}", name(&action));
            }
            Outcome::Event(Event::Failed { action, pause })
        })
    }

    async fn remove_workspace(&self) -> Result<Event, HandsError> {
        self.gate.shut();
        self.engine.remove_all(false).await?;
        locked(&self.books).container_ended();
        self.firewall.remove().await?;
        *locked(&self.workspace) = None;
        Ok(Event::WorkspaceRemoved)
    }

    async fn start_workspace(&self) -> Result<Event, HandsError> {
        let workspace = Workspace {
            volume: self.engine.volume_name(&random::suffix()?),
            gate_secret: random::secret()?,
            jupyter_token: random::secret()?,
        };
        *locked(&self.workspace) = Some(workspace.clone());
        locked(&self.books).workspace_started();
        self.serve(&workspace).await?;
        Ok(Event::WorkspaceStarted)
    }

    async fn restart_container(&self) -> Result<Event, HandsError> {
        let workspace = locked(&self.workspace).clone().ok_or(HandsError::NoWorkspace)?;
        self.serve(&workspace).await?;
        Ok(Event::ContainerRestarted)
    }

    /// A container on the workspace, Jupyter answering, and the gate open before it: not earlier, since somebody may wait
    /// there.
    async fn serve(&self, workspace: &Workspace) -> Result<(), HandsError> {
        let session = locked(&self.identity).session;
        let directory = self.engine.ensure_volume(workspace).await?;
        say(Line::WorkspaceDirectory { directory: &directory });
        // Before there is anything that they could come too late for.
        let flow = locked(&self.books).flow();
        self.firewall.set(flow).await?;
        self.engine.ensure_network().await?;
        self.firewall.meets_the_bridge()?;
        say(Line::StartingJupyter);
        let address = self.engine.start(session, workspace).await?;
        locked(&self.books).container_started(address);
        self.until_it_answers(workspace, address, &workspace.jupyter_token).await?;
        self.gate.open(&Backend {
            address,
            gate_secret: workspace.gate_secret.clone(),
            jupyter_token: workspace.jupyter_token.clone(),
        });
        let through = self.until_it_answers(workspace, self.gate.address(), &workspace.gate_secret).await;
        if through.is_err() {
            self.gate.shut();
        }
        through
    }

    /// Waits until Jupyter answers at `address` to who brings `secret`.
    async fn until_it_answers(
        &self,
        workspace: &Workspace,
        address: SocketAddr,
        secret: &Secret,
    ) -> Result<(), HandsError> {
        let base_path = base_path(locked(&self.identity).session);
        let ended = async {
            while self.engine.is_running().await.unwrap_or(true) {
                tokio::time::sleep(STILL_RUNNING_EVERY).await;
            }
            EngineError::Ended(self.engine.last_output(&workspace.jupyter_token).await)
        };
        tokio::select! {
            () = jupyter::answers(&self.local, address, &base_path, secret) => Ok(()),
            error = ended => Err(error.into()),
            () = tokio::time::sleep(JUPYTER_TIMEOUT) => Err(HandsError::Silent),
            () = self.stop.cancelled() => Err(HandsError::Stopping),
        }
    }

    async fn open_tunnel(&self) -> Result<OpenTunnel, HandsError> {
        if let Opener::Cloudflared(_) = self.opener {
            let pause = pause_until(locked(&self.state).no_tunnel_before(), SystemTime::now());
            if !pause.is_zero() {
                return Err(TunnelError::RateLimited { pause }.into());
            }
            say(Line::StartingCloudflared);
        }
        let opened = tokio::select! {
            opened = self.opener.open(self.gate.address()) => opened,
            () = self.stop.cancelled() => return Err(HandsError::Stopping),
        };
        let pause = opened.as_ref().err().map(TunnelError::pause).filter(|pause| !pause.is_zero());
        locked(&self.state).set_no_tunnel_before(pause.map(|pause| unix_secs(SystemTime::now() + pause)))?;
        let tunnel = opened?;
        say(Line::PublicUrl { url: tunnel.url() });
        Ok(tunnel)
    }

    async fn register(&self, told: &Told) -> Result<Event, HandsError> {
        let identity = locked(&self.identity).clone();
        let token = self.gate_secret()?;
        let registration = Registration {
            provider_id: &self.settings.agent.provider_id,
            public_url: &told.url,
            token: &token,
            hardware: &self.hardware,
            pricing: &self.pricing,
            session_id: identity.session,
            base_path: &base_path(identity.session),
        };
        match self.api.register(&registration, identity.secret.as_ref()).await {
            Ok(secret) => {
                self.take_identity(Identity { secret: Some(secret), ..identity });
                say(Line::SessionReady);
                say(Line::SessionRegistered { id: identity.session });
                Ok(Event::Heard(told.clone()))
            }
            Err(error @ ApiError::IdentityRefused(_)) => {
                tracing::warn!(error = chain(&error), "starting over with a new session id");
                self.take_identity(Identity { session: random::session_id()?, secret: None });
                Ok(Event::IdentityRefused)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn announce(&self, told: &Told) -> Result<Event, HandsError> {
        let identity = locked(&self.identity).clone();
        let token = self.gate_secret()?;
        match self.api.put_tunnel(&identity, &told.url, &token).await {
            Ok(()) => {
                say(Line::TunnelUpdated { id: identity.session });
                Ok(Event::Heard(told.clone()))
            }
            Err(ApiError::Unknown) => Ok(Event::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    async fn heartbeat(&self, reachable: bool) -> Result<Event, HandsError> {
        let identity = locked(&self.identity).clone();
        let beat = Beat { reachable: Some(reachable), report: Some(&self.report()), ..Beat::default() };
        match self.api.heartbeat(&identity, &beat).await {
            Ok(answer) => {
                say(Line::HeartbeatUpdated { id: identity.session });
                tracing::debug!(status = answer.status, "heartbeat answered");
                let standing = standing(&answer.status);
                Ok(Event::HeartbeatAnswered { recycle: answer.wants_recycle(), standing, reachable })
            }
            Err(ApiError::Unknown) => Ok(Event::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits, at control, for the session to stand otherwise than `known`; none where control cannot say that.
    pub(crate) async fn await_change(&self, known: Standing, workspace: WorkspaceNumber) -> Option<Event> {
        let identity = locked(&self.identity).clone();
        let beat = Beat { known_status: Some(status(known)?), wait_seconds: Some(WAIT_SECONDS), ..Beat::default() };
        match self.api.heartbeat(&identity, &beat).await {
            Ok(answer) if standing(&answer.status) != known => {
                let recycle = answer.wants_recycle();
                Some(Event::StandingHeard { recycle, standing: standing(&answer.status), workspace })
            }
            Ok(_) => None,
            // The next heartbeat finds out the same, and what to do about it.
            Err(error) => {
                tracing::debug!(error = chain(&error), "control did not wait for a change");
                None
            }
        }
    }

    async fn deregister(&self) -> Event {
        let identity = locked(&self.identity).clone();
        match tokio::time::timeout(DEREGISTER_TIMEOUT, self.api.deregister(&identity)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the session could not be taken back"),
            Err(_) => tracing::warn!("the session could not be taken back in time"),
        }
        Event::Deregistered
    }

    /// Writes what `status` shows.
    pub(crate) fn show(&self, phase: Phase, url: Option<String>) -> std::io::Result<()> {
        let session_id = locked(&self.identity).session;
        let (container, gate) = (serde_json::to_value(self.report())?, serde_json::to_value(self.gate.counts())?);
        Status { session_id, phase, url, container, gate }.write(locked(&self.state).directory())
    }

    /// The last that is written.
    pub(crate) fn end(&self) {
        let mut state = locked(&self.state);
        if let Err(error) = state.save() {
            tracing::warn!(error = chain(&error), "the container's traffic since the last minute will not be counted");
        }
        Status::clear(state.directory());
    }

    fn gate_secret(&self) -> Result<Secret, HandsError> {
        let workspace = locked(&self.workspace);
        Ok(workspace.as_ref().ok_or(HandsError::NoWorkspace)?.gate_secret.clone())
    }

    /// Keeps an identity for this run, and for the next if it can be written. Serving a renter does not depend on that.
    fn take_identity(&self, identity: Identity) {
        if let Err(error) = locked(&self.state).set_identity(&identity) {
            tracing::error!(error = chain(&error), "the session will not survive a restart of the agent");
        }
        *locked(&self.identity) = identity;
    }
}

/// As control spells it.
fn status(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Ready => Some("READY"),
        Standing::Locked => Some("LOCKED"),
        Standing::Recycling => Some("RECYCLING"),
        Standing::Unknown => None,
    }
}

fn standing(said: &str) -> Standing {
    let all = [Standing::Ready, Standing::Locked, Standing::Recycling];
    all.into_iter().find(|standing| status(*standing) == Some(said)).unwrap_or_default()
}

async fn close(tunnel: Option<OpenTunnel>) -> Event {
    if let Some(tunnel) = tunnel {
        tunnel.close().await;
    }
    Event::TunnelClosed
}

/// What is logged when an action fails.
fn name(action: &Action) -> &'static str {
    match action {
        Action::RemoveWorkspace => "the workspace could not be removed",
        Action::StartWorkspace => "the workspace could not be started",
        Action::RestartContainer => "the container could not be started again",
        Action::CheckContainer => "the container could not be looked at",
        Action::OpenTunnel => "the tunnel could not be opened",
        Action::CloseTunnel => "the tunnel could not be closed",
        Action::Register(_) => "the session could not be registered",
        Action::Announce(_) => "control could not be told of a change",
        Action::PutToSleep => "the container could not be stopped",
        Action::Heartbeat { .. } => "the heartbeat failed",
        Action::Deregister => "the session could not be taken back",
    }
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// Locks for the moment of a copy or a small write; a panic elsewhere leaves what is inside whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn pause_until(unix: Option<u64>, now: SystemTime) -> Duration {
    Duration::from_secs(unix.unwrap_or(0).saturating_sub(unix_secs(now))).min(LONGEST_KEPT_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_pause_is_believed_only_up_to_its_limit() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(pause_until(None, now), Duration::ZERO);
        assert_eq!(pause_until(Some(900), now), Duration::ZERO);
        assert_eq!(pause_until(Some(1_300), now), Duration::from_secs(300));
        assert_eq!(pause_until(Some(u64::MAX), now), LONGEST_KEPT_PAUSE);
    }
}
