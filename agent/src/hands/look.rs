//! Looking at a running container: whether its rules stand, what it moves by itself, and whether it is used.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::{Hands, HandsError, chain, locked, unix_secs};
use crate::activity::{Watch, computing};
use crate::console::{Line, say};
use crate::egress::meter::Counters;
use crate::egress::ruleset::Flow;
use crate::engine::{Counted, base_path};
use crate::jupyter;
use crate::observed::Event;

/// How often Jupyter is asked; the engine's counters are read at every look.
const ASK_JUPYTER_EVERY: Duration = Duration::from_secs(30);
/// What a `kill -9` may make the meter forget.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What the agent tells of its container: to control with heartbeats, and to its provider. Nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What the container moved by itself in the last 24 hours, in bytes.
    pub egress_bytes: u64,
    /// What it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_cap_bytes: Option<u64>,
    /// Whether it is cut off from the world for that.
    pub egress_cut: bool,
    /// Why it counts as used, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
    /// For how long it has not been used.
    pub idle_seconds: u64,
    /// Thousandths of a core that it used on average since the last look; none until there were two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millicores: Option<u64>,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
    /// What it may use.
    pub limits: Limits,
    /// Processes that were killed since the memory was used up, in this workspace.
    pub killed_for_memory: u64,
}

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

impl Limits {
    fn new(settings: &runit_config::Container) -> Self {
        // Settings were checked to be 0.1 to 1,024 cores; a cast from a float saturates.
        let millicores = (settings.cpus * 1e3).round() as u64;
        Self { millicores, memory_bytes: settings.memory_bytes, processes: settings.pids }
    }
}

/// What is remembered from look to look.
#[derive(Debug)]
pub(crate) struct Books {
    report: Report,
    counters: Counters,
    flow: Flow,
    watch: Watch,
    jupyter: Option<SocketAddr>,
    asked_at: Option<Instant>,
    busy_at: Instant,
    saved_at: Instant,
    started_at: Instant,
}

impl Default for Books {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            report: Report::default(),
            counters: Counters::default(),
            flow: Flow::Open,
            watch: Watch::default(),
            jupyter: None,
            asked_at: None,
            busy_at: now,
            saved_at: now,
            started_at: now,
        }
    }
}

impl Books {
    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    /// A container was started on a workspace, or on a new one.
    pub(super) fn container_started(&mut self, jupyter: SocketAddr) {
        self.counters.container_started();
        (self.watch, self.jupyter, self.asked_at, self.busy_at) =
            (Watch::default(), Some(jupyter), None, Instant::now());
    }

    /// No container runs: nothing is used.
    pub(super) fn container_ended(&mut self) {
        (self.report.millicores, self.report.memory_bytes, self.report.processes) = (None, 0, 0);
    }

    pub(super) fn workspace_started(&mut self) {
        self.report.killed_for_memory = 0;
    }
}

impl Hands {
    /// The container as it was last seen.
    pub(crate) fn report(&self) -> Report {
        let books = locked(&self.books);
        let limits = Limits::new(&self.settings.container);
        Report { idle_seconds: books.busy_at.elapsed().as_secs(), limits, ..books.report.clone() }
    }

    pub(super) async fn check_container(&self) -> Result<Event, HandsError> {
        let gone = Event::ContainerChecked { running: false, busy: false };
        if !self.engine.is_running().await? {
            locked(&self.books).container_ended();
            return Ok(gone);
        }
        if !self.keep_rules().await? {
            self.gate.shut();
            self.engine.stop().await?;
            locked(&self.books).container_ended();
            return Ok(gone);
        }
        let counted = self.engine.counted().await?;
        self.meter(&counted).await?;
        Ok(Event::ContainerChecked { running: true, busy: self.is_busy(&counted).await })
    }

    /// Whether the rules stand, or do again. Rather no container than one that reaches the provider's network; but rules
    /// that merely cannot be looked at are taken to stand until the next look.
    async fn keep_rules(&self) -> Result<bool, HandsError> {
        if self.firewall.holds().await? {
            return Ok(true);
        }
        tracing::warn!("somebody changed the container's rules; they are set again");
        let flow = locked(&self.books).flow;
        let set = self.firewall.set(flow).await;
        if let Err(error) = &set {
            tracing::error!(error = chain(error), "the container is stopped, since its rules cannot be set again");
        }
        Ok(set.is_ok())
    }

