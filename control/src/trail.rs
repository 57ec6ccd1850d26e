//! The audit trail: every security event goes to the log, the metrics, and the store.
//!
//! Whoever is refused can cause that event again at will (a guessed token, a request over the limit) and must not fill
//! the disk with it: of refusals [`REFUSALS_PER_WINDOW`] a minute are kept for each network and kind, the rest are
//! counted in the metrics only. What has changed a session is always kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::limit::{Limit, SlidingLog};
use runit_core::store::{Store, StoreError};
use runit_core::time::millis;
use runit_core::{NetworkKey, ProviderId, RenterAddress, SessionId, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::tally::{self, Tally};

const REFUSALS_PER_WINDOW: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type ProviderOf = dyn Fn(SessionId) -> Option<ProviderId> + Send + Sync;

/// Where events go.
pub(crate) struct Trail {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    /// Whose session it is.
    provider_of: Box<ProviderOf>,
    kept: Mutex<SlidingLog<(EventKind, Option<NetworkKey>)>>,
    tally: Mutex<Tally>,
    /// Changes when the store has more events than before.
    news: watch::Sender<()>,
}

impl Trail {
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>, provider_of: Box<ProviderOf>) -> Self {
        let limit = Limit { requests: REFUSALS_PER_WINDOW, window: WINDOW };
        let kept = Mutex::new(SlidingLog::new(limit));
        Self { store, metrics, provider_of, kept, tally: Mutex::default(), news: watch::Sender::new(()) }
    }

    /// Records events, in order. One that names a session names its provider too, where that is known.
    ///
    /// # Errors
    /// When the store failed; the log has them then.
    pub(crate) async fn record(&self, events: Vec<SecurityEvent>) -> Result<(), StoreError> {
        let mut kept: Vec<SecurityEvent> = events.into_iter().filter(|event| self.keeps(event)).collect();
        for event in &mut kept {
            if let (Some(session), None) = (event.session, &event.provider) {
                event.provider = (self.provider_of)(session);
            }
            tracing::info!(target: "runit_security", "{}", line(event));
        }
        if kept.is_empty() {
            return Ok(());
        }
        let at = kept.first().map(|event| event.at);
        if let (true, Some(at)) = (self.store.append_events(kept).await?, at) {
            // The store's own event, which is before these in the trail.
            let tampered = SecurityEvent::new(EventKind::TrailTampered, at);
            self.count_one(&tampered);
            tracing::info!(target: "runit_security", "{}", line(&tampered));
            tracing::error!(
                "the head of the audit trail has no valid seal: it was tampered with, or the sealing key changed"
            );
        }
        self.news.send_replace(());
        Ok(())
    }

    /// Counts what happened in the last day, before this process.
    pub(crate) async fn count_past(&self, now: Timestamp) -> Result<(), StoreError> {
        let day_ago = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(millis(DAY)));
        let counts = self.store.count_events(day_ago, tally::STEP).await?;
        self.with_tally(|tally| counts.into_iter().for_each(|(began, kind, count)| tally.add(kind, count, began)));
        Ok(())
    }

    /// Reads or changes the counts of the last day.
    pub(crate) fn with_tally<T>(&self, with: impl FnOnce(&mut Tally) -> T) -> T {
        with(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when events were appended since it was asked last.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Counts an event that is not to be recorded.
    pub(crate) fn count(&self, kind: EventKind) {
        self.metrics.event(kind);
    }

    fn count_one(&self, event: &SecurityEvent) {
        self.count(event.kind);
        self.with_tally(|tally| tally.add(event.kind, 1, event.at));
    }

    fn keeps(&self, event: &SecurityEvent) -> bool {
        self.count_one(event);
        let key = (event.kind, event.address.map(RenterAddress::network));
        !is_refusal(event.kind)
            || self.kept.lock().unwrap_or_else(PoisonError::into_inner).admit(&key, event.at).admitted
    }
}

const fn is_refusal(kind: EventKind) -> bool {
    match kind {
        EventKind::InvalidProviderRegistration
        | EventKind::SuspiciousProviderUrl
        | EventKind::SessionAlreadyLocked
        | EventKind::InvalidAccessAttempt
        | EventKind::SessionHijackAttempt
        | EventKind::RateLimited
        | EventKind::OperatorDenied => true,
        EventKind::NewProviderRegistered
        | EventKind::SessionLocked
        | EventKind::SessionReconnected
        | EventKind::SessionAddressLeft
        | EventKind::SessionReleased
        | EventKind::SessionAutoUnlocked
        | EventKind::SessionCut
        | EventKind::SessionRemoved
        | EventKind::Bandwidth80Percent
        | EventKind::Bandwidth95Percent
        | EventKind::BandwidthExceeded
        | EventKind::OperatorKeyCreated
        | EventKind::OperatorKeyRevoked
        | EventKind::ProviderKeyCreated
        | EventKind::ProviderKeyRevoked
        | EventKind::StoreRestored
        | EventKind::TrailTampered => false,
    }
}

/// The line that operators' tools of the predecessor look for: `[SECURITY] <ISO time> - <TYPE>: {json}`.
fn line(event: &SecurityEvent) -> String {
    let mut details = Map::new();
    let mut add = |name: &str, value: Option<String>| value.map(|text| details.insert(name.into(), Value::from(text)));
    add("sessionId", event.session.map(|id| id.to_string()));
    add("providerId", event.provider.as_ref().map(ToString::to_string));
    add("operator", event.operator.map(|operator| operator.to_string()));
    add("keyId", event.key.map(|key| key.to_string()));
    add("ip", event.address.map(|address| address.to_string()));
    format!("[SECURITY] {} - {}: {}", event.at, event.kind.as_str(), Value::Object(details))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStore;
    use runit_core::trail::TrailKey;
    use uuid::Uuid;

    #[tokio::test]
    async fn what_the_store_finds_tampered_with_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let open = |key| SqliteStore::open(&directory.path().join("runit.db"), TrailKey::new([key; 32])).unwrap();
        let event = SecurityEvent::new(EventKind::SessionLocked, Timestamp::default());
        let metrics = Arc::new(Metrics::new().unwrap());
        for (key, found) in [(1, 0), (1, 0), (2, 1), (2, 1)] {
            let trail = Trail::new(Arc::new(open(key)), Arc::clone(&metrics), Box::new(|_| None));
            trail.record(vec![event.clone()]).await.unwrap();
            assert_eq!(metrics.events_of(EventKind::TrailTampered), found);
        }
    }

    #[test]
    fn the_line_has_the_predecessors_form() {
        let event = SecurityEvent::new(EventKind::SessionLocked, Timestamp::from_unix_ms(1_795_334_400_007))
            .session(SessionId::from_uuid(Uuid::from_u128(7)))
            .provider("gpu-box".parse().unwrap())
            .address(RenterAddress::new([127, 0, 0, 1].into()));
        assert_eq!(
            line(&event),
            "[SECURITY] 2026-11-22T08:00:00.007Z - SESSION_LOCKED: {\"ip\":\"127.0.0.1\",\"providerId\":\"gpu-box\",\
             \"sessionId\":\"00000000-0000-0000-0000-000000000007\"}"
        );
    }
}
