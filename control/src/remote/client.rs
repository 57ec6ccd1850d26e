//! The admin API as its client: one call, or a stream that goes on where it broke off.
//!
//! The key goes to the address that was asked for and nowhere else: no redirect is followed, no proxy asked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt, stream};
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use url::Url;

use super::asking::Query;

/// For a connection, and for a whole answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// A stream is silent no longer than this: the node sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
/// Between a stream that broke off and the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no operator's key: set RUNIT_OPERATOR_KEY, or give --key-file")]
    NoKey,
    #[error("{}: the key cannot be read: {error}", file.display())]
    KeyFile { file: PathBuf, error: io::Error },
    #[error("the operator's key holds what no key does")]
    NotAKey,
    #[error("--url: must begin with http:// or https:// and hold neither name nor password")]
    BadUrl,
    #[error("{error}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused { code: String, error: String, detail: Option<String> },
    #[error("{}: answered {status}, as no admin API does", url)]
    Foreign { url: Url, status: StatusCode },
    #[error("{}: no answer: {}", url, root(error))]
    NoAnswer { url: Url, error: reqwest::Error },
    #[error("the answer cannot be understood")]
    Malformed,
    #[error("the answer cannot be written: {0}")]
    Io(io::Error),
}

impl Failure {
    /// 2 not done; 3 there is no such thing; 4 not allowed; 5 not as it is now; 6 no answer that says either.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::BadUrl | Self::Io(_) => 2,
            Self::NoKey | Self::KeyFile { .. } | Self::NotAKey => 4,
            Self::Refused { code, .. } => match code.as_str() {
                "invalid_query" | "invalid_payload" => 2,
                "unknown_session" | "unknown_key" => 3,
                "operator_key_required" | "role_required" | "too_many_guesses" => 4,
                "not_locked" => 5,
                _ => 6,
            },
            Self::Foreign { .. } | Self::NoAnswer { .. } | Self::Malformed => 6,
        }
    }

    /// Whether the same may succeed later: the node is down, or cannot answer now.
    pub(super) fn may_pass(&self) -> bool {
        self.code() == 6 && !matches!(self, Self::Malformed)
    }
}

/// One node's admin API.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    key: String,
}

impl Client {
    /// # Errors
    /// When there is no key, or the URL is not one that a key may be sent to.
    pub(super) fn new(base: &Url, key_file: Option<&Path>) -> Result<Self, Failure> {
        if !["http", "https"].contains(&base.scheme()) || !base.username().is_empty() || base.password().is_some() {
            return Err(Failure::BadUrl);
        }
        let key = match key_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| Failure::KeyFile { file: file.to_owned(), error })?
            }
            None => std::env::var("RUNIT_OPERATOR_KEY").map_err(|_| Failure::NoKey)?,
        };
        let key = match key.trim() {
            "" => return Err(Failure::NoKey),
            key => HeaderValue::from_str(key).map(|_| key.to_owned()).map_err(|_| Failure::NotAKey)?,
        };
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Failure::NoAnswer { url: base.clone(), error })?;
        Ok(Self { http, base: base.clone(), key })
    }

    /// One call; null where the answer has no body.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path, query).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = self.accepted(request).await?.bytes().await.map_err(|error| self.no_answer(error))?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|_| Failure::Malformed)
    }

    /// Each event after the place `last`, for ever: a stream that breaks off is taken up where it was.
    ///
    /// # Errors
    /// When the node refuses, or `each` fails.
    pub(super) async fn follow(
        &self,
        path: &str,
        query: &Query,
        mut last: u64,
        each: impl Fn(&Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let request = self.request(Method::GET, path, query).header("Last-Event-ID", last);
            match self.accepted(request).await {
                Ok(response) => {
                    let mut events = std::pin::pin!(chunks(response).eventsource());
                    while let Some(Ok(event)) = events.next().await {
                        let event: Value = serde_json::from_str(&event.data).map_err(|_| Failure::Malformed)?;
                        last = event["place"].as_u64().ok_or(Failure::Malformed)?;
                        each(&event)?;
                    }
                }
                Err(failure) if failure.may_pass() => {}
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&self, method: Method, path: &str, query: &Query) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.pairs().is_empty() {
            url.query_pairs_mut().extend_pairs(query.pairs());
        }
        self.http.request(method, url).bearer_auth(&self.key)
    }

    async fn accepted(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.no_answer(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response.json().await.unwrap_or_default();
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        match (text("code"), text("error")) {
            (Some(code), Some(error)) => Err(Failure::Refused { code, error, detail: text("detail") }),
            _ => Err(Failure::Foreign { url: self.base.clone(), status }),
        }
    }

    fn no_answer(&self, error: reqwest::Error) -> Failure {
        Failure::NoAnswer { url: self.base.clone(), error }
    }
}

fn chunks(response: Response) -> impl Stream<Item = reqwest::Result<impl AsRef<[u8]>>> {
    stream::unfold(response, async |mut response| Some((response.chunk().await.transpose()?, response)))
}

/// The innermost cause: the others repeat that the request failed.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
