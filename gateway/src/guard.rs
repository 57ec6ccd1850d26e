//! The connection guard: what stands between a renter's socket and Pingora.
//!
//! Every byte of a session passes here, whatever it belongs to: heads, interim responses, chunk framing, bodies,
//! trailers, and all that follows an upgrade. Each read and write is clipped to what the budget gives *before* the
//! socket is touched, and what the socket did not take goes back right after, so that
//!
//! - the bytes charged are the bytes that passed, for every interleaving of streams;
//! - what passes is a prefix of what was sent, and with enough demand exactly the cap passes;
//! - a cut reaches a connection that is idle, because its task is woken and looks here first.
//!
//! A request's head comes before anybody knows which session it is for. Its bytes are counted, under a limit of size and
//! time, and charged when the request is bound; the guard gives no byte past the head's end before that.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use runit_config::NodeSettings;
use runit_core::budget::Direction;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::answer::Refusal;
use crate::connection::{Connection, Cut};
use crate::head::HeadScanner;
use crate::live::{LiveSession, NodeReservation};

/// How long, and how large, a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of one head.
    pub(crate) max_bytes: usize,
    /// From the connection's start to the first byte.
    pub(crate) first_byte: Duration,
    /// From the end of one request to the first byte of the next.
    pub(crate) between: Duration,
    /// From the first byte to the last.
    pub(crate) whole: Duration,
}

impl HeadLimits {
    /// As the settings have them now.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        let of = &settings.gateway;
        Self {
            max_bytes: of.head_max_bytes,
            first_byte: Duration::from_millis(of.first_byte_timeout_ms),
            between: Duration::from_secs(of.keepalive_seconds),
            whole: Duration::from_millis(of.head_timeout_ms),
        }
    }
}

/// After a cut, what was written is flushed, and what the renter still sends is read and dropped for a while, so that
/// closing does not reset the connection and take our last bytes with it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Between two reads of what is dropped: who sends on at full speed finds the window closed, and costs nothing.
const LINGER_PAUSE: Duration = Duration::from_millis(5);
const READ_CHUNK: usize = 8 * 1024;

thread_local! {
    /// For heads. Shared by all connections of a thread: one that waits for a head holds no buffer.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK]);
}

/// A renter's connection as Pingora sees it.
pub(crate) struct Guard {
    /// Taken out only by `drop`.
    inner: Option<Stream>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    limits: HeadLimits,
    scanner: HeadScanner,
    /// Of the head that is being read; made when one is waited for, so that an idle WebSocket has none.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What the connection is cut for when that has passed; nothing between two requests.
    late: Option<Cut>,
    /// What was read past the end of a head and not delivered yet.
    ahead: Bytes,
    lingers: bool,
}

impl Guard {
    /// Guards `inner`. The phases of a request find `connection` in the proxy digest.
    pub(crate) fn new(
        inner: Stream,
        connection: Arc<Connection>,
        digest: Arc<ProxyDigest>,
        limits: HeadLimits,
    ) -> Self {
        let scanner = HeadScanner::default();
        Self {
            inner: Some(inner),
            connection,
            digest,
            limits,
            scanner,
            deadline: None,
            late: Some(Cut::NoHead),
            ahead: Bytes::new(),
            lingers: false,
        }
    }

    /// Lets the renter read to the end when this is dropped, also when nothing was cut.
    pub(crate) fn linger_when_dropped(&mut self) {
        self.lingers = true;
    }

    /// Settles a poll, here and in the session.
    fn spend(&self, session: &LiveSession, reservation: NodeReservation<'_>, direction: Direction, used: usize) {
        self.connection.add_charged(direction, used);
        session.spend(reservation, direction, used);
    }

    fn inner(&mut self) -> Pin<&mut Stream> {
        Pin::new(self.inner.as_mut().expect("taken out only by drop"))
    }

    fn inner_ref(&self) -> &Stream {
        self.inner.as_ref().expect("taken out only by drop")
    }

