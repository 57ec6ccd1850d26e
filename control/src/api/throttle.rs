//! Limits by network, with the header fields that tell clients of them.
//!
//! `RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers (version 10): one item for each limit
//! of the route, `"general";q=100;w=900` and `"general";r=57;t=12`, where `t` is when the next request comes free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runit_core::NetworkKey;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::limit::{Limit, SlidingLog, Verdict};

use super::problem::Problem;
use super::request::Sender;
use crate::control::Control;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// One limit and all that count under it.
pub(super) struct Throttle {
    name: &'static str,
    limit: Limit,
    log: Mutex<SlidingLog<NetworkKey>>,
}

impl Throttle {
    pub(super) fn new(name: &'static str, limit: runit_config::Limit) -> Arc<Self> {
        let limit = Limit { requests: limit.requests, window: Duration::from_secs(limit.seconds) };
        Arc::new(Self { name, limit, log: Mutex::new(SlidingLog::new(limit)) })
    }
}

/// The limits of a route, in the order in which they are asked; one that refuses leaves the later ones uncounted.
#[derive(Clone)]
pub(super) struct Throttles {
    control: Control,
    throttles: Arc<[Arc<Throttle>]>,
}

impl Throttles {
    pub(super) fn new(control: Control, throttles: &[&Arc<Throttle>]) -> Self {
        Self { control, throttles: throttles.iter().map(|&throttle| Arc::clone(throttle)).collect() }
    }

    fn admit(&self, network: NetworkKey) -> Vec<(&Throttle, Verdict)> {
        let now = self.control.sessions.clock.now();
        let mut verdicts = Vec::new();
        for throttle in &*self.throttles {
            let verdict = throttle.log.lock().unwrap_or_else(PoisonError::into_inner).admit(&network, now);
            verdicts.push((&**throttle, verdict));
            if !verdict.admitted {
                break;
            }
        }
        verdicts
    }
}

/// Lets a request pass if all of the route's limits do.
pub(super) async fn pass(State(throttles): State<Throttles>, peer: Sender, request: Request, next: Next) -> Response {
    let verdicts = throttles.admit(peer.0.network());
    let refused = verdicts.iter().find(|(_, verdict)| !verdict.admitted);
    let mut response = match refused {
        None => next.run(request).await,
        Some((throttle, verdict)) => {
            let control = &throttles.control;
            control.metrics.rate_limited(throttle.name);
            if verdict.first_refusal {
                let event = SecurityEvent::new(EventKind::RateLimited, control.sessions.clock.now());
                control.note(event.address(peer.0)).await;
            }
            let mut response = Problem::RateLimited.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, seconds(verdict.next_free).into());
            response
        }
    };
    tell(response.headers_mut(), &verdicts);
    response
}

fn tell(headers: &mut HeaderMap, verdicts: &[(&Throttle, Verdict)]) {
    let list = |item: fn(&Throttle, &Verdict) -> String| {
        let items: Vec<String> = verdicts.iter().map(|(throttle, verdict)| item(throttle, verdict)).collect();
        HeaderValue::try_from(items.join(", ")).ok()
    };
    let policy = list(|throttle, _| {
        format!("\"{}\";q={};w={}", throttle.name, throttle.limit.requests, throttle.limit.window.as_secs())
    });
    let standing = list(|throttle, verdict| {
        format!("\"{}\";r={};t={}", throttle.name, verdict.remaining, seconds(verdict.next_free))
    });
    headers.extend(policy.map(|value| (RATE_LIMIT_POLICY, value)));
    headers.extend(standing.map(|value| (RATE_LIMIT, value)));
}

/// Whole seconds, rounded up: who waits for so long is let through.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}
