//! Request heads: how large, how slow, how strange.

mod support;

use support::{TestGateway, bearer};

const CAP: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let gateway = TestGateway::with(|settings| settings.gateway.first_byte_timeout_ms = 100).await;
    let mut client = gateway.connect().await;
    client.drain().await;
    assert!(client.received.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_byte_by_byte_is_cut_off_in_time() {
    let gateway = TestGateway::with(|settings| settings.gateway.head_timeout_ms = 300).await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    let head = format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}", bearer(&token));
    client.send(&head).await;
    let trickle = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"X").await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, trickle).await.expect("the gateway gives up");
    assert!(gateway.upstream.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_for_the_second_request_of_a_connection() {
    let gateway = TestGateway::with(|settings| settings.gateway.head_timeout_ms = 300).await;
    let (id, token) = gateway.session(CAP);
    let mut client = gateway.connect().await;
    client.send(&format!("GET /s/{id}/x HTTP/1.1\r\nHost: g\r\n{}\r\n", bearer(&token))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    client.receive(2).await;
    client.send("GET /s/").await;
    client.drain().await;
    assert_eq!(client.received, b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_over_the_limit_is_not_read_to_its_end_and_the_answer_says_what_to_do() {
    let gateway = TestGateway::start().await;
    let (id, token) = gateway.session(CAP);
    for (length, status) in [(30_000, Some("200")), (40_000, Some("431"))] {
        let mut client = gateway.connect().await;
        let filler = "f".repeat(length);
        let head = format!(
            "GET /s/{id}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}X-Filler: {filler}\r\n\r\n",
            bearer(&token)
        );
        client.send(&head).await;
        client.drain().await;
        let answer = String::from_utf8_lossy(&client.received).into_owned();
        assert_eq!(answer.split(' ').nth(1), status, "{length}");
    }
}
