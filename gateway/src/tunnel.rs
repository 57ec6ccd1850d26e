//! WebSockets: the handshake towards the provider, and the tunnel after it.
//!
//! Pingora's own upgrade ends a tunnel when the provider's 101 is read before the request's (empty) body task was
//! (cloudflare/pingora issue 946), which a fast provider makes likely. So a handshake is done here, before Pingora opens
//! an upstream; when it succeeds, Pingora's part ends, the guard hands the socket over, and the bytes are pumped by
//! [`Tunnel::run`]. They pass the guard as before. No frame is parsed and no message reassembled.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{StatusCode, header};
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use prometheus::IntCounter;
use runit_core::SessionView;
use runit_core::rate::Rate;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use crate::answer_policy::MAX_INTERIM;
use crate::connection::{Connection, Cut};
use crate::frames::{FrameScanner, close_frame};
use crate::guard::Guard;
use crate::headers;
use crate::live::{LiveSession, WebSocketPlace};
use crate::monotonic;
use crate::pace::Holdups;
use crate::rarely::rarely;

/// What one read may bring. Shared by all tunnels of a thread: an idle tunnel holds no buffer.
const SCRATCH: usize = 32 * 1024;
/// What is read in parts of this size is bounded by the cap.
const SMALL: usize = 4 * 1024;
/// A close frame is small, but the renter's socket may be full.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// A provider's answer to a handshake.
pub(crate) enum Handshake {
    /// It agrees: the tunnel can begin.
    Accepted(Box<Tunnel>),
    /// It answers with something else, which the renter gets.
    Declined(Box<HttpSession>, Box<ResponseHeader>),
}

/// An agreed upgrade before its bytes flow.
pub(crate) struct Tunnel {
    /// The 101 for the renter, on the wire.
    head: BytesMut,
    provider: Stream,
    /// What the provider sent right behind its 101.
    ahead: Bytes,
    /// Given back when the tunnel ends.
    place: Option<WebSocketPlace>,
}

/// How a tunnel is run, from the settings of the moment at which it begins.
pub(crate) struct Terms {
    /// For so long it may be silent.
    pub(crate) idle: Duration,
    /// How fast small parts may be read of it and its siblings.
    pub(crate) reads: Rate,
    /// Reads that had to wait.
    pub(crate) waits: IntCounter,
}

/// Does the handshake with the provider.
///
/// # Errors
/// Connection failures, time-outs and broken answers, in Pingora's terms.
pub(crate) async fn shake_hands(
    connector: &TransportConnector,
    peer: &HttpPeer,
    request: &RequestHeader,
    session: &SessionView,
    answer_within: Duration,
    secure: bool,
) -> Result<Handshake> {
    let stream = connector.new_stream(peer).await?;
    let mut provider = HttpSession::new(stream);
    provider.read_timeout = Some(answer_within);
    let mut request = headers::for_provider(request, session)?;
    request.insert_header(header::CONNECTION, "Upgrade")?;
    request.insert_header(header::UPGRADE, "websocket")?;
    let exchange = async {
        provider.write_request_header(Box::new(request)).await?;
        for _ in 0..=MAX_INTERIM {
            provider.read_response().await?;
            let status = provider.get_status().unwrap_or_default();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(());
            }
        }
        Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many interim answers").into_up())
    };
    tokio::time::timeout(answer_within, exchange)
        .await
        .map_err(|_| Error::explain(ErrorType::ReadTimedout, "no answer to the handshake"))??;
    let mut answer = provider.resp_header().cloned().ok_or_else(|| Error::new(ErrorType::InternalError))?;
    headers::to_renter(&mut answer, session, true, secure)
        .map_err(|bad| Error::explain(ErrorType::InvalidHTTPHeader, bad.0).into_up())?;
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Handshake::Declined(Box::new(provider), Box::new(answer)));
    }
    answer.insert_header(header::CONNECTION, "Upgrade")?;
    answer.insert_header(header::UPGRADE, "websocket")?;
    let mut head = BytesMut::from(&b"HTTP/1.1 101 Switching Protocols\r\n"[..]);
    answer.header_to_h1_wire(&mut head);
    head.extend_from_slice(b"\r\n");
    // Ready at once if anything came with the 101 or since; otherwise the tunnel reads it from the stream.
    let ahead = match provider.read_body_bytes().now_or_never() {
        Some(bytes) => bytes?.unwrap_or_default(),
        None => Bytes::new(),
    };
    Ok(Handshake::Accepted(Box::new(Tunnel { head, provider: provider.into_inner(), ahead, place: None })))
}

/// Gives the renter the answer of a provider that declined.
///
/// # Errors
/// When either side breaks off.
pub(crate) async fn pass_on(
    mut provider: HttpSession,
    answer: Box<ResponseHeader>,
    session: &mut Session,
) -> Result<()> {
    session.write_response_header(answer, false).await?;
    while let Some(chunk) = provider.read_body_bytes().await? {
        session.write_response_body(Some(chunk), false).await?;
    }
    session.write_response_body(None, true).await
}

impl Tunnel {
    /// Has it keep its place in the session.
    pub(crate) fn with_place(mut self: Box<Self>, place: WebSocketPlace) -> Box<Self> {
        self.place = Some(place);
        self
    }