    /// Books what the container moved by itself, and cuts it off or lets it on where that is due.
    async fn meter(&self, counted: &Counted) -> Result<(), HandsError> {
        let gate = self.gate.counts();
        let (now, cap_bytes) = (unix_secs(SystemTime::now()), self.settings.egress.daily_cap_bytes);
        let change = {
            let (mut books, mut state) = (locked(&self.books), locked(&self.state));
            let moved = books.counters.read(counted.network_bytes, gate.bytes_in.saturating_add(gate.bytes_out));
            state.egress_mut().add(moved, now);
            let used = state.egress_mut().bytes(now);
            let flow = if cap_bytes.is_some_and(|cap| used >= cap) { Flow::Cut } else { Flow::Open };
            let report = &mut books.report;
            (report.egress_bytes, report.egress_cap_bytes, report.egress_cut) = (used, cap_bytes, flow == Flow::Cut);
            (report.memory_bytes, report.processes) = (counted.memory_bytes, counted.processes);
            if books.saved_at.elapsed() >= SAVE_EVERY {
                books.saved_at = Instant::now();
                // Serving a renter does not depend on it.
                if let Err(error) = state.save() {
                    tracing::error!(error = chain(&error), "the container's traffic will not survive a restart");
                }
            }
            let change = (flow != books.flow).then_some(flow);
            books.flow = flow;
            change
        };
        if let Some(flow) = change {
            self.firewall.set(flow).await?;
            say(if flow == Flow::Cut { Line::EgressCut } else { Line::EgressOpen });
        }
        Ok(())
    }

    async fn is_busy(&self, counted: &Counted) -> bool {
        let (due, jupyter, since) = {
            let mut books = locked(&self.books);
            let now = Instant::now();
            let due = books.asked_at.is_none_or(|time| now >= time + self.ask_jupyter_every());
            if due {
                books.asked_at = Some(now);
            }
            (due, books.jupyter, books.started_at.elapsed())
        };
        let workspace = locked(&self.workspace).clone();
        let said = match (due, jupyter, workspace) {
            (true, Some(address), Some(workspace)) => {
                let session = locked(&self.identity).session;
                Some(jupyter::activity(&self.local, address, &base_path(session), &workspace.jupyter_token).await)
            }
            _ => None,
        };
        let mut books = locked(&self.books);
        books.report.millicores = books.watch.millicores(counted.processor, since);
        let computing = books.report.millicores.and_then(computing);
        // What Jupyter said stands until it is asked again.
        let known = if said.is_none() { books.report.busy.clone() } else { None };
        let told = said.and_then(|said| books.watch.jupyter(said)).or(computing);
        let is_busy = told.is_some();
        books.report.busy = told.map(|busy| busy.to_string()).or(known.filter(|_| !due));
        if is_busy {
            books.busy_at = Instant::now();
        }
        is_busy
    }

    /// Often enough for the time after which the container is stopped.
    fn ask_jupyter_every(&self) -> Duration {
        let sleep_after = self.settings.container.sleep_after_seconds;
        if sleep_after == 0 { ASK_JUPYTER_EVERY } else { ASK_JUPYTER_EVERY.min(Duration::from_secs(sleep_after) / 4) }
    }

    pub(super) async fn put_to_sleep(&self) -> Result<Event, HandsError> {
        let workspace = locked(&self.workspace).clone().ok_or(HandsError::NoWorkspace)?;
        self.gate.doze(&workspace.gate_secret);
        self.engine.stop().await?;
        locked(&self.books).container_ended();
        say(Line::Asleep);
        Ok(Event::FellAsleep)
    }

    /// Hears of containers that end, and of processes that are killed for memory, as long as the engine tells.
    pub(crate) async fn hear_engine(&self, stirred: impl Fn()) {
        use crate::engine::Happening;
        use futures::StreamExt;
        let mut happenings = std::pin::pin!(self.engine.happenings());
        while let Some(happening) = happenings.next().await {
            match happening {
                Happening::Ended => stirred(),
                Happening::OutOfMemory => {
                    locked(&self.books).report.killed_for_memory += 1;
                    say(Line::OutOfMemory);
                }
            }
        }
    }
}
