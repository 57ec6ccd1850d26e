//! Which process serves a data directory: a file with its id, for a successor to find it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The file `gateway.pid` in the data directory.
pub(crate) struct ProcessFile(PathBuf);

impl ProcessFile {
    pub(crate) fn beside(data_dir: &Path) -> Self {
        Self(data_dir.join("gateway.pid"))
    }

    /// Tells the process that serves now to pass its sockets on.
    pub(crate) fn retire_predecessor(&self) -> Result<()> {
        let text =
            fs::read_to_string(&self.0).with_context(|| format!("nothing to take over: {}", self.0.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).context("the process file holds no process id")?;
        if !is_gateway(pid) {
            bail!("nothing to take over: process {} is gone", text.trim());
        }
        kill_process(pid, Signal::QUIT).context("the running gateway cannot be told to pass its sockets on")
    }

    /// This process serves from here on.
    pub(crate) fn claim(&self) -> Result<()> {
        let temporary = self.0.with_extension("pid.new");
        fs::write(&temporary, format!("{}\n", std::process::id()))
            .and_then(|()| fs::rename(&temporary, &self.0))
            .with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// This process serves no more. Not to be called when a successor may be claiming the file just now.
    pub(crate) fn release(&self) {
        let ours = fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if let Err(error) = if ours { fs::remove_file(&self.0) } else { Ok(()) }
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "the process file cannot be removed");
        }
    }
}

/// A process id may have gone to somebody else since.
fn is_gateway(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid())).is_ok_and(|name| name.trim() == "runit-gateway")
}
