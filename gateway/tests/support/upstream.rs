//! A provider's server that does what the path says and remembers what it was sent, byte for byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub struct TestUpstream {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl TestUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let upstream = Self { address, heads: Arc::default() };
        let serving = upstream.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let serving = serving.clone();
                // A broken pipe is how a cut looks from here.
                tokio::spawn(async move { drop(serving.serve(socket).await) });
            }
        });
        upstream
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }

    async fn serve(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if socket.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let rest = buffer.split_off(end);
            let head = String::from_utf8_lossy(&buffer).into_owned();
            buffer = rest;
            self.heads.lock().expect("no panic").push(head.clone());
            self.answer(&head, &mut buffer, &mut socket).await?;
        }
    }

    /// `/s/<id>/<action>/<number>`
    async fn answer(&self, head: &str, buffer: &mut Vec<u8>, socket: &mut TcpStream) -> std::io::Result<()> {
        let head_only = head.starts_with("HEAD ");
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let mut parts = path.split('/').skip(3);
        let action = parts.next().unwrap_or_default();
        let number: usize = parts.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        match action {
            "download" => {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n");
                socket.write_all(answer.as_bytes()).await?;
                if head_only { Ok(()) } else { send(socket, number).await }
            }
            "chunked" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                for _ in 0..number {
                    socket.write_all(b"1;extension=value\r\nx\r\n").await?;
                }
                socket.write_all(b"0\r\nTrailer: t\r\n\r\n").await
            }
            "interim" => {
                let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(16 * 1024));
                for _ in 0..number {
                    socket.write_all(hints.as_bytes()).await?;
                }
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
            }
            "upload" => {
                let length = length(head);
                while buffer.len() < length {
                    if socket.read_buf(buffer).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
                buffer.drain(..length);
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
            }
            "ws" => {
                socket
                    .write_all(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                    )
                    .await?;
                socket.write_all(buffer).await?;
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
            "deaf" => {
                if head.to_lowercase().contains("upgrade: websocket") {
                    socket
                        .write_all(
                            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                        )
                        .await?;
                }
                std::future::pending().await
            }
            "stall" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123").await?;
                std::future::pending().await
            }
            // Answers, and closes when it is asked again, as a server may that has given up an idle connection.
            "fickle" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
                while !buffer.ends_with(b"\r\n\r\n") && socket.read_buf(buffer).await? > 0 {}
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
            "redirect" => {
                socket
                    .write_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
                    .await
            }
            "think" => {
                tokio::time::sleep(Duration::from_millis(number as u64)).await;
                let length = length(head);
                while buffer.len() < length && socket.read_buf(buffer).await? > 0 {}
                buffer.drain(..length.min(buffer.len()));
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
            }
            "slowhead" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nX: ").await?;
                trickle(socket).await
            }
            "trickle" => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await?;
                trickle(socket).await
            }
            "unasked101" => socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw bytes").await,
            _ => {
                let length = length(head);
                while buffer.len() < length && socket.read_buf(buffer).await? > 0 {}
                buffer.drain(..length.min(buffer.len()));
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
            }
        }
    }
}

/// A byte now and then, without end.
async fn trickle(socket: &mut TcpStream) -> std::io::Result<()> {
    loop {
        socket.write_all(b"x").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn length(head: &str) -> usize {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

async fn send(socket: &mut TcpStream, mut bytes: usize) -> std::io::Result<()> {
    let chunk = vec![b'd'; 64 * 1024];
    while bytes > 0 {
        let now = bytes.min(chunk.len());
        socket.write_all(&chunk[..now]).await?;
        bytes -= now;
    }
    Ok(())
}
