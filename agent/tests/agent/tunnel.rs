//! Tunnels with a stand-in for cloudflared as a real child process.
//!
//! Where `CLOUDFLARED_BIN` names a real one, what does not need it to fail is done with that, over the Internet.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use runit_agent::tunnel::{OpenTunnel, Opener, TunnelError};
use runit_config::{Tunnel, TunnelKind};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::cloudflared::{Cloudflared, is_alive};
use crate::support::eventually;

const SOON: Duration = Duration::from_secs(20);

async fn opener(cloudflared: &Cloudflared) -> Result<Opener, TunnelError> {
    let launcher = PathBuf::from(env!("CARGO_BIN_EXE_runit-agent"));
    Opener::new(&cloudflared.settings(), launcher, cloudflared.home()).await
}

async fn open(cloudflared: &Cloudflared) -> Result<OpenTunnel, TunnelError> {
    let opener = opener(cloudflared).await?;
    opener.open("127.0.0.1:4000".parse().expect("an address")).await
}

async fn gone(pid: i32) {
    eventually(SOON, async || (!is_alive(pid)).then_some(()), || pid).await;
}

#[tokio::test]
async fn a_tunnel_is_open_when_it_is_ready_not_when_its_banner_is_printed() {
    let cloudflared = Cloudflared::install_good();
    let begun = Instant::now();
    let tunnel = open(&cloudflared).await.expect("open");
    let pid = cloudflared.pid().expect("started");
    if !cloudflared.is_real() {
        assert!(begun.elapsed() >= Duration::from_millis(400), "before it was ready");
        assert_eq!(tunnel.url(), format!("https://stand-in-{pid}.trycloudflare.com"));
    }
    assert!(is_alive(pid));
    tunnel.close().await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn the_child_gets_an_empty_home_and_none_of_our_secrets() {
    let cloudflared = Cloudflared::install_good();
    std::fs::create_dir(cloudflared.home()).expect("made");
    std::fs::write(cloudflared.home().join("config.yml"), "tunnel: mine").expect("written");
    let tunnel = open(&cloudflared).await.expect("open");
    let seen = cloudflared.seen().expect("started");
    let environment = seen["environment"].as_object().expect("variables");
    assert_eq!(environment["HOME"], cloudflared.home().display().to_string());
    assert!(std::fs::read_dir(cloudflared.home()).expect("a directory").next().is_none());
    assert!(environment.keys().all(|name| !name.starts_with("CARGO") && !name.starts_with("RUNIT")), "{environment:?}");
    assert!(seen["arguments"].as_array().is_some_and(|all| all.contains(&"--no-autoupdate".into())), "{seen}");
    tunnel.close().await;
}

#[tokio::test]
async fn each_start_has_a_name_of_its_own() {
    let cloudflared = Cloudflared::install_good();
    let first = open(&cloudflared).await.expect("open");
    let second = open(&cloudflared).await.expect("open");
    assert_ne!(first.url(), second.url());
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_tunnel_whose_process_ends_is_lost() {
    let cloudflared = Cloudflared::install("dies");
    let tunnel = open(&cloudflared).await.expect("open");
    tokio::time::timeout(SOON, tunnel.lost()).await.expect("noticed");
    tunnel.close().await;
}

#[tokio::test]
async fn a_tunnel_that_changes_its_name_is_lost_and_closed() {
    let cloudflared = Cloudflared::install("renamed");
    let tunnel = open(&cloudflared).await.expect("open");
    tokio::time::timeout(SOON, tunnel.lost()).await.expect("noticed");
    gone(cloudflared.pid().expect("started")).await;
}

#[tokio::test]
async fn dropping_a_tunnel_ends_its_process() {
    let cloudflared = Cloudflared::install_good();
    drop(open(&cloudflared).await.expect("open"));
    gone(cloudflared.pid().expect("started")).await;
}

#[tokio::test]
async fn giving_up_while_it_opens_ends_the_process() {
    for mode in ["never-ready", "foreign"] {
        let cloudflared = Cloudflared::install(mode);
        let started = async {
            let pid = eventually(SOON, async || cloudflared.pid(), || mode).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            pid
        };
        let pid = tokio::select! {
            pid = started => pid,
            _ = open(&cloudflared) => panic!("{mode} must not be taken for open"),
        };
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_process_that_does_not_end_when_asked_is_killed() {
    let cloudflared = Cloudflared::install("stubborn");
    let tunnel = open(&cloudflared).await.expect("open");
    let pid = cloudflared.pid().expect("started");
    tokio::time::timeout(SOON, tunnel.close()).await.expect("closed");
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_megabyte_without_a_line_does_not_stop_it() {
    open(&Cloudflared::install("noisy")).await.expect("open").close().await;
}

#[tokio::test]
async fn a_usage_error_is_an_error_though_its_status_is_0() {
    let error = open(&Cloudflared::install("usage-error")).await.expect_err("no tunnel");
    let TunnelError::Ended { status, last_lines } = error else { panic!("{error}") };
    assert_eq!(status, "exit status: 0");
    assert!(last_lines.contains("Incorrect Usage"), "{last_lines}");
}

#[tokio::test]
async fn rate_limits_and_missing_networks_are_told_apart() {
    let error = open(&Cloudflared::install("rate-limited")).await.expect_err("no tunnel");
    assert!(error.pause() >= Duration::from_secs(60), "{error}");
    let error = open(&Cloudflared::install("no-network")).await.expect_err("no tunnel");
    assert!(error.pause().is_zero() && error.to_string().contains("lookup failed"), "{error}");
}

#[tokio::test]
async fn versions_that_rewrite_paths_and_programs_without_one_are_refused() {
    let error = opener(&Cloudflared::install("rewrites-paths")).await.expect_err("refused");
    assert!(matches!(&error, TunnelError::Broken(version) if version == "2026.8.1"), "{error}");
    let error = opener(&Cloudflared::install("no-version")).await.expect_err("refused");
    assert!(matches!(error, TunnelError::Unusable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_program_is_answered_with_what_to_do() {
    let settings = Tunnel { cloudflared_bin: "/nonexistent/cloudflared".into(), ..Tunnel::default() };
    let error = Opener::new(&settings, PathBuf::new(), PathBuf::new()).await.expect_err("missing").to_string();
    for hint in ["/nonexistent/cloudflared", "install it", "cloudflared_bin", "kind = \"direct\""] {
        assert!(error.contains(hint), "{hint}: {error}");
    }
}

#[tokio::test]
async fn a_named_tunnel_is_open_when_it_is_ready_and_keeps_its_name() {
    let cloudflared = Cloudflared::install("named");
    let token_file = cloudflared.program().with_file_name("token");
    std::fs::write(&token_file, "the-tunnels-token").expect("written");
    let settings = Tunnel {
        kind: TunnelKind::Named,
        hostname: Some("lab-4.example.org".to_owned()),
        token_file: Some(token_file.clone()),
        ..cloudflared.settings()
    };
    let launcher = PathBuf::from(env!("CARGO_BIN_EXE_runit-agent"));
    let open = async || Opener::new(&settings, launcher.clone(), cloudflared.home()).await;
    let opener = open().await.expect("checked");
    for _ in 0..2 {
        let tunnel = opener.open("127.0.0.1:4000".parse().expect("an address")).await.expect("open");
        assert_eq!(tunnel.url(), "https://lab-4.example.org");
        let seen = cloudflared.seen().expect("started");
        assert!(!seen.to_string().contains("the-tunnels-token"), "whoever lists processes would see it");
        tunnel.close().await;
    }
    std::fs::remove_file(&token_file).expect("removed");
    let error = open().await.expect_err("no token");
    assert!(matches!(&error, TunnelError::NoToken(path, _) if *path == token_file), "{error}");
}

#[tokio::test]
async fn without_a_tunnel_the_gate_itself_is_the_url() {
    let settings = Tunnel { kind: TunnelKind::Direct, ..Tunnel::default() };
    let opener = Opener::new(&settings, PathBuf::new(), PathBuf::new()).await.expect("nothing is needed");
    let tunnel = opener.open("127.0.0.1:4000".parse().expect("an address")).await.expect("open");
    assert_eq!(tunnel.url(), "http://127.0.0.1:4000");
}

#[tokio::test]
async fn a_child_dies_with_a_parent_that_is_killed() {
    let mut parent = tokio::process::Command::new("sh")
        .args(["-c", "\"$0\" exec-bound $$ sleep -- 300 & echo $!; wait"])
        .arg(env!("CARGO_BIN_EXE_runit-agent"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let child: i32 = lines.next_line().await.expect("a line").and_then(|line| line.parse().ok()).expect("a pid");
    let is_sleep = async || {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        (name.trim() == "sleep").then_some(())
    };
    eventually(SOON, is_sleep, || child).await;

    let pid = parent.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("killed");
    gone(child).await;
}
