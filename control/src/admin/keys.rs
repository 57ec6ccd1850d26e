//! `/admin/v1/keys`: keys of operators and providers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use runit_core::key::KeyHolder;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::access::{Actor, Reader};
use super::view::{KeyMade, KeyShown};
use crate::api::problem::Problem;
use crate::api::request::{Payload, Segment};
use crate::sessions::detached;

/// Who the key is for: an operator (`name` and `role`), or a provider (`providerId`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewKey {
    /// What people call the operator's key: 1 to 64 characters.
    name: Option<String>,
    /// `read` or `operate`.
    role: Option<String>,
    /// The name that the provider may register.
    provider_id: Option<String>,
}

/// All keys.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyList {
    keys: Vec<KeyShown>,
}

/// All keys, revoked ones too, the oldest first.
#[utoipa::path(get, path = "/admin/v1/keys", operation_id = "keys", tag = "keys", security(("operator" = [])),
    responses((status = 200, description = "All keys", body = KeyList)))]
pub(super) async fn list(_: Reader, State(admin): State<Admin>) -> Json<KeyList> {
    Json(KeyList { keys: admin.control.keys.all().iter().map(KeyShown::new).collect() })
}

/// Makes a key. The answer shows it this once.
#[utoipa::path(post, path = "/admin/v1/keys", operation_id = "createKey", tag = "keys", request_body = NewKey,
    security(("operator" = [])), responses((status = 201, description = "The key", body = KeyMade)))]
pub(super) async fn create(
    Actor(operator): Actor,
    State(admin): State<Admin>,
    Payload(wanted): Payload<NewKey>,
) -> Result<(StatusCode, Json<KeyMade>), Problem> {
    let holder = wanted.holder()?;
    let (key, secret) = detached(async move { admin.control.make_key(operator, holder).await }).await??;
    Ok((StatusCode::CREATED, Json(KeyMade::new(&key, &secret))))
}

/// Revokes a key. The sessions that were last registered with a provider's key are removed.
#[utoipa::path(delete, path = "/admin/v1/keys/{id}", operation_id = "revokeKey", tag = "keys",
    security(("operator" = [])), params(("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "It opens nothing any more", body = KeyShown)))]
pub(super) async fn revoke(
    Actor(operator): Actor,
    State(admin): State<Admin>,
    Segment(id): Segment,
) -> Result<Json<KeyShown>, Problem> {
    let id = id.parse().map_err(|_| Problem::UnknownKey)?;
    let key = detached(async move { admin.control.revoke_key(operator, id).await }).await??;
    Ok(Json(KeyShown::new(&key)))
}

impl NewKey {
    fn holder(self) -> Result<KeyHolder, Problem> {
        let invalid = |detail: String| Problem::InvalidPayload(detail);
        match (self.name, self.role, self.provider_id) {
            (Some(name), Some(role), None) => Ok(KeyHolder::Operator {
                name: name.parse().map_err(|error| invalid(format!("name: {error}")))?,
                role: role.parse().map_err(|error| invalid(format!("role: {error}")))?,
            }),
            (None, None, Some(provider)) => {
                let provider = provider.parse();
                provider.map(KeyHolder::Provider).map_err(|_| invalid("providerId: not a provider's name".into()))
            }
            _ => Err(invalid("either name and role, or providerId".into())),
        }
    }
}
