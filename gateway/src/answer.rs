//! What the gateway itself says: the one table from refusal to status, code, text and metric label.
//!
//! Public texts hold no id, address or upstream text.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use runit_core::{AccessToken, Rejection};
use url::Url;

use crate::isolation::isolate;
use crate::page;

const HTML: &str = "text/html; charset=utf-8";

/// Why the gateway answers itself instead of passing a request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not well-formed, or not what is spoken here.
    BadRequest,
    /// A head over the limit. There is no request to answer then: see [`last_words`].
    HeadTooLarge,
    /// A method that is not served (TRACE, CONNECT).
    MethodNotAllowed,
    /// A method that does nothing with a hand-over link: HEAD neither takes a session nor tells of one.
    LinkMethod,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// No such place.
    NotFound,
    /// A host name that nothing of ours is served under.
    WrongHost,
    /// Token, cookie or address do not do.
    Rejected(Rejection),
    /// The same as for an unknown token, on the host of a rental that is over, to a browser that was in it.
    RentalOver,
    /// Locks are moved to or from here too often; one more passes after so many seconds.
    TooManyReconnects { retry_after: u64 },
    /// A web page of another origin made the browser send this.
    ForeignOrigin,
    /// A call that would stop the server for everybody.
    ClosedPlace,
    /// The connection already serves another session.
    Misdirected,
    /// The byte cap is reached; the next bytes come free after so many seconds.
    CapReached { retry_after: u64 },
    /// Requests come too fast; one may pass after so long.
    TooManyRequests { retry_after: u64 },
    /// Tokens were guessed from this address; one may be tried after so many seconds.
    TooManyGuesses { retry_after: u64 },
    /// The session has all the connections that it may have.
    TooManyConnections,
    /// The session has all the WebSockets that it may have.
    TooManyWebSockets,
    /// The gateway has all the connections that it may have.
    NodeFull,
    /// No lease could be had in time.
    LedgerUnavailable,
    /// The authority could not be asked.
    AuthorityUnavailable,
    /// The provider's name resolves to nothing that may be dialled.
    UpstreamForbidden,
    /// The provider could not be reached, or broke off.
    UpstreamFailed,
    /// The provider answered with what may not be passed on.
    UpstreamBroken,
    /// The provider did not answer in time.
    UpstreamTimedOut,
}

