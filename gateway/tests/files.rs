//! More connections than the process may open files: those that are let in are served.

mod support;

use std::time::Instant;

use support::process::Installation;
use support::{PATIENCE, TestUpstream, bearer};

/// Too few for 500 connections by far.
const FILES: u32 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_never_uses_up_the_files() {
    let house = Installation::new("");
    let upstream = TestUpstream::start().await;
    let _process = house.start_with_files(FILES).await;
    let rented = house.rent(upstream.address).await;
    let get =
        |action: &str| format!("GET /s/{}/{action} HTTP/1.1\r\nHost: g\r\n{}\r\n", rented.id, bearer(&rented.token));
    let mut renter = house.connect().await;
    renter.send(&get("x")).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"));
    renter.receive(2).await;
    renter.received.clear();
    let (mut open, mut served) = (Vec::new(), 0);
    for n in 0..500_u32 {
        let mut client = house.connect_from([127, 0, 1, (n % 250) as u8]).await;
        if n % 5 == 0 {
            // Holds a connection to the provider too.
            client = house.connect().await;
            client.send(&get("download/100000000")).await;
            served += u32::from(client.head().await.starts_with("HTTP/1.1 200"));
        }
        open.push(client);
    }
    assert!((20..80).contains(&served), "{served}");
    renter.send(&get("x")).await;
    assert!(renter.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(house.call("GET", "/renter/sessions", None).await.0, 200, "the store can be asked");
    assert!(!house.log().contains("Too many open files"), "{}", house.log());
    drop(open);
    let deadline = Instant::now() + PATIENCE;
    while house.metric("runit_gateway_connections").await > 1.0 {
        assert!(Instant::now() < deadline, "connections stay");
    }
}
