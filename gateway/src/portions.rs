//! A provider's connection that gives what it has in portions that stay near.
//!
//! What is read is written to the renter next. Pingora reads 64 KiB at a time; in half of that the kernel copies out what it
//! has just copied in, and hands out pages that it has just got back. A download took 1.6 times the processor time without
//! (`runit-bench run download`), nearly all of it the kernel's, and as much or more in portions of 16 KiB and less.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes that one read gives. About the best of what was tried from 8 to 64 KiB; 24 was far worse, 36 much the same.
const PORTION: u64 = 32 * 1024;

/// The connection as Pingora sees it.
#[derive(Debug)]
pub(crate) struct Portions(Stream);

impl Portions {
    /// The same connection, read in portions.
    pub(crate) fn of(stream: Stream) -> Stream {
        Box::new(Self(stream))
    }
}

impl AsyncRead for Portions {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut (&mut self.0).take(PORTION)).poll_read(cx, buf)
    }
}

impl AsyncWrite for Portions {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Portions {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(self.0.as_mut()).await;
    }
}

impl UniqueID for Portions {
    fn id(&self) -> UniqueIDType {
        self.0.id()
    }
}

impl Ssl for Portions {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.0.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.0.selected_alpn_proto()
    }
}

impl GetTimingDigest for Portions {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.0.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.0.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.0.get_write_pending_time()
    }
}

impl GetProxyDigest for Portions {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.0.get_proxy_digest()
    }
}

impl GetSocketDigest for Portions {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.0.get_socket_digest()
    }
}

impl Peek for Portions {}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::l4::stream::Stream as Tcp;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn all_that_was_sent_comes_in_portions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (mut theirs, _) = listener.accept().await.expect("a connection");
        let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let sending = tokio::spawn({
            let sent = sent.clone();
            async move { theirs.write_all(&sent).await }
        });
        let mut stream = Portions::of(Box::new(Tcp::from(ours)));
        let (mut received, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let read = stream.read(&mut buffer).await.expect("open");
            assert!(read as u64 <= PORTION);
            received.extend_from_slice(&buffer[..read]);
            if read == 0 {
                break;
            }
        }
        sending.await.expect("no panic").expect("taken");
        assert!(received == sent);
    }
}
