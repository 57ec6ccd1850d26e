//! The control plane's HTTP interface: routes, and what each of them passes through.
//!
//! ```text
//!   connection ─▶ metrics, headers, foreign origins ─▶ CORS ─▶ route ─▶ limits ─▶ handler
//! ```
//!
//! Handlers unpack a request, call one function of [`Control`], and pack its answer. `docs/API.md` describes the
//! interface; a change here changes it there.

pub(crate) mod answer;
mod description;
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

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use runit_listener::places::Bounds;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::Control;
use crate::occupancy::Occupancy;
use crate::openapi::{document, refusing, refusing_all};
pub(crate) use live::LiveList;
use problem::Problem;
use request::BodyLimits;
pub(crate) use request::Peer;
use throttle::{Throttle, Throttles};

const TITLE: &str = "RUNIT control API";
const ABOUT: &str = "What providers and renters ask of the control plane. docs/API.md tells the same at length.";

/// What handlers share; a request has several copies of it, so a copy is one count.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// What that is.
pub(crate) struct Shared {
    control: Control,
    live: Arc<LiveList>,
    /// Heartbeats that wait for a change. Each has a connection in use: no more than every second one.
    waits: Arc<Occupancy>,
    bodies: BodyLimits,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
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
    let creation = Throttle::shared("creation", settings.creation_limit);
    let heartbeat = Throttle::new("heartbeat", settings.heartbeat_limit);
    let limited = |throttles: &[&Arc<Throttle>]| {
        let throttles = Throttles::new(control.clone(), throttles);
        from_fn_with_state(throttles, throttle::pass)
    };

    let routes = Routes::described();
    let registration = routes.registration.split_for_parts().0.route_layer(limited(&[&general, &creation]));
    let heartbeats = routes.heartbeats.split_for_parts().0.route_layer(limited(&[&heartbeat]));
    let others = routes.others.split_for_parts().0.route_layer(limited(&[&general]));
    let pages = routes.pages.split_for_parts().0;
    let mut router = Router::new()
        .merge(registration)
        .merge(heartbeats)
        .merge(others)
        .merge(pages)
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed);
    if let Some(cors) = origin::cors(&settings.cors_origins) {
        router = router.layer(cors);
    }
    let around = from_fn_with_state(control.clone(), answer::to_everybody);
    let Bounds { connections, per_network, .. } = control.reception.bounds;
    let waits = Occupancy::new(connections / 2, per_network / 2);
    let shared = Shared { bodies: BodyLimits::new(control.settings.clone()), control, live, waits };
    router.layer(around).with_state(Api(Arc::new(shared)))
}

/// The OpenAPI document of these routes.
pub(crate) fn openapi() -> Value {
    let Routes { registration, heartbeats, others, pages } = Routes::described();
    let all = registration.merge(heartbeats).merge(others).merge(pages);
    document(all.into_openapi(), TITLE, ABOUT, "/")
}

/// The routes by the limits that they are under, each with what it may be refused for.
struct Routes {
    registration: OpenApiRouter<Api>,
    heartbeats: OpenApiRouter<Api>,
    others: OpenApiRouter<Api>,
    /// Static answers cost nothing and change nothing: not limited, so that a limited renter still sees the page say so.
    pages: OpenApiRouter<Api>,
}

impl Routes {
    fn described() -> Self {
        use Problem as P;
        let body = [P::InvalidPayload(String::new()), P::UnsupportedMediaType, P::TooLarge, P::TooSlow];
        // A listed proxy may have sent something that is no address.
        let limited = [P::RateLimited, P::InvalidPayload(String::new())];
        let taken = [P::UnknownToken, P::AddressMismatch, P::Unavailable];
        let own = [P::UnknownSession, P::WrongSecret];
        let changing = |routes| refusing_all(routes, &[P::ForeignOrigin, P::Unavailable]);
        let with_body = |routes| changing(refusing_all(routes, &body));

        let registering = [P::InvalidPublicUrl, P::ProviderKeyRequired, P::SessionTaken];
        let registration = with_body(OpenApiRouter::new().routes(refusing(routes!(provider::register), &registering)));
        let beating = OpenApiRouter::new()
            .routes(refusing(routes!(renter::heartbeat), &taken))
            .routes(refusing(routes!(renter::heartbeat_bearer), &taken));
        let agents = refusing(routes!(provider::heartbeat), &[P::ReRegister, P::WrongSecret]);
        let heartbeats = changing(beating).merge(with_body(OpenApiRouter::new().routes(agents)));

        let asking = OpenApiRouter::new()
            .routes(refusing(routes!(provider::show), &own))
            .routes(routes!(renter::list))
            .routes(refusing(routes!(live::events), &[P::TooManyStreams]))
            .routes(refusing(routes!(renter::access), &[P::NoToken, P::NotFound]))
            .routes(refusing(routes!(renter::access_bearer), &[P::NoToken]))
            .routes(refusing(routes!(renter::usage), &taken))
            .routes(refusing(routes!(renter::usage_bearer), &taken))
            .routes(refusing(refusing(routes!(usage_stream::events), &taken), &[P::TooManyStreams]))
            .routes(refusing(routes!(renter::statement), &taken))
            .routes(refusing(routes!(renter::statement_bearer), &taken));
        let acting = OpenApiRouter::new()
            .routes(refusing(routes!(provider::deregister), &own))
            .routes(refusing(routes!(renter::release), &taken))
            .routes(refusing(routes!(renter::release_bearer), &taken));
        let sending = OpenApiRouter::new()
            .routes(refusing(refusing(routes!(provider::refresh), &own), &[P::InvalidPublicUrl]))
            .routes(refusing(routes!(renter::request), &[P::NoSessions]))
            .routes(refusing(refusing(routes!(renter::reconnect), &taken), &[P::TooManyReconnects(0)]))
            .routes(refusing(refusing(routes!(renter::reconnect_bearer), &taken), &[P::TooManyReconnects(0)]))
            .routes(refusing(routes!(plain::connect), &[P::NoSessions]));
        let others = asking.merge(changing(acting)).merge(with_body(sending));

        let pages = OpenApiRouter::new()
            .routes(routes!(pages::banner))
            .routes(routes!(pages::to_index))
            .routes(routes!(pages::index))
            .routes(refusing(routes!(pages::file), &[P::NotFound]))
            .routes(routes!(plain::list))
            .routes(routes!(description::document))
            .routes(routes!(description::page))
            .routes(refusing(routes!(description::gateway_document), &[P::NotFound]))
            .routes(refusing(routes!(description::gateway_page), &[P::NotFound]));
        let limited = |routes| refusing_all(routes, &limited);
        Self { registration: limited(registration), heartbeats: limited(heartbeats), others: limited(others), pages }
    }
}
