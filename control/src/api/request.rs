//! What handlers take out of a request: a JSON body, a bearer credential, the peer's address.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use runit_config::LiveSettings;
use runit_core::client_address::MalformedForwarding;
use runit_core::{AccessToken, RenterAddress, Secret};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::problem::Problem;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies of our clients are shorter than this; what a longer one has beyond it waits for one of [`LARGE_BODIES`].
const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Longer bodies that are in memory at one moment: bounds what strangers can make us hold.
const LARGE_BODIES: usize = 16;

/// How long a body may be, and how many long ones there may be at once.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    settings: LiveSettings,
    large: Arc<Semaphore>,
}

impl BodyLimits {
    pub(crate) fn new(settings: LiveSettings) -> Self {
        Self { settings, large: Arc::new(Semaphore::new(LARGE_BODIES)) }
    }
}

/// A JSON body; a malformed one is refused with the name of the field.
pub(crate) struct Payload<T>(pub(crate) T);

/// The same, where no body at all, or `null`, stands for the default.
pub(crate) struct OptionalPayload<T>(pub(crate) T);

/// `Authorization: Bearer`, if there is one (RFC 6750, section 2.1).
pub(crate) struct Bearer(pub(crate) Option<Secret>);

/// The key in `Runit-Provider-Key`, if there is one: `Authorization` holds the secret of a known session.
pub(crate) struct ProviderKey(pub(crate) Option<Secret>);

const PROVIDER_KEY: HeaderName = HeaderName::from_static("runit-provider-key");

/// The variable segment of the path; what is not UTF-8 names nothing, and is refused as the route refuses other such names.
pub(crate) struct Segment(pub(crate) String);

/// The query; what is not understood is refused, so that a filter with a slip does not show everything.
pub(crate) struct Asked<T>(pub(crate) T);

/// Who sent the request.
#[derive(Clone, Copy)]
pub(crate) struct Sender(pub(crate) RenterAddress);

/// The same as the listener has it: a listed proxy may have sent something that is no address.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) Result<RenterAddress, MalformedForwarding>);

impl<S, T: DeserializeOwned> FromRequest<S> for Payload<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        parse(&read(body, &BodyLimits::from_ref(state)).await?).map(Self)
    }
}

impl<S, T: DeserializeOwned + Default> FromRequest<S> for OptionalPayload<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, &BodyLimits::from_ref(state)).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_type(&parts.headers)?;
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(T::default()));
        }
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

impl<S: Send + Sync> FromRequestParts<S> for ProviderKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // One that is not text is one that opens nothing.
        let text = parts.headers.get(PROVIDER_KEY).map(|value| value.to_str().unwrap_or_default());
        Ok(Self(text.map(|key| Secret::new(key.trim()))))
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

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(segment.map_or_else(|_| char::REPLACEMENT_CHARACTER.into(), |Path(text)| text)))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::try_from_uri(&parts.uri);
        asked.map(|Query(asked)| Self(asked)).map_err(|error| Problem::InvalidQuery(error.body_text()))
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

async fn read(body: Body, limits: &BodyLimits) -> Result<Vec<u8>, Problem> {
    tokio::time::timeout(BODY_TIMEOUT, collect(body, limits)).await.map_err(|_| Problem::TooSlow)?
}

async fn collect(mut body: Body, limits: &BodyLimits) -> Result<Vec<u8>, Problem> {
    let most = limits.settings.load().control.body_max_bytes;
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
            permit = Some(limits.large.acquire().await.map_err(|_| Problem::Unavailable)?);
        }
        bytes.extend_from_slice(&chunk);
    }
    if too_large { Err(Problem::TooLarge) } else { Ok(bytes) }
}

/// Reads an object. Serde would take a list of the fields' values for one.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::InvalidPayload("must be an object, not a list".into()));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        Problem::InvalidPayload(if path == "." { text } else { format!("{path}: {text}") })
    })?;
    json.end().map_err(|error| Problem::InvalidPayload(error.to_string()))?;
    Ok(parsed)
}
