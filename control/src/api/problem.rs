//! The one table from what went wrong to what the client is told: status, stable code, text.
//!
//! Texts hold nothing that a client did not send itself; a code is also the label of the error's metric, and never
//! changes its meaning.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use runit_core::Rejection;
use runit_core::authority::ReconnectError;
use runit_core::session::Refusal;
use runit_core::store::{ChangeError, StoreError};
use serde_json::json;

use crate::random::NoRandomness;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The body is not what the call wants; the detail names the field.
    InvalidPayload(String),
    /// The URL is not one that may be registered.
    InvalidPublicUrl,
    /// No provider secret, or not this session's.
    WrongSecret,
    /// The provider presented no key that lets it register this name.
    ProviderKeyRequired,
    /// The session is registered with another secret.
    SessionTaken,
    /// No such session.
    UnknownSession,
    /// No such session, said to an agent.
    ReRegister,
    /// Nothing is free, or not the one asked for.
    NoSessions,
    /// A token that opens nothing.
    UnknownToken,
    /// A text in the place of a token that cannot be one.
    NoToken,
    /// Another address than the lock's.
    AddressMismatch,
    /// Too many requests from this network.
    RateLimited,
    /// Too many tries to go on from another address; one more passes after so many seconds.
    TooManyReconnects(u64),
    /// Too many event streams open at once.
    TooManyStreams,
    /// The body is too long.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body is not JSON, or compressed.
    UnsupportedMediaType,
    /// A page of a foreign site made the browser send this.
    ForeignOrigin,
    /// No such path.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The store could not decide.
    Unavailable,
    /// The query is not what the call wants; the detail says what.
    InvalidQuery(String),
    /// No operator's key, or one that opens nothing.
    OperatorKeyRequired,
    /// The operator's key may only look.
    RoleRequired,
    /// Too many keys that open nothing; the next is looked at in so many seconds.
    TooManyGuesses(u64),
    /// Nobody holds the session.
    NotLocked,
    /// No such key.
    UnknownKey,
    /// Something that this process cannot do without does not work.
    NotReady,
}

/// The code of the problem that a response tells of, for the metrics.
#[derive(Clone, Copy)]
pub(crate) struct ProblemCode(pub(crate) &'static str);

impl Problem {
    pub(crate) const fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidPayload(_) => (StatusCode::BAD_REQUEST, "invalid_payload", "invalid payload"),
            Self::InvalidPublicUrl => (StatusCode::BAD_REQUEST, "invalid_public_url", "invalid public URL"),
            Self::WrongSecret => (StatusCode::UNAUTHORIZED, "wrong_provider_secret", "wrong provider secret"),
            Self::ProviderKeyRequired => {
                (StatusCode::FORBIDDEN, "provider_key_required", "a key for this provider is required")
            }
            Self::SessionTaken => (StatusCode::CONFLICT, "session_taken", "session belongs to another provider"),
            Self::UnknownSession => (StatusCode::NOT_FOUND, "unknown_session", "unknown session"),
            Self::ReRegister => {
                (StatusCode::NOT_FOUND, "re_register_required", "unknown session - re-register required")
            }
            Self::NoSessions => (StatusCode::NOT_FOUND, "no_sessions_available", "no sessions available"),
            Self::UnknownToken => (StatusCode::NOT_FOUND, "unknown_token", "Invalid or expired token"),
            Self::NoToken => (StatusCode::FORBIDDEN, "invalid_token", "Invalid or expired token"),
            Self::AddressMismatch => (StatusCode::FORBIDDEN, "ip_mismatch", "IP mismatch - access denied"),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests"),
            Self::TooManyReconnects(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_reconnects", "too many reconnections")
            }
            Self::TooManyStreams => (StatusCode::TOO_MANY_REQUESTS, "too_many_streams", "too many open event streams"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "payload too large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "request took too long"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "content type must be application/json")
            }
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin", "cross-origin request refused"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed"),
            Self::InvalidQuery(_) => (StatusCode::BAD_REQUEST, "invalid_query", "invalid query"),
            Self::OperatorKeyRequired => (StatusCode::UNAUTHORIZED, "operator_key_required", "operator key required"),
            Self::RoleRequired => (StatusCode::FORBIDDEN, "role_required", "this key may only read"),
            Self::TooManyGuesses(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_guesses", "too many wrong keys"),
            Self::NotLocked => (StatusCode::CONFLICT, "not_locked", "nobody holds this session"),
            Self::UnknownKey => (StatusCode::NOT_FOUND, "unknown_key", "unknown key"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "not ready"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "temporarily unavailable"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, text) = self.row();
        let mut body = json!({ "error": text, "code": code });
        if let Self::InvalidPayload(detail) | Self::InvalidQuery(detail) = &self {
            body["detail"] = detail.as_str().into();
        }
        let mut response = (status, Json(body)).into_response();
        if let Self::TooManyReconnects(seconds) | Self::TooManyGuesses(seconds) = self {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(ProblemCode(code));
        response
    }
}

impl From<StoreError> for Problem {
    fn from(_: StoreError) -> Self {
        Self::Unavailable
    }
}

impl From<NoRandomness> for Problem {
    fn from(error: NoRandomness) -> Self {
        tracing::error!(%error, "nothing can be issued");
        Self::Unavailable
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::AddressMismatch => Self::AddressMismatch,
            // The API takes no cookies, so the lock's second browser is not refused here.
            Rejection::NoCredential | Rejection::InvalidToken | Rejection::AlreadyInUse => Self::UnknownToken,
        }
    }
}

impl From<ReconnectError> for Problem {
    fn from(error: ReconnectError) -> Self {
        match error {
            ReconnectError::Rejected(rejection) => rejection.into(),
            ReconnectError::TooOften(wait) => Self::TooManyReconnects(wait.as_millis().div_ceil(1_000) as u64),
            ReconnectError::Unavailable(_) => Self::Unavailable,
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown | ChangeError::Refused(Refusal::WrongState(_) | Refusal::StillPresent) => {
                Self::UnknownSession
            }
            ChangeError::Refused(Refusal::NotYours) => Self::SessionTaken,
            ChangeError::Refused(Refusal::Rejected(rejection)) => rejection.into(),
            ChangeError::Refused(Refusal::StillLeased) => Self::Unavailable,
            ChangeError::Store(error) => error.into(),
        }
    }
}
