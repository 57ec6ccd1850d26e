//! The operator's page, which is part of the program. It shows nothing that the admin API does not show to its key.

use axum::http::HeaderMap;
use axum::response::{Redirect, Response};

use crate::api::pages::{Page, answer, pages};
use crate::api::request::Segment;

static PAGES: [Page; 11] = pages! {
    "operator/index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "operator/dashboard.css": "text/css; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "operator/dashboard.js": "text/javascript; charset=utf-8",
    "operator/admin.js": "text/javascript; charset=utf-8",
    "operator/counts.js": "text/javascript; charset=utf-8",
    "operator/events.js": "text/javascript; charset=utf-8",
    "operator/fleet.js": "text/javascript; charset=utf-8",
    "operator/meter.js": "text/javascript; charset=utf-8",
    "operator/plot.js": "text/javascript; charset=utf-8",
};

/// The way to the operator's page.
#[utoipa::path(get, path = "/", operation_id = "toDashboardFromRoot", tag = "pages",
    responses((status = 307, description = "To `/dashboard/`", headers(("Location" = String)))))]
pub(super) async fn to_page() -> Redirect {
    to_index().await
}

/// The way to the operator's page.
#[utoipa::path(get, path = "/dashboard", operation_id = "toDashboard", tag = "pages",
    responses((status = 307, description = "To `/dashboard/`", headers(("Location" = String)))))]
pub(super) async fn to_index() -> Redirect {
    Redirect::temporary("/dashboard/")
}

/// The operator's page, which is empty until somebody signs in.
#[utoipa::path(get, path = "/dashboard/", operation_id = "dashboard", tag = "pages",
    responses((status = 200, description = "A page", content_type = "text/html", body = String),
        (status = 304, description = "The one that `If-None-Match` names")))]
pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(&PAGES, "index.html", &headers)
}

/// A script or style of the operator's page.
#[utoipa::path(get, path = "/dashboard/{name}", operation_id = "dashboardFile", tag = "pages",
    params(("name" = String, Path)),
    responses((status = 200, description = "The file",
            content((String = "text/html"), (String = "text/css"), (String = "text/javascript"))),
        (status = 304, description = "The one that `If-None-Match` names")))]
pub(super) async fn file(Segment(name): Segment, headers: HeaderMap) -> Response {
    answer(&PAGES, &name, &headers)
}
