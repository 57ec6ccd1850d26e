//! The machine: which cores are used for what, and how a result says where it came from.

use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The core of the proxy, and those of load generator and upstream.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    /// As the kernel numbers it.
    pub(crate) proxy: usize,
    load: usize,
    /// The same in words.
    pub(crate) text: String,
}

/// Where and when something was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) pinning: String,
    /// Of one minute, before anything was measured.
    pub(crate) load_average: String,
}

impl Cores {
    /// Takes the first core that this process may use for the proxy and the second one for the rest, and moves the
    /// calling thread, with all that it will start, to the second.
    ///
    /// # Errors
    /// With one core only.
    pub(crate) fn pin() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let (proxy, load) = usable.next().zip(usable.next()).context("two cores are needed")?;
        let cores = Self { proxy, load, text: format!("proxy on core {proxy}, load and upstream on core {load}") };
        sched_setaffinity(None, &only(&[load]))?;
        Ok(cores)
    }

    /// Does something, such as starting a process, on the proxy's core, or on both.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub(crate) fn on<T>(&self, cores: Allowed, work: impl FnOnce() -> T) -> Result<T> {
        let allowed = match cores {
            Allowed::ProxyAlone => only(&[self.proxy]),
            Allowed::Both | Allowed::Apart => only(&[self.proxy, self.load]),
        };
        sched_setaffinity(None, &allowed)?;
        let done = work();
        sched_setaffinity(None, &only(&[self.load]))?;
        Ok(done)
    }
}

/// Which cores a process may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// The one that no load is on.
    #[default]
    ProxyAlone,
    /// That one, and the load's.
    Both,
    /// Both, but RUNIT's proxy keeps to the first and the rest of it to the second (`gateway.cores`).
    Apart,
}

fn only(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    set
}

/// As many open files as the system allows; returns how many.
///
/// # Errors
/// When the kernel does not let us.
pub(crate) fn raise_open_files() -> Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

impl Machine {
    /// Describes this one.
    pub(crate) fn describe(cores: &Cores) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            processor: value(&processors, "model name").unwrap_or_default(),
            cores: processors.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            pinning: cores.text.clone(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// The first line that a program prints, on either output, that holds a digit; for `--version`.
pub(crate) fn version(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return "none".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or_default().trim().to_owned()
}
