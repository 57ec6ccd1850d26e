//! Sends events to the operator's receivers.
//!
//! The queue is the audit trail itself, and for each target a cursor in the store: the place of the last event that its
//! receiver has taken. So nothing is lost with a process, and what is sent again (an answer that was lost, a cursor that was
//! not written) has the id that it had. Each target has a task of its own, which sends one event after the other and tries
//! until it is taken: a receiver that fails or hangs delays no other, and none of them what causes the events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use runit_config::{NodeSettings, WebhookTarget};
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent};
use runit_core::store::{Store, StoreError, Turn};
use runit_core::time::Clock;
use runit_core::webhook::{InvalidSecret, InvalidUrl, Message, WebhookSecret, WebhookUrl, pause};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::random;

/// How often the trail is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A pause between two attempts is looked into so often: a node that sends keeps its turn meanwhile.
const KEPT: Duration = Duration::from_secs(3);
/// Events that are read at one time.
const PAGE: u32 = 64;
/// So many events that are none of a target's move its cursor: else they would be read again at each look.
const PASSED_OVER: u64 = 1_000;
/// Fewer do after so long: else they would seem to be missed when retention removes them.
const PASSED_FOR: Duration = Duration::from_secs(60);

/// How far a target's events were looked for; its cursor may be behind that where there were none.
struct Looked {
    place: u64,
    saved_at: Instant,
}

/// A receiver.
#[derive(Debug, Clone)]
pub struct Target {
    name: String,
    url: WebhookUrl,
    secret: WebhookSecret,
    kinds: Vec<runit_core::EventKind>,
    timeout: Duration,
    first_pause: Duration,
}

/// A target's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Its URL.
    #[error("webhooks.targets: the URL of {0}")]
    Url(String, #[source] InvalidUrl),
    /// Its secret.
    #[error("webhooks.targets: the secret of {0}")]
    Secret(String, #[source] InvalidSecret),
    /// One of its kinds.
    #[error("webhooks.targets: {0} names an unknown kind of event, {1}")]
    Kind(String, String),
}

/// A message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The name resolves to nothing, or to an address that may not be dialled.
    #[error("the host has no address that may be dialled")]
    Forbidden,
    /// No connection, or no answer in time.
    #[error("no answer in time")]
    Unreachable,
    /// Another status than 2xx. Redirects are not followed.
    #[error("the receiver answers {0}")]
    Refused(u16),
}

impl DeliveryError {
    const fn label(&self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
            Self::Refused(_) => "refused",
        }
    }
}

impl Target {
    /// All targets of the settings.
    ///
    /// # Errors
    /// [`TargetError`] for the first one that cannot be used.
    pub fn all(settings: &NodeSettings) -> Result<Vec<Self>, TargetError> {
        let plain = &settings.webhooks.plain_http_hosts;
        let target = |target: &WebhookTarget| {
            let name = target.name.clone();
            let kind = |text: &String| text.parse().map_err(|_| TargetError::Kind(name.clone(), text.clone()));
            Ok(Self {
                url: WebhookUrl::parse(&target.url, plain).map_err(|error| TargetError::Url(name.clone(), error))?,
                secret: WebhookSecret::parse(target.secret.expose())
                    .map_err(|error| TargetError::Secret(name.clone(), error))?,
                kinds: target.kinds.iter().map(kind).collect::<Result<_, _>>()?,
                timeout: Duration::from_millis(settings.webhooks.timeout_ms),
                first_pause: Duration::from_millis(settings.webhooks.first_retry_ms),
                name,
            })
        };
        settings.webhooks.targets.iter().map(target).collect()
    }

    /// What the settings call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a test message, once.
    ///
    /// # Errors
    /// [`DeliveryError`].
    pub async fn test(&self, clock: &dyn Clock) -> Result<(), DeliveryError> {
        let now = clock.now();
        self.deliver(&Message::test(&self.name, now), now.unix_ms() / 1_000).await
    }