    /// The only place where the socket is read: what comes in is counted here, and once more where it is charged.
    fn read_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.inner().poll_read(cx, buf);
        self.connection.holdups().renter_silent.store(result.is_pending(), Ordering::Relaxed);
        self.connection.add_wire(buf.filled().len() - before);
        result
    }

    /// The only place where the socket is written.
    fn write_socket(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.inner().poll_write(cx, data);
        self.note_full(result.is_pending());
        if let Poll::Ready(Ok(written)) = result {
            self.connection.add_wire(written);
        }
        result
    }

    /// Whether the socket is full, and if somebody wants to know, how much of what it took has arrived.
    fn note_full(&self, full: bool) {
        let holdups = self.connection.holdups();
        holdups.renter_full.store(full, Ordering::Relaxed);
        if full && holdups.measure.swap(false, Ordering::Relaxed) {
            let socket = self.inner_ref().get_socket_digest().and_then(|digest| digest.tcp_info());
            if let Some(socket) = socket {
                holdups.acknowledged.store(socket.tcpi_bytes_acked, Ordering::Relaxed);
            }
        }
    }

    /// Ends the connection. What was charged is still flushed: see [`linger`].
    fn end(&self, cut: Cut) -> io::Error {
        self.connection.cut(cut);
        io::Error::new(io::ErrorKind::ConnectionAborted, cut.label())
    }

    /// Reads a head: at most to its end, and only so long and so much.
    fn poll_read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.head_bytes() == 0 && (self.scanner.is_done() || self.scanner.has_begun()) {
            // Sent with the request before it. Pingora refuses that only where it looked while it waited for an answer.
            if !self.ahead.is_empty() {
                self.linger_when_dropped();
                return Poll::Ready(Ok(()));
            }
            self.scanner = HeadScanner::default();
            self.end_within(self.limits.between, None);
        }
        if self.connection.head_bytes() >= self.limits.max_bytes as u64 {
            self.connection.refuse_unread(Refusal::HeadTooLarge);
            return Poll::Ready(Ok(())); // end of file: Pingora closes
        }
        if self.ahead.is_empty() {
            match self.poll_read_ahead(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(result) => drop(result?),
                Poll::Pending if self.poll_deadline(cx).is_ready() => {
                    if let Some(late) = self.late {
                        self.connection.cut(late);
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let window = self.ahead.len().min(buf.remaining());
        let begun = self.scanner.has_begun();
        // Past the end of the head only if Pingora still asks: then its parser does not agree that this was the end.
        let deliver = if self.scanner.is_done() { window } else { self.scanner.advance(&self.ahead[..window]) };
        if !begun && self.scanner.has_begun() && !self.scanner.is_done() {
            self.end_within(self.limits.whole, Some(Cut::SlowHead));
        }
        self.connection.add_head_bytes(deliver);
        self.deliver_ahead(buf, deliver);
        Poll::Ready(Ok(()))
    }

    fn end_within(&mut self, time: Duration, late: Option<Cut>) {
        self.late = late;
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().reset(Instant::now() + time),
            None => self.deadline = Some(Box::pin(sleep(time))),
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let first_byte = self.limits.first_byte;
        self.deadline.get_or_insert_with(|| Box::pin(sleep(first_byte))).as_mut().poll(cx)
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        CHUNK.with_borrow_mut(|chunk| {
            let mut buf = ReadBuf::new(chunk);
            ready!(self.read_socket(cx, &mut buf))?;
            self.ahead = Bytes::copy_from_slice(buf.filled());
            Poll::Ready(Ok(self.ahead.len()))
        })
    }

    fn deliver_ahead(&mut self, buf: &mut ReadBuf<'_>, bytes: usize) {
        buf.put_slice(&self.ahead[..bytes]);
        self.ahead.advance(bytes);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
    }

    /// Reads what is charged to `session`, as much as its budget gives.
    fn poll_read_charged(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        session: &Arc<LiveSession>,
    ) -> Poll<io::Result<()>> {
        let want = if self.ahead.is_empty() { buf.remaining() } else { self.ahead.len().min(buf.remaining()) };
        let reservation = session.reserve(want);
        // Asked again: these bytes may be of the lock that came after the one which this connection was cut with.
        if let Some(cut) = self.connection.cut_reason() {
            return Poll::Ready(Err(self.end(cut)));
        }
        let granted = reservation.bytes();
        if granted == 0 && want > 0 {
            return match session.starve(&self.connection) {
                Some(cut) => Poll::Ready(Err(self.end(cut))),
                None => Poll::Pending,
            };
        }
        if !self.ahead.is_empty() {
            self.deliver_ahead(buf, granted);
            self.spend(session, reservation, Direction::In, granted);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = if granted == buf.remaining() {
            self.read_socket(cx, buf)
        } else {
            let mut clipped = ReadBuf::new(buf.initialize_unfilled_to(granted));
            let result = self.read_socket(cx, &mut clipped);
            let read = clipped.filled().len();
            buf.advance(read);
            result
        };
        self.spend(session, reservation, Direction::In, buf.filled().len() - before);
        result
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.connection.register(cx.waker());
        if let Some(cut) = this.connection.cut_reason() {
            return Poll::Ready(Err(this.end(cut)));
        }
        if this.connection.is_reading_head() {
            return this.poll_read_head(cx, buf);
        }
        match this.connection.session() {
            Some(session) => this.poll_read_charged(cx, buf, &session),
            // A body that was sent to the gateway itself: nobody reads on, and nobody is charged.
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.connection.register(cx.waker());
        let Some(session) = this.connection.charged_for_writes() else {
            let written = this.write_socket(cx, data);
            if let Poll::Ready(Ok(written)) = written {
                this.connection.add_own(written);
            }
            return written;
        };
        let reservation = session.reserve(data.len());
        // Asked after that: these bytes may be of the lock that came after the one which this connection was cut with.
        if let Some(cut) = this.connection.cut_reason() {
            return Poll::Ready(Err(this.end(cut)));
        }
        let granted = reservation.bytes();
        if granted == 0 && !data.is_empty() {
            return match session.starve(&this.connection) {
                Some(cut) => Poll::Ready(Err(this.end(cut))),
                None => Poll::Pending,
            };
        }
        let result = this.write_socket(cx, &data[..granted]);
        let written = if let Poll::Ready(Ok(written)) = result { written } else { 0 };
        this.spend(&session, reservation, Direction::Out, written);
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = this.inner().poll_flush(cx);
        this.note_full(result.is_pending());
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_handing_over() {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().inner().poll_shutdown(cx)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.connection.is_handing_over() {
            let connection = Arc::clone(&self.connection);
            let mut guard = Self::new(
                self.inner.take().expect("once"),
                Arc::clone(&connection),
                Arc::clone(&self.digest),
                self.limits,
            );
            guard.ahead = std::mem::take(&mut self.ahead);
            connection.hand_over(guard);
            return;
        }
        self.connection.add_dropped(self.ahead.len());
        if !self.lingers && self.connection.cut_reason().is_none() {
            return;
        }
        if let (Some(inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current())
            && self.connection.cut_reason().is_none_or(Cut::lingers)
        {
            runtime.spawn(linger(inner, Arc::clone(&self.connection)));
        }
    }
}

/// Holds the connection's places for as long as it holds the socket.
async fn linger(mut stream: Stream, _connection: Arc<Connection>) {
    let drain = async {
        AsyncWriteExt::shutdown(&mut stream).await?;
        let mut dropped = [0; 4096];
        while stream.read(&mut dropped).await? > 0 {
            tokio::time::sleep(LINGER_PAUSE).await;
        }
        Ok::<_, io::Error>(())
    };
    // Whether the renter closes first or not, the connection is dropped after this.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guard {
    async fn shutdown(&mut self) {
        if let (Some(inner), false) = (&mut self.inner, self.connection.is_handing_over()) {
            Shutdown::shutdown(inner.as_mut()).await;
        }
    }
}

impl UniqueID for Guard {
    fn id(&self) -> UniqueIDType {
        self.inner_ref().id()
    }
}

impl Ssl for Guard {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner_ref().selected_alpn_proto()
    }
}

impl GetTimingDigest for Guard {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner_ref().get_timing_digest()
    }
}

impl GetProxyDigest for Guard {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Guard {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner_ref().get_socket_digest()
    }
}

/// Peeking would show bytes that nobody has charged; HTTP/2 without TLS, which needs it, is not offered.
impl Peek for Guard {}
