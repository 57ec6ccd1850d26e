//! Who asks: a handler that takes a [`Reader`] or an [`Actor`] runs for nobody else.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use runit_core::SecretHash;
use runit_core::key::{Operator, Role};

use super::{Admin, cookie};
use crate::api::problem::Problem;
use crate::api::request::{Bearer, Sender};

/// An operator who may look.
pub(super) struct Reader(pub(super) Operator);

/// An operator who may change things, by name for the trail.
pub(super) struct Actor(pub(super) Operator);

impl FromRequestParts<Admin> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        operator(parts, admin, Role::Read).await.map(Self)
    }
}

impl FromRequestParts<Admin> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        operator(parts, admin, Role::Operate).await.map(Self)
    }
}

async fn operator(parts: &mut Parts, admin: &Admin, role: Role) -> Result<Operator, Problem> {
    let Sender(from) = Sender::from_request_parts(parts, admin).await?;
    let Bearer(key) = Bearer::from_request_parts(parts, admin).await?;
    match signed_in(parts, admin) {
        Some(_) if key.is_none() && !cookie::is_from_our_page(parts) => Err(Problem::ForeignOrigin),
        Some(known) if key.is_none() => admin.control.signed_in_operator(known, role, from).await,
        _ => admin.control.operator(key.as_ref(), role, from).await,
    }
}

/// The hash of the key that the request's cookie stands for.
fn signed_in(parts: &Parts, admin: &Admin) -> Option<SecretHash> {
    admin.sign_ins.key(cookie::presented(&parts.headers)?, admin.control.sessions.clock.now())
}
