//! Admission: from a request's head to a session that may be used, or to an answer of the gateway's own.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;
use runit_config::LiveSettings;
use runit_core::authority::ClaimError;
use runit_core::budget::Direction;
use runit_core::client_address::{client_address, is_listed};
use runit_core::permit::{Decision, authorize};
use runit_core::rate::Rate;
use runit_core::session::Claim;
use runit_core::{
    Authority, Clock, EventKind, LockMode, Permit, Presented, Rejection, SecretHash, SecurityEvent, SessionId,
    SessionView, Timestamp,
};

use tokio::time::Instant;

use crate::answer::{Answer, Refusal};
use crate::connection::Connection;
use crate::credentials::presented;
use crate::directory::Directory;
use crate::entrance::{opens_page_by_token, with_query};
use crate::events::EventSink;
use crate::guesses::Guesses;
use crate::live::{Drought, LiveSession, same_lock};
use crate::metrics::Metrics;
use crate::monotonic;
use crate::request_policy;
use crate::sites::{Site, Sites};
use crate::target::{self, BadTarget, Place, Target};
use crate::turns::Turns;

/// While others hold the last bytes of a cap: when to try again, in seconds.
const RESERVED_RETRY_SECONDS: u64 = 5;

/// Decides on requests.
pub(crate) struct Gateway {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) events: EventSink,
    pub(crate) guesses: Guesses,
    pub(crate) turns: Turns,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: LiveSettings,
    pub(crate) sites: Sites,
    /// Whether renters reach the gateway over TLS: cookies are `Secure` then.
    pub(crate) secure: bool,
}

