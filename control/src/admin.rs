//! The operator's interface: a listener of its own with metrics, health, and calls that need an operator's key.
//!
//! ```text
//!   /livez /readyz           everybody
//!   /dashboard/              everybody: a page, which is empty until an operator signs in
//!   /metrics                 a key that may read, where the settings have one; else everybody
//!   /admin/v1/...            a key that may read, or operate, as the handler's first argument says
//! ```
//!
//! A key comes as `Authorization: Bearer`, or as the cookie that our own page was given for it, which speaks for no other
//! page ([`cookie`]). `docs/API.md` describes the calls; a change here changes it there.

mod access;
mod cookie;
mod dashboard;
mod events;
mod health;
mod keys;
mod overview;
mod page;
mod providers;
mod seldom;
mod sessions;
mod sign_in;
mod sign_ins;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use prometheus::proto::MetricFamily;
use serde_json::Value;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::overview::Used;
use self::seldom::Seldom;
use self::sign_ins::SignIns;
use crate::api::answer;
use crate::api::problem::Problem;
use crate::api::request::BodyLimits;
use crate::control::Control;
use crate::occupancy::Occupancy;
use crate::openapi::{document, refusing, refusing_all};

/// Something that can be scraped.
pub type Source = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// Live streams that may be open: in all, and from one network.
const STREAMS: usize = 64;

const TITLE: &str = "RUNIT admin API";
const ABOUT: &str =
    "What an operator sees and does. Served on the admin listener; a key goes into `Authorization: Bearer`.";

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    control: Control,
    sources: Arc<[Source]>,
    streams: Arc<Occupancy>,
    stop: watch::Receiver<bool>,
    bodies: BodyLimits,
    sign_ins: Arc<SignIns>,
    used: Arc<Seldom<Vec<Used>>>,
}

impl FromRef<Admin> for BodyLimits {
    fn from_ref(admin: &Admin) -> Self {
        admin.bodies.clone()
    }
}

/// All routes. Requests must carry their [`crate::api::Peer`] as an extension.
pub(crate) fn router(control: Control, sources: Vec<Source>, stop: watch::Receiver<bool>) -> Router {
    let (routes, _) = described().split_for_parts();
    let bodies = BodyLimits::new(control.settings.clone());
    let streams = Occupancy::new(STREAMS, STREAMS);
    let around = from_fn_with_state(control.clone(), answer::to_operators);
    let admin = Admin {
        control,
        sources: sources.into(),
        streams,
        stop,
        bodies,
        sign_ins: Arc::default(),
        used: Arc::default(),
    };
    routes
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(around)
        .with_state(admin)
}

/// The OpenAPI document of these routes.
pub(crate) fn openapi() -> Value {
    document(described().into_openapi(), TITLE, ABOUT, "/")
}

fn described() -> OpenApiRouter<Admin> {
    use Problem as P;
    let reading = OpenApiRouter::new()
        .routes(refusing(routes!(sessions::list), &[P::InvalidQuery(String::new())]))
        .routes(refusing(routes!(sessions::show), &[P::UnknownSession]))
        .routes(refusing(routes!(events::list), &[P::InvalidQuery(String::new())]))
        .routes(refusing(routes!(events::live), &[P::InvalidQuery(String::new()), P::TooManyStreams]))
        .routes(refusing(routes!(overview::usage), &[P::InvalidQuery(String::new())]))
        .routes(routes!(overview::summary))
        .routes(routes!(providers::list))
        .routes(routes!(keys::list))
        .routes(routes!(sign_in::begin, sign_in::show, sign_in::end));
    let body = [P::InvalidPayload(String::new()), P::UnsupportedMediaType, P::TooLarge, P::TooSlow];
    let operating = OpenApiRouter::new()
        .routes(refusing(routes!(sessions::release), &[P::UnknownSession, P::NotLocked]))
        .routes(refusing(routes!(sessions::cut), &[P::UnknownSession, P::NotLocked]))
        .routes(refusing(routes!(sessions::remove), &[P::UnknownSession]))
        .routes(refusing(routes!(keys::create), &body))
        .routes(refusing(routes!(keys::revoke), &[P::UnknownKey]));
    let keyed = reading.merge(refusing_all(operating, &[P::RoleRequired]));
    let guarded = [P::OperatorKeyRequired, P::ForeignOrigin, P::TooManyGuesses(0), P::Unavailable];
    let pages = OpenApiRouter::new()
        .routes(routes!(dashboard::to_page))
        .routes(routes!(dashboard::to_index))
        .routes(routes!(dashboard::index))
        .routes(refusing(routes!(dashboard::file), &[P::NotFound]));
    let open = OpenApiRouter::new()
        .routes(routes!(health::livez))
        .routes(refusing(routes!(health::readyz), &[P::NotReady]))
        .routes(refusing(routes!(health::metrics), &guarded))
        .routes(routes!(health::openapi))
        .routes(routes!(health::page));
    refusing_all(keyed, &guarded).merge(open).merge(pages)
}
