//! Admission: from a request's head to a session that may be used, or to an answer of the gateway's own.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use pingora::http::RequestHeader;
use runit_config::LiveSettings;
use runit_core::authority::ClaimError;
use runit_core::budget::Direction;
use runit_core::permit::{Decision, authorize};
use runit_core::rate::Rate;
use runit_core::session::Claim;
use runit_core::{
    AccessToken, Authority, Clock, EventKind, LockMode, Permit, Presented, Rejection, Secret, SecretHash,
    SecurityEvent, SessionId, SessionView, Timestamp,
};
use uuid::Uuid;

use crate::answer::{Answer, Refusal};
use crate::connection::Connection;
use crate::credentials::{cookie_name, presented, query_tokens, without_tokens};
use crate::directory::Directory;
use crate::events::EventSink;
use crate::guesses::Guesses;
use crate::live::{Drought, LiveSession, same_lock};
use crate::metrics::Metrics;
use crate::request_policy;
use crate::target::{self, BadTarget, Place, Target};

/// While others hold the last bytes of a cap: when to try again, in seconds.
const RESERVED_RETRY_SECONDS: u64 = 5;

/// Decides on requests.
pub(crate) struct Gateway {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) events: EventSink,
    pub(crate) guesses: Guesses,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: LiveSettings,
    /// Whether renters reach the gateway over TLS: cookies are `Secure` then.
    pub(crate) secure: bool,
}

/// A request that may be passed on, bound to its session.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) session: Arc<LiveSession>,
    /// The view that the request was authorised under.
    pub(crate) view: Arc<SessionView>,
    pub(crate) upgrade: bool,
}

