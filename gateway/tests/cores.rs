//! `gateway.cores`: the proxy's threads keep to them, all others keep off them.

mod support;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};
use support::process::Installation;
use support::{TestUpstream, bearer};

/// Of the proxy, by their names: its workers, and Pingora's own.
const PROXYS: [&str; 3] = ["gateway", "Server", "Timer thread"];

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_has_its_cores_to_itself() {
    let usable = cores_of(None).expect("this thread runs");
    let [own, others @ ..] = &usable[..] else { panic!("a core") };
    assert!(!others.is_empty(), "two cores are needed");
    // Nobody listens there; what sends spans has threads, too.
    let house = Installation::with(&format!("cores = [{own}]\n"), "[traces]\notlp_url = \"http://127.0.0.1:9\"\n");
    let upstream = TestUpstream::start().await;
    let process = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut renter = house.connect().await;
    let get =
        format!("GET /s/{}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n", rented.id, bearer(&rented.token));
    renter.send(&get).await;
    assert_eq!(renter.answer().await.status, 200);

    let threads = threads(process.id());

    let workers = threads.iter().filter(|thread| thread.name == "gateway").count();
    assert_eq!(workers, 1, "one for each of the proxy's cores: {threads:?}");
    for name in ["tokio-rt-worker", "runit-store-wri", "OpenTelemetry.T"] {
        assert!(threads.iter().any(|thread| thread.name == name), "no {name}: {threads:?}");
    }
    let on_own = threads.iter().filter(|thread| thread.cores == [*own]);
    // The one that runs the server has no name of its own, and so the program's.
    let unknown: Vec<_> =
        on_own.filter(|thread| !PROXYS.contains(&&*thread.name)).map(|thread| &*thread.name).collect();
    assert_eq!(unknown, ["runit-gateway"], "{threads:?}");
    for thread in threads.iter().filter(|thread| thread.cores != [*own]) {
        assert!(thread.cores == others && !PROXYS.contains(&&*thread.name), "{thread:?}");
    }
}

#[derive(Debug)]
struct Thread {
    name: String,
    cores: Vec<usize>,
}

/// Those of a process; one that has just ended is none.
fn threads(process: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let thread = |task: std::fs::DirEntry| {
        let id = task.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
        Some(Thread { name, cores: cores_of(id).ok()? })
    };
    tasks.filter_map(|task| thread(task.expect("a thread"))).collect()
}

/// The cores that a thread may use; None is this one.
fn cores_of(thread: Option<Pid>) -> Result<Vec<usize>, Errno> {
    let cores = sched_getaffinity(thread)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).collect())
}