    /// One attempt. The host is resolved anew, every address checked, and the first one dialled.
    async fn deliver(&self, message: &Message, unix_seconds: u64) -> Result<(), DeliveryError> {
        let attempt = async {
            let address = self.resolve().await?;
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .resolve(self.url.host(), address)
                .timeout(self.timeout)
                .user_agent(concat!("runit/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|_| DeliveryError::Unreachable)?;
            let request = client
                .post(self.url.url().clone())
                .header("content-type", "application/json")
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", unix_seconds)
                .header("webhook-signature", self.secret.sign(message, unix_seconds))
                .body(message.body.clone());
            // What the answer says besides is not read.
            let status = request.send().await.map_err(|_| DeliveryError::Unreachable)?.status();
            if status.is_success() { Ok(()) } else { Err(DeliveryError::Refused(status.as_u16())) }
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or(Err(DeliveryError::Unreachable))
    }

    async fn resolve(&self) -> Result<SocketAddr, DeliveryError> {
        let found = tokio::net::lookup_host((self.url.host(), self.url.port())).await;
        let addresses: Vec<SocketAddr> = found.map_err(|_| DeliveryError::Forbidden)?.collect();
        let allowed = addresses.iter().all(|address| self.url.may_dial(address.ip()));
        addresses.first().copied().filter(|_| allowed).ok_or(DeliveryError::Forbidden)
    }
}

/// What sending needs.
pub(crate) struct Webhooks {
    pub(crate) targets: Arc<[Target]>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Sends until `stop` turns true. What is under way then is sent again by the next process.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        let webhooks = &self;
        // From 0 on, or the first ones would be no increase.
        self.targets.iter().for_each(|target| self.metrics.webhook_missed(target.name(), 0));
        let sending = self.targets.iter().map(|target| {
            let mut stop = stop.clone();
            async move {
                tokio::select! {
                    () = webhooks.serve(target) => {}
                    _ = stop.wait_for(|&stopped| stopped) => {}
                }
            }
        });
        join_all(sending).await;
    }

    async fn serve(&self, target: &Target) {
        let mut looked = Looked { place: 0, saved_at: Instant::now() };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // What failed is logged by the store, and tried again at the next look.
            while let Ok(true) = self.send_page(target, &mut looked).await {}
        }
    }

    /// Sends some events; whether there may be more.
    async fn send_page(&self, target: &Target, looked: &mut Looked) -> Result<bool, StoreError> {
        if !self.has_turn(target).await? {
            return Ok(false);
        }
        let Some(cursor) = self.store.webhook_cursor(target.name.clone()).await? else {
            // A new target hears of what happens from now on.
            let head = self.store.trail_marks().await?.head.mark.place;
            self.store.save_webhook_cursor(target.name.clone(), head).await?;
            return Ok(false);
        };
        // Read first: what comes while the trail is looked at is not passed over.
        let marks = self.store.trail_marks().await?;
        let (base, head) = (marks.base.mark.place, marks.head.mark.place);
        if base > cursor {
            let seen = cursor.max(looked.place);
            self.store.save_webhook_cursor(target.name.clone(), base.max(seen)).await?;
            let missed = base.saturating_sub(seen);
            if missed > 0 {
                tracing::error!(
                    receiver = target.name,
                    missed,
                    "retention removed what a webhook's receiver had not taken"
                );
                self.metrics.webhook_missed(&target.name, missed);
            }
        }
        let filter = EventFilter { kinds: target.kinds.clone(), ..EventFilter::default() };
        let events = self.store.find_events(filter, EventsFrom::After(cursor), PAGE).await?;
        for event in &events {
            if !self.has_turn(target).await? || !self.send(target, event).await? {
                return Ok(false);
            }
            self.store.save_webhook_cursor(target.name.clone(), event.place).await?;
        }
        if events.is_empty() {
            looked.place = head;
            let passed = head.saturating_sub(cursor);
            if passed >= PASSED_OVER || passed > 0 && looked.saved_at.elapsed() >= PASSED_FOR {
                self.store.save_webhook_cursor(target.name.clone(), head).await?;
                looked.saved_at = Instant::now();
            }
        }
        Ok(!events.is_empty())
    }

    /// Of several processes that share the store one serves a receiver, and knows how far it is behind.
    async fn has_turn(&self, target: &Target) -> Result<bool, StoreError> {
        let has_turn = self.store.has_turn(Turn::Webhook(target.name.clone())).await?;
        if !has_turn {
            self.metrics.webhook_lag(&target.name, Duration::ZERO);
        }
        Ok(has_turn)
    }

    /// Waits; false when another process has taken over meanwhile.
    async fn pause(&self, target: &Target, mut rest: Duration) -> Result<bool, StoreError> {
        while rest > Duration::ZERO {
            let part = rest.min(KEPT);
            tokio::time::sleep(part).await;
            rest -= part;
            if !self.has_turn(target).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tries until the receiver has taken it; false when that is another process's by now.
    async fn send(&self, target: &Target, event: &PlacedEvent) -> Result<bool, StoreError> {
        let message = Message::of_event(&target.name, event.place, &event.event);
        let mut failures = 0;
        loop {
            let now = self.clock.now();
            self.metrics.webhook_lag(&target.name, now.since(event.event.at));
            match target.deliver(&message, now.unix_ms() / 1_000).await {
                Ok(()) => {
                    self.metrics.webhook(&target.name, "delivered");
                    self.metrics.webhook_lag(&target.name, Duration::ZERO);
                    return Ok(true);
                }
                Err(error) => {
                    failures += 1;
                    self.metrics.webhook(&target.name, error.label());
                    let jitter = random::bytes().map_or(0, u64::from_le_bytes);
                    let pause = pause(target.first_pause, failures, jitter);
                    tracing::warn!(receiver = target.name, failures, ?pause, %error, "a webhook was not taken");
                    if !self.pause(target, pause).await? {
                        return Ok(false);
                    }
                }
            }
        }
    }
}