impl Refusal {
    /// One of each kind.
    pub(crate) const ALL: [Self; 28] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::MethodNotAllowed,
        Self::LinkMethod,
        Self::ExpectationFailed,
        Self::NotFound,
        Self::WrongHost,
        Self::Rejected(Rejection::NoCredential),
        Self::Rejected(Rejection::InvalidToken),
        Self::Rejected(Rejection::AlreadyInUse),
        Self::Rejected(Rejection::AddressMismatch),
        Self::RentalOver,
        Self::TooManyReconnects { retry_after: 1 },
        Self::ForeignOrigin,
        Self::ClosedPlace,
        Self::Misdirected,
        Self::CapReached { retry_after: 1 },
        Self::TooManyRequests { retry_after: 1 },
        Self::TooManyGuesses { retry_after: 1 },
        Self::TooManyConnections,
        Self::TooManyWebSockets,
        Self::NodeFull,
        Self::LedgerUnavailable,
        Self::AuthorityUnavailable,
        Self::UpstreamForbidden,
        Self::UpstreamFailed,
        Self::UpstreamBroken,
        Self::UpstreamTimedOut,
    ];

    /// Status, stable code (also the metric label) and public text.
    pub(crate) const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "bad_request", "Malformed request"),
            Self::HeadTooLarge => {
                (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "Request header fields too large")
            }
            Self::MethodNotAllowed | Self::LinkMethod => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::ExpectationFailed => (S::EXPECTATION_FAILED, "expectation_failed", "Expectation not supported"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::WrongHost => (S::MISDIRECTED_REQUEST, "wrong_host", "Nothing is served under this host name"),
            Self::Rejected(Rejection::NoCredential) => (S::UNAUTHORIZED, "no_credential", "Access token required"),
            Self::Rejected(Rejection::InvalidToken) | Self::RentalOver => {
                (S::FORBIDDEN, "invalid_token", "Invalid or expired token")
            }
            Self::Rejected(Rejection::AlreadyInUse) => (S::CONFLICT, "already_in_use", "Session already in use"),
            Self::Rejected(Rejection::AddressMismatch) => {
                (S::FORBIDDEN, "address_mismatch", "IP mismatch - access denied")
            }
            Self::TooManyReconnects { .. } => (S::TOO_MANY_REQUESTS, "too_many_reconnects", "Too many reconnections"),
            Self::ForeignOrigin => (S::FORBIDDEN, "foreign_origin", "Cross-origin request refused"),
            Self::ClosedPlace => (S::FORBIDDEN, "closed_place", "Not available here: release the session instead"),
            Self::Misdirected => (S::MISDIRECTED_REQUEST, "misdirected", "This connection serves another session"),
            Self::CapReached { .. } => (S::TOO_MANY_REQUESTS, "cap_reached", "Daily bandwidth cap reached"),
            Self::TooManyRequests { .. } => (S::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::TooManyGuesses { .. } => (S::TOO_MANY_REQUESTS, "too_many_guesses", "Too many invalid tokens"),
            Self::TooManyConnections => {
                (S::TOO_MANY_REQUESTS, "too_many_connections", "Too many connections for this session")
            }
            Self::TooManyWebSockets => {
                (S::TOO_MANY_REQUESTS, "too_many_websockets", "Too many WebSockets for this session")
            }
            Self::NodeFull => (S::SERVICE_UNAVAILABLE, "node_full", "The gateway is full"),
            Self::LedgerUnavailable => {
                (S::SERVICE_UNAVAILABLE, "ledger_unavailable", "Bandwidth accounting unavailable")
            }
            Self::AuthorityUnavailable => {
                (S::SERVICE_UNAVAILABLE, "authority_unavailable", "Session authority unavailable")
            }
            Self::UpstreamForbidden => (S::BAD_GATEWAY, "upstream_forbidden", "Provider not reachable"),
            Self::UpstreamFailed => (S::BAD_GATEWAY, "upstream_failed", "Provider not reachable"),
            Self::UpstreamBroken => (S::BAD_GATEWAY, "upstream_broken", "Provider answered badly"),
            Self::UpstreamTimedOut => (S::GATEWAY_TIMEOUT, "upstream_timed_out", "Provider did not answer in time"),
        }
    }

    pub(crate) const fn retry_after(self) -> Option<u64> {
        match self {
            Self::CapReached { retry_after }
            | Self::TooManyRequests { retry_after }
            | Self::TooManyGuesses { retry_after }
            | Self::TooManyReconnects { retry_after } => Some(retry_after),
            Self::LedgerUnavailable | Self::AuthorityUnavailable => Some(5),
            Self::TooManyConnections | Self::TooManyWebSockets | Self::NodeFull => Some(10),
            _ => None,
        }
    }

    /// Whether the connection is closed after the answer: who comes too fast pays for a new one each time, and what
    /// follows a malformed request may not be meant as another.
    pub(crate) const fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::HeadTooLarge
                | Self::MethodNotAllowed
                | Self::ExpectationFailed
                | Self::TooManyRequests { .. }
                | Self::TooManyGuesses { .. }
                | Self::TooManyConnections
                | Self::NodeFull
        )
    }
}

/// An answer of the gateway's own.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A refusal, as JSON or as a page by `Accept`.
    Refuse(Refusal),
    /// A page that asks whether the hand-over link is meant.
    Ask {
        /// What is to be confirmed.
        question: Question,
        /// The link's token.
        token: AccessToken,
        /// Origin that the browser is sent to when it is.
        leads_to: String,
    },
    /// A redirect, with the session's cookie where the browser gets one.
    Redirect {
        /// A path of this host, or a URL of a rental's own.
        location: String,
        /// The whole `Set-Cookie` value.
        cookie: Option<HeaderValue>,
    },
}

/// What a person is asked before a hand-over link does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Take the session: the request may not have been a person's own.
    Open,
    /// Go on from another address with the lock's own cookie.
    Move,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Self {
        Self::Refuse(Refusal::Rejected(rejection))
    }
}

