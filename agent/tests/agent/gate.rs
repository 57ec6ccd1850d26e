//! The gate over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runit_agent::gate::{Backend, Gate};
use runit_core::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::jupyter::{StandIn, field, read_head};

const AUTHORIZED: &str = "Authorization: token gate-secret\r\n";
const MIB: usize = 1 << 20;

async fn gate_to(jupyter: &StandIn) -> Gate {
    let gate = Gate::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a gate");
    gate.open(&backend(jupyter, "gate-secret"));
    gate
}

fn backend(jupyter: &StandIn, gate_secret: &str) -> Backend {
    Backend {
        address: jupyter.address,
        gate_secret: Secret::new(gate_secret),
        jupyter_token: Secret::new("jupyter-token"),
    }
}

/// A Jupyter that answers every connection's first request with `answer`, and closes.
async fn answering(answer: &'static str) -> StandIn {
    StandIn::start(move |_, mut stream| async move {
        stream.write_all(answer.as_bytes()).await.expect("written");
    })
    .await
}

async fn ok_jupyter() -> StandIn {
    answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await
}

/// Sends `request` as it is and reads until the gate closes.
async fn exchange(gate: &Gate, request: &str) -> String {
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    // A reset after the answer is as good an end as any.
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(gate: &Gate, target: &str, fields: &str) -> String {
    exchange(gate, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn without_the_secret_nothing_reaches_jupyter() {
    let jupyter = ok_jupyter().await;
    let gate = gate_to(&jupyter).await;
    for fields in [
        "",
        "Authorization: token wrong\r\n",
        "Authorization: token jupyter-token\r\n",
        "Authorization: Bearer gate-secret\r\n",
        "Authorization: token gate-secret\r\nAuthorization: token gate-secret\r\n",
        "Authorization: token gate-secret\r\nAuthorization: token wrong\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Cookie: token=gate-secret\r\n",
    ] {
        let answer = get(&gate, "/s/x/api/status?token=gate-secret", fields).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{fields}: {answer}");
        assert!(answer.contains("\"code\":\"forbidden\""), "{answer}");
    }
    assert_eq!(jupyter.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn jupyter_gets_its_own_credential_and_a_local_host_and_the_target_as_sent() {
    let jupyter = ok_jupyter().await;
    let gate = gate_to(&jupyter).await;
    for target in
        ["/s/x/lab", "//s//x/a%2Fb%2f", "/s/x/files/a:b;c,d=e", "/s/x/static/v.js?1795316893", "/s/x/?a=%20+b&&c"]
    {
        let answer = get(&gate, target, AUTHORIZED).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{answer}");
        let head = jupyter.heads().pop().expect("a request");
        assert_eq!(head.lines().next(), Some(format!("GET {target} HTTP/1.1").as_str()));
        assert_eq!(field(&head, "authorization"), Some("token jupyter-token"));
        assert_eq!(field(&head, "host"), Some(jupyter.address.to_string().as_str()));
        assert!(!head.contains("gate-secret"), "{head}");
    }
}

#[tokio::test]
async fn hop_by_hop_and_forwarding_fields_end_at_the_gate() {
    let jupyter = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n\r\nok",
    )
    .await;
    let gate = gate_to(&jupyter).await;
    let fields = "Connection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nCf-Connecting-Ip: 203.0.113.9\r\n\
                  X-Forwarded-Host: a.trycloudflare.com\r\nCookie: a=b\r\n";
    let answer = get(&gate, "/", &format!("{AUTHORIZED}{fields}")).await;
    let head = jupyter.heads().pop().expect("a request");
    for gone in ["x-mine", "te", "cf-connecting-ip", "x-forwarded-host"] {
        assert_eq!(field(&head, gone), None, "{head}");
    }
    assert_eq!(field(&head, "cookie"), Some("a=b"));
    assert_eq!(
        (field(&answer, "x-hop"), field(&answer, "keep-alive"), field(&answer, "x-kept")),
        (None, None, Some("1"))
    );
}

#[tokio::test]
async fn targets_that_are_no_path_and_heads_that_are_too_long_are_refused() {
    let jupyter = ok_jupyter().await;
    let gate = gate_to(&jupyter).await;
    for target in ["http://127.0.0.1:1/x", "*"] {
        let answer = get(&gate, target, AUTHORIZED).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    let long = format!("{AUTHORIZED}X-Long: {}\r\n", "a".repeat(100_000));
    assert!(get(&gate, "/", &long).await.starts_with("HTTP/1.1 431 "));
    let many = format!("{AUTHORIZED}{}", "X: y\r\n".repeat(200));
    assert!(get(&gate, "/", &many).await.starts_with("HTTP/1.1 431 "));
    assert_eq!(jupyter.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn an_upgraded_connection_carries_any_bytes_both_ways() {
    let jupyter = StandIn::start(|_, mut stream| async move {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\n\r\n";
        // The first bytes of the new protocol come in the same packet as the head.
        stream.write_all(&[switch.as_bytes(), b"\x81\x02hi"].concat()).await.expect("written");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.expect("echoed");
    })
    .await;
    let gate = gate_to(&jupyter).await;
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    let request = format!(
        "GET /s/x/api/kernels/1/channels HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");

    let head = read_head(&mut stream).await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "sec-websocket-protocol"), Some("v1.kernel.websocket.jupyter.org"));
    let mut hi = [0; 4];
    stream.read_exact(&mut hi).await.expect("bytes behind the head");
    assert_eq!(&hi, b"\x81\x02hi");

    let sent: Vec<u8> = (0..3 * MIB).map(|n| (n * 31 % 251) as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let write_all = async {
        write.write_all(&sent).await.expect("written");
        write.shutdown().await.expect("half closed");
    };
    let (_, read) = tokio::join!(write_all, read.read_to_end(&mut received));
    read.expect("read to the end");
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());

    let asked = jupyter.heads().pop().expect("a request");
    assert_eq!(field(&asked, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(field(&asked, "authorization"), Some("token jupyter-token"));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let jupyter = answering("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone").await;
    let gate = gate_to(&jupyter).await;
    let answer = get(&gate, "/", &format!("{AUTHORIZED}Connection: Upgrade\r\nUpgrade: websocket\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("none"), "{answer}");
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_not_passed_on() {
    let jupyter = answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw").await;
    let gate = gate_to(&jupyter).await;
    let answer = get(&gate, "/", AUTHORIZED).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("raw"), "{answer}");
}

#[tokio::test]
async fn a_large_upload_and_download_stream_through_whole() {
    const SIZE: usize = 96 * MIB;
    let jupyter = StandIn::start(|head, mut stream| async move {
        let length: usize = field(&head, "content-length").and_then(|n| n.parse().ok()).expect("a length");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("written");
        // Each piece goes back before the next is read: only a gate that streams both ways gets to the end.
        let mut piece = vec![0; 64 << 10];
        let mut left = length;
        while left > 0 {
            let count = stream.read(&mut piece).await.expect("read");
            assert!(count > 0, "the upload ended early");
            stream.write_all(&piece[..count]).await.expect("written");
            left -= count;
        }
    })
    .await;
    let gate = gate_to(&jupyter).await;
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    let head = format!("PUT /s/x/api/contents/f HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}Content-Length: {SIZE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let (mut read, mut write) = stream.split();
    let byte_at = |n: usize| (n % 253) as u8;
    let send = async {
        let mut at = 0;
        while at < SIZE {
            let piece: Vec<u8> = (at..(at + MIB).min(SIZE)).map(byte_at).collect();
            write.write_all(&piece).await.expect("written");
            at += piece.len();
        }
    };
    let receive = async {
        let answer = read_head(&mut read).await.expect("a head");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (mut at, mut piece) = (0, vec![0; 256 << 10]);
        while at < SIZE {
            let count = read.read(&mut piece).await.expect("read");
            assert!(count > 0, "ended at {at}");
            assert!(piece[..count].iter().enumerate().all(|(n, byte)| *byte == byte_at(at + n)), "changed near {at}");
            at += count;
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn chunked_bodies_without_a_length_pass_both_ways() {
    let jupyter = StandIn::start(|head, mut stream| async move {
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.expect("a byte"));
        }
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nworld\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("written");
    })
    .await;
    let gate = gate_to(&jupyter).await;
    let fields = format!("{AUTHORIZED}Transfer-Encoding: chunked\r\nConnection: close\r\n");
    let answer = exchange(&gate, &format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n")).await;
    assert!(answer.ends_with("5\r\nworld\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn two_framings_never_reach_jupyter() {
    let jupyter = ok_jupyter().await;
    let gate = gate_to(&jupyter).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    for fields in [
        format!("{chunked}Content-Length: 4\r\n"),
        format!("Content-Length: 4\r\n{chunked}"),
        "Content-Length: 4\r\nContent-Length: 5\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\nContent-Length: 4\r\n".to_owned(),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}{fields}Connection: close\r\n\r\n");
        exchange(&gate, &format!("{head}0\r\n\r\n")).await;
    }
    for head in jupyter.heads() {
        let framings = (field(&head, "content-length"), field(&head, "transfer-encoding"));
        assert!(matches!(framings, (None, Some("chunked")) | (Some(_), None)), "{head}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let jupyter = StandIn::start(|head, mut stream| async move {
        assert_eq!(field(&head, "expect"), None, "{head}");
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.expect("a body");
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.expect("written");
    })
    .await;
    let gate = gate_to(&jupyter).await;
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    let fields = format!("{AUTHORIZED}Content-Length: 5\r\nExpect: 100-continue\r\n");
    stream.write_all(format!("PUT / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).await.expect("written");
    assert!(read_head(&mut stream).await.expect("a head").starts_with("HTTP/1.1 100 "));
    stream.write_all(b"hello").await.expect("written");
    assert!(read_head(&mut stream).await.expect("a head").starts_with("HTTP/1.1 201 "));
}

#[tokio::test]
async fn a_slow_reader_slows_jupyter_down_and_fills_no_memory() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let jupyter = StandIn::start(move |_, mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1024 * MIB);
            stream.write_all(head.as_bytes()).await.expect("written");
            while let Ok(count) = stream.write(&[0; 64 << 10]).await {
                counted.fetch_add(count, Ordering::Relaxed);
            }
        }
    })
    .await;
    let gate = gate_to(&jupyter).await;
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    read_head(&mut stream).await.expect("a head");

    let mut before = usize::MAX;
    let stalled = async || {
        let now = written.load(Ordering::Relaxed);
        let same = now == before && now > 0;
        before = now;
        tokio::time::sleep(Duration::from_millis(250)).await;
        same.then_some(now)
    };
    let held = eventually(Duration::from_secs(20), stalled, || written.load(Ordering::Relaxed)).await;
    assert!(held < 32 * MIB, "{held} bytes were taken from jupyter with nobody reading");
}

#[tokio::test]
async fn a_request_is_sent_once_even_if_jupyter_breaks_off() {
    let jupyter = answering("").await;
    let gate = gate_to(&jupyter).await;
    for method in ["GET", "POST"] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}Content-Length: 2\r\nConnection: close\r\n\r\nhi");
        assert!(exchange(&gate, &request).await.starts_with("HTTP/1.1 502 "));
    }
    assert_eq!(jupyter.heads().len(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_passed_on_as_whole() {
    let jupyter = answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
    let gate = gate_to(&jupyter).await;
    let answer = get(&gate, "/", AUTHORIZED).await;
    assert_eq!(field(&answer, "content-length"), Some("100"));
    assert!(answer.ends_with("only this"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nEtag: \"a\"\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nEtag: \"a\"\r\nConnection: close\r\n\r\n",
    ] {
        let jupyter = answering(answer).await;
        let gate = gate_to(&jupyter).await;
        let request = format!("HEAD / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}Connection: close\r\n\r\n");
        let passed = exchange(&gate, &request).await;
        assert_eq!(passed.lines().next(), answer.lines().next());
        assert_eq!(field(&passed, "content-length"), field(answer, "content-length"));
        assert_eq!(field(&passed, "etag"), Some("\"a\""));
    }
}

#[tokio::test]
async fn a_gate_that_is_shut_or_leads_nowhere_says_so() {
    let gate = Gate::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a gate");
    let answer = get(&gate, "/", AUTHORIZED).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(field(&answer, "retry-after"), Some("5"));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    gate.open(&Backend { address: closed, gate_secret: Secret::new("gate-secret"), jupyter_token: Secret::new("j") });
    assert!(get(&gate, "/", AUTHORIZED).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn switching_to_a_fresh_workspace_cuts_what_was_open_and_retires_the_old_secret() {
    let holding = StandIn::start(|_, mut stream| async move {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.expect("written");
        let _ = stream.read_u8().await;
    })
    .await;
    let fresh = ok_jupyter().await;
    let gate = gate_to(&holding).await;
    let mut upgraded = TcpStream::connect(gate.address()).await.expect("connected");
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    upgraded.write_all(request.as_bytes()).await.expect("written");
    assert!(read_head(&mut upgraded).await.expect("a head").starts_with("HTTP/1.1 101 "));
    let mut idle = TcpStream::connect(gate.address()).await.expect("connected");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let refused = read_head(&mut idle).await.expect("a head");
    let length = field(&refused, "content-length").and_then(|n| n.parse().ok()).expect("a length");
    idle.read_exact(&mut vec![0; length]).await.expect("a body");

    gate.open(&backend(&fresh, "another-secret"));

    for stream in [&mut upgraded, &mut idle] {
        let ended = tokio::time::timeout(Duration::from_secs(1), stream.read_u8()).await;
        assert!(ended.expect("cut within a second").is_err());
    }
    assert!(get(&gate, "/", AUTHORIZED).await.starts_with("HTTP/1.1 403 "));
    assert!(get(&gate, "/", "Authorization: token another-secret\r\n").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(holding.heads().len(), 1);
}

#[tokio::test]
async fn a_gate_listens_on_loopback_only() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let error = Gate::bind(address.parse().expect("an address")).await.expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{address}");
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// A Jupyter that takes every upgrade and then sends back what comes.
async fn echoing() -> StandIn {
    StandIn::start(|_, mut stream| async move {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.expect("written");
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn upgraded(gate: &Gate) -> TcpStream {
    let mut stream = TcpStream::connect(gate.address()).await.expect("connected");
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}{UPGRADE}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    assert!(read_head(&mut stream).await.expect("a head").starts_with("HTTP/1.1 101 "));
    stream
}

#[tokio::test]
async fn who_brings_the_secret_to_a_dozing_gate_waits_until_it_opens_and_calls_for_that() {
    let jupyter = ok_jupyter().await;
    let gate = std::sync::Arc::new(gate_to(&jupyter).await);
    gate.doze(&Secret::new("gate-secret"));
    assert!(get(&gate, "/", "Authorization: token wrong\r\n").await.starts_with("HTTP/1.1 403 "));
    let nobody = tokio::time::timeout(Duration::from_millis(50), gate.wanted()).await;
    assert!(nobody.is_err(), "a stranger wakes nobody");

    let waiting = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { get(&gate, "/", AUTHORIZED).await }
    });
    tokio::time::timeout(Duration::from_secs(10), gate.wanted()).await.expect("called");
    assert!(!waiting.is_finished());
    gate.open(&backend(&jupyter, "gate-secret"));
    assert!(waiting.await.expect("no panic").starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_dozing_gate_that_is_opened_for_another_workspace_lets_nobody_of_the_old_one_through() {
    let jupyter = ok_jupyter().await;
    let gate = std::sync::Arc::new(gate_to(&jupyter).await);
    gate.doze(&Secret::new("gate-secret"));
    let waiting = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { get(&gate, "/", AUTHORIZED).await }
    });
    tokio::time::timeout(Duration::from_secs(10), gate.wanted()).await.expect("called");
    gate.open(&backend(&jupyter, "another-secret"));
    assert_eq!(waiting.await.expect("no panic"), "");
    assert!(jupyter.heads().is_empty());
}

#[tokio::test]
async fn upgraded_connections_count_among_the_connections_at_one_time() {
    let jupyter = echoing().await;
    let gate = Gate::with_room_for(2, "127.0.0.1:0".parse().expect("an address")).await.expect("a gate");
    gate.open(&backend(&jupyter, "gate-secret"));
    let (first, _second) = (upgraded(&gate).await, upgraded(&gate).await);
    assert_eq!(gate.counts().upgraded_open, 2);
    let mut third = TcpStream::connect(gate.address()).await.expect("in the kernel's queue");
    third
        .write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}{UPGRADE}\r\n").as_bytes())
        .await
        .expect("written");
    let too_early = tokio::time::timeout(Duration::from_millis(300), read_head(&mut third)).await;
    assert!(too_early.is_err(), "there is no room");

    drop(first);
    assert!(read_head(&mut third).await.expect("a head").starts_with("HTTP/1.1 101 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_pass_and_each_is_counted() {
    const CLIENTS: usize = 8;
    const EACH: usize = 500;
    let jupyter = ok_jupyter().await;
    let gate = gate_to(&jupyter).await;
    let client = async || {
        for _ in 0..EACH {
            let answer = get(&gate, "/api/status", AUTHORIZED).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    };
    futures::future::join_all((0..CLIENTS).map(|_| client())).await;
    let counts = gate.counts();
    assert_eq!((counts.admitted, counts.refused), ((CLIENTS * EACH) as u64, 0));
}

#[tokio::test]
async fn what_passes_is_counted_upgraded_or_not() {
    let jupyter = echoing().await;
    let gate = gate_to(&jupyter).await;
    get(&gate, "/", "").await;
    let refused = gate.counts();
    assert_eq!((refused.admitted, refused.refused), (0, 1));
    let mut stream = upgraded(&gate).await;
    let before = gate.counts();
    stream.write_all(&vec![7; MIB]).await.expect("written");
    stream.read_exact(&mut vec![0; MIB]).await.expect("echoed");
    let after = gate.counts();
    assert_eq!((after.admitted, after.refused, after.upgraded, after.upgraded_open), (1, 1, 1, 1));
    assert_eq!(after.bytes_in - before.bytes_in, MIB as u64);
    assert_eq!(after.bytes_out - before.bytes_out, MIB as u64);
    drop(stream);
    eventually(Duration::from_secs(10), async || (gate.counts().upgraded_open == 0).then_some(()), || gate.counts())
        .await;
}
