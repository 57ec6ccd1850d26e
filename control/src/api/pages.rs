//! Pages, which are part of the program: how they are served, the renter's, and the banner.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::request::Segment;

/// Scripts and styles are the page's own files; pictures too, or `data:` (the empty icon). Forms go to ourselves.
pub(crate) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// A file that is part of the program.
pub(crate) struct Page {
    /// Where it is in `renter/`.
    pub(crate) path: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) media_type: &'static str,
    pub(crate) tag: LazyLock<String>,
}

/// Files of `renter/`, each with its media type.
macro_rules! pages {
    ($($path:literal: $media_type:literal),* $(,)?) => {
        [$($crate::api::pages::Page {
            path: $path,
            body: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../renter/", $path)),
            media_type: $media_type,
            tag: std::sync::LazyLock::new(|| {
                $crate::api::pages::tag(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../renter/", $path)))
            }),
        }),*]
    };
}
pub(crate) use pages;

static PAGES: [Page; 9] = pages! {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "pulse.js": "text/javascript; charset=utf-8",
    "rental.js": "text/javascript; charset=utf-8",
    "sessions.js": "text/javascript; charset=utf-8",
    "statement.js": "text/javascript; charset=utf-8",
};

/// Says who is there.
#[utoipa::path(get, path = "/", operation_id = "banner", tag = "pages",
    responses((status = 200, description = "A line", content_type = "text/plain", body = String)))]
pub(super) async fn banner() -> &'static str {
    "RUNIT control plane running ✅"
}

/// The way to the renter's page.
#[utoipa::path(get, path = "/renter", operation_id = "toPage", tag = "pages",
    responses((status = 308, description = "To `/renter/`", headers(("Location" = String)))))]
pub(super) async fn to_index() -> Redirect {
    Redirect::permanent("/renter/")
}

/// The renter's page.
#[utoipa::path(get, path = "/renter/", operation_id = "page", tag = "pages",
    responses((status = 200, description = "A page", content_type = "text/html", body = String),
        (status = 304, description = "The one that `If-None-Match` names")))]
pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(&PAGES, "index.html", &headers)
}

/// A script or style of the renter's page.
#[utoipa::path(get, path = "/renter/{file}", operation_id = "pageFile", tag = "pages", params(("file" = String, Path)),
    responses((status = 200, description = "The file",
            content((String = "text/html"), (String = "text/css"), (String = "text/javascript"))),
        (status = 304, description = "The one that `If-None-Match` names")))]
pub(super) async fn file(Segment(name): Segment, headers: HeaderMap) -> Response {
    answer(&PAGES, &name, &headers)
}

/// The one of `pages` whose file has that name.
pub(crate) fn answer(pages: &[Page], name: &str, headers: &HeaderMap) -> Response {
    match pages.iter().find(|page| page.path.rsplit('/').next() == Some(name)) {
        Some(page) => page.answer(headers),
        None => Problem::NotFound.into_response(),
    }
}

impl Page {
    /// The page, or 304 to who has it already. `no-cache` makes browsers ask every time, so that an upgrade shows.
    fn answer(&self, request: &HeaderMap) -> Response {
        let headers = [
            (header::ETAG, HeaderValue::try_from(self.tag.as_str()).ok()),
            (header::CACHE_CONTROL, Some(HeaderValue::from_static("no-cache"))),
            (header::CONTENT_SECURITY_POLICY, Some(POLICY)),
            (header::CONTENT_TYPE, Some(HeaderValue::from_static(self.media_type))),
        ];
        let mut response = match is_known(request, &self.tag) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.body.into_response(),
        };
        for (name, value) in headers {
            value.map(|value| response.headers_mut().insert(name, value));
        }
        response
    }
}

/// `If-None-Match` compares weakly (RFC 9110, section 13.1.2).
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

pub(crate) fn tag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}
