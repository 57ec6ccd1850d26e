//! The control API, as a provider's agent uses it.
//!
//! Answers for the calls and for what their answers mean to the agent. Does not retry: `reconcile` decides when.
//! Invariants: the provider secret goes to control only, never along a redirect; an answer is read up to a limit; the
//! access token that a registration is answered with is not even parsed.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use runit_core::{Secret, SessionId};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::hands::Report;
use crate::state::Identity;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// `Authorization` is the session's secret's.
const PROVIDER_KEY: &str = "runit-provider-key";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES: usize = 64 << 10;
/// How much of an error text from control is told.
const MESSAGE_CHARS: usize = 200;
/// Control may ask for a pause; a longer one than this is taken for a mistake.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How a call ended that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Control does not know the session, or not under our secret: registering again tells which.
    #[error("control does not know the session")]
    Unknown,
    /// The id is somebody else's, or our secret is not the session's.
    #[error("control refuses this session id: {0}")]
    IdentityRefused(String),
    /// Control answered, but not as hoped.
    #[error("control answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The text of the error, shortened.
        message: String,
        /// The pause that control asked for.
        pause: Option<Duration>,
    },
    /// There was an answer, but not one of control's.
    #[error("control's answer cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// The answer is longer than any of control's.
    #[error("control's answer is too long")]
    TooLong,
    /// There was no answer.
    #[error("control does not answer")]
    Unreachable(#[from] reqwest::Error),
}

/// What a session offers and where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration<'a> {
    /// The provider's name for itself.
    pub provider_id: &'a str,
    /// Where the gateway finds the gate.
    pub public_url: &'a str,
    /// The gate's secret.
    #[serde(serialize_with = "bare")]
    pub token: &'a Secret,
    /// What renters are told about the machine.
    pub hardware: &'a serde_json::Value,
    /// What renters are told about the price.
    pub pricing: &'a serde_json::Value,
    /// Chosen by the agent.
    pub session_id: SessionId,
    /// The path that Jupyter serves the session under.
    pub base_path: &'a str,
}

/// What a heartbeat tells beside the session's id; control may know none of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat<'a> {
    /// Whether a renter would be served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// What the container does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<&'a Report>,
    /// Answer when the session's status is another than this,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_status: Option<&'static str>,
    /// or after so many seconds; at most 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
}

/// What a heartbeat is answered with.
#[derive(Debug, Clone, Deserialize)]
pub struct Heartbeat {
    /// The session's state.
    pub status: String,
    /// What control wants done.
    #[serde(default)]
    pub command: Option<String>,
}

impl Heartbeat {
    /// Whether control waits for a fresh workspace.
    pub fn wants_recycle(&self) -> bool {
        self.command.as_deref() == Some("recycle")
    }
}

/// A client of one control API.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    control_url: Url,
    provider_key: Option<Secret>,
}

impl Api {
    /// A client of the control API at `control_url`.
    ///
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(control_url: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("runit-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()?;
        Ok(Self { client, control_url, provider_key: None })
    }

    /// The same, with the key that lets this provider register.
    #[must_use]
    pub fn with_provider_key(self, provider_key: Option<Secret>) -> Self {
        Self { provider_key, ..self }
    }

    /// Registers the session, or registers it again with the secret it got the first time; returns its secret.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::IdentityRefused`] for 409, and for 401 if a secret was shown. A 403 is about the provider's
    /// key, which another session would not mend.
    pub async fn register(&self, registration: &Registration<'_>, secret: Option<&Secret>) -> Result<Secret, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Registered {
            provider_secret: String,
        }
        let mut call = with(self.call(Method::POST, "/provider/session"), secret).json(registration);
        if let Some(key) = &self.provider_key {
            call = call.header(PROVIDER_KEY, key.expose());
        }
        let answered = answered(call).await.map_err(|error| refused_identity(error, secret.is_some()))?;
        let registered: Registered = serde_json::from_slice(&answered).map_err(ApiError::Malformed)?;
        Ok(Secret::new(registered.provider_secret))
    }

    /// Says that the agent is there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn heartbeat(&self, identity: &Identity, beat: &Beat<'_>) -> Result<Heartbeat, ApiError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            session_id: SessionId,
            #[serde(flatten)]
            beat: &'a Beat<'a>,
        }
        let call = self.call(Method::POST, "/provider/heartbeat");
        let wait = Duration::from_secs(beat.wait_seconds.unwrap_or(0));
        let call = with(call, identity.secret.as_ref()).timeout(CALL_TIMEOUT + wait);
        let call = call.json(&Body { session_id: identity.session, beat });
        let answered = answered(call).await.map_err(foreign_is_unknown)?;
        serde_json::from_slice(&answered).map_err(ApiError::Malformed)
    }

    /// Tells a new URL; with a new `token` also that the workspace behind it is fresh.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn put_tunnel(&self, identity: &Identity, public_url: &str, token: &Secret) -> Result<(), ApiError> {
        let call = self.call(Method::PUT, &format!("/provider/session/{}/tunnel", identity.session));
        let body = serde_json::json!({ "publicUrl": public_url, "token": token.expose() });
        answered(with(call, identity.secret.as_ref()).json(&body)).await.map(drop).map_err(foreign_is_unknown)
    }

    /// Takes the session back. One that is gone already counts as taken back.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn deregister(&self, identity: &Identity) -> Result<(), ApiError> {
        let call = self.call(Method::DELETE, &format!("/provider/session/{}", identity.session));
        match answered(with(call, identity.secret.as_ref())).await {
            Ok(_) | Err(ApiError::Unknown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.control_url.clone();
        url.set_path(path);
        self.client.request(method, url)
    }
}

fn with(call: RequestBuilder, secret: Option<&Secret>) -> RequestBuilder {
    match secret {
        Some(secret) => call.bearer_auth(secret.expose()),
        None => call,
    }
}

/// The body of a 2xx answer.
async fn answered(call: RequestBuilder) -> Result<Vec<u8>, ApiError> {
    let response = call.send().await.map_err(reqwest::Error::without_url)?;
    let (status, pause) = (response.status(), pause(&response));
    let body = body(response).await?;
    if status.is_success() {
        return Ok(body);
    }
    if status == StatusCode::NOT_FOUND {
        return Err(ApiError::Unknown);
    }
    Err(ApiError::Refused { status, message: message(&body), pause })
}

async fn body(mut response: Response) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(ApiError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3); control does not send dates.
fn pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The `error` of control's JSON, with the detail that names a field, fit for one line of a log.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        error: String,
        detail: Option<String>,
    }
    let Ok(said) = serde_json::from_slice::<Said>(body) else { return "no reason given".to_owned() };
    let text = [Some(said.error), said.detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect()
}

fn refused_identity(error: ApiError, secret_shown: bool) -> ApiError {
    match error {
        ApiError::Refused { status, message, .. }
            if status == StatusCode::CONFLICT || (secret_shown && status == StatusCode::UNAUTHORIZED) =>
        {
            ApiError::IdentityRefused(message)
        }
        other => other,
    }
}

fn foreign_is_unknown(error: ApiError) -> ApiError {
    match error {
        ApiError::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::CONFLICT, .. } => ApiError::Unknown,
        other => other,
    }
}

fn bare<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
