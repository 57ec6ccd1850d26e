//! The operator's page, which is part of the program. It shows nothing that the admin API does not show to its key.

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{Redirect, Response};

use crate::api::pages::{Page, answer, pages};

static PAGES: [Page; 10] = pages! {
    "operator/index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "operator/dashboard.css": "text/css; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "operator/dashboard.js": "text/javascript; charset=utf-8",
    "operator/admin.js": "text/javascript; charset=utf-8",
    "operator/counts.js": "text/javascript; charset=utf-8",
    "operator/events.js": "text/javascript; charset=utf-8",
    "operator/fleet.js": "text/javascript; charset=utf-8",
    "operator/plot.js": "text/javascript; charset=utf-8",
};

pub(super) async fn to_index() -> Redirect {
    Redirect::temporary("/dashboard/")
}

pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(&PAGES, "index.html", &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&PAGES, &name, &headers)
}
