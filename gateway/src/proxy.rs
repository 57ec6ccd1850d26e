//! Pingora's phases: each unpacks, calls one function, and packs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use runit_core::SessionId;
use runit_core::trace::{TRACEPARENT, TRACESTATE, TraceId};
use runit_traces::{RequestSpan, Traces, method_name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{Answer, Refusal};
use crate::answer_policy::{BadAnswer, MAX_INTERIM};
use crate::connection::Connection;
use crate::exchange;
use crate::gateway::{Admitted, Gateway};
use crate::headers;
use crate::lifecycle::Lifecycle;
use crate::outbound::{Dialler, FORBIDDEN, Outbound};
use crate::peer::{UpstreamTimeouts, peer};
use crate::quota;
use crate::tunnel::{Handshake, pass_on, shake_hands};

/// How long a renter may take to make room for an answer of the gateway's own.
pub(crate) const OWN_ANSWER: Duration = Duration::from_secs(3);

/// The proxy's callbacks.
pub(crate) struct Proxy {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) outbound: Arc<dyn Outbound>,
    /// For handshakes of WebSockets and requests that only ask, which are ours to do.
    pub(crate) connector: TransportConnector,
    /// A node that leaves closes each connection after its answer.
    pub(crate) lifecycle: Lifecycle,
    /// For requests through Pingora's proxy while their session keeps a connection: those have two to the provider.
    pub(crate) aside: Arc<Semaphore>,
    pub(crate) traces: Traces,
}

/// What one request carries from phase to phase.
#[derive(Default)]
pub(crate) struct Context {
    admitted: Option<Admitted>,
    /// The one that it was let into, for log and span.
    session: Option<SessionId>,
    /// Set where the gateway fails a request after admission, for the answer.
    failed: Option<Refusal>,
    /// Interim answers of the provider so far.
    interim: usize,
    status: Option<StatusCode>,
    /// Held while the request may have a second connection to the provider.
    aside: Option<OwnedSemaphorePermit>,
    /// Boxed, as most requests have none.
    span: Option<Box<RequestSpan>>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let request = session.req_header_mut();
        if let Some(span) = self.traces.received(&request.method, &request.headers, None) {
            // So the provider gets it, and the log.
            request.insert_header(TRACEPARENT, span.traceparent())?;
            if span.begins_trace() {
                // It is of another trace (W3C Trace Context, section 4.3).
                request.remove_header(TRACESTATE);
            }
            ctx.span = Some(Box::new(span));
        }
        // Pingora takes "keep-alive" in a request for "for ever".
        if session.get_keepalive().is_some() {
            let seconds = self.gateway.settings.load().gateway.keepalive_seconds;
            session.set_keepalive((!self.lifecycle.is_leaving()).then_some(seconds));
        }
        // Interim answers would be free of every limit but the cap: the renter's client does not need them.
        session.set_ignore_info_resp(true);
        Ok(())
    }

    /// What most requests do not come to is in boxes: this future is as large as the largest branch, and moved for each.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let connection = connection(session)?;
        let admitted = self.gateway.admit(session.req_header(), &connection).await;
        if let Ok(admitted) = &admitted {
            ctx.admitted_to(admitted.session.id());
        }
        match admitted {
            Ok(admitted) if admitted.upgrade => {
                Box::pin(self.upgrade(session, &connection, ctx, &admitted)).await?;
                Ok(true)
            }
            Ok(admitted) => {
                ctx.admitted = Some(admitted);
                if exchange::only_asks(session) {
                    Box::pin(self.exchange(session, &connection, ctx)).await?;
                    return Ok(true);
                }
                connection.holdups().body_expected.store(!session.is_body_empty(), Ordering::Relaxed);
                ctx.aside = Arc::clone(&self.aside).try_acquire_owned().ok();
                if let (None, Ok(admitted)) = (&ctx.aside, ctx.admitted()) {
                    drop(admitted.session.kept.take(&admitted.view));
                }
                Ok(false)
            }
            Err(answer) => {
                Box::pin(self.answer(session, &connection, answer)).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer(ctx.admitted()?)))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::to_provider(request, &ctx.admitted()?.view)
    }

    /// Awaits nothing, and must not: see `tunnel`.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        _ctx: &mut Context,
    ) -> Result<()> {
        if end_of_stream {
            connection(session)?.holdups().body_expected.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        self.filter_answer(answer, &*connection(session)?, ctx)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let refusal = ctx.failed.unwrap_or_else(|| refusal_for(error));
        tracing::debug!(code = refusal.row().1, kind = error.etype().as_str(), "request failed");
        let connection = connection(session).ok();
        let dead = connection.as_ref().is_none_or(|connection| connection.cut_reason().is_some());
        if let (Some(connection), false, None) = (connection, dead, session.response_written()) {
            session.set_keepalive(None);
            // The renter may be gone; the connection ends either way.
            let _ = Box::pin(self.answer(session, &connection, refusal.into())).await;
        }
        FailToProxy { error_code: refusal.row().0.as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if let Some(status) = ctx.status {
            self.gateway.metrics.requests.with_label_values(&[class(status)]).inc();
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            note_answer(session, ctx);
        }
        if let Some(span) = ctx.span.take() {
            end_span(*span, session, error, status(session, ctx));
        }
        if let Ok(connection) = connection(session) {
            if connection.is_shared() && !session.as_downstream_mut().is_body_done() {
                // What is left of the body would be read as the next renter's.
                session.set_keepalive(None);
            }
            connection.end_request();
        }
    }

    /// Pingora's own lines would hold the URL, with its token, and a provider's bytes.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _ctx: &Context) -> String {
        method_name(&session.req_header().method).to_owned()
    }
}

