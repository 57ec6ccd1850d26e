//! Requests that only ask: passed on by the renter's own task, over a connection that is kept for the next one.
//!
//! A safe method (RFC 9110, section 9.2.1) without a body has nothing to send while its answer comes. It needs none of what
//! Pingora's proxy does for both directions at once (two halves and channels between them), nor a pool in which a task
//! watches each idle connection. Here one task asks, cleans the answer and passes it on, and the session keeps the
//! connection ([`crate::kept`]). Every other request goes through Pingora's proxy.

use std::sync::Arc;

use http::{Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::client::HttpSession as ProviderSession;
use pingora::protocols::http::v1::server::HttpSession as RenterSession;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use runit_core::SessionView;

use crate::connection::Connection;
use crate::headers;
use crate::kept::Kept;
use crate::portions::Portions;
use crate::proxy::{Context, Proxy};

/// Whether this module serves a request.
pub(crate) fn only_asks(session: &mut Session) -> bool {
    matches!(session.req_header().method, Method::GET | Method::HEAD | Method::OPTIONS) && session.is_body_empty()
}

impl Proxy {
    /// Asks the provider and gives its answer to the renter.
    ///
    /// # Errors
    /// When either side breaks off, takes too long, or says what may not pass, in Pingora's terms.
    pub(crate) async fn exchange(
        &self,
        session: &mut Session,
        connection: &Connection,
        ctx: &mut Context,
    ) -> Result<()> {
        let ServerSession::H1(renter) = session.as_downstream_mut() else {
            return Err(Error::explain(ErrorType::InternalError, "not HTTP/1.1"));
        };
        let admitted = ctx.admitted()?;
        let (served, view) = (Arc::clone(&admitted.session), Arc::clone(&admitted.view));
        let (mut provider, answer) = self.ask(renter, connection, ctx, &view).await?;
        renter.write_response_header(answer).await.map_err(|error| error.into_down())?;
        while let Some(part) = while_there(renter, provider.read_body_ref()).await? {
            // Nothing, as a chunk, would be the end.
            if !part.is_empty() {
                renter.write_body(part).await.map_err(|error| error.into_down())?;
            }
        }
        // Before the request is over, and with it the charging.
        renter.finish_body().await.map_err(|error| error.into_down())?;
        provider.respect_keepalive();
        if let Some(provider) = provider.reuse().await {
            served.keep(Kept::new(provider, view));
        }
        Ok(())
    }

    /// Sends the request and reads the head of the answer, on the connection that was kept if that still does.
    async fn ask(
        &self,
        renter: &mut RenterSession,
        connection: &Connection,
        ctx: &mut Context,
        view: &Arc<SessionView>,
    ) -> Result<(ProviderSession, Box<ResponseHeader>)> {
        let session = Arc::clone(&ctx.admitted()?.session);
        if let Some(kept) = session.kept.take(view) {
            match self.ask_on(kept, renter, connection, ctx, view).await {
                // Closed while the request was on its way, as an idle connection may be at any time (RFC 9112, section
                // 9.3.1). The method is a safe one.
                Err(error) if broke_off(&error) => {}
                asked => return asked,
            }
        }
        let provider = self.connector.new_stream(&self.peer(ctx.admitted()?)).await.map_err(|error| error.into_up())?;
        self.ask_on(Portions::of(provider), renter, connection, ctx, view).await
    }

    async fn ask_on(
        &self,
        provider: Stream,
        renter: &mut RenterSession,
        connection: &Connection,
        ctx: &mut Context,
        view: &SessionView,
    ) -> Result<(ProviderSession, Box<ResponseHeader>)> {
        let timeouts = self.timeouts();
        let mut provider = ProviderSession::new(provider);
        (provider.read_timeout, provider.write_timeout) = (Some(timeouts.read), Some(timeouts.write));
        let request = Box::new(headers::for_provider(renter.req_header(), view)?);
        let to_head = request.method == Method::HEAD;
        provider.write_request_header(request).await.map_err(|error| error.into_up())?;
        loop {
            while_there(renter, provider.read_response()).await?;
            let head = provider.resp_header().map(headers::for_renter);
            let mut answer = Box::new(head.ok_or_else(|| Error::new(ErrorType::InternalError))?);
            delimit(&mut answer, to_head)?;
            self.filter_answer(&mut answer, connection, ctx)?;
            if !answer.status.is_informational() {
                return Ok((provider, answer));
            }
        }
    }
}

/// What the provider does next, unless the renter goes away meanwhile.
async fn while_there<T>(renter: &mut RenterSession, provider: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        // The provider first: an answer that is there costs no look at the renter.
        biased;
        outcome = provider => outcome.map_err(|error| error.into_up()),
        gone = renter.read_body_or_idle(true) => Err(match gone {
            Ok(_) => Error::explain(ErrorType::ConnectError, "more than a request"),
            Err(error) => error,
        }.into_down()),
    }
}

/// An answer that would end with its connection gets chunks, so that the renter's stays (RFC 9112, section 6.3).
fn delimit(answer: &mut ResponseHeader, to_head: bool) -> Result<()> {
    let delimited = [header::TRANSFER_ENCODING, header::CONTENT_LENGTH];
    let bodiless = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let has_none = to_head || bodiless || answer.status.is_informational();
    if !has_none && !delimited.iter().any(|name| answer.headers.contains_key(name)) {
        answer.set_version(Version::HTTP_11);
        answer.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

/// Whether the provider closed a connection rather than answer on it.
fn broke_off(error: &Error) -> bool {
    let mut retry = error.retry;
    retry.decide_reuse(true);
    retry.retry() || *error.etype() == ErrorType::WriteError
}
