//! What an agent costs its provider while nothing happens: memory and processor time of its process, and of the programs
//! that it runs and waits for. Prints the figures; `--nocapture` (cargo test) or `--no-capture` (nextest) shows them.

use std::time::{Duration, Instant};

use crate::support::agent::{Control, Home};

/// Four looks of the agent; other work on the machine makes its own take longer, so that the best window counts.
const WINDOW: Duration = Duration::from_secs(20);
const WINDOWS: usize = 3;
const MEMORY_BYTES: u64 = 30_000_000;
/// Of a core.
const PROCESSOR: f64 = 0.005;

/// Processor time so far, from `/proc/<pid>/stat` (proc(5)): its own and its ended children's.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    // Fields 14 to 17, and the third is the first here.
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
async fn an_idle_session_costs_little_memory_and_processor_time() {
    let control = Control::start().await;
    let home = Home::new(&control, "kind = \"direct\"").await.with_settings("heartbeat_seconds = 1", "");
    let agent = home.start();
    control.nth("POST", 1).await;
    let pid = agent.pid();
    // The start itself is over: connections, TLS, the image's check.
    agent.says("[agent] session registered: ", 1).await;
    let mut cores = f64::INFINITY;
    for _ in 0..WINDOWS {
        let (began, before) = (Instant::now(), processor_time(pid));
        tokio::time::sleep(WINDOW).await;
        cores = cores.min((processor_time(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64());
    }
    let memory = memory_bytes(pid);
    println!("steady: {:.1} MB resident, {:.2} % of a core", memory as f64 / 1e6, cores * 100.0);
    assert!(memory < MEMORY_BYTES, "{memory} bytes");
    assert!(cores < PROCESSOR, "{cores} of a core");
}