/// Which session a request is for.
pub(crate) struct Wanted {
    /// The one that the path names.
    pub(crate) id: SessionId,
    place: Place,
    /// The host that it is asked of.
    pub(crate) site: Site,
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
        self.identify(&head.headers, connection)?;
        self.pace(connection)?;
        request_policy::check(&head.method, head.version, &head.headers)?;
        if !self.directory.is_loaded().await {
            return Err(Refusal::AuthorityUnavailable.into());
        }
        let site = self.sites.named_by(&head.headers).ok_or(Refusal::WrongHost)?;
        let (path, query) = split_target(head.raw_path());
        match (site, target::read(path)) {
            (_, Err(BadTarget::Malformed)) => Err(Refusal::BadRequest.into()),
            (Site::Shared | Site::Main, Ok(Target::Access(token))) => {
                let access = Box::pin(self.access(&token, site, head, connection));
                Err(access.await.unwrap_or_else(|refusal| refusal))
            }
            (Site::Rental(label), Ok(Target::Ticket(ticket))) => {
                Err(self.enter(&ticket, label, head, connection).unwrap_or_else(|refusal| refusal))
            }
            (Site::Shared | Site::Rental(_), Ok(Target::Session(id, place))) => {
                self.session(Wanted { id, place, site }, head, (path, query), connection).await
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }

    /// Whose request it is: the peer's, or whoever a listed proxy says.
    fn identify(&self, headers: &HeaderMap, connection: &Connection) -> Result<(), Refusal> {
        let settings = self.settings.load();
        let listed = &settings.gateway.trusted_proxies;
        let peer = connection.peer();
        let lines = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let renter = client_address(peer, lines, listed).map_err(|_| Refusal::BadRequest)?;
        connection.identify(renter, is_listed(peer, listed));
        Ok(())
    }

    /// What browsers are told of `https://` (RFC 6797), where it is how they come here.
    pub(crate) fn hsts(&self) -> Option<HeaderValue> {
        let seconds = self.settings.load().gateway.hsts_seconds;
        let says = self.secure && seconds > 0;
        says.then(|| HeaderValue::try_from(format!("max-age={seconds}")).expect("digits"))
    }

    /// Whether requests from this address come slowly enough.
    fn pace(&self, connection: &Connection) -> Result<(), Refusal> {
        let rate = self.settings.load().limits.requests_per_address;
        let place = connection.place();
        place
            .requests(connection.address().network())
            .admit(rate_of(rate), monotonic::coarse())
            .map_err(|wait| self.too_many_requests(wait, None, connection))
    }

    fn too_many_requests(&self, wait: Duration, session: Option<SessionId>, connection: &Connection) -> Refusal {
        let event = SecurityEvent::new(EventKind::RateLimited, self.clock.now()).address(connection.address());
        self.events.send_first(SecurityEvent { session, ..event });
        Refusal::TooManyRequests { retry_after: whole_seconds(wait) }
    }

    /// Anything under `/s/{id}/`.
    async fn session(
        &self,
        wanted: Wanted,
        head: &RequestHeader,
        (path, query): (&[u8], Option<&[u8]>),
        connection: &Arc<Connection>,
    ) -> Result<Admitted, Answer> {
        if let Some(location) = opens_page_by_token(head, path, query) {
            let opened = Box::pin(self.open_page(&wanted, location, head, query, connection)).await;
            return Err(opened.unwrap_or_else(|refusal| refusal));
        }
        let presented = presented(&head.headers, query, wanted.id, self.secure);
        let session = match self.find(&wanted) {
            Some(session) => session,
            None => Box::pin(self.look_up(&wanted, &presented, connection)).await?,
        };
        let (view, permit) = self.authorize(&session, &presented, wanted.site, connection).await?;
        let rate = self.settings.load().limits.requests_per_session;
        let paced = session.requests.admit(rate_of(rate), monotonic::coarse());
        paced.map_err(|wait| self.too_many_requests(wait, Some(session.id()), connection))?;
        if !request_policy::origin_is_ours(&head.method, &head.headers, permit.by_token(), self.secure) {
            return Err(Refusal::ForeignOrigin.into());
        }
        match wanted.place {
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

    /// The session that path and host name, as far as this node knows. A rental's host is its own alone: a free session
    /// has none.
    pub(crate) fn find(&self, wanted: &Wanted) -> Option<Arc<LiveSession>> {
        match wanted.site {
            Site::Rental(label) => {
                self.directory.session_with_label(label?).filter(|session| session.id() == wanted.id)
            }
            Site::Shared | Site::Main => self.directory.session(wanted.id),
        }
    }

    /// The permit of a request, taking the lock where the session is free.
    async fn authorize(
        &self,
        session: &Arc<LiveSession>,
        presented: &Presented,
        site: Site,
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
            Ok(Decision::AskAuthority) => {
                let may_open = |token: &SecretHash| site.takes(*token) && !session.is_dead(*token);
                let tokens: Vec<_> = presented.tokens.iter().copied().filter(may_open).collect();
                if !tokens.is_empty() {
                    let presented = Presented { tokens, ..presented.clone() };
                    return Box::pin(self.take_lock(session, &presented, connection)).await;
                }
                Err(Rejection::InvalidToken)
            }
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = decision {
            self.note_rejection(rejection, session.id(), connection);
        }
        Ok(decision?)
    }

    /// A session that this node does not know (yet), by way of a token that opens it. Nobody learns from the answer which
    /// sessions there are. On a rental's own host only the token counts that its name comes from.
    async fn look_up(
        &self,
        wanted: &Wanted,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<Arc<LiveSession>, Answer> {
        if presented.tokens.is_empty() && presented.cookies.is_empty() {
            return Err(Rejection::NoCredential.into());
        }
        let mut presented = presented.clone();
        presented.tokens.retain(|&token| wanted.site.takes(token));
        if matches!(wanted.site, Site::Rental(_)) && presented.tokens.is_empty() && !presented.cookies.is_empty() {
            return Err(Refusal::RentalOver.into());
        }
        self.claim_any(wanted.id, &presented, connection).await
    }

    /// A program's first use: takes the lock with the first of its tokens that does. Of requests that come together one
    /// asks the authority, and the others go by what it was told.
    async fn take_lock(
        &self,
        session: &Arc<LiveSession>,
        presented: &Presented,
        connection: &Connection,
    ) -> Result<(Arc<SessionView>, Permit), Answer> {
        let _turn = self.turns.wait_for(presented.tokens.first()).await;
        let view = session.view();
        if let Ok(Decision::Pass(permit)) = authorize(&view, presented, connection.address(), self.lock_mode()) {
            return Ok((view, permit));
        }
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
                Err(Refusal::Rejected(rejection)) => {
                    if let (Rejection::InvalidToken, Some(session)) = (rejection, self.directory.session(id)) {
                        session.note_dead(token);
                    }
                    refused = rejection;
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(refused.into())
    }

    /// Asks the authority, unless this address has asked about too many tokens that opened nothing.
    pub(crate) async fn claim(
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
        if !matches!(claimed, Err(ClaimError::Rejected(_) | ClaimError::TooOften(_))) {
            self.guesses.forgive(&guess);
        }
        claimed.map_err(|error| match error {
            ClaimError::Rejected(rejection) => Refusal::Rejected(rejection),
            ClaimError::TooOften(wait) => Refusal::TooManyGuesses { retry_after: whole_seconds(wait) },
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
        let mut deadline = None;
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
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + renewal_wait + Duration::from_secs(1));
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

    pub(crate) fn lock_mode(&self) -> LockMode {
        self.settings.load().lock.mode
    }

    fn seconds_until(&self, free_at: Timestamp) -> u64 {
        free_at.since(self.clock.now()).as_secs().max(1)
    }

    /// Rejections that the authority was not asked about, and so has not recorded.
    pub(crate) fn note_rejection(&self, rejection: Rejection, session: SessionId, connection: &Connection) {
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

/// A rate of the settings, as core counts it.
pub(crate) const fn rate_of(rate: runit_config::Rate) -> Rate {
    Rate { per_second: rate.per_second, burst: rate.burst }
}

/// Rounded up: who waits for so long is let through.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Path, and query where there is one.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|&c| c == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}
