//! The renter's pages, which are part of the program, and the banner.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};

/// Scripts and styles are the page's own files; pictures too, or `data:` (the empty icon).
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

struct Page {
    body: &'static [u8],
    media_type: HeaderValue,
    tag: LazyLock<String>,
}

static INDEX: Page = Page {
    body: include_bytes!("../../../renter/index.html"),
    media_type: HeaderValue::from_static("text/html; charset=utf-8"),
    tag: LazyLock::new(|| tag(INDEX.body)),
};
static SCRIPT: Page = Page {
    body: include_bytes!("../../../renter/app.js"),
    media_type: HeaderValue::from_static("text/javascript; charset=utf-8"),
    tag: LazyLock::new(|| tag(SCRIPT.body)),
};
static STYLE: Page = Page {
    body: include_bytes!("../../../renter/style.css"),
    media_type: HeaderValue::from_static("text/css; charset=utf-8"),
    tag: LazyLock::new(|| tag(STYLE.body)),
};

pub(super) async fn banner() -> &'static str {
    "RUNIT control plane running ✅"
}

pub(super) async fn to_index() -> Redirect {
    Redirect::permanent("/renter/")
}

pub(super) async fn index(headers: HeaderMap) -> Response {
    INDEX.answer(&headers)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.answer(&headers)
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.answer(&headers)
}

impl Page {
    /// The page, or 304 to who has it already. `no-cache` makes browsers ask every time, so that an upgrade shows.
    fn answer(&self, request: &HeaderMap) -> Response {
        let headers = [
            (header::ETAG, HeaderValue::try_from(self.tag.as_str()).ok()),
            (header::CACHE_CONTROL, Some(HeaderValue::from_static("no-cache"))),
            (header::CONTENT_SECURITY_POLICY, Some(POLICY)),
            (header::CONTENT_TYPE, Some(self.media_type.clone())),
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

fn tag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}
