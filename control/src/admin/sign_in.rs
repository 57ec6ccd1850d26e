//! `/admin/v1/sign-in`: a key for a cookie, for the operator's page.

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use runit_core::key::{KeyHolder, Operator, Role};
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::access::Reader;
use super::cookie;
use crate::api::problem::Problem;
use crate::api::request::{Bearer, Sender};
use crate::random;

/// Who asks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OperatorShown {
    /// `configured`, or the key's id.
    #[schema(example = "configured")]
    operator: String,
    /// What the key is called.
    name: Option<String>,
    /// `read` or `operate`.
    #[schema(example = "operate")]
    role: &'static str,
}

/// Takes the key in `Authorization` and sets a cookie that stands for it, for 12 hours or until the key is revoked.
#[utoipa::path(post, path = "/admin/v1/sign-in", operation_id = "signIn", tag = "sign-in", security(("operator" = [])),
    responses((status = 200, description = "Who that is, with the cookie", body = OperatorShown)))]
pub(super) async fn begin(
    Sender(from): Sender,
    Bearer(key): Bearer,
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let operator = admin.control.operator(key.as_ref(), Role::Read, from).await?;
    let (key, secret) = (key.ok_or(Problem::OperatorKeyRequired)?, random::secret()?);
    admin.sign_ins.begin(secret.hash(), key.hash(), admin.control.sessions.clock.now());
    let mut response = Json(shown(&admin, operator)).into_response();
    cookie::set(&headers, &secret).map(|cookie| response.headers_mut().insert(header::SET_COOKIE, cookie));
    Ok(response)
}

/// Whose key or cookie this is.
#[utoipa::path(get, path = "/admin/v1/sign-in", operation_id = "signedIn", tag = "sign-in", security(("operator" = [])),
    responses((status = 200, description = "Who that is", body = OperatorShown)))]
pub(super) async fn show(Reader(operator): Reader, State(admin): State<Admin>) -> Json<OperatorShown> {
    Json(shown(&admin, operator))
}

/// Ends what the cookie stands for, and takes it back.
#[utoipa::path(delete, path = "/admin/v1/sign-in", operation_id = "signOut", tag = "sign-in",
    security(("operator" = [])), responses((status = 204, description = "Signed out")))]
pub(super) async fn end(_: Reader, State(admin): State<Admin>, parts: Parts) -> Response {
    if let Some(cookie) = cookie::presented(&parts.headers) {
        admin.sign_ins.end(cookie);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    cookie::cleared(&parts.headers).map(|cookie| response.headers_mut().insert(header::SET_COOKIE, cookie));
    response
}

fn shown(admin: &Admin, operator: Operator) -> OperatorShown {
    let (name, role) = match operator {
        Operator::Configured => (None, Role::Operate),
        Operator::Key(id) => {
            let holder = admin.control.keys.all().into_iter().find(|key| key.id == id).map(|key| key.holder);
            match holder {
                Some(KeyHolder::Operator { name, role }) => (Some(name.as_str().to_owned()), role),
                _ => (None, Role::Read), // revoked meanwhile
            }
        }
    };
    OperatorShown { operator: operator.to_string(), name, role: role.as_str() }
}