impl Context {
    /// What was admitted.
    ///
    /// # Errors
    /// Before that.
    pub(crate) fn admitted(&self) -> Result<&Admitted> {
        self.admitted.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "no permit"))
    }

    fn admitted_to(&mut self, session: SessionId) {
        self.session = Some(session);
        if let Some(span) = &mut self.span {
            span.admitted(session.as_uuid());
        }
    }

    /// Notes the provider's final answer.
    fn answered_with(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(span) = &mut self.span {
            span.provider_answered();
        }
    }
}

impl Proxy {
    /// Cleans the head of a provider's answer, interim or final, and adds what is ours to say.
    ///
    /// # Errors
    /// For what must not reach the renter.
    pub(crate) fn filter_answer(
        &self,
        answer: &mut ResponseHeader,
        connection: &Connection,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.interim += usize::from(answer.status.is_informational());
        let admitted = ctx.admitted()?;
        let cleaned = headers::to_renter(answer, &admitted.view, false, self.gateway.secure);
        let flood = if ctx.interim > MAX_INTERIM { Err(BadAnswer("too many interim answers")) } else { Ok(()) };
        if let Err(BadAnswer(reason)) = cleaned.and(flood) {
            tracing::debug!(reason, "answer refused");
            ctx.failed = Some(Refusal::UpstreamBroken);
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, reason).into_up());
        }
        if answer.status.is_informational() {
            return Ok(());
        }
        connection.holdups().answered.store(true, Ordering::Relaxed);
        if let Some(quota) = admitted.session.quota() {
            answer.insert_header(quota::POLICY, quota.policy_field())?;
            answer
                .insert_header(quota::LIMIT, quota.limit_field(admitted.session.spent(), self.gateway.clock.now()))?;
        }
        if let Some(hsts) = self.gateway.hsts() {
            answer.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        ctx.answered_with(answer.status);
        Ok(())
    }

    pub(crate) fn timeouts(&self) -> UpstreamTimeouts {
        UpstreamTimeouts::of(&self.gateway.settings.load())
    }

    pub(crate) fn peer(&self, admitted: &Admitted) -> HttpPeer {
        let timeouts = self.timeouts();
        let (session, view) = (Arc::clone(&admitted.session), Arc::clone(&admitted.view));
        peer(Dialler { outbound: Arc::clone(&self.outbound), session, view, patience: timeouts.connect }, timeouts)
    }

    /// Does the handshake of a WebSocket. The tunnel itself begins when Pingora is done with the connection.
    async fn upgrade(
        &self,
        session: &mut Session,
        connection: &Connection,
        ctx: &mut Context,
        admitted: &Admitted,
    ) -> Result<()> {
        session.set_keepalive(None);
        let view = &admitted.view;
        let most = self.gateway.settings.load().limits.websockets_per_session;
        let Some(place) = admitted.session.enter_websocket(most) else {
            return self.answer(session, connection, Refusal::TooManyWebSockets.into()).await;
        };
        let timeouts = self.timeouts();
        let peer = self.peer(admitted);
        let (request, within, secure) = (session.req_header(), timeouts.read, self.gateway.secure);
        match shake_hands(&self.connector, &peer, request, view, within, secure).await {
            Ok(Handshake::Accepted(tunnel)) => {
                ctx.answered_with(StatusCode::SWITCHING_PROTOCOLS);
                connection.hand_over_to(tunnel.with_place(place));
                Ok(())
            }
            Ok(Handshake::Declined(provider, mut answer)) => {
                if let Some(hsts) = self.gateway.hsts() {
                    answer.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
                }
                drop(place);
                ctx.answered_with(answer.status);
                // Small where it is honest: a page that says no.
                tokio::time::timeout(within, pass_on(*provider, answer, session)).await.unwrap_or(Ok(()))
            }
            Err(error) => self.answer(session, connection, refusal_for(&error).into()).await,
        }
    }

    async fn answer(&self, session: &mut Session, connection: &Connection, answer: Answer) -> Result<()> {
        self.gateway.metrics.refusals.with_label_values(&[answer.label()]).inc();
        connection.answer_ourselves();
        // What is left of a body would be read as the next head.
        if answer.closes() || !session.as_downstream_mut().is_body_done() {
            session.set_keepalive(None);
        }
        // The answer fits into the socket's buffer, unless many before it were not read.
        session.set_write_timeout(Some(OWN_ANSWER));
        let settings = self.gateway.settings.load();
        answer.send(session, self.gateway.hsts(), &settings.control.public_url).await
    }
}

