//! A peer's process: started on its cores, measured through `/proc`, killed when it is dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::{Allowed, Cores};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(5);

/// A running process with its children.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on those cores and waits until `address` takes connections. What it says is kept in `log`.
    ///
    /// # Errors
    /// When it does not start, or ends, or does not listen within 20 s.
    pub(crate) fn start(
        (cores, allowed): (&Cores, Allowed),
        mut command: Command,
        log: &Path,
        address: SocketAddr,
    ) -> Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = cores.on(allowed, || command.spawn())?.with_context(|| format!("cannot start {command:?}"))?;
        let mut process = Self { child };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let ended = process.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{command:?} does not listen on {address} ({ended:?}): {said}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// Processor time of all its threads so far, as the scheduler counts it (nanoseconds, not ticks). What a thread used
    /// that has ended is not in it; the peers here keep their threads.
    pub(crate) fn cpu(&self) -> Duration {
        let nanoseconds = self.tree().into_iter().flat_map(|id| entries(&format!("/proc/{id}/task"))).map(|task| {
            let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let kib = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().to_owned();
            line.split(' ').next()?.parse::<u64>().ok()
        };
        self.tree().into_iter().filter_map(kib).sum::<u64>() * 1024
    }

    /// Itself and its children; nothing here has grandchildren.
    fn tree(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = entries(&format!("/proc/{id}/task")).into_iter().flat_map(|task| {
            let text = std::fs::read_to_string(task.join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        });
        std::iter::once(id).chain(children).collect()
    }
}

fn entries(directory: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first, so that a master takes its workers with it.
        if let Some(id) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that were free a moment ago: all are held at once, so that they differ.
///
/// # Errors
/// When there are none.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(addresses)
}
