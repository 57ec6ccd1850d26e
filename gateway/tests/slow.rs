//! Renters and providers who keep the gateway waiting: each costs a bounded time, and who only thinks is left alone.

mod support;

use std::time::Duration;

use runit_config::NodeSettings;
use runit_core::{AccessToken, SessionId};
use support::{Client, TestGateway, WEBSOCKET, bearer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CAP: u64 = 1 << 30;
const STEP: Duration = Duration::from_millis(100);
/// Three windows of [`impatient`].
const LONG: Duration = Duration::from_secs(3);

fn impatient(settings: &mut NodeSettings) {
    settings.limits.slow_seconds = 1;
    settings.limits.slowest_bytes_per_second = 1_000;
}

async fn ask(
    gateway: &TestGateway,
    method: &str,
    id: SessionId,
    action: &str,
    token: &AccessToken,
    more: &str,
) -> Client {
    let mut client = gateway.connect().await;
    client.send(&format!("{method} /s/{id}/{action} HTTP/1.1\r\nHost: g\r\n{}{more}\r\n", bearer(token))).await;
    client
}

async fn websocket(gateway: &TestGateway, id: SessionId, action: &str, token: &AccessToken) -> Client {
    let mut client = ask(gateway, "GET", id, action, token, WEBSOCKET).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

fn cuts(gateway: &TestGateway, reason: &str) -> f64 {
    let families = gateway.metrics.gather();
    let family = families.iter().find(|family| family.name() == "runit_gateway_cuts_total");
    let lines = family.map(prometheus::proto::MetricFamily::get_metric).unwrap_or_default();
    let of_reason = lines.iter().filter(|line| line.get_label().iter().any(|label| label.value() == reason));
    of_reason.map(|line| line.get_counter().get_value()).sum()
}

async fn is_cut(gateway: &TestGateway, reason: &str) {
    eventually("the cut is counted", || match cuts(gateway, reason) {
        1.0 => Ok(()),
        seen => Err(seen),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renter_who_does_not_read_is_cut_and_one_who_reads_slowly_is_not() {
    let gateway = TestGateway::with(impatient).await;
    let (id, token) = gateway.session(CAP);
    let mut slow = ask(&gateway, "GET", id, "download/100000000", &token, "").await;
    let _deaf = ask(&gateway, "GET", id, "download/100000000", &token, "").await;
    let reading = async {
        let mut buffer = vec![0; 20_000];
        let mut longer = LONG;
        while longer > Duration::ZERO {
            slow.stream.read_exact(&mut buffer).await.expect("it goes on");
            tokio::time::sleep(STEP).await;
            if cuts(&gateway, "slow_renter") > 0.0 {
                longer = longer.saturating_sub(STEP);
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, reading).await.expect("the one who does not read is cut");
    assert_eq!(cuts(&gateway, "slow_renter"), 1.0, "the other one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renter_who_takes_a_few_bytes_now_and_then_is_cut() {
    let gateway = TestGateway::with(impatient).await;
    let (id, token) = gateway.session(CAP);
    let mut trickle = ask(&gateway, "GET", id, "download/100000000", &token, "").await;
    let reading = async {
        let mut buffer = [0; 10];
        while trickle.stream.read_exact(&mut buffer).await.is_ok() {
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = is_cut(&gateway, "slow_renter") => {}
    }
    is_cut(&gateway, "slow_renter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_byte_by_byte_is_cut_and_one_that_comes_slowly_is_not() {
    let gateway = TestGateway::with(impatient).await;
    let (id, token) = gateway.session(CAP);
    for framing in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut trickle = ask(&gateway, "POST", id, "upload", &token, framing).await;
        if framing.starts_with('T') {
            trickle.send("10000\r\n").await;
        }
        let sending = async {
            while trickle.stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::time::timeout(support::PATIENCE, sending).await.expect("the gateway gives up");
    }
    eventually("both cuts are counted", || match cuts(&gateway, "slow_renter") {
        2.0 => Ok(()),
        seen => Err(seen),
    })
    .await;
    let mut slow = ask(&gateway, "POST", id, "upload", &token, "Content-Length: 30000\r\n").await;
    for _ in 0..30 {
        slow.send_bytes(&[b'x'; 1_000]).await;
        tokio::time::sleep(STEP).await;
    }
    let head = slow.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_thinks_and_websockets_without_a_word_are_left_alone() {
    let gateway = TestGateway::with(|settings| {
        impatient(settings);
        settings.gateway.upstream_silence_timeout_ms = 500;
    })
    .await;
    let (id, token) = gateway.session(CAP);
    let mut silent = websocket(&gateway, id, "ws", &token).await;
    let mut idle = ask(&gateway, "GET", id, "x", &token, "").await;
    assert!(idle.head().await.starts_with("HTTP/1.1 200"));
    let mut thinking = ask(&gateway, "POST", id, "think/3000", &token, "Content-Length: 2\r\n").await;
    thinking.send("{}").await;
    let head = thinking.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    silent.send("still here").await;
    silent.receive(10).await;
    idle.receive(2).await;
    idle.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    idle.received.clear();
    assert!(idle.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_renter_stops_reading_is_cut_while_something_waits_for_him() {
    let gateway = TestGateway::with(impatient).await;
    let (id, token) = gateway.session(CAP);
    let client = websocket(&gateway, id, "ws", &token).await;
    let (_reader, mut writer) = client.stream.into_split();
    // The echo fills every buffer on the way back, and then on the way there.
    let chunk = vec![0; 64 * 1024];
    let sending = async { while writer.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(support::PATIENCE, sending).await.expect("the gateway gives up");
    is_cut(&gateway, "slow_renter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_provider_takes_nothing_is_cut_while_something_waits_for_it() {
    let gateway = TestGateway::with(|settings| settings.gateway.upstream_silence_timeout_ms = 1_000).await;
    let (id, token) = gateway.session(CAP);
    let mut client = websocket(&gateway, id, "deaf", &token).await;
    let chunk = vec![0; 64 * 1024];
    let sending = async { while client.stream.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(support::PATIENCE, sending).await.expect("the gateway gives up");
    is_cut(&gateway, "slow_provider").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_goes_silent_within_an_answer_costs_a_bounded_time() {
    let gateway = TestGateway::with(|settings| settings.gateway.upstream_silence_timeout_ms = 1_000).await;
    let (id, token) = gateway.session(CAP);
    let mut client = ask(&gateway, "GET", id, "stall", &token, "").await;
    client.drain().await;
    is_cut(&gateway, "slow_provider").await;
    assert_eq!(gateway.get(&format!("/s/{id}/x"), &bearer(&token)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_an_answer_that_comes_byte_by_byte_costs_a_bounded_time() {
    let gateway = TestGateway::with(|settings| {
        settings.gateway.upstream_first_byte_timeout_ms = 1_000;
        settings.gateway.upstream_silence_timeout_ms = 1_000;
    })
    .await;
    let (id, token) = gateway.session(CAP);
    let mut client = ask(&gateway, "GET", id, "slowhead", &token, "").await;
    client.drain().await;
    is_cut(&gateway, "slow_provider").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_nothing_or_does_not_read_the_body_costs_a_bounded_time() {
    let gateway = TestGateway::with(|settings| {
        settings.gateway.upstream_first_byte_timeout_ms = 1_000;
        settings.gateway.upstream_silence_timeout_ms = 1_000;
    })
    .await;
    let (id, token) = gateway.session(CAP);
    let answer = gateway.get(&format!("/s/{id}/deaf"), &bearer(&token)).await;
    assert_eq!(answer.status, 504);
    let mut client = ask(&gateway, "PUT", id, "deaf", &token, "Content-Length: 1000000000\r\n").await;
    let chunk = vec![0; 64 * 1024];
    let sending = async { while client.stream.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(support::PATIENCE, sending).await.expect("the gateway gives up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_handshake_whose_body_trickles_costs_a_bounded_time() {
    let gateway = TestGateway::with(|settings| settings.gateway.upstream_first_byte_timeout_ms = 1_000);
    let gateway = gateway.await;
    let (id, token) = gateway.session(CAP);
    let mut client = ask(&gateway, "GET", id, "trickle", &token, WEBSOCKET).await;
    client.drain().await;
}
