//! Limits by network, with the header fields that tell clients of them.
//!
//! `RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers (version 10): one item for each limit
//! of the route, `"general";q=100;w=900` and `"general";r=57;t=12`, where `t` is when the next request comes free.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runit_core::NetworkKey;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::limit::Verdict;
use runit_core::store::StoreError;

use super::problem::Problem;
use super::request::Sender;
use crate::authority::limit_of;
use crate::control::Control;
use crate::shared_limit::SharedLimit;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// One limit and all that count under it.
pub(super) struct Throttle {
    limit: SharedLimit<NetworkKey>,
    /// Whether it holds for all processes together that share the store.
    shared: bool,
}

impl Throttle {
    /// A limit of this process.
    pub(super) fn new(name: &'static str, limit: runit_config::Limit) -> Arc<Self> {
        Arc::new(Self { limit: SharedLimit::new(name, limit_of(limit)), shared: false })
    }

    /// A limit of all processes that share the store.
    pub(super) fn shared(name: &'static str, limit: runit_config::Limit) -> Arc<Self> {
        Arc::new(Self { limit: SharedLimit::new(name, limit_of(limit)), shared: true })
    }

    fn policy(&self) -> String {
        let limit = self.limit.limit();
        format!("\"{}\";q={};w={}", self.limit.name(), limit.requests, limit.window.as_secs())
    }

    async fn admit(&self, control: &Control, network: NetworkKey) -> Result<Verdict, StoreError> {
        let now = control.sessions.clock.now();
        match self.shared {
            true => self.limit.admit(&*control.sessions.store, &network, now).await,
            false => Ok(self.limit.admit_here(&network, now)),
        }
    }
}

/// The limits of a route, in the order in which they are asked; one that refuses leaves the later ones uncounted.
#[derive(Clone)]
pub(super) struct Throttles {
    control: Control,
    throttles: Arc<[Arc<Throttle>]>,
    /// `RateLimit-Policy` when so many were asked, less one.
    policies: Arc<[HeaderValue]>,
}

impl Throttles {
    pub(super) fn new(control: Control, throttles: &[&Arc<Throttle>]) -> Self {
        let throttles: Arc<[Arc<Throttle>]> = throttles.iter().map(|&throttle| Arc::clone(throttle)).collect();
        let items: Vec<String> = throttles.iter().map(|throttle| throttle.policy()).collect();
        let policies = (1..=items.len()).map(|asked| items[..asked].join(", "));
        let policies = policies.map(|list| HeaderValue::try_from(list).expect("names and numbers")).collect();
        Self { control, throttles, policies }
    }

    async fn admit(&self, network: NetworkKey) -> Result<Vec<(&Throttle, Verdict)>, StoreError> {
        let mut verdicts = Vec::new();
        for throttle in &*self.throttles {
            let verdict = throttle.admit(&self.control, network).await?;
            verdicts.push((&**throttle, verdict));
            if !verdict.admitted {
                break;
            }
        }
        Ok(verdicts)
    }
}

/// Lets a request pass if all of the route's limits do.
pub(super) async fn pass(State(throttles): State<Throttles>, peer: Sender, request: Request, next: Next) -> Response {
    let Ok(verdicts) = throttles.admit(peer.0.network()).await else { return Problem::Unavailable.into_response() };
    let refused = verdicts.iter().find(|(_, verdict)| !verdict.admitted);
    let mut response = match refused {
        None => next.run(request).await,
        Some((throttle, verdict)) => {
            let control = &throttles.control;
            control.metrics.rate_limited(throttle.limit.name());
            if verdict.first_refusal {
                let event = SecurityEvent::new(EventKind::RateLimited, control.sessions.clock.now());
                control.note(event.address(peer.0)).await;
            }
            let mut response = Problem::RateLimited.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, seconds(verdict.next_free).into());
            response
        }
    };
    if let Some(policy) = verdicts.len().checked_sub(1).and_then(|last| throttles.policies.get(last)) {
        response.headers_mut().insert(RATE_LIMIT_POLICY, policy.clone());
    }
    if let Ok(standing) = HeaderValue::try_from(standing(&verdicts)) {
        response.headers_mut().insert(RATE_LIMIT, standing);
    }
    response
}

fn standing(verdicts: &[(&Throttle, Verdict)]) -> String {
    let item = |(throttle, verdict): &(&Throttle, Verdict)| {
        format!("\"{}\";r={};t={}", throttle.limit.name(), verdict.remaining, seconds(verdict.next_free))
    };
    verdicts.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// Whole seconds, rounded up: who waits for so long is let through.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}
