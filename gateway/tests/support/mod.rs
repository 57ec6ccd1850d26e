//! A gateway on a free port with an authority in memory, a provider's server, and a raw client.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "a module of test files, not of a library")]

pub mod authority;
pub mod process;
pub mod tls;
pub mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use runit_config::NodeSettings;
use runit_core::{AccessToken, Authority, Clock, SessionId};
use runit_gateway::{Lifecycle, Metrics, Node, Outbound, server_conf};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

pub use authority::{TestAuthority, TestClock};
pub use upstream::TestUpstream;

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct TestGateway {
    pub address: SocketAddr,
    pub authority: Arc<TestAuthority>,
    pub upstream: TestUpstream,
    pub metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    node: tokio::task::JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl TestGateway {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(configure: impl FnOnce(&mut NodeSettings)) -> Self {
        Self::build(configure, |node| node).await
    }

    /// With a world outside of the test's making.
    pub async fn reaching_through(outbound: Arc<dyn Outbound>) -> Self {
        Self::build(|_| (), |node| node.reaching_through(outbound)).await
    }

    async fn build(configure: impl FnOnce(&mut NodeSettings), change: impl FnOnce(Node) -> Node) -> Self {
        let clock = Arc::new(TestClock::default());
        let authority = Arc::new(TestAuthority::new(Arc::clone(&clock)));
        let mut settings = NodeSettings::default();
        settings.quota.renewal_wait_ms = 2_000;
        settings.limits.websockets_per_session = 1_000;
        let data = tempfile::tempdir().expect("a directory");
        settings.control.data_dir = data.path().to_owned();
        configure(&mut settings);
        let node = Node::new(&settings, Arc::clone(&authority) as Arc<dyn Authority>, clock as Arc<dyn Clock>);
        let node = change(node.expect("metrics do not clash"));
        let metrics = node.metrics();
        let app = Arc::new(node.app(&Arc::new(server_conf(&settings)), Lifecycle::default()));
        let (stop, stopped) = oneshot::channel();
        let node = tokio::spawn(node.run(async { drop(stopped.await) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (_keep, shutdown) = watch::channel(false);
            while let Ok((socket, peer)) = listener.accept().await {
                let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
                tokio::spawn(async move { app.process_new(Box::new(as_pingora(socket, peer)), &shutdown).await });
            }
        });
        let upstream = TestUpstream::start().await;
        Self { address, authority, upstream, metrics, stop: Some(stop), node, _data: data }
    }

    /// A READY session at the test upstream.
    pub fn session(&self, cap_bytes: u64) -> (SessionId, AccessToken) {
        self.authority.session(self.upstream.address, cap_bytes)
    }

    /// Stops the node, which settles all leases.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, &mut self.node).await.expect("the node stops").expect("no panic");
    }

    /// A metric's value, summed over its labels.
    pub fn metrics_value(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).expect("a metric of that name");
        let value = |metric: &prometheus::proto::Metric| match family.get_field_type() {
            prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
            _ => metric.get_counter().get_value(),
        };
        family.get_metric().iter().map(value).sum()
    }

    pub async fn connect(&self) -> Client {
        self.connect_from([127, 0, 0, 1]).await
    }

    pub async fn connect_from(&self, ip: [u8; 4]) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((ip, 0))).expect("loopback has this address");
        let stream = socket.connect(self.address).await.expect("the gateway listens");
        Client { stream, sent: 0, received: Vec::new() }
    }

    /// One request on a connection of its own.
    pub async fn get(&self, target: &str, headers: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}\r\n")).await;
        client.answer().await
    }
}

fn as_pingora(socket: TcpStream, peer: SocketAddr) -> Stream {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    digest.peer_addr.set(Some(PingoraAddress::Inet(peer))).expect("fresh");
    let mut stream = Stream::from(socket);
    stream.set_socket_digest(digest);
    stream
}

/// A client that counts what passes on its socket.
pub struct Client<S = TcpStream> {
    pub stream: S,
    pub sent: u64,
    pub received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the gateway takes it");
        self.stream.flush().await.expect("the gateway takes it");
        self.sent += bytes.len() as u64;
    }

    /// Reads until the head of an answer is complete; its body, as far as it came, stays in `received`.
    pub async fn head(&mut self) -> String {
        let reading = async {
            loop {
                if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                    let rest = self.received.split_off(at + 4);
                    let head = std::mem::replace(&mut self.received, rest);
                    return String::from_utf8_lossy(&head).into_owned();
                }
                let read = self.stream.read_buf(&mut self.received).await.expect("no reset");
                assert!(read > 0, "ended within a head: {}", self.received.escape_ascii());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a head in time")
    }

    /// Reads to the end of the connection.
    pub async fn drain(&mut self) {
        let reading = async {
            // A reset ends the connection as well; what came before it was read.
            while self.stream.read_buf(&mut self.received).await.is_ok_and(|read| read > 0) {}
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends in time");
    }

    /// Reads until `bytes` have come.
    pub async fn receive(&mut self, bytes: usize) {
        let reading = async {
            while self.received.len() < bytes {
                assert!(self.stream.read_buf(&mut self.received).await.expect("no reset") > 0, "ended early");
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("bytes in time");
    }

    /// The whole answer of a connection that closes after it.
    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        self.drain().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Answer { status, head, body: String::from_utf8_lossy(&self.received).into_owned() }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The cookie that it sets, as a `Cookie` line.
    pub fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie");
        format!("Cookie: {cookie}\r\n")
    }
}

/// Waits for a condition, and says what was seen last when it does not come.
pub async fn eventually<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(()) => return,
            Err(last) if tokio::time::Instant::now() >= deadline => panic!("{what}: last seen {last:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

pub fn bearer(token: &AccessToken) -> String {
    format!("Authorization: Bearer {}\r\n", token.expose())
}

pub const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