impl Answer {
    /// Status code and metric label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Refuse(refusal) => refusal.row().1,
            Self::Ask { question: Question::Open, .. } => "confirm",
            Self::Ask { question: Question::Move, .. } => Refusal::Rejected(Rejection::AddressMismatch).row().1,
            Self::Redirect { .. } => "redirect",
        }
    }

    /// Whether the connection is closed after it.
    pub(crate) const fn closes(&self) -> bool {
        matches!(self, Self::Refuse(refusal) if refusal.closes())
    }

    /// Writes the answer. The caller has told the connection that these bytes are the gateway's own.
    /// `control` is the control plane's origin.
    pub(crate) async fn send(
        self,
        session: &mut Session,
        hsts: Option<HeaderValue>,
        control: &Url,
    ) -> pingora::Result<()> {
        let wants_page = wants_page(session.req_header().headers.get(header::ACCEPT));
        let (mut head, body) = self.build(wants_page, control)?;
        if let Some(hsts) = hsts {
            head.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        let head_only = session.req_header().method == http::Method::HEAD || body.is_empty();
        session.write_response_header(Box::new(head), head_only).await?;
        if !head_only {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    fn build(self, wants_page: bool, control: &Url) -> pingora::Result<(ResponseHeader, Bytes)> {
        let (status, content_type, body) = match &self {
            Self::Redirect { .. } => (StatusCode::FOUND, "", String::new()),
            Self::Ask { question, token, .. } => (question.status(), HTML, page::question(*question, token)),
            Self::Refuse(refusal) => {
                let (status, code, text) = refusal.row();
                if wants_page {
                    (status, HTML, page::refusal(status, text, *refusal, control))
                } else {
                    let json = serde_json::json!({ "error": text, "code": code }).to_string();
                    (status, "application/json", json)
                }
            }
        };
        let mut head = ResponseHeader::build(status, Some(10))?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::REFERRER_POLICY, "no-referrer")?;
        isolate(&mut head)?;
        match self {
            Self::Redirect { location, cookie } => {
                head.insert_header(header::LOCATION, location)?;
                if let Some(cookie) = cookie {
                    head.insert_header(header::SET_COOKIE, cookie)?;
                }
            }
            Self::Ask { leads_to, .. } => {
                // Browsers hold the redirect behind a form to its policy, too.
                let style = page::STYLE_SOURCE.as_str();
                let policy = format!(
                    "default-src 'none'; style-src {style}; form-action 'self' {leads_to}; frame-ancestors 'none'"
                );
                head.insert_header(header::CONTENT_TYPE, content_type)?;
                head.insert_header(header::CONTENT_SECURITY_POLICY, policy)?;
                // Without a referrer the form would have no origin to be checked by (Fetch, section 3.2).
                head.insert_header(header::REFERRER_POLICY, "same-origin")?;
            }
            Self::Refuse(refusal) => {
                head.insert_header(header::CONTENT_TYPE, content_type)?;
                let style = page::STYLE_SOURCE.as_str();
                let policy = format!("default-src 'none'; style-src {style}; frame-ancestors 'none'");
                head.insert_header(header::CONTENT_SECURITY_POLICY, policy)?;
                if refusal == Refusal::RentalOver {
                    // What its pages left there nobody will ask for again. Cookies would be those of the hosts beside it, too.
                    head.insert_header("clear-site-data", "\"cache\", \"storage\"")?;
                }
                if let Some(seconds) = refusal.retry_after() {
                    head.insert_header(header::RETRY_AFTER, seconds)?;
                }
                if status == StatusCode::UNAUTHORIZED {
                    head.insert_header(header::WWW_AUTHENTICATE, "Bearer")?; // RFC 9110, section 15.5.2
                }
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    let link = refusal == Refusal::LinkMethod;
                    let methods = if link { "GET, POST" } else { "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" };
                    head.insert_header(header::ALLOW, methods)?;
                }
            }
        }
        Ok((head, Bytes::from(body)))
    }
}

/// A refusal on the wire, for a connection on which no request could be read; it is to be closed then. As a page, since
/// nobody can say what is accepted, and who meets it is mostly a browser with too many cookies.
pub(crate) fn last_words(refusal: Refusal, control: &Url) -> pingora::Result<BytesMut> {
    let (mut head, body) = Answer::Refuse(refusal).build(true, control)?;
    head.insert_header(header::CONNECTION, "close")?;
    let (status, reason) = (head.status.as_str(), head.status.canonical_reason().unwrap_or_default());
    let mut wire = BytesMut::from(&*format!("HTTP/1.1 {status} {reason}\r\n"));
    head.header_to_h1_wire(&mut wire);
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(&body);
    Ok(wire)
}

/// A browser asks for `text/html` by name; programs ask for JSON or for anything.
fn wants_page(accept: Option<&HeaderValue>) -> bool {
    accept.and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains("text/html"))
}

impl Question {
    /// Who asks from another address is refused so far.
    const fn status(self) -> StatusCode {
        match self {
            Self::Open => StatusCode::OK,
            Self::Move => StatusCode::FORBIDDEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_json_for_programs_and_pages_for_browsers() {
        let (refusal, control) =
            (Refusal::CapReached { retry_after: 7 }, Url::parse("https://rent.example").expect("valid"));
        let (head, body) = Answer::from(refusal).build(false, &control).expect("valid headers");
        assert_eq!((head.status.as_u16(), &head.headers["retry-after"]), (429, &HeaderValue::from_static("7")));
        assert_eq!(body, r#"{"code":"cap_reached","error":"Daily bandwidth cap reached"}"#);
        let (head, body) = Answer::from(refusal).build(true, &control).expect("valid headers");
        assert_eq!(head.headers["content-type"], "text/html; charset=utf-8");
        assert!(body.starts_with(b"<!DOCTYPE html>"));
    }

    #[test]
    fn only_a_browser_gets_a_page() {
        let page = |accept: &'static str| wants_page(Some(&HeaderValue::from_static(accept)));
        assert!(page("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!page("*/*") && !page("application/json") && !wants_page(None));
    }
}
