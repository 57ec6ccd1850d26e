//! What a provider asks for beside `up`, as processes.

use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::agent::{Control, Home, PROVIDER_SECRET};

const DIRECT: &str = "kind = \"direct\"";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[tokio::test]
async fn status_and_logs_tell_of_the_agent_that_runs_and_down_ends_it() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let nobody = home.command(&["status"]).await;
    assert_eq!((nobody.status.code(), said(&nobody).as_str()), (Some(3), "no agent runs with these settings\n"));
    assert_eq!(json_of(&home.command(&["status", "--json"]).await), json!({ "running": false }));
    assert_eq!(home.command(&["logs"]).await.status.code(), Some(1));

    let mut agent = home.start();
    agent.says("[agent] starting dockerized jupyter...", 1).await;
    let starting = home.command(&["status", "--json"]).await;
    assert_eq!((starting.status.code(), &json_of(&starting)["phase"]), (Some(4), &json!("starting")));
    let id = control.nth("POST", 1).await.body["sessionId"].clone();
    agent.says("[agent] heartbeat updated for: ", 1).await;
    let ready = home.command(&["status", "--json"]).await;
    let told = json_of(&ready);
    assert_eq!((ready.status.code(), &told["phase"], &told["sessionId"]), (Some(0), &json!("ready"), &id), "{told}");
    assert!(!said(&ready).contains(PROVIDER_SECRET));
    assert!(said(&home.command(&["status"]).await).contains("state      ready, nobody rents it\n"));
    assert!(said(&home.command(&["logs"]).await).starts_with("Running as: jupyteruser\n"));

    let down = home.command(&["down"]).await;
    assert_eq!(down.status.code(), Some(0), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(control.calls("DELETE").len(), 1);
    assert_eq!(home.left_behind().await, Vec::<String>::new());
    assert_eq!(home.command(&["status"]).await.status.code(), Some(3));
}

#[tokio::test]
async fn down_removes_what_a_killed_agent_left_and_takes_its_session_back() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let mut agent = home.start();
    control.nth("POST", 1).await;
    agent.says("[agent] session registered: ", 1).await;
    agent.signal(Signal::KILL);
    agent.ends().await;
    assert!(!home.left_behind().await.is_empty());

    assert_eq!(home.command(&["down"]).await.status.code(), Some(0));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
    assert_eq!(control.nth("DELETE", 1).await.authorization, Some(format!("Bearer {PROVIDER_SECRET}")));
}

#[tokio::test]
async fn two_agents_on_one_machine_do_not_fight() {
    let control = Control::start().await;
    // No names of their own are set.
    let homes = [Home::unnamed(&control, DIRECT).await, Home::unnamed(&control, DIRECT).await];
    let mut agents = homes.each_ref().map(Home::start);
    control.nth("POST", 2).await;
    for agent in &agents {
        agent.says("[agent] heartbeat updated for: ", 2).await;
    }
    agents[0].signal(Signal::TERM);
    assert_eq!(agents[0].ends().await.code(), Some(0));
    assert_eq!(homes[0].left_behind().await, Vec::<String>::new());
    assert_eq!(homes[1].left_behind().await.len(), 4);
    assert_eq!(homes[1].command(&["status"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn the_doctor_looks_at_everything_and_says_what_to_do() {
    let control = Control::start().await;
    let home = Home::new(&control, "cloudflared_bin = \"/nonexistent/cloudflared\"").await;
    let found = json_of(&home.command(&["doctor", "--json"]).await);
    let checks = found["checks"].as_array().expect("checks");
    let verdict = |what: &str| {
        let check = checks.iter().find(|check| check["what"] == what).unwrap_or_else(|| panic!("{what} in {found}"));
        check["verdict"].as_str().expect("a verdict").to_owned()
    };
    for what in ["engine", "image", "limits", "egress", "clock", "gpu", "control"] {
        assert_eq!(verdict(what), "good", "{found}");
    }
    assert_eq!(verdict("tunnel"), "bad");
    assert!(["good", "warning"].contains(&verdict("runc").as_str()));
    assert!(checks.iter().all(|check| check["verdict"] == "good" || check["advice"].is_string()), "{found}");
    assert_eq!(home.command(&["doctor"]).await.status.code(), Some(1));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_gpu_that_is_not_there_is_refused_before_anything_starts() {
    let control = Control::start().await;
    let home = Home::new(&control, &format!("{DIRECT}\n[container]\ngpus = [\"all\"]")).await;
    let refused = home.command(&["up"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("[container] gpus is set, but nvidia-smi does not list any"), "{text}");
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_cannot_give_a_gpu_is_told_of() {
    let control = Control::start().await;
    let home = Home::new(&control, &format!("{DIRECT}\n[container]\ngpus = [\"all\"]")).await;
    // A driver is there, as far as the agent can see; the engine knows of none.
    let card = "#!/bin/sh\necho '0, GPU-7c3ab1a2, NVIDIA GeForce RTX 4090, 24564, 550.127.05'\n";
    let home = home.with_program("nvidia-smi", card);
    let mut agent = home.start();
    let logged = || agent.logged().into_iter().find(|line| line.contains("nvidia-container-toolkit"));
    crate::support::eventually(std::time::Duration::from_secs(60), async || logged(), || agent.logged()).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_persistent_workspace_keeps_its_files_and_renters_are_told() {
    let control = Control::start().await;
    let home = Home::new(&control, &format!("{DIRECT}\n[container]\nworkspace = \"persistent\"")).await;
    let mut agent = home.start();
    let registered = control.nth("POST", 1).await;
    assert_eq!(registered.body["hardware"]["workspace"], "persistent");
    let token = home.jupyter_token().await;
    home.shell("echo mine > /workspace/kept").await;

    control.set(crate::support::agent::Mood::Recycling);
    let fresh = control.nth("PUT", 1).await;
    assert_ne!(fresh.body["token"], registered.body["token"]);
    assert_ne!(home.jupyter_token().await, token);
    assert_eq!(home.shell("cat /workspace/kept").await, "mine");

    agent.signal(Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    let left = home.left_behind().await;
    assert_eq!(left, [format!("{}-workspace", home.container)]);
    assert_eq!(home.command(&["down", "--delete-workspace"]).await.status.code(), Some(0));
    assert_eq!(home.left_behind().await, Vec::<String>::new());
}
