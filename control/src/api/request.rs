//! What handlers take out of a request: a JSON body, a bearer credential, the peer's address.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use runit_core::client_address::MalformedForwarding;
use runit_core::{AccessToken, RenterAddress, Secret};
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies of our clients are shorter than this; what a longer one has beyond it waits for one of [`LARGE_BODIES`].
const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Longer bodies that are in memory at one moment: bounds what strangers can make us hold.
pub(super) const LARGE_BODIES: usize = 16;

/// A JSON body; a malformed one is refused with the name of the field.
pub(super) struct Payload<T>(pub(super) T);

/// The same, where no body at all stands for the default.
pub(super) struct OptionalPayload<T>(pub(super) T);

/// `Authorization: Bearer`, if there is one (RFC 6750, section 2.1).
pub(super) struct Bearer(pub(super) Option<Secret>);

/// Who sent the request.
#[derive(Clone, Copy)]
pub(super) struct Sender(pub(super) RenterAddress);

/// The same as the listener has it: a listed proxy may have sent something that is no address.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) Result<RenterAddress, MalformedForwarding>);

impl<T: DeserializeOwned> FromRequest<Api> for Payload<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        parse(&read(body, api).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalPayload<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, api).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let secret = text
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| Secret::new(secret.trim()));
        Ok(Self(secret))
    }
}

impl Bearer {
    /// The credential as a renter's access token.
    pub(super) fn access_token(self) -> Result<AccessToken, Problem> {
        self.0.and_then(|secret| AccessToken::parse(secret.expose())).ok_or(Problem::UnknownToken)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Peer(sender) = parts.extensions.get::<Peer>().copied().ok_or(Problem::Unavailable)?;
        sender.map(Self).map_err(|malformed| Problem::InvalidPayload(malformed.to_string()))
    }
}

/// Anything but plain JSON is refused: a web page of another site can make browsers send forms and text, not JSON.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let media_type = value(header::CONTENT_TYPE).and_then(|text| text.split(';').next()).unwrap_or_default();
    let is_json = media_type.trim().eq_ignore_ascii_case("application/json");
    let is_plain = value(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    if is_json && is_plain { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
}

async fn read(body: Body, api: &Api) -> Result<Vec<u8>, Problem> {
    tokio::time::timeout(BODY_TIMEOUT, collect(body, api)).await.map_err(|_| Problem::TooSlow)?
}

async fn collect(mut body: Body, api: &Api) -> Result<Vec<u8>, Problem> {
    let most = api.body_max_bytes();
    let (mut bytes, mut length, mut permit) = (Vec::new(), 0_usize, None);
    let mut too_large = body.size_hint().lower() > most as u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::InvalidPayload("the body ended early".into()))?;
        let Ok(chunk) = frame.into_data() else { continue }; // trailers
        length = length.saturating_add(chunk.len());
        too_large |= length > most;
        if too_large {
            bytes = Vec::new();
            // Many clients read no answer before all is sent; one that goes on and on is cut off.
            if length > most.saturating_mul(2) {
                break;
            }
            continue;
        }
        if permit.is_none() && length > SMALL_BODY_BYTES {
            permit = Some(api.large_bodies.acquire().await.map_err(|_| Problem::Unavailable)?);
        }
        bytes.extend_from_slice(&chunk);
    }
    if too_large { Err(Problem::TooLarge) } else { Ok(bytes) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        Problem::InvalidPayload(if path == "." { text } else { format!("{path}: {text}") })
    })?;
    json.end().map_err(|error| Problem::InvalidPayload(error.to_string()))?;
    Ok(parsed)
}