impl Gateway {
    /// Decides on a request. When it is admitted, its head is charged and the connection bound to the session.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(crate) async fn admit(&self, head: &RequestHeader, connection: &Arc<Connection>) -> Result<Admitted, Answer> {
        self.pace(connection)?;
        request_policy::check(&head.method, head.version, &head.headers)?;
        if !self.directory.is_loaded().await {
            return Err(Refusal::AuthorityUnavailable.into());
        }
        let (path, query) = split_target(head.raw_path());
        match target::read(path) {
            Ok(Target::Access(token)) if head.method == Method::GET => {
                Err(self.access(token, head, connection).await.unwrap_or_else(|refusal| refusal))
            }
            Ok(Target::Access(_)) => Err(Refusal::MethodNotAllowed.into()),
            Ok(Target::Session(id, place)) => self.session(id, place, head, (path, query), connection).await,
            Err(BadTarget::Malformed) => Err(Refusal::BadRequest.into()),
            Err(BadTarget::Unknown) => Err(Refusal::NotFound.into()),
        }
    }

    /// Whether requests from this address come slowly enough.
    fn pace(&self, connection: &Connection) -> Result<(), Refusal> {
        let rate = self.settings.load().limits.requests_per_address;
        let place = connection.place();
        place.requests().admit(rate_of(rate), place.now()).map_err(too_many_requests)
    }

    /// The hand-over link: takes the lock and sends the browser to its JupyterLab.
    async fn access(
        &self,
        token: AccessToken,
        head: &RequestHeader,
        connection: &Arc<Connection>,
    ) -> Result<Answer, Answer> {
        if let Some(session) = self.directory.session_locked_by(token.hash()) {
            let view = session.view();
            if self.holds_cookie(&view, &head.headers, connection) {
                return Ok(Answer::Redirect { location: lab_path(view.id), cookie: None });
            }
        }
        let (view, cookie) = self.claim_for_browser(token.hash(), None, connection).await?;
        Ok(Answer::Redirect { location: lab_path(view.id), cookie: Some(cookie) })
    }

    /// Anything under `/s/{id}/`.
    async fn session(
        &self,
        id: SessionId,
        place: Place,
        head: &RequestHeader,
        (path, query): (&[u8], Option<&[u8]>),
        connection: &Arc<Connection>,
    ) -> Result<Admitted, Answer> {
        let presented = presented(&head.headers, query, id);
        let session = match self.directory.session(id) {
            Some(session) => session,
            None => self.look_up(id, &presented, connection).await?,
        };
        if let Some(location) = opens_page_by_token(head, path, query) {
            if self.holds_cookie(&session.view(), &head.headers, connection) {
                return Err(Answer::Redirect { location, cookie: None });
            }
            let token = query_tokens(query).next().ok_or(Rejection::InvalidToken)?;
            let (_, cookie) = self.claim_for_browser(token.hash(), Some(id), connection).await?;
            return Err(Answer::Redirect { location, cookie: Some(cookie) });
        }
        let (view, permit) = self.authorize(&session, &presented, connection).await?;
        let rate = self.settings.load().limits.requests_per_session;
        session.requests.admit(rate_of(rate), connection.place().now()).map_err(too_many_requests)?;
        if !request_policy::origin_is_ours(&head.method, &head.headers, permit.by_token(), self.secure) {
            return Err(Refusal::ForeignOrigin.into());
        }
        match place {
            Place::Open => {}
            Place::Closed => return Err(Refusal::ClosedPlace.into()),
            Place::MissingSlash => {
                let location = with_query(&[path, b"/"].concat(), query).ok_or(Refusal::BadRequest)?;
                return Err(Answer::Redirect { location, cookie: None });
            }
        }
        self.bind(&session, &view, connection).await?;
        let upgrade = request_policy::is_upgrade(&head.headers);
        Ok(Admitted { session, view, upgrade })
    }

    /// The permit of a request, taking the lock where the session is free.
    async fn authorize(
        &self,
        session: &Arc<LiveSession>,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<(Arc<SessionView>, Permit), Answer> {
        let address = connection.address();
        let view = session.view();
        let decision = match authorize(&view, presented, address, self.lock_mode()) {
            Ok(Decision::Pass(permit)) => {
                if permit.address_differs() && self.lock_mode() == LockMode::Observe {
                    self.note_rejection(Rejection::AddressMismatch, session.id(), connection);
                }
                Ok((view, permit))
            }
            Ok(Decision::AskAuthority) => return self.take_lock(session, presented, connection).await,
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = decision {
            self.note_rejection(rejection, session.id(), connection);
        }
        Ok(decision?)
    }

    /// A session that this node does not know (yet), by way of a token that opens it. Nobody learns from the answer which
    /// sessions there are.
    async fn look_up(
        &self,
        id: SessionId,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<Arc<LiveSession>, Answer> {
        if presented.tokens.is_empty() && presented.cookie.is_none() {
            return Err(Rejection::NoCredential.into());
        }
        self.claim_any(id, presented, connection).await
    }

    /// A program's first use: takes the lock with the first of its tokens that does.
    async fn take_lock(
        &self,
        session: &Arc<LiveSession>,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<(Arc<SessionView>, Permit), Answer> {
        let view = self.claim_any(session.id(), presented, connection).await?.view();
        match authorize(&view, presented, connection.address(), self.lock_mode())? {
            Decision::Pass(permit) => Ok((view, permit)),
            Decision::AskAuthority => Err(Rejection::InvalidToken.into()),
        }
    }

    async fn claim_any(
        &self,
        id: SessionId,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<Arc<LiveSession>, Answer> {
        let mut refused = Rejection::InvalidToken;
        for &token in &presented.tokens {
            match self.claim(token, Some(id), None, connection).await {
                Ok(view) if view.id == id => {
                    return Ok(self.directory.learn(view).await.ok_or(Refusal::AuthorityUnavailable)?);
                }
                Ok(_) => {} // the authority knows better than that
                Err(Refusal::Rejected(rejection)) => refused = rejection,
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(refused.into())
    }

    /// A browser's first use: takes the lock, and a cookie goes with it.
    async fn claim_for_browser(
        &self,
        token: SecretHash,
        session: Option<SessionId>,
        connection: &Connection,
    ) -> Result<(Arc<SessionView>, HeaderValue), Answer> {
        let secret = Secret::new(Uuid::new_v4().as_simple().to_string());
        let view = self.claim(token, session, Some(secret.hash()), connection).await?;
        let cookie = self.cookie(view.id, &secret);
        let session = self.directory.learn(view).await.ok_or(Refusal::AuthorityUnavailable)?;
        Ok((session.view(), cookie))
    }

    /// Asks the authority, unless this address has asked about too many tokens that opened nothing.
    async fn claim(
        &self,
        token: SecretHash,
        session: Option<SessionId>,
        cookie: Option<SecretHash>,
        connection: &Connection,
    ) -> Result<SessionView, Refusal> {
        let address = connection.address();
        let (limit, now) = (self.settings.load().limits.guesses_per_address, self.clock.now());
        let guess = self.guesses.count(address.network(), limit, now).map_err(|spent| {
            if spent.first {
                self.events.send(SecurityEvent::new(EventKind::RateLimited, now).address(address));
            }
            Refusal::TooManyGuesses { retry_after: whole_seconds(spent.retry_after) }
        })?;
        let claimed = self.authority.claim(Claim { token, session, address, cookie }).await;
        if !matches!(claimed, Err(ClaimError::Rejected(_))) {
            self.guesses.forgive(&guess);
        }
        claimed.map_err(|error| match error {
            ClaimError::Rejected(rejection) => Refusal::Rejected(rejection),
            ClaimError::Unavailable(_) => Refusal::AuthorityUnavailable,
        })
    }

    /// Ties the connection to the session and charges the head, which is what lets bytes flow.
    async fn bind(
        &self,
        session: &Arc<LiveSession>,
        view: &SessionView,
        connection: &Arc<Connection>,
    ) -> Result<(), Answer> {
        connection.serve(session, &self.settings.load().limits)?;
        // The connection is on the session's list now, so a revocation after this line cuts it; one before is seen here.
        if !same_lock(view, &session.view()) {
            return Err(Rejection::InvalidToken.into());
        }
        self.charge_head(session, connection.head_bytes()).await?;
        connection.begin_request();
        Ok(())
    }

    /// Charges a head, with a lease where one is needed. Awaits, which only this phase may.
    async fn charge_head(&self, session: &Arc<LiveSession>, bytes: u64) -> Result<(), Refusal> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let renewal_wait = Duration::from_millis(self.settings.load().quota.renewal_wait_ms);
        let deadline = tokio::time::Instant::now() + renewal_wait + Duration::from_secs(1);
        for _ in 0..3 {
            let refilled = session.refilled.notified();
            tokio::pin!(refilled);
            refilled.as_mut().enable();
            let reservation = session.reserve_head(bytes);
            if reservation.bytes() == bytes {
                session.spend(reservation, Direction::In, bytes);
                return Ok(());
            }
            session.spend(reservation, Direction::In, 0);
            session.ask_for_refill();
            if tokio::time::timeout_at(deadline, refilled).await.is_err() {
                return Err(Refusal::LedgerUnavailable);
            }
            match session.drought() {
                Some(Drought::CapReached(free_at)) => {
                    return Err(Refusal::CapReached { retry_after: self.seconds_until(free_at) });
                }
                Some(Drought::Unavailable) => return Err(Refusal::LedgerUnavailable),
                None => {}
            }
        }
        Err(Refusal::CapReached { retry_after: RESERVED_RETRY_SECONDS })
    }

    fn lock_mode(&self) -> LockMode {
        self.settings.load().lock.mode
    }

    fn seconds_until(&self, free_at: Timestamp) -> u64 {
        free_at.since(self.clock.now()).as_secs().max(1)
    }

    fn holds_cookie(&self, view: &SessionView, headers: &HeaderMap, connection: &Connection) -> bool {
        let by_cookie = Presented { tokens: Vec::new(), ..presented(headers, None, view.id) };
        matches!(authorize(view, &by_cookie, connection.address(), self.lock_mode()), Ok(Decision::Pass(_)))
    }

    /// For all paths, so that the hand-over link knows its browser again; HttpOnly, since no script needs it.
    fn cookie(&self, session: SessionId, secret: &Secret) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", cookie_name(session), secret.expose());
        let mut cookie = HeaderValue::try_from(cookie).expect("an id and a simple UUID are plain ASCII");
        cookie.set_sensitive(true);
        cookie
    }

    /// Rejections that the authority was not asked about, and so has not recorded.
    fn note_rejection(&self, rejection: Rejection, session: SessionId, connection: &Connection) {
        let kind = match rejection {
            Rejection::NoCredential => return,
            Rejection::InvalidToken => EventKind::InvalidAccessAttempt,
            Rejection::AlreadyInUse => EventKind::SessionAlreadyLocked,
            Rejection::AddressMismatch => EventKind::SessionHijackAttempt,
        };
        let event = SecurityEvent::new(kind, self.clock.now()).session(session).address(connection.address());
        self.events.send(event);
    }
}

fn rate_of(rate: runit_config::Rate) -> Rate {
    Rate { per_second: rate.per_second, burst: rate.burst }
}

fn too_many_requests(wait: Duration) -> Refusal {
    Refusal::TooManyRequests { retry_after: whole_seconds(wait) }
}

/// Rounded up: who waits for so long is let through.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn lab_path(session: SessionId) -> String {
    format!("{}lab", runit_core::session::base_path(session))
}

fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|&c| c == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// Path and query without tokens, for a `Location` of ours; `None` if it is not plain ASCII.
fn with_query(path: &[u8], query: Option<&[u8]>) -> Option<String> {
    let query = query.map(without_tokens).filter(|query| !query.is_empty());
    let target = match query {
        Some(query) => [path, b"?", &query[..]].concat(),
        None => path.to_vec(),
    };
    String::from_utf8(target).ok().filter(|target| target.is_ascii())
}

/// A person opens a page with `?token=`: where to go on without it. Jupyter does the same, so that the token stays
/// neither in the address bar nor in a `Referer`. Programs, which do not ask for `text/html`, are served directly.
fn opens_page_by_token(head: &RequestHeader, path: &[u8], query: Option<&[u8]>) -> Option<String> {
    let asks_for_page = head.headers.get(header::ACCEPT).is_some_and(|value| contains(value.as_bytes(), b"text/html"));
    let navigates = head.headers.get("sec-fetch-mode").is_none_or(|mode| mode.as_bytes() == b"navigate");
    let by_token = query_tokens(query).next().is_some();
    if head.method == Method::GET && asks_for_page && navigates && by_token { with_query(path, query) } else { None }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
