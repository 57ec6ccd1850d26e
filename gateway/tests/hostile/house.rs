//! The real gateway as a process, an attacker's session and another's, and what must hold after every attack.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use runit_core::AccessToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::recorder::{Recorder, body_for};
use crate::support::process::{Installation, Process};
use crate::support::{PATIENCE, eventually};
use crate::wire::{Message, Of, Unread, read};

/// What the provider registers: the gateway must show it to nobody but the provider.
pub const CREDENTIAL: &str = "canary-credential-5f0c";
/// In query strings of requests: no log may have it.
pub const QUERY: &str = "canary-query-77aa";
/// In cookies of the renter's own, which the provider may see and a log may not.
pub const COOKIE: &str = "canary-cookie-91de";

/// Other tests are about floods: here one address attacks again and again.
const LIMITS: &str = "[limits]\nrequests_per_address = { per_second = 100000, burst = 100000 }\n\
                      requests_per_session = { per_second = 100000, burst = 100000 }\n\
                      guesses_per_address = { requests = 10000, seconds = 60 }\n";
/// Long enough for a busy machine, and short enough for a table with silent providers.
const TIMES: &str = "upstream_first_byte_timeout_ms = 3000\nupstream_silence_timeout_ms = 2000\n";
const LINE_LIMIT: usize = 1_000;

pub struct Session {
    pub id: String,
    pub token: AccessToken,
    /// The gateway's cookie: name and value.
    pub cookie: (String, String),
}

pub struct House {
    pub installation: Installation,
    process: Process,
    pub recorder: Recorder,
    pub attacker: Session,
    pub other: Session,
    /// A connection of the other renter's that stays open throughout.
    steady: TcpStream,
    /// Descriptors of the gateway beside those to the recorder.
    descriptors: usize,
    log_read: usize,
    /// Names of the fields of a plain answer, before anything was attacked.
    fields: OnceLock<BTreeSet<String>>,
}

/// What came back on one connection.
#[derive(Debug)]
pub struct Received {
    /// Final answers, in order; interim ones are apart.
    pub answers: Vec<Message>,
    pub interim: Vec<Message>,
    /// What was no whole answer.
    pub rest: Vec<u8>,
    /// Answered, and ended, before the test lost its patience.
    pub in_time: bool,
}

impl House {
    pub async fn start() -> Self {
        let installation = Installation::with(TIMES, &format!("{LIMITS}[log]\nfilter = \"debug\"\n"));
        let process = installation.start().await;
        let recorder = Recorder::start().await;
        let attacker = rent(&installation, recorder.address).await;
        let other = rent(&installation, recorder.address).await;
        let steady = TcpStream::connect(installation.gateway).await.expect("listens");
        let mut house = Self {
            installation,
            process,
            recorder,
            attacker,
            other,
            steady,
            descriptors: 0,
            log_read: 0,
            fields: OnceLock::new(),
        };
        house.ask_steadily().await;
        house.settle_connections(1.0).await;
        let open = |house: &Self| house.open_descriptors().saturating_sub(house.recorder.open());
        eventually("descriptors settle", || {
            let (before, again) = (open(&house), open(&house));
            if before == again { Ok(()) } else { Err((before, again)) }
        })
        .await;
        house.descriptors = open(&house);
        house.recorder.take_seen();
        house
    }

