//! `gateway.cores`: the proxy's threads keep to them, all others keep off them.

mod support;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};
use support::process::Installation;
use support::{TestUpstream, bearer};

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_has_its_cores_to_itself() {
    let usable = cores_of(None);
    let (own, rest) = usable.split_first().expect("a core");
    let others = if rest.is_empty() { &usable } else { rest };
    let house = Installation::with(&format!("cores = [{own}]\n"), "");
    let upstream = TestUpstream::start().await;
    let process = house.start().await;
    let rented = house.rent(upstream.address).await;
    let mut renter = house.connect().await;
    let get =
        format!("GET /s/{}/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{}\r\n", rented.id, bearer(&rented.token));
    renter.send(&get).await;
    assert_eq!(renter.answer().await.status, 200);

    let threads = threads(process.id());

    let workers: Vec<_> = threads.iter().filter(|thread| thread.name == "gateway").collect();
    assert_eq!(workers.len(), 1, "one for each of the proxy's cores: {threads:?}");
    assert_eq!(workers[0].cores, [*own]);
    let control = ["tokio-rt-worker", "runit-store-wri"];
    for name in control {
        assert!(threads.iter().any(|thread| thread.name == name), "no {name}: {threads:?}");
    }
    for thread in threads.iter().filter(|thread| control.contains(&thread.name.as_str())) {
        assert_eq!(thread.cores, others, "{thread:?}");
    }
}

#[derive(Debug)]
struct Thread {
    name: String,
    cores: Vec<usize>,
}

/// Those of a process.
fn threads(process: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    tasks
        .map(|task| {
            let task = task.expect("a thread").path();
            let id = task.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
            let name = std::fs::read_to_string(task.join("comm")).expect("it runs").trim().to_owned();
            Thread { name, cores: cores_of(Some(id.expect("an id"))) }
        })
        .collect()
}

/// The cores that a thread may use; None is this one.
fn cores_of(thread: Option<Pid>) -> Vec<usize> {
    let cores = sched_getaffinity(thread).expect("it runs");
    (0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).collect()
}
