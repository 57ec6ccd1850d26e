//! A session's box at its limits, and what of a renter is left when he is gone: with the machine's engine and the real
//! image, asked from inside as the notebook's user and from the machine.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use crate::support::agent::{Control, Home, Mood};
use crate::support::eventually;
use crate::support::world::run;

const DIRECT: &str = "kind = \"direct\"";
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_fork_bomb_and_a_greedy_allocation_stay_in_the_box_and_are_told_of() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let mut agent = home.start();
    control.nth("POST", 1).await;
    let server = home.shell("cat /proc/1/stat").await;

    let bomb = "for i in $(seq 150); do sleep 60 & done; wait %1";
    let bombed =
        home.shell(&format!("timeout 20 bash -c '{bomb}' 2>&1 | grep -c 'Resource temporarily unavailable'")).await;
    assert_ne!(bombed, "0", "the 101st process was not refused");
    // They may be gone by now, and the next beat say so.
    let processes_told = |beat: serde_json::Value| beat["report"]["processes"].as_u64().filter(|n| *n > 90);
    let told = async || control.beats().into_iter().find_map(processes_told);
    let processes = eventually(PATIENCE, told, || control.beats().last().cloned()).await;
    assert!(processes <= 100, "{processes}");
    home.shell("kill $(pgrep -x sleep); true").await;

    // Each page is touched, so that it is really needed.
    let greedy = home.shell("python3 -c 'b = b\"x\" * (5 << 30)'; echo ended with $?").await;
    assert!(greedy.lines().any(|line| line == "ended with 137"), "{greedy}");
    agent.says("[docker] a process was killed: the container's memory is used up", 1).await;
    let told = async || control.beats().into_iter().find(|beat| beat["report"]["killedForMemory"] == 1);
    eventually(PATIENCE, told, || control.beats().last().cloned()).await;

    assert_eq!(home.shell("cat /proc/1/stat | cut -d' ' -f22").await, server.split(' ').nth(21).expect("a start time"));
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.ends().await.code(), Some(0));
    assert_eq!(control.calls("POST").len(), 1, "the session went on");
}

/// Everything of a process that this machine sees: no process of a renter's survives in any namespace.
fn processes_with(marker: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok());
    let marked = all.filter(|entry| {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let text = [read("environ"), read("cmdline")].concat();
        text.windows(marker.len()).any(|window| window == marker.as_bytes())
    });
    marked.map(|entry| entry.path().display().to_string()).collect()
}

#[tokio::test]
async fn recycling_leaves_no_file_process_or_variable_of_the_last_renter() {
    let marker = format!("renters-mark-{}", std::process::id());
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let _agent = home.start();
    control.nth("POST", 1).await;
    let volume_of = async || home.inspect().await.mounts.unwrap_or_default().into_iter().find_map(|mount| mount.name);
    let volume = volume_of().await.expect("a volume");
    let mark = format!(
        "touch /workspace/{marker} /tmp/{marker} /dev/shm/{marker}
         mkdir -p /workspace/.runit/tmp && touch /workspace/.runit/tmp/{marker}
         echo export MARK={marker} >> /workspace/.bashrc
         MARK={marker} setsid nohup sleep 600 >/dev/null 2>&1 &"
    );
    home.shell(&mark).await;
    eventually(PATIENCE, async || (!processes_with(&marker).is_empty()).then_some(()), || "no marked process").await;

    control.set(Mood::Recycling);
    control.nth("PUT", 1).await;
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    let left = home.shell(&format!("grep -rl {marker} /workspace /tmp /dev/shm 2>/dev/null; find / -xdev -name '*{marker}*' 2>/dev/null; env | grep {marker}")).await;
    assert_eq!(left, "");
    assert_ne!(volume_of().await.expect("a volume"), volume);
    let volumes = run("docker", &["volume", "ls", "--quiet"]);
    assert!(!volumes.lines().any(|name| name == volume), "the volume is still there");
}

#[tokio::test]
async fn a_package_is_installed_where_the_provider_excepts_the_index_and_nowhere_else() {
    let addresses = ["pypi.org", "files.pythonhosted.org"].map(|host| {
        let mut found = (host, 443).to_socket_addrs().expect("a name server");
        found.find(|address| address.is_ipv4()).expect("an address").ip()
    });
    let is_private = |address: &IpAddr| !runit_core::upstream::is_public(*address);
    let needed: Vec<String> = addresses.iter().filter(|one| is_private(one)).map(|one| format!("{one}/32")).collect();
    for exceptions in [Vec::new(), needed.clone()] {
        let control = Control::start().await;
        let home = Home::new(&control, &format!("{DIRECT}\n[egress]\nexceptions = {exceptions:?}")).await;
        let _agent = home.start();
        control.nth("POST", 1).await;
        let bundle = std::env::var("SSL_CERT_FILE").unwrap_or("/etc/ssl/certs/ca-certificates.crt".to_owned());
        let copy = "docker exec -i \"$1\" sh -c 'cat > /tmp/roots.pem' < \"$2\"";
        run("sh", &["-c", copy, "sh", &home.container, &bundle]);
        // An index may be slow; one that cannot be reached need not be tried again.
        let retries = if exceptions == needed { 5 } else { 0 };
        let install = format!(
            "export PIP_CERT=/tmp/roots.pem; \
             timeout 180 pip install --quiet --no-deps --retries {retries} --timeout 20 cowsay==6.1 2>&1 | tail -n 1; \
             python -c 'import cowsay; print(cowsay.__file__)' 2>&1 | tail -n 1"
        );
        let said = home.shell(&install).await;
        let installed = said.ends_with("/cowsay/__init__.py");
        assert_eq!(installed, exceptions == needed, "{exceptions:?}: {said}");
    }
}

#[tokio::test]
async fn git_a_plot_and_a_terminal_work_under_the_limits() {
    let control = Control::start().await;
    let home = Home::new(&control, DIRECT).await;
    let _agent = home.start();
    let registered = control.nth("POST", 1).await;
    let repository = "cd /workspace && git init -q work && cd work && git config user.email a@b && git config user.name a && \
                      touch x && git add x && git commit -qm one && git log --oneline | wc -l";
    assert_eq!(home.shell(repository).await, "1");
    let plot = "cd /workspace && python -c \"import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as p; \
                p.plot([1, 2]); p.savefig('plot.png')\" && head -c 4 plot.png | tail -c 3";
    assert_eq!(home.shell(plot).await, "PNG");
    let text = |key: &str| registered.body[key].as_str().expect("text").to_owned();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let call = client.post(format!("{}{}api/terminals", text("publicUrl"), text("basePath")));
    let answer = call.header("Authorization", format!("token {}", text("token"))).send().await.expect("an answer");
    assert_eq!(answer.status(), reqwest::StatusCode::OK);
}