    /// Sends bytes on a connection of their own and reads until `expected` final answers are there or the connection
    /// ends; then ends it and reads what more may come.
    pub async fn exchange(&self, bytes: &[u8], expected: usize) -> Received {
        let mut stream = TcpStream::connect(self.installation.gateway).await.expect("listens");
        // A refusal may close while we still send.
        let _ = stream.write_all(bytes).await;
        let to_head = bytes.starts_with(b"HEAD ");
        let mut received = Vec::new();
        let enough = async {
            while parse(&received, to_head, false).answers.len() < expected {
                if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, enough).await.is_ok();
        let _ = stream.shutdown().await;
        let drain = async { while stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {} };
        let drained = tokio::time::timeout(PATIENCE, drain).await.is_ok();
        let mut received = parse(&received, to_head, true);
        received.in_time = in_time && drained;
        received
    }

    /// What must hold after a case, whatever it was: the first thing that does not is told.
    pub async fn check_after(&mut self, requests: usize) {
        self.ask_steadily().await;
        let fresh = self.request(&self.other, "GET", "fresh", "Connection: close\r\n");
        let answer = self.exchange(fresh.as_bytes(), 1).await;
        assert_eq!(answer.answers.len(), 1, "another renter is answered: {answer:?}");
        self.expect_clean(&answer.answers[0]);
        self.recorder.take_seen();
        self.settle_connections(1.0).await;
        eventually("descriptors are back", || {
            let open = self.open_descriptors().saturating_sub(self.recorder.open());
            if open <= self.descriptors { Ok(()) } else { Err((open, self.descriptors)) }
        })
        .await;
        self.check_log(requests + 2);
    }

    /// The steady connection, which nobody's attack may touch.
    async fn ask_steadily(&mut self) {
        let request = self.request(&self.other, "GET", "steady", "");
        self.steady.write_all(request.as_bytes()).await.expect("the other renter's connection stands");
        let mut received = Vec::new();
        let answer = async {
            loop {
                if let Ok((answer, taken)) = read(&received, Of::Answer { to_head: false, ended: false }) {
                    assert_eq!(taken, received.len(), "nothing after the answer");
                    return answer;
                }
                assert!(self.steady.read_buf(&mut received).await.expect("stands") > 0, "the steady connection ended");
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
        self.expect_clean(&answer);
    }

    fn expect_clean(&self, answer: &Message) {
        let expected = body_for(&format!("/s/{}/", self.other.id));
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!((answer.status(), &*body), (200, &*expected), "another renter's answer");
        let names: BTreeSet<String> = answer.fields.iter().map(|(name, _)| name.clone()).collect();
        let quiet = self.fields.get_or_init(|| names.clone());
        assert_eq!(&names, quiet, "the fields of another renter's answer, now and before any attack");
    }

    pub fn request(&self, session: &Session, method: &str, path: &str, fields: &str) -> String {
        let token = session.token.expose();
        format!(
            "{method} /s/{}/{path}?{QUERY} HTTP/1.1\r\nHost: g\r\nAuthorization: token {token}\r\n\
             Cookie: mine={COOKIE}\r\n{fields}\r\n",
            session.id
        )
    }

    async fn settle_connections(&self, expected: f64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let open = self.installation.metric("runit_gateway_connections").await;
            let tunnels = self.installation.metric("runit_gateway_websockets").await;
            if (open, tunnels) == (expected, 0.0) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{open} connections and {tunnels} tunnels are open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// Lines since the last look: short, few, and without secrets.
    fn check_log(&mut self, requests: usize) {
        let log = self.installation.log();
        let new = log.get(self.log_read..).unwrap_or_default().to_owned();
        self.log_read = log.len();
        if let Some(long) = new.lines().find(|line| line.len() > LINE_LIMIT) {
            panic!("a line of {} bytes: {long}", long.len());
        }
        assert!(new.len() <= requests * LINE_LIMIT, "{} bytes of log for {requests} requests:\n{new}", new.len());
        self.expect_no_secret("the log", &new, true);
    }

    /// No secret in what others can read; `strict` where not even the renter's own words may be.
    pub fn expect_no_secret(&self, place: &str, text: &str, strict: bool) {
        let secrets = [&self.attacker, &self.other].into_iter().flat_map(|session| {
            let token = session.token.expose().to_string();
            [token.replace('-', ""), token, session.cookie.1.clone()]
        });
        let words = [CREDENTIAL, QUERY, COOKIE].map(str::to_owned);
        let forbidden: Vec<String> = secrets.chain(words.into_iter().take(if strict { 3 } else { 0 })).collect();
        for secret in forbidden {
            if let Some(at) = text.find(&secret) {
                let near: String = text[at.saturating_sub(80)..].chars().take(200).collect();
                panic!("{place} has {secret}: ...{near}");
            }
        }
    }

    /// What the control API answers to these bytes.
    pub async fn ask_control(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.installation.control).await.expect("control listens");
        stream.write_all(bytes).await.expect("taken");
        let mut answer = Vec::new();
        // A reset ends the answer as well; what came before it counts.
        let reading = stream.read_to_end(&mut answer);
        drop(tokio::time::timeout(PATIENCE, reading).await.expect("an end in time"));
        answer
    }

    /// What Prometheus sees.
    pub async fn metrics_text(&self) -> String {
        let mut stream = TcpStream::connect(self.installation.admin).await.expect("the admin listener");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("taken");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("metrics");
        text
    }
}

/// A session at a provider's server, with its lock taken.
pub async fn rent(installation: &Installation, upstream: SocketAddr) -> Session {
    let rented = installation.rent_with(upstream, CREDENTIAL).await;
    let mut stream = TcpStream::connect(installation.gateway).await.expect("listens");
    let link = format!("GET /access/{} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n", rented.token.expose());
    stream.write_all(link.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let cookie =
        answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ").or(line.strip_prefix("set-cookie: ")));
    let (name, value) = cookie.and_then(|cookie| cookie.split(';').next()?.split_once('=')).expect("a cookie");
    Session { id: rented.id.to_string(), token: rented.token, cookie: (name.to_owned(), value.to_owned()) }
}

fn parse(bytes: &[u8], to_head: bool, ended: bool) -> Received {
    let mut received = Received { answers: Vec::new(), interim: Vec::new(), rest: Vec::new(), in_time: true };
    let mut at = 0;
    loop {
        match read(&bytes[at..], Of::Answer { to_head, ended }) {
            Ok((answer, taken)) => {
                at += taken;
                if answer.status() < 200 { received.interim.push(answer) } else { received.answers.push(answer) }
            }
            Err(Unread::Partial | Unread::Garbage(_)) => {
                received.rest = bytes[at..].to_vec();
                return received;
            }
        }
    }
}
