//! The server behind every proxy: answers by path, with as little work as can be.
//!
//! | path, after an optional `/s/<id>` | answer |
//! | --- | --- |
//! | `/bytes/<n>` | n bytes |
//! | `/close/<n>` | n bytes, and the connection ends |
//! | `/replay/<bytes>/<ms>/...` | so many bytes after so many milliseconds |
//! | `/upload` | reads the body, then `ok` |
//! | `/ws` | 101, then every frame back |

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::{CHUNK, Head, Inbox, frame_head, invalid};

/// Memory of a connection that is waiting for something; larger only while it moves something.
const SMALL_INBOX: usize = 2 * 1024;

/// Starts it on the current runtime, on a free port of loopback.
///
/// # Errors
/// When no port can be had.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A proxy may drop a connection at any time; scenarios count what their clients see.
            tokio::spawn(async move { drop(serve(stream).await) });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Inbox::new(SMALL_INBOX);
    loop {
        let head = inbox.head(&mut stream).await?;
        let target = head.text.split(' ').nth(1).ok_or_else(|| invalid("no target"))?;
        let mut parts = path_within_session(target).split('/').skip(1);
        let action = parts.next().unwrap_or_default();
        let mut number = || parts.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        match action {
            "bytes" => send(&mut stream, number(), "").await?,
            "close" => return send(&mut stream, number(), "Connection: close\r\n").await,
            "replay" => {
                let (bytes, ms) = (number(), number());
                let delay = Duration::from_millis(ms);
                inbox.skip(&mut stream, head.length).await?;
                tokio::time::sleep(delay).await;
                send(&mut stream, bytes, "").await?;
            }
            "upload" => {
                let mut large = Inbox::new(CHUNK);
                let here = u64::try_from(inbox.some(&mut stream, head.length).await?.len()).unwrap_or(0);
                large.skip(&mut stream, head.length - here).await?;
                send(&mut stream, 2, "").await?;
            }
            "ws" => return echo(stream, inbox, &head).await,
            _ => return Err(invalid("unknown path")),
        }
    }
}

fn path_within_session(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    match path.strip_prefix("/s/").and_then(|rest| rest.find('/').map(|at| &rest[at..])) {
        Some(inner) => inner,
        None => path,
    }
}

async fn send(stream: &mut TcpStream, bytes: u64, more: &str) -> io::Result<()> {
    const BODY: &[u8] = &[b'd'; 128 * 1024];
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{more}Content-Length: {bytes}\r\n\r\n");
    let within = |bytes: u64| usize::try_from(bytes).map_or(BODY.len(), |bytes| bytes.min(BODY.len()));
    let first = within(bytes).min(16 * 1024);
    let mut message = head.into_bytes();
    message.extend_from_slice(&BODY[..first]);
    stream.write_all(&message).await?;
    let mut left = bytes - first as u64;
    while left > 0 {
        let written = stream.write(&BODY[..within(left)]).await?;
        left -= written as u64;
    }
    Ok(())
}

/// The key is not hashed: clients here do not check, and no proxy does.
async fn echo(stream: TcpStream, mut inbox: Inbox, handshake: &Head) -> io::Result<()> {
    if handshake.header("upgrade").is_none() {
        return Err(invalid("no upgrade"));
    }
    let (mut from, mut to) = stream.into_split();
    to.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await?;
    loop {
        let (_, mask, length) = inbox.frame(&mut from).await?;
        let head = frame_head(length, false);
        if length < SMALL_INBOX as u64 / 2 {
            let mut message = head;
            let mut left = length;
            while left > 0 {
                let some = inbox.some(&mut from, left).await?;
                left -= some.len() as u64;
                message.extend_from_slice(some);
            }
            unmask(&mut message, mask, length);
            to.write_all(&message).await?;
            continue;
        }
        if mask != [0; 4] {
            return Err(invalid("large messages come with an empty mask"));
        }
        let mut message = Vec::with_capacity(head.len() + usize::try_from(length).unwrap_or(0));
        message.extend_from_slice(&head);
        let here = inbox.some(&mut from, length).await?;
        message.extend_from_slice(here);
        let at = message.len();
        message.resize(head.len() + usize::try_from(length).unwrap_or(0), 0);
        from.read_exact(&mut message[at..]).await?;
        to.write_all(&message).await?;
    }
}

fn unmask(message: &mut [u8], mask: [u8; 4], length: u64) {
    if mask != [0; 4] {
        let start = message.len() - usize::try_from(length).unwrap_or(0);
        message[start..].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
    }
}
