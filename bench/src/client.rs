//! One connection of a client: through a peer, over TCP or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::peer::Way;
use crate::tls::NAME;
use crate::wire::{Head, Inbox, frame_head, invalid};

const INBOX: usize = 16 * 1024;

/// What bytes go through.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) inbox: Inbox,
    way: Way,
}

impl Client {
    /// Connects; with a connector, over TLS.
    ///
    /// # Errors
    /// When nobody listens, or the handshake fails.
    pub(crate) async fn connect(way: &Way, tls: Option<&TlsConnector>) -> Result<Self> {
        Self::connect_with(way, tls, Inbox::new(INBOX)).await
    }

    /// The same with a buffer of the caller's.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn connect_with(way: &Way, tls: Option<&TlsConnector>, inbox: Inbox) -> Result<Self> {
        let address = match tls {
            Some(_) => way.tls_address.context("no TLS there")?,
            None => way.address,
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let wire = match tls {
            None => Wire::Plain(stream),
            Some(connector) => Wire::Tls(Box::new(connector.connect(ServerName::try_from(NAME)?, stream).await?)),
        };
        Ok(Self { wire, inbox, way: way.clone() })
    }

    /// A GET of `path`, as bytes.
    pub(crate) fn get(&self, path: &str, more: &str) -> Vec<u8> {
        self.request("GET", path, more)
    }

    /// A POST of a JSON text.
    pub(crate) fn post(&self, path: &str, body: &str, more: &str) -> Vec<u8> {
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n{more}", body.len());
        let mut request = self.request("POST", path, &more);
        request.extend_from_slice(body.as_bytes());
        request
    }

    /// Any head.
    pub(crate) fn request(&self, method: &str, path: &str, more: &str) -> Vec<u8> {
        let Way { address, prefix, credential, .. } = &self.way;
        format!("{method} {prefix}{path} HTTP/1.1\r\nHost: {address}\r\n{credential}{more}\r\n").into_bytes()
    }

    /// Sends a request and reads the answer's head and body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<(Head, Vec<u8>)> {
        self.wire.write_all(request).await?;
        self.wire.flush().await?;
        let head = self.inbox.head(&mut self.wire).await?;
        let mut body = Vec::new();
        while (body.len() as u64) < head.length {
            let left = head.length - body.len() as u64;
            body.extend_from_slice(self.inbox.some(&mut self.wire, left).await?);
        }
        Ok((head, body))
    }

    /// The same, for an answer that has to be a 200 and whose body nobody wants; returns its length.
    ///
    /// # Errors
    /// Also for any other status.
    pub(crate) async fn fetch(&mut self, request: &[u8]) -> io::Result<u64> {
        self.wire.write_all(request).await?;
        self.wire.flush().await?;
        self.answer().await
    }

    /// Reads an answer that has to be a 200; returns its length.
    ///
    /// # Errors
    /// For any other status, and when the connection breaks.
    pub(crate) async fn answer(&mut self) -> io::Result<u64> {
        let head = self.inbox.head(&mut self.wire).await?;
        if head.status() != 200 {
            return Err(invalid("not a 200"));
        }
        self.inbox.skip(&mut self.wire, head.length).await?;
        Ok(head.length)
    }

    /// Opens a WebSocket.
    ///
    /// # Errors
    /// When the answer is not a 101.
    pub(crate) async fn open_websocket(&mut self) -> Result<()> {
        let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = self.get("/ws", fields);
        self.wire.write_all(&request).await?;
        let head = self.inbox.head(&mut self.wire).await?;
        anyhow::ensure!(head.status() == 101, "no upgrade: {}", head.text);
        Ok(())
    }

    /// Sends a message (with its head, as [`message`] makes it) and reads its echo, while it is still being sent if it is
    /// large.
    ///
    /// # Errors
    /// When the connection breaks or something else comes back.
    pub(crate) async fn echo(&mut self, message: &[u8], payload: u64) -> io::Result<()> {
        let Wire::Plain(stream) = &mut self.wire else { return Err(invalid("plain connections only")) };
        if payload < 4096 {
            stream.write_all(message).await?;
            let (_, _, length) = self.inbox.frame(stream).await?;
            if length != payload {
                return Err(invalid("another message"));
            }
            return self.inbox.skip(stream, length).await;
        }
        let (mut from, mut to) = stream.split();
        let receive = async {
            let (_, _, length) = self.inbox.frame(&mut from).await?;
            self.inbox.skip(&mut from, length).await?;
            if length == payload { Ok(()) } else { Err(invalid("another message")) }
        };
        tokio::try_join!(to.write_all(message), receive).map(drop)
    }

    /// Reads to the end of the connection, however it ends; returns how many bytes came, and whether they begin with
    /// anything but a 200.
    pub(crate) async fn drain(&mut self) -> (u64, bool) {
        let mut chunk = vec![0; 64 * 1024];
        let (mut bytes, mut refused) = (0, true);
        while let Ok(read @ 1..) = self.wire.read(&mut chunk).await {
            if bytes == 0 {
                refused = !chunk[..read].starts_with(b"HTTP/1.1 200");
            }
            bytes += read as u64;
        }
        (bytes, refused)
    }
}

/// A masked message of so many bytes.
pub(crate) fn message(payload: u64) -> Vec<u8> {
    let mut message = frame_head(payload, true);
    message.resize(message.len() + usize::try_from(payload).unwrap_or(0), b'w');
    message
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
