//! The control plane's HTTP interface: routes, and what each of them passes through.
//!
//! ```text
//!   connection ─▶ metrics ─▶ headers ─▶ CORS ─▶ foreign origins ─▶ route ─▶ limits ─▶ handler
//! ```
//!
//! Handlers unpack a request, call one function of [`Control`], and pack its answer. `docs/API.md` describes the
//! interface; a change here changes it there.

pub(crate) mod answer;
pub(crate) mod live;
mod origin;
pub(crate) mod pages;
mod plain;
pub(crate) mod problem;
mod provider;
mod renter;
pub(crate) mod request;
mod throttle;
mod usage_stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post, put};

use crate::control::Control;
pub(crate) use live::LiveList;
use problem::Problem;
use request::BodyLimits;
pub(crate) use request::Peer;
use throttle::{Throttle, Throttles};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    control: Control,
    live: Arc<LiveList>,
    bodies: BodyLimits,
}

impl FromRef<Api> for BodyLimits {
    fn from_ref(api: &Api) -> Self {
        api.bodies.clone()
    }
}

/// All routes. Requests must carry their [`Peer`] as an extension.
pub(crate) fn router(control: Control, live: Arc<LiveList>) -> Router {
    let settings = control.settings.load();
    let settings = &settings.control;
    let general = Throttle::new("general", settings.general_limit);
    let creation = Throttle::new("creation", settings.creation_limit);
    let heartbeat = Throttle::new("heartbeat", settings.heartbeat_limit);
    let limited = |throttles: &[&Arc<Throttle>]| {
        let throttles = Throttles::new(control.clone(), throttles);
        from_fn_with_state(throttles, throttle::pass)
    };

    let registration =
        Router::new().route("/provider/session", post(provider::register)).route_layer(limited(&[&general, &creation]));
    let heartbeats = Router::new()
        .route("/provider/heartbeat", post(provider::heartbeat))
        .route("/renter/heartbeat", post(renter::heartbeat_bearer))
        .route("/renter/heartbeat/{token}", post(renter::heartbeat))
        .route_layer(limited(&[&heartbeat]));
    let others = Router::new()
        .route("/provider/session/{id}", get(provider::show))
        .route("/provider/session/{id}", delete(provider::deregister))
        .route("/provider/session/{id}/tunnel", put(provider::refresh))
        .route("/renter/sessions", get(renter::list))
        .route("/renter/sessions/events", get(live::events))
        .route("/renter/request", post(renter::request))
        .route("/access", get(renter::access_bearer))
        .route("/access/{token}", get(renter::access))
        .route("/renter/release", post(renter::release_bearer))
        .route("/renter/release/{token}", post(renter::release))
        .route("/renter/reconnect", post(renter::reconnect_bearer))
        .route("/renter/reconnect/{token}", post(renter::reconnect))
        .route("/renter/usage", get(renter::usage_bearer))
        .route("/renter/usage/{token}", get(renter::usage))
        .route("/renter/usage/{token}/events", get(usage_stream::events))
        .route("/renter/statement", get(renter::statement_bearer))
        .route("/renter/statement/{token}", get(renter::statement))
        .route("/renter/plain", post(plain::connect))
        .route_layer(limited(&[&general]));
    // Static answers cost nothing and change nothing: not limited, so that a limited renter still sees the page say so.
    let pages = Router::new()
        .route("/", get(pages::banner))
        .route("/renter", get(pages::to_index))
        .route("/renter/", get(pages::index))
        .route("/renter/{file}", get(pages::file))
        .route("/renter/plain", get(plain::list));

    let mut router = Router::new()
        .merge(registration)
        .merge(heartbeats)
        .merge(others)
        .merge(pages)
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(from_fn_with_state(control.clone(), origin::refuse_foreign));
    if let Some(cors) = origin::cors(&settings.cors_origins) {
        router = router.layer(cors);
    }
    router
        .layer(from_fn(answer::add_headers))
        .layer(from_fn_with_state(control.settings.clone(), answer::add_hsts))
        .layer(from_fn_with_state(Arc::clone(&control.metrics), answer::count))
        .with_state(Api { bodies: BodyLimits::new(control.settings.clone()), control, live })
}