/// A line of the log that says how a request was answered, and of which trace of the client's it was.
fn note_answer(session: &Session, ctx: &Context) {
    let request = session.req_header();
    let traceparent = request.headers.get(TRACEPARENT).map(|field| field.as_bytes());
    let trace = traceparent.and_then(TraceId::of).map(tracing::field::display);
    let status = status(session, ctx);
    let id = ctx.session.map(tracing::field::display);
    tracing::debug!(trace, status, session = id, method = method_name(&request.method), "answered");
}

/// Ends a request's span by how the request went.
fn end_span(mut span: RequestSpan, session: &Session, error: Option<&Error>, status: Option<u16>) {
    if let Some(status) = status {
        span.answered(status);
    }
    let cut = connection(session).ok().and_then(|connection| connection.cut_reason());
    match (cut, error) {
        (Some(cut), _) => span.cut_short(cut.label()),
        (None, Some(error)) if *error.esource() == ErrorSource::Downstream => span.cut_short(error.etype().as_str()),
        (None, Some(error)) => span.failed(error.etype().as_str()),
        (None, None) => {}
    }
}

/// What a request was answered with, if it was.
fn status(session: &Session, ctx: &Context) -> Option<u16> {
    session.response_written().map(|answer| answer.status).or(ctx.status).map(|status| status.as_u16())
}

/// The connection that the guard shares with the phases.
fn connection(session: &Session) -> Result<Arc<Connection>> {
    session
        .digest()
        .and_then(|digest| digest.proxy_digest.as_deref())
        .and_then(shared_connection)
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "connection without a guard"))
}

fn shared_connection(digest: &ProxyDigest) -> Option<Arc<Connection>> {
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().cloned()
}

/// The proxy digest that carries a connection to the phases. It has the form of a CONNECT proxy's answer, of which only
/// the user data is used.
pub(crate) fn digest_with(connection: &Arc<Connection>) -> Result<ProxyDigest> {
    let response = Box::new(ResponseHeader::build_no_case(StatusCode::OK, Some(0))?);
    Ok(ProxyDigest::new(response, Some(Box::new(Arc::clone(connection)))))
}

fn refusal_for(error: &Error) -> Refusal {
    use ErrorType::{ConnectTimedout, InvalidHTTPHeader, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) => Refusal::BadRequest,
        (_, error) if *error == FORBIDDEN => Refusal::UpstreamForbidden,
        (_, ConnectTimedout | ReadTimedout | TLSHandshakeTimedout | WriteTimedout) => Refusal::UpstreamTimedOut,
        (ErrorSource::Upstream, InvalidHTTPHeader) => Refusal::UpstreamBroken,
        _ => Refusal::UpstreamFailed,
    }
}

const fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
