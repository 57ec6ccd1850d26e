//! `SIGHUP`: what can change does, and no connection notices.

mod support;

use rustix::process::Signal;
use support::process::Installation;
use support::{TestUpstream, WEBSOCKET, bearer};

#[tokio::test(flavor = "multi_thread")]
async fn reloadable_settings_hold_at_once_and_others_are_named_and_stay() {
    let house = Installation::new("[lock]\nmode = \"exact\"\n[log]\nfilter = \"info\"\n");
    let upstream = TestUpstream::start().await;
    let process = house.start().await;
    let rented = house.rent(upstream.address).await;
    let handshake = format!("GET /s/{}/ws HTTP/1.1\r\nHost: g\r\n{}{WEBSOCKET}\r\n", rented.id, bearer(&rented.token));
    let mut websocket = house.connect().await;
    websocket.send(&handshake).await;
    assert!(websocket.head().await.starts_with("HTTP/1.1 101"));
    let elsewhere = || async {
        let mut client = house.connect_from([127, 0, 0, 2]).await;
        let get =
            format!("GET /s/{}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n", rented.id, bearer(&rented.token));
        client.send(&get).await;
        client.answer().await.status
    };
    assert_eq!(elsewhere().await, 403);

    house.edit("mode = \"exact\"", "mode = \"prefix\"");
    house.edit("[gateway]\n", "[gateway]\nthreads = 1\n");
    house.edit("filter = \"info\"", "filter = \"debug\"");
    process.signal(Signal::HUP);
    house.logged("settings reloaded", 1).await;

    assert_eq!(elsewhere().await, 200, "127.0.0.2 is in 127.0.0.0/24");
    let log = house.log();
    let warning = log.lines().find(|line| line.contains("gateway.threads")).expect("named");
    assert!(warning.contains("WARN") && warning.contains("the old value stays"), "{warning}");
    websocket.send("still here").await;
    websocket.receive(10).await;
    assert_eq!(house.metric("runit_gateway_settings_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_settings_change_nothing_and_are_logged() {
    let house = Installation::new("[lock]\nmode = \"exact\"\n");
    let process = house.start().await;
    let loaded = house.metric("runit_gateway_settings_loaded_timestamp_seconds").await;

    house.edit("mode = \"exact\"", "mode = \"prefix\"\nno_such_key = 1");
    process.signal(Signal::HUP);
    house.logged("settings not reloaded", 1).await;

    assert!(house.log().contains("lock.no_such_key"), "{}", house.log());
    assert_eq!(house.metric("runit_gateway_settings_reload_successful").await, 0.0);
    assert_eq!(house.metric("runit_gateway_settings_loaded_timestamp_seconds").await, loaded);

    house.edit("\nno_such_key = 1", "");
    process.signal(Signal::HUP);
    house.logged("settings reloaded changed={\"lock.mode\"}", 1).await;
    assert_eq!(house.metric("runit_gateway_settings_reload_successful").await, 1.0);
}
