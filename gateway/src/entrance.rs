//! How a browser comes in: by the hand-over link, by `?token=` in a page's URL, and from the link's host into its rental's
//! own. What it gets is a cookie, and a URL without a token.
//!
//! ```text
//!   one host for all     /access/{token} ── lock, cookie ──▶ /s/{id}/lab
//!   a host for each      /access/{token} ── lock, cookie ──▶ {label}.../access/{ticket} ── cookie ──▶ /s/{id}/lab
//! ```
//!
//! With a host for each rental the browser has the cookie twice: on the link's host, so that the link knows it again, and
//! on the rental's own.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use pingora::http::RequestHeader;
use runit_core::authority::ReconnectError;
use runit_core::permit::{Decision, authorize};
use runit_core::session::{Proof, Reconnection};
use runit_core::{AccessToken, HostLabel, Presented, Rejection, Secret, SecretHash, SessionId, SessionView};
use uuid::Uuid;

use crate::answer::{Answer, Question, Refusal};
use crate::arrival::{Pages, is_meant};
use crate::connection::Connection;
use crate::credentials::{cookie_name, cookie_values, query_tokens, without_tokens};
use crate::gateway::{Gateway, Wanted, whole_seconds};
use crate::request_policy::origin_is_ours;
use crate::sites::Site;
use crate::ticket::Ticket;

impl Gateway {
    /// The hand-over link: takes the lock and sends the browser to its JupyterLab.
    pub(crate) async fn access(
        &self,
        token: &AccessToken,
        site: Site,
        head: &RequestHeader,
        connection: &Arc<Connection>,
    ) -> Result<Answer, Answer> {
        let confirmed = match head.method {
            Method::GET => false,
            Method::POST if origin_is_ours(&head.method, &head.headers, false, self.secure) => true,
            Method::POST => return Err(Refusal::ForeignOrigin.into()),
            _ => return Err(Refusal::LinkMethod.into()),
        };
        let ask = |question| Answer::Ask { question, token: token.clone(), leads_to: self.leads_to(token) };
        if let Some(session) = self.directory.session_locked_by(token.hash()) {
            let view = session.view();
            if let Some(secret) = self.cookie_held(&view, &head.headers, connection) {
                return Ok(Answer::Redirect { location: self.way_in(&view, &secret, site), cookie: None });
            }
        }
        if let Some((view, secret)) = self.held_elsewhere(token, &head.headers, connection) {
            if !confirmed {
                self.note_rejection(Rejection::AddressMismatch, view.id, connection);
                return Ok(if asks_for_page(head) { ask(Question::Move) } else { Rejection::AddressMismatch.into() });
            }
            let view = self.move_lock(token, &secret, connection).await?;
            return Ok(Answer::Redirect { location: self.way_in(&view, &secret, site), cookie: None });
        }
        if !confirmed && !self.is_meant(&head.headers, site) {
            return Ok(ask(Question::Open));
        }
        let (view, secret) = self.claim_for_browser(token.hash(), None, connection).await?;
        let cookie = Some(self.cookie(view.id, &secret));
        Ok(Answer::Redirect { location: self.way_in(&view, &secret, site), cookie })
    }

    fn is_meant(&self, headers: &HeaderMap, site: Site) -> bool {
        let control = &self.settings.load().control.public_url;
        is_meant(headers, Pages { control, rentals_apart: !matches!(site, Site::Shared) })
    }

    /// The lock and its own cookie, where both token and cookie are shown from an address that the lock is not at.
    fn held_elsewhere(
        &self,
        token: &AccessToken,
        headers: &HeaderMap,
        connection: &Connection,
    ) -> Option<(Arc<SessionView>, Secret)> {
        let view = self.directory.session_locked_by(token.hash())?.view();
        let lock = view.lock.as_ref().filter(|lock| !self.lock_mode().admits(lock.address, connection.address()))?;
        let secret = cookie_values(headers, view.id, self.secure).find(|secret| lock.cookie == Some(secret.hash()))?;
        Some((view, secret))
    }

    /// Has the authority move the lock to this address; whatever is connected from the other one is cut.
    async fn move_lock(
        &self,
        token: &AccessToken,
        cookie: &Secret,
        connection: &Connection,
    ) -> Result<Arc<SessionView>, Refusal> {
        let proof = Proof::Cookie(cookie.hash());
        let reconnection = Reconnection { token: token.hash(), proof, address: connection.address() };
        let view = self.authority.reconnect(reconnection).await.map_err(|error| match error {
            ReconnectError::Rejected(rejection) => Refusal::Rejected(rejection),
            ReconnectError::TooOften(wait) => Refusal::TooManyReconnects { retry_after: whole_seconds(wait) },
            ReconnectError::Unavailable(_) => Refusal::AuthorityUnavailable,
        })?;
        let session = self.directory.learn(view).await.ok_or(Refusal::AuthorityUnavailable)?;
        Ok(session.view())
    }

