//! Which web pages may call the API: our own, and those that the operator lists; never with credentials.
//!
//! The API takes no cookies, so a foreign page has no authority to misuse; what it could misuse is the visitor's
//! address. Therefore CORS is off, and requests that change something are refused when a browser says that a foreign
//! page sent them (OWASP CSRF prevention, "verifying origin").

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;
use url::Url;

use super::throttle::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::control::Control;

/// CORS for the listed origins; none when there are none.
pub(super) fn cors(origins: &[Url]) -> Option<CorsLayer> {
    let listed: Vec<HeaderValue> =
        origins.iter().filter_map(|url| url.origin().ascii_serialization().try_into().ok()).collect();
    (!listed.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(listed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
            .expose_headers([header::RETRY_AFTER, RATE_LIMIT, RATE_LIMIT_POLICY])
    })
}

/// Whether it would change something and comes from a foreign page. Programs send no `Origin`.
pub(super) fn is_foreign(control: &Control, request: &Request) -> bool {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let origin = request.headers().get(header::ORIGIN).filter(|_| !is_safe);
    origin.is_some_and(|origin| !is_ours(control, origin, request.headers()))
}

/// Our public name, a listed origin, or the very host that the browser addressed.
fn is_ours(control: &Control, origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|text| Url::parse(text).ok()) else { return false };
    let settings = control.settings.load();
    let settings = &settings.control;
    let is_known = std::iter::once(&settings.public_url)
        .chain(&settings.cors_origins)
        .any(|known| known.origin() == origin.origin());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    is_known || host.is_some_and(|host| host.eq_ignore_ascii_case(origin.authority()))
}