    /// Pumps bytes both ways until either side ends, the session is cut, the process stops, or nothing moves for `idle`.
    ///
    /// A cut that falls between two frames towards the renter is explained by a close frame of the gateway's own, which
    /// is not charged.
    pub(crate) async fn run(self, mut renter: Guard, connection: &Connection, terms: &Terms, stop: impl Future) {
        connection.begin_request();
        connection.holdups().tunnel.store(true, Ordering::Relaxed);
        renter.linger_when_dropped();
        let session = connection.session();
        let brake = || session.clone().map(|session| Brake::new(session, terms));
        let mut down = Pump { brake: brake(), ..Pump::default() };
        let up = Pump { brake: brake(), ..Pump::default() };
        let interrupted = rarely(async {
            tokio::select! {
                () = connection.until_cut() => {}
                () = silence(connection, terms.idle) => connection.cut(Cut::Idle),
                _ = stop => connection.cut(Cut::Restart),
            }
        });
        let ended = tokio::select! {
            biased;
            result = self.pump(&mut renter, up, &mut down, connection.holdups()) => result,
            () = interrupted => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(kind = %error.kind(), "tunnel ended");
        }
        let between_frames = down.frames.is_some_and(|frames| frames.at_boundary());
        if let (Some(cut), true) = (connection.cut_reason(), between_frames) {
            connection.answer_ourselves();
            let close = async {
                renter.write_all(&close_frame(cut.close_code())).await?;
                renter.flush().await
            };
            // A renter who does not read gets no explanation.
            let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
        }
    }

    async fn pump(self, renter: &mut Guard, mut up: Pump, down: &mut Pump, holdups: &Holdups) -> io::Result<()> {
        let Self { head, mut provider, ahead, place: _place } = self;
        renter.write_all(&head).await?;
        renter.flush().await?;
        drop(head);
        down.frames = Some(FrameScanner::default());
        down.waiting = BytesMut::from(&ahead[..]);
        drop(ahead);
        std::future::poll_fn(|cx| {
            // Either end is the end of the tunnel.
            if let Poll::Ready(result) = up.poll(cx, renter, &mut provider) {
                return Poll::Ready(result);
            }
            holdups.provider_full.store(up.is_held_up(), Ordering::Relaxed);
            down.poll(cx, &mut provider, renter)
        })
        .await
    }
}

impl Brake {
    fn new(session: Arc<LiveSession>, terms: &Terms) -> Self {
        Self { session, rate: terms.reads, waits: terms.waits.clone(), until: None }
    }

    /// Ready when the next part may be read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
            self.until = None;
        }
        Poll::Ready(())
    }

    /// A part was read. If it came too fast it has passed all the same; it is the next one that waits.
    fn note(&mut self, bytes: usize) {
        if bytes >= SMALL {
            return;
        }
        let wait = self.session.websocket_reads.note(self.rate, monotonic::coarse());
        if !wait.is_zero() {
            self.waits.inc();
            self.until = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }
}

/// Resolves when a connection has moved nothing for at least `idle`, and at most half as much again.
async fn silence(connection: &Connection, idle: Duration) {
    let mut seen = (connection.moved(), tokio::time::Instant::now());
    loop {
        tokio::time::sleep(idle / 2).await;
        let moved = connection.moved();
        if moved != seen.0 {
            seen = (moved, tokio::time::Instant::now());
        } else if seen.1.elapsed() >= idle {
            return;
        }
    }
}

/// One direction of a tunnel.
#[derive(Default)]
struct Pump {
    /// Read, but not written yet.
    waiting: BytesMut,
    unflushed: bool,
    /// Where the written bytes stand; none before frames begin, and in the direction where nobody wants to know.
    frames: Option<FrameScanner>,
    brake: Option<Brake>,
}

/// Keeps a session's WebSockets from taking the processor with small parts, which cost as much as large ones and use up
/// hardly anything of a cap.
struct Brake {
    session: Arc<LiveSession>,
    rate: Rate,
    waits: IntCounter,
    /// Until then nothing is read.
    until: Option<Pin<Box<Sleep>>>,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

impl Pump {
    /// Moves what can be moved. Ready when `from` has ended and all of it is flushed, or on an error.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.waiting.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.waiting))?;
                let done = self.waiting.split_to(written);
                self.wrote(&done)?;
            }
            self.waiting = BytesMut::new();
            if let Some(brake) = &mut self.brake
                && brake.poll(cx).is_pending()
            {
                return self.rest(cx, to);
            }
            let moved = BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let read = Pin::new(&mut *from).poll_read(cx, &mut buffer)?;
                Poll::Ready(match read {
                    Poll::Pending => Ok(None),
                    Poll::Ready(()) => self.write(cx, buffer.filled(), to).map(Some),
                })
            });
            match ready!(moved)? {
                Some(read @ 1..) => {
                    if let Some(brake) = &mut self.brake {
                        brake.note(read);
                    }
                }
                Some(0) => return Pin::new(&mut *to).poll_flush(cx),
                None => return self.rest(cx, to),
            }
        }
    }

    /// There is nothing to read now: what was written leaves.
    fn rest<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Whether there is something that was not taken.
    fn is_held_up(&self) -> bool {
        !self.waiting.is_empty() || self.unflushed
    }

    /// Writes as much as is taken at once, and keeps the rest. Returns how much there was.
    fn write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: &mut W) -> io::Result<usize> {
        if !bytes.is_empty() {
            let written = match Pin::new(to).poll_write(cx, bytes) {
                Poll::Ready(written) => {
                    let written = written?;
                    self.wrote(&bytes[..written])?;
                    written
                }
                Poll::Pending => 0,
            };
            self.waiting.extend_from_slice(&bytes[written..]);
        }
        Ok(bytes.len())
    }

    fn wrote(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        if let Some(frames) = &mut self.frames {
            frames.advance(bytes);
        }
        Ok(())
    }
}
