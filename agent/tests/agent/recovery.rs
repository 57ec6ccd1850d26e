//! What goes wrong on a provider's machine, with a real engine that is the test's own: afterwards the session is READY by
//! itself, with the same id.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use reqwest::{Client, StatusCode};

use crate::support::agent::{Agent, Control, Home};
use crate::support::eventually;
use crate::support::private_engine::PrivateEngine;
use crate::support::server::Call;
use crate::support::world::{World, run};

const DIRECT: &str = "kind = \"direct\"";
const PATIENCE: Duration = Duration::from_secs(180);

/// Whether a renter would be served, as the gateway asks.
async fn serves(registered: &Call) -> bool {
    let text = |key: &str| registered.body[key].as_str().expect("text").to_owned();
    let client = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
    let call = client.get(format!("{}{}api/status", text("publicUrl"), text("basePath")));
    let answer = call.header("Authorization", format!("token {}", text("token"))).send().await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

async fn until_it_serves(registered: &Call, agent: &Agent) {
    eventually(PATIENCE, async || serves(registered).await.then_some(()), || agent.said()).await;
}

async fn until_control_hears(control: &Control, reachable: bool) {
    let heard = async || control.beats().last().filter(|beat| beat["reachable"] == reachable).cloned();
    eventually(PATIENCE, heard, || control.beats().last().cloned()).await;
}

#[tokio::test]
async fn a_container_that_is_killed_and_an_engine_that_restarts_change_nothing_for_the_renter() {
    let _world = World::enter(&[]);
    let mut engine = PrivateEngine::start().await;
    let control = Control::start().await;
    let home = Home::in_engine(&control, &engine, DIRECT).await;
    let agent = home.start();
    let registered = control.nth("POST", 1).await;
    until_it_serves(&registered, &agent).await;
    home.shell("echo mine > /workspace/kept").await;

    run("docker", &["--host", &engine.host(), "kill", &home.container]);
    agent.says("[agent] jupyter stopped, starting it again", 1).await;
    until_it_serves(&registered, &agent).await;
    assert_eq!(home.shell("cat /workspace/kept").await, "mine");

    // Long enough for control to be told that nobody can be served.
    engine.stop();
    until_control_hears(&control, false).await;
    engine.start_process().await;
    until_it_serves(&registered, &agent).await;
    until_control_hears(&control, true).await;
    assert_eq!(home.shell("cat /workspace/kept").await, "mine");
    assert_eq!((control.calls("POST").len(), control.calls("PUT").len()), (1, 0), "the same session, URL and secret");
}

#[tokio::test]
async fn a_network_that_is_gone_for_a_while_costs_nothing_but_that_while() {
    let _world = World::enter(&[]);
    let engine = PrivateEngine::start().await;
    let control = Control::start().await;
    let home = Home::in_engine(&control, &engine, DIRECT).await;
    let agent = home.start();
    let registered = control.nth("POST", 1).await;
    agent.says("[agent] heartbeat updated for: ", 1).await;

    // What goes to control vanishes without a word.
    let port = control.port().to_string();
    run("nft", &["add", "table", "inet", "gone"]);
    run("nft", &["add", "chain", "inet", "gone", "output", "{ type filter hook output priority 0; }"]);
    run("nft", &["add", "rule", "inet", "gone", "output", "tcp", "dport", &port, "drop"]);
    let failed = async || agent.logged().into_iter().filter(|line| line.contains("the heartbeat failed")).nth(1);
    eventually(PATIENCE, failed, || agent.logged()).await;
    assert!(serves(&registered).await, "a renter who is there goes on");

    let before = control.beats().len();
    run("nft", &["delete", "table", "inet", "gone"]);
    eventually(PATIENCE, async || (control.beats().len() > before).then_some(()), || agent.logged()).await;
    assert!(serves(&registered).await);
    assert_eq!((control.calls("POST").len(), control.calls("PUT").len()), (1, 0), "the same session, URL and secret");
}

#[tokio::test]
async fn a_firewall_that_is_reloaded_under_a_session_gets_its_rules_back() {
    let world = World::enter(&["10.11.12.13".parse().expect("an address")]);
    let engine = PrivateEngine::start().await;
    let control = Control::start().await;
    let home = Home::in_engine(&control, &engine, DIRECT).await;
    let agent = home.start();
    control.nth("POST", 1).await;
    let reaches = "timeout 5 bash -c 'exec 3<>/dev/tcp/10.11.12.13/80' 2>/dev/null && echo reached";
    assert_eq!(home.shell(reaches).await, "");
    let table = home.table();
    // Or its next look may come first.
    agent.signal(rustix::process::Signal::STOP);
    run("nft", &["delete", "table", "inet", &table]);
    assert_eq!(home.shell(reaches).await, "reached", "the stand-in does not work");
    agent.signal(rustix::process::Signal::CONT);
    let again = async || run("nft", &["list", "tables"]).contains(&table).then_some(());
    eventually(PATIENCE, again, || agent.logged()).await;
    assert_eq!(home.shell(reaches).await, "");
    drop(world);
}

#[tokio::test]
async fn what_the_container_moves_by_itself_is_metered_and_cut_at_the_daily_cap() {
    let world = World::enter(&[]);
    world.beyond.ip("addr add 1.2.3.4/32 dev lo");
    let source = world.beyond.inside(|| std::net::TcpListener::bind("1.2.3.4:80").expect("free"));
    std::thread::spawn(move || {
        for mut stream in source.incoming().flatten() {
            // As many as are asked for, and none that would wait in a socket's buffer for nobody.
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).expect("a line");
            let bytes = vec![7; asked.trim().parse().expect("a number")];
            let _ = stream.write_all(&bytes); // the other side may be cut off
        }
    });
    let engine = PrivateEngine::start().await;
    let control = Control::start().await;
    let more = format!("{DIRECT}\n[egress]\ndaily_cap_bytes = 50000000");
    let home = Home::in_engine(&control, &engine, &more).await;
    let agent = home.start();
    let registered = control.nth("POST", 1).await;
    let fetch = |bytes: u64| format!("timeout 60 bash -c 'exec 3<>/dev/tcp/1.2.3.4/80; echo {bytes} >&3; wc -c <&3'");
    assert_eq!(home.shell(&fetch(20_000_000)).await, "20000000");
    // A look in the middle of it has a part.
    let all_of_it = |n: &u64| *n >= 20_000_000;
    let told =
        async || control.beats().last().and_then(|beat| beat["report"]["egressBytes"].as_u64()).filter(all_of_it);
    let used = eventually(PATIENCE, told, || control.beats().last().cloned()).await;
    assert!((20_000_000..22_000_000).contains(&used), "{used}");

    home.shell(&fetch(40_000_000)).await;
    agent.says("[agent] the daily cap is used up", 1).await;
    assert_eq!(home.shell("timeout 5 bash -c 'exec 3<>/dev/tcp/1.2.3.4/80' 2>/dev/null && echo reached").await, "");
    assert!(serves(&registered).await, "the renter's own connection is not egress");
    let cut = async || control.beats().last().filter(|beat| beat["report"]["egressCut"] == true).cloned();
    eventually(PATIENCE, cut, || control.beats().last().cloned()).await;
}