    /// The second half of the way in, on the rental's own host.
    pub(crate) fn enter(
        &self,
        ticket: &Ticket,
        label: Option<HostLabel>,
        head: &RequestHeader,
        connection: &Connection,
    ) -> Result<Answer, Answer> {
        if head.method != Method::GET {
            return Err(Refusal::LinkMethod.into());
        }
        let known = label.and_then(|label| Some((label, self.directory.session_with_label(label)?)));
        let (label, session) = known.ok_or(Rejection::InvalidToken)?;
        let view = session.view();
        let location = lab_path(view.id);
        if self.cookie_held(&view, &head.headers, connection).is_some() {
            return Ok(Answer::Redirect { location, cookie: None });
        }
        let cookie = view.lock.as_ref().and_then(|lock| lock.cookie).ok_or(Rejection::InvalidToken)?;
        let secret = ticket.open(cookie, label, self.clock.now()).ok_or(Rejection::InvalidToken)?;
        let presented = Presented { cookies: vec![secret.hash()], tokens: Vec::new() };
        if let Err(rejection) = authorize(&view, &presented, connection.address(), self.lock_mode()) {
            self.note_rejection(rejection, view.id, connection);
            return Err(rejection.into());
        }
        if !session.take_ticket(ticket.issued_at_ms()) {
            return Err(Rejection::InvalidToken.into());
        }
        Ok(Answer::Redirect { location, cookie: Some(self.cookie(view.id, &secret)) })
    }

    /// A page of a session opened with `?token=`: on to the same page without it.
    pub(crate) async fn open_page(
        &self,
        wanted: &Wanted,
        location: String,
        head: &RequestHeader,
        query: Option<&[u8]>,
        connection: &Arc<Connection>,
    ) -> Result<Answer, Answer> {
        let known = self.find(wanted).map(|session| session.view());
        if known.is_some_and(|view| self.cookie_held(&view, &head.headers, connection).is_some()) {
            return Ok(Answer::Redirect { location, cookie: None });
        }
        let token = query_tokens(query).find(|token| wanted.site.takes(token.hash())).ok_or(Rejection::InvalidToken)?;
        if !self.is_meant(&head.headers, wanted.site) {
            return Ok(Answer::Redirect { location: self.link(&token, wanted.site), cookie: None });
        }
        let (view, secret) = self.claim_for_browser(token.hash(), Some(wanted.id), connection).await?;
        Ok(Answer::Redirect { location, cookie: Some(self.cookie(view.id, &secret)) })
    }

    /// A browser's first use: takes the lock, and a cookie goes with it.
    async fn claim_for_browser(
        &self,
        token: SecretHash,
        session: Option<SessionId>,
        connection: &Connection,
    ) -> Result<(Arc<SessionView>, Secret), Answer> {
        let secret = Secret::new(Uuid::new_v4().as_simple().to_string());
        let view = self.claim(token, session, Some(secret.hash()), connection).await?;
        let session = self.directory.learn(view).await.ok_or(Refusal::AuthorityUnavailable)?;
        Ok((session.view(), secret))
    }

    /// Where the browser goes on from the hand-over link.
    fn way_in(&self, view: &SessionView, secret: &Secret, site: Site) -> String {
        match (site, view.label()) {
            (Site::Main, Some(label)) => {
                let ticket = Ticket::seal(secret, label, self.clock.now());
                format!("{}/access/{ticket}", self.settings.load().gateway.session_origin(label))
            }
            _ => lab_path(view.id),
        }
    }

    /// The hand-over link, as seen from one of our hosts.
    fn link(&self, token: &AccessToken, from: Site) -> String {
        let origin = if from == Site::Shared { String::new() } else { self.settings.load().gateway.origin() };
        format!("{origin}/access/{}", token.expose())
    }

    /// The origin that the hand-over link leads to.
    fn leads_to(&self, token: &AccessToken) -> String {
        self.settings.load().gateway.session_origin(HostLabel::of(token.hash()))
    }

    /// The lock's own cookie, where the request has it and comes from where the lock is held.
    fn cookie_held(&self, view: &SessionView, headers: &HeaderMap, connection: &Connection) -> Option<Secret> {
        cookie_values(headers, view.id, self.secure).find(|secret| {
            let presented = Presented { cookies: vec![secret.hash()], tokens: Vec::new() };
            matches!(authorize(view, &presented, connection.address(), self.lock_mode()), Ok(Decision::Pass(_)))
        })
    }

    /// For all paths, so that the hand-over link knows its browser again; HttpOnly, since no script needs it.
    fn cookie(&self, session: SessionId, secret: &Secret) -> HeaderValue {
        let name = cookie_name(session, self.secure);
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}", secret.expose());
        let mut cookie = HeaderValue::try_from(cookie).expect("an id and a simple UUID are plain ASCII");
        cookie.set_sensitive(true);
        cookie
    }
}

fn lab_path(session: SessionId) -> String {
    format!("{}lab", runit_core::session::base_path(session))
}

/// Path and query without tokens, for a `Location` of ours; `None` if it is not plain ASCII.
pub(crate) fn with_query(path: &[u8], query: Option<&[u8]>) -> Option<String> {
    let query = query.map(without_tokens).filter(|query| !query.is_empty());
    let target = match query {
        Some(query) => [path, b"?", &query[..]].concat(),
        None => path.to_vec(),
    };
    String::from_utf8(target).ok().filter(|target| target.is_ascii())
}

/// A person opens a page with `?token=`: where to go on without it. Jupyter does the same, so that the token stays
/// neither in the address bar nor in a `Referer`. Programs, which do not ask for `text/html`, are served directly.
pub(crate) fn opens_page_by_token(head: &RequestHeader, path: &[u8], query: Option<&[u8]>) -> Option<String> {
    let navigates = head.headers.get("sec-fetch-mode").is_none_or(|mode| mode.as_bytes() == b"navigate");
    let by_token = query_tokens(query).next().is_some();
    if head.method == Method::GET && asks_for_page(head) && navigates && by_token {
        with_query(path, query)
    } else {
        None
    }
}

fn asks_for_page(head: &RequestHeader) -> bool {
    head.headers.get(header::ACCEPT).is_some_and(|value| contains(value.as_bytes(), b"text/html"))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
