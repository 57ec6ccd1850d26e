//! How a process ends: at once, or by handing its sockets to a successor and keeping its connections for a while.
//!
//! | signal | what happens |
//! | --- | --- |
//! | `SIGTERM` | no new connections; WebSockets are told to come back (close code 1012); the end |
//! | `SIGINT` | the same |
//! | `SIGHUP` | nothing ends: settings are read again |
//! | `SIGUSR1` | the node leaves: it is not ready any more, so that balancers send nobody, and closes each connection after its answer; WebSockets stay. When the last connection has ended, or at the drain deadline, it goes on as with `SIGTERM` |
//! | `SIGQUIT` | the listening sockets go to the successor that waits for them; connections stay until they end by themselves, or until the drain deadline (six seconds at the least), when it goes on as with `SIGTERM` |

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use runit_config::LiveSettings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// What ends by itself has so long to do it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pingora tries for five seconds to pass its sockets on, and goes on accepting for as long after it has.
const OVERLAP: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(100);

/// Where in its life a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Other nodes get the new work. Whoever comes is served all the same: it takes a while until all know.
    Leaving,
    /// A successor takes the sockets.
    Draining,
    Ending {
        has_successor: bool,
    },
}

/// The life of one process.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }
}

impl Lifecycle {
    /// Resolves when new work is a successor's, or nobody's.
    pub async fn retired(&self) {
        self.reach(|phase| matches!(phase, Phase::Draining | Phase::Ending { .. })).await;
    }

    /// Resolves when new work should be other nodes'.
    pub async fn leaving(&self) {
        self.reach(|phase| phase != Phase::Running).await;
    }

    /// Whether it should be.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// Resolves when open WebSockets have to end.
    pub(crate) async fn ending(&self) {
        self.reach(|phase| matches!(phase, Phase::Ending { .. })).await;
    }

    /// Resolves when the process may end: its connections have, or had their time. Answers whether a successor has its
    /// sockets.
    pub async fn ended(&self, metrics: &Metrics, settings: &LiveSettings) -> bool {
        self.leaving().await;
        let drain = Duration::from_secs(settings.load().gateway.drain_seconds);
        tokio::select! {
            () = self.retired() => {}
            _ = tokio::time::timeout(drain, idle(metrics)) => self.end_without_successor(),
        }
        let drained = async {
            // However short the drain: with this process the sockets would end, and nobody would have them.
            tokio::time::sleep(OVERLAP).await;
            tokio::time::timeout(drain.saturating_sub(OVERLAP), idle(metrics)).await
        };
        tokio::select! {
            () = self.ending() => {}
            _ = drained => {
                self.phase.send_replace(Phase::Ending { has_successor: true });
            }
        }
        if tokio::time::timeout(LAST_WORDS, idle(metrics)).await.is_err() {
            tracing::warn!(connections = metrics.connections.get(), "connections are ended by force");
        }
        *self.phase.borrow() == Phase::Ending { has_successor: true }
    }

    /// Unless one has come meanwhile.
    fn end_without_successor(&self) {
        self.phase.send_if_modified(|phase| {
            let leaves = *phase == Phase::Leaving;
            if leaves {
                *phase = Phase::Ending { has_successor: false };
            }
            leaves
        });
    }

    async fn reach(&self, wanted: impl Fn(Phase) -> bool) {
        // The sender is ours, so the channel is open.
        let _ = self.phase.subscribe().wait_for(|phase| wanted(*phase)).await;
    }
}

async fn idle(metrics: &Metrics) {
    while metrics.connections.get() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

#[async_trait]
impl ShutdownSignalWatch for Lifecycle {
    async fn recv(&self) -> ShutdownSignal {
        let mut term = listen(SignalKind::terminate());
        let mut interrupt = listen(SignalKind::interrupt());
        let mut quit = listen(SignalKind::quit());
        let mut leave = listen(SignalKind::user_defined1());
        let phase = Arc::clone(&self.phase);
        let leaving = async {
            leave.recv().await;
            phase.send_if_modified(|phase| {
                let runs = *phase == Phase::Running;
                if runs {
                    *phase = Phase::Leaving;
                }
                runs
            });
            self.ending().await;
        };
        tokio::select! {
            () = leaving => ShutdownSignal::GracefulTerminate,
            _ = quit.recv() => {
                phase.send_replace(Phase::Draining);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    phase.send_replace(Phase::Ending { has_successor: true });
                });
                ShutdownSignal::GracefulUpgrade
            }
            _ = term.recv() => {
                phase.send_replace(Phase::Ending { has_successor: false });
                ShutdownSignal::GracefulTerminate
            }
            _ = interrupt.recv() => {
                phase.send_replace(Phase::Ending { has_successor: false });
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

fn listen(kind: SignalKind) -> Signal {
    signal(kind).expect("a runtime that watches signals, and none of the forbidden ones")
}
