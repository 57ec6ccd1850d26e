//! The data plane's security events on their way to the audit trail: bounded in number and in memory.

use std::sync::Arc;
use std::time::Duration;

use pingora_limits::rate::Rate;
use runit_core::{Authority, SecurityEvent};
use tokio::sync::mpsc;

/// Events of one kind from one network in one minute; what is more is only counted.
const PER_MINUTE: isize = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Events that may wait to be recorded.
const QUEUE: usize = 1024;

/// Takes events without waiting.
pub(crate) struct EventSink {
    queue: mpsc::Sender<SecurityEvent>,
    rate: Rate,
    limited: Rate,
    authority: Arc<dyn Authority>,
}

impl EventSink {
    /// A sink and the queue that [`record`] empties.
    pub(crate) fn new(authority: Arc<dyn Authority>) -> (Self, mpsc::Receiver<SecurityEvent>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue, rate: Rate::new(WINDOW), limited: Rate::new(WINDOW), authority }, events)
    }

    /// Sends an event, unless its network has sent too many of the kind (an estimate is good enough for that) or the queue
    /// is full: it is counted then.
    pub(crate) fn send(&self, event: SecurityEvent) {
        let (kind, network) = (event.kind, event.address.map(|address| address.network()));
        if self.rate.observe(&(kind, network), 1) > PER_MINUTE || self.queue.try_send(event).is_err() {
            self.authority.count(kind);
        }
    }

    /// Sends an event of a limit that a network runs into, for each session at most once a minute (by the same estimate):
    /// `runit_gateway_refusals_total` has each refusal.
    pub(crate) fn send_first(&self, event: SecurityEvent) {
        let network = event.address.map(|address| address.network());
        if self.limited.observe(&(network, event.session), 1) == 1 {
            self.send(event);
        }
    }
}

/// Records events, many at a time.
pub(crate) async fn record(mut events: mpsc::Receiver<SecurityEvent>, authority: Arc<dyn Authority>) {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, QUEUE).await > 0 {
        if authority.record(std::mem::take(&mut batch)).await.is_err() {
            tracing::warn!("security events could not be recorded");
        }
    }
}
