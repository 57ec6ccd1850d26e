//! A provider's server on bare sockets: it records what it is sent, and answers what a test tells it to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::{Message, Of, Unread, read};

/// What is sent for a request whose path has `scripted` in it.
#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// The same bytes again and again, until the gateway goes away.
    Forever(Vec<u8>),
    /// The end of the connection.
    Close,
    /// Nothing more, and no end either.
    Hang,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub enum Seen {
    Request(Message),
    /// The connection ended within a request.
    Unfinished(Vec<u8>),
    Garbage(&'static str, Vec<u8>),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(message) => write!(f, "{message}"),
            Self::Unfinished(bytes) => write!(f, "unfinished {}", bytes.escape_ascii()),
            Self::Garbage(why, bytes) => write!(f, "{why} in {}", bytes.escape_ascii()),
        }
    }
}

#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
    script: Arc<Mutex<Vec<Step>>>,
    open: Arc<AtomicUsize>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let recorder =
            Self { address, seen: Arc::default(), bytes: Arc::default(), script: Arc::default(), open: Arc::default() };
        let serving = recorder.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let serving = serving.clone();
                serving.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // A broken pipe is how a gateway that has heard enough looks from here.
                    drop(serving.serve(socket).await);
                    serving.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        recorder
    }

    /// What to do for the next scripted requests.
    pub fn follow(&self, script: Vec<Step>) {
        *self.script.lock().expect("no panic") = script;
    }

    /// All requests that were not taken yet.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// All requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }

    /// Every byte that ever came.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic").clone()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let message = loop {
                match read(&buffer, Of::Request) {
                    Ok((message, taken)) => {
                        buffer.drain(..taken);
                        break message;
                    }
                    Err(Unread::Garbage(why)) => {
                        self.note(Seen::Garbage(why, buffer));
                        return Ok(());
                    }
                    Err(Unread::Partial) => {
                        let before = buffer.len();
                        if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            if !buffer.is_empty() {
                                self.note(Seen::Unfinished(buffer));
                            }
                            return Ok(());
                        }
                        self.bytes.lock().expect("no panic").extend_from_slice(&buffer[before..]);
                    }
                }
            };
            self.note(Seen::Request(message.clone()));
            if !self.answer(&message, &mut socket).await? {
                return Ok(());
            }
        }
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().expect("no panic").push(seen);
    }

    /// `false` at the end of the connection.
    async fn answer(&self, request: &Message, socket: &mut TcpStream) -> std::io::Result<bool> {
        let (method, target) = request.method_and_target();
        if target.contains("/scripted") {
            let script = self.script.lock().expect("no panic").clone();
            return play(&script, socket).await;
        }
        if target.contains("/ws") && !request.all("upgrade").is_empty() {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            socket.write_all(switch.as_bytes()).await?;
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await?;
            return Ok(false);
        }
        if !request.all("expect").is_empty() {
            socket.write_all(b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n").await?;
        }
        let body = body_for(target);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if method == "HEAD" { "" } else { &*body };
        socket.write_all(format!("{head}{body}").as_bytes()).await?;
        Ok(true)
    }
}

/// The body that tells which session a request was for.
pub fn body_for(target: &str) -> String {
    format!("answer for {}\n", target.split('/').nth(2).unwrap_or("nobody"))
}

async fn play(script: &[Step], socket: &mut TcpStream) -> std::io::Result<bool> {
    for step in script {
        match step {
            Step::Send(bytes) => socket.write_all(bytes).await?,
            Step::Forever(bytes) => loop {
                socket.write_all(bytes).await?;
            },
            Step::Close => return Ok(false),
            Step::Hang => {
                let mut ignored = Vec::new();
                socket.read_to_end(&mut ignored).await?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}
