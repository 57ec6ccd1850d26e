//! The agent's life: checks, then the loop around `reconcile`, then nothing left behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runit_config::AgentSettings;
use runit_core::Secret;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::console::{Line, say};
use crate::egress::{EgressError, Firewall};
use crate::engine::{Engine, EngineError, nvidia_toolkit};
use crate::gate::Gate;
use crate::hands::{Hands, Outcome, chain};
use crate::hardware::{self, GpuError};
use crate::instance::Instance;
use crate::jupyter::local_client;
use crate::observed::{ControlState, Event, Observed, Standing, WorkspaceNumber, WorkspaceState};
use crate::random::{self, NoRandomness};
use crate::reconcile::{Action, Desired, Goal, reconcile};
use crate::runtime::{self, Escape};
use crate::state::{StateError, StateFile};
use crate::status::Phase;
use crate::tunnel::{OpenTunnel, Opener, TunnelError};

/// How exactly times are kept.
const TICK: Duration = Duration::from_millis(250);
/// How old the numbers that `status` shows may be.
const SHOW_EVERY: Duration = Duration::from_secs(10);
/// Before an engine that stopped telling is listened to again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Taking back, removing and closing take seconds; an engine that hangs is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the agent could not start, or could not clean up.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what its source says")]
pub enum RunError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("{0}; [container] require_patched_runtime is set")]
    Escape(Escape),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("the gate cannot listen on {address}")]
    Gate { address: std::net::SocketAddr, source: std::io::Error },
    #[error("agent.provider_key_file: {} cannot be read", .0.display())]
    ProviderKey(PathBuf, #[source] std::io::Error),
    #[error("TLS cannot be set up")]
    Tls(#[source] reqwest::Error),
    #[error("the settings' tables cannot be told as JSON")]
    Tables(#[source] serde_json::Error),
    #[error("not everything could be removed; the next start will: {0}")]
    LeftBehind(String),
}

/// Runs an agent until `stop`, and removes everything that it made. `launcher` is this program itself, by which it
/// starts children that cannot outlive it: see [`crate::exec_bound`].
///
/// # Errors
/// Something that the agent needs is missing, or something could not be removed. While it runs, failures are logged
/// and tried again.
pub async fn run(settings: AgentSettings, launcher: PathBuf, stop: CancellationToken) -> Result<(), RunError> {
    let hands = tokio::select! {
        hands = prepare(settings, launcher, stop.clone()) => hands?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(gate = %hands.gate.address(), "the gate listens");
    Supervisor::new(hands).run().await
}

/// Everything that must be there before anything is started.
async fn prepare(settings: AgentSettings, launcher: PathBuf, stop: CancellationToken) -> Result<Hands, RunError> {
    let control_url = settings.agent.control_url.clone();
    let state = StateFile::open(&settings.agent.state_dir, control_url.as_str(), random::session_id()?)?;
    let instance = Instance::new(state.directory(), settings.container.name.as_deref());
    let engine = Engine::connect(settings.container.clone(), settings.egress.dns.clone(), instance.clone()).await?;
    engine.check().await?;
    let firewall = Firewall::new(&settings.egress, &instance);
    firewall.check().await?;
    look_for_escapes(&settings.container, &engine).await?;
    let gpus = hardware::gpus(&settings.container).await?;
    engine.ensure_image().await?;
    let opener = Opener::new(&settings.tunnel, launcher, state.directory().join("empty-home")).await?;
    let listen = settings.gate.listen;
    let gate = Gate::bind(listen).await.map_err(|source| RunError::Gate { address: listen, source })?;
    let provider_key = settings.agent.provider_key_file.as_deref().map(read_key).transpose()?;
    Ok(Hands {
        hardware: hardware::told(&settings.container, &gpus, state.directory(), table(&settings.hardware)?),
        pricing: table(&settings.pricing)?.into(),
        settings,
        engine,
        firewall,
        gate,
        opener,
        api: Api::new(control_url).map_err(RunError::Tls)?.with_provider_key(provider_key),
        local: local_client().map_err(RunError::Tls)?,
        identity: Mutex::new(state.identity()),
        state: Mutex::new(state),
        workspace: Mutex::new(None),
        books: Mutex::default(),
        stop,
    })
}

fn read_key(file: &Path) -> Result<Secret, RunError> {
    let key = std::fs::read_to_string(file).map_err(|error| RunError::ProviderKey(file.to_owned(), error))?;
    Ok(Secret::new(key.trim()))
}

async fn look_for_escapes(settings: &runit_config::Container, engine: &Engine) -> Result<(), RunError> {
    let toolkit = if settings.gpus.is_empty() { None } else { nvidia_toolkit().await };
    let found =
        [runtime::runc(&engine.versions().await?.runc), toolkit.and_then(|version| runtime::nvidia_toolkit(&version))];
    for escape in found.into_iter().flatten() {
        if settings.require_patched_runtime {
            return Err(RunError::Escape(escape));
        }
        tracing::warn!("{escape}");
    }
    Ok(())
}

fn table(table: &impl serde::Serialize) -> Result<serde_json::Map<String, serde_json::Value>, RunError> {
    let told = serde_json::to_value(table).map_err(RunError::Tables)?;
    Ok(told.as_object().cloned().unwrap_or_default())
}

/// The loop: observe, decide, have it carried out.
struct Supervisor {
    hands: Arc<Hands>,
    desired: Desired,
    seen: Observed,
    tunnel: Option<OpenTunnel>,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
    /// What is known of the session while it is registered, for who waits for a change of it.
    known: watch::Sender<Option<(Standing, WorkspaceNumber)>>,
    listeners: JoinSet<()>,
    /// What `status` was told last, and when.
    shown: Option<(Phase, Option<String>, Instant)>,
}

impl Supervisor {
    fn new(hands: Hands) -> Self {
        let heartbeat_every = Duration::from_secs(hands.settings.agent.heartbeat_seconds);
        let sleep_after = Some(hands.settings.container.sleep_after_seconds).filter(|seconds| *seconds > 0);
        let sleep_after = sleep_after.map(Duration::from_secs);
        Self {
            hands: Arc::new(hands),
            desired: Desired { goal: Goal::Up, heartbeat_every, sleep_after },
            seen: Observed::default(),
            tunnel: None,
            outcomes: mpsc::unbounded_channel(),
            known: watch::Sender::new(None),
            listeners: JoinSet::new(),
            shown: None,
        }
    }

    async fn run(mut self) -> Result<(), RunError> {
        let stop = self.hands.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        let mut give_up_at = None;
        self.listen();
        loop {
            self.act();
            self.tell_listeners();
            self.show();
            tokio::select! {
                Some(outcome) = self.outcomes.1.recv() => self.take(outcome),
                () = lost(self.tunnel.as_ref()) => self.tunnel_lost(),
                () = stop.cancelled(), if self.desired.goal == Goal::Up => {
                    say(Line::Stopping);
                    self.desired.goal = Goal::Down;
                    self.seen.end_pauses();
                    give_up_at = Some(Instant::now() + STOP_TIMEOUT);
                }
                _ = tick.tick() => {}
            }
            if self.desired.goal == Goal::Down && self.seen.is_empty() {
                self.hands.end();
                say(Line::Stopped);
                return Ok(());
            }
            if give_up_at.is_some_and(|time| Instant::now() >= time) {
                return Err(RunError::LeftBehind(format!("{:?}", self.seen.workspace.state)));
            }
        }
    }

    /// Those who hear of things that no action asked for; they end with the supervisor.
    fn listen(&mut self) {
        let gate = (Arc::clone(&self.hands), self.outcomes.0.clone());
        self.listeners.spawn(async move {
            loop {
                gate.0.gate.wanted().await;
                let _ = gate.1.send(Outcome::Event(Event::Wanted));
            }
        });
        let engine = (Arc::clone(&self.hands), self.outcomes.0.clone());
        self.listeners.spawn(async move {
            loop {
                engine.0.hear_engine(|| drop(engine.1.send(Outcome::Event(Event::Stirred)))).await;
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        });
        let (hands, outcomes, known) = (Arc::clone(&self.hands), self.outcomes.0.clone(), self.known.subscribe());
        let heartbeat_every = self.desired.heartbeat_every;
        self.listeners.spawn(hear_control(hands, outcomes, known, heartbeat_every));
    }

    fn phase(&self, now: Instant) -> Phase {
        let asleep = matches!(self.seen.workspace.state, WorkspaceState::Asleep { .. });
        match (self.desired.goal, &self.seen.control.state, self.seen.standing()) {
            (Goal::Down, ..) => Phase::Stopping,
            (_, ControlState::Unregistered, _) => Phase::Starting,
            (.., Standing::Recycling) => Phase::Recycling,
            _ if !self.seen.is_reachable(now) => Phase::Unreachable,
            (.., Standing::Locked) => Phase::Rented,
            _ if asleep => Phase::Asleep,
            _ => Phase::Ready,
        }
    }

    /// Tells `status`: at once what changed, and now and then what only counts.
    fn show(&mut self) {
        let now = Instant::now();
        let (phase, url) = (self.phase(now), self.tunnel.as_ref().map(|tunnel| tunnel.url().to_owned()));
        let shown = self.shown.as_ref();
        if shown.is_some_and(|(was, at, when)| *was == phase && *at == url && now < *when + SHOW_EVERY) {
            return;
        }
        self.shown = Some((phase, url.clone(), now));
        if let Err(error) = self.hands.show(phase, url) {
            tracing::debug!(%error, "what `status` shows cannot be written");
        }
    }

    fn tell_listeners(&self) {
        let known = match (&self.seen.control.state, self.desired.goal) {
            (ControlState::Registered { told, standing, .. }, Goal::Up) => Some((*standing, told.workspace)),
            _ => None,
        };
        self.known.send_if_modified(|before| std::mem::replace(before, known) != known);
    }

    fn act(&mut self) {
        for action in reconcile(&self.desired, &self.seen, Instant::now()) {
            self.seen.begin(&action);
            self.announce(&action);
            let tunnel = if action == Action::CloseTunnel { self.tunnel.take() } else { None };
            let (hands, outcomes) = (Arc::clone(&self.hands), self.outcomes.0.clone());
            tokio::spawn(async move {
                let carried_out = tokio::spawn({
                    let action = action.clone();
                    async move { hands.carry_out(action, tunnel).await }
                });
                // A panic fails this one action; its part goes on.
                let outcome = carried_out.await.unwrap_or_else(|error| {
                    tracing::error!(%error, ?action, "an action panicked");
                    Outcome::Event(Event::Failed { action, pause: Duration::ZERO })
                });
                // The loop is gone only when the program ends.
                let _ = outcomes.send(outcome);
            });
        }
    }

    fn announce(&self, action: &Action) {
        let replaces =
            self.seen.serving().is_some() || matches!(self.seen.workspace.state, WorkspaceState::Stopped { .. });
        if *action == Action::RemoveWorkspace && replaces && self.desired.goal == Goal::Up {
            say(Line::Recycling);
        }
    }

    fn take(&mut self, outcome: Outcome) {
        let event = match outcome {
            Outcome::Event(event) => event,
            Outcome::Tunnel(tunnel) => {
                let url = tunnel.url().to_owned();
                self.tunnel = Some(tunnel);
                Event::TunnelOpened { url }
            }
        };
        match (&event, &self.seen.workspace.state) {
            (Event::Wanted, WorkspaceState::Asleep { .. }) => say(Line::Waking),
            (Event::ContainerChecked { running: false, .. }, WorkspaceState::Serving { .. }) => {
                say(Line::ContainerStopped);
            }
            _ => {}
        }
        self.seen.apply(event, Instant::now(), random::chance());
    }

    fn tunnel_lost(&mut self) {
        say(Line::TunnelLost);
        self.tunnel = None;
        self.seen.apply(Event::TunnelLost, Instant::now(), random::chance());
    }
}

/// Asks control to answer when the session stands otherwise: the end of a lock is heard of at once, and not with the
/// next heartbeat. A control that answers without waiting is asked no more often than heartbeats are sent.
async fn hear_control(
    hands: Arc<Hands>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    mut known: watch::Receiver<Option<(Standing, WorkspaceNumber)>>,
    heartbeat_every: Duration,
) {
    loop {
        let Some((standing, workspace)) = *known.borrow_and_update() else {
            if known.changed().await.is_err() {
                return;
            }
            continue;
        };
        let asked_at = Instant::now();
        tokio::select! {
            heard = hands.await_change(standing, workspace) => match heard {
                Some(event) => {
                    let _ = outcomes.send(Outcome::Event(event));
                    // What was heard becomes what is known.
                    let _ = tokio::time::timeout(heartbeat_every, known.changed()).await;
                }
                None => tokio::time::sleep(heartbeat_every.saturating_sub(asked_at.elapsed())).await,
            },
            _ = known.changed() => {}
        }
    }
}

async fn lost(tunnel: Option<&OpenTunnel>) {
    match tunnel {
        Some(tunnel) => tunnel.lost().await,
        None => std::future::pending().await,
    }
}

impl RunError {
    /// The error and its sources, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}
