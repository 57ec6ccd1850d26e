//! Which process serves a data directory: a file with its id, for a successor to find it.

use std::fs::{self, File};
use std::io;
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
        let claimed = self.alone().and_then(|_alone| {
            let temporary = self.0.with_extension("pid.new");
            fs::write(&temporary, format!("{}\n", std::process::id()))?;
            fs::rename(&temporary, &self.0)
        });
        claimed.with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// This process serves no more. A file that is another's by now stays.
    pub(crate) fn release(&self) {
        let released = self.alone().and_then(|_alone| match fs::read_to_string(&self.0) {
            Ok(text) if text.trim() == std::process::id().to_string() => fs::remove_file(&self.0),
            _ => Ok(()),
        });
        if let Err(error) = released {
            tracing::warn!(%error, "the process file cannot be removed");
        }
    }

    /// While the directory is held, no other process looks at the file in order to change it.
    fn alone(&self) -> io::Result<File> {
        let directory = File::open(self.0.parent().unwrap_or(&self.0))?;
        directory.lock()?;
        Ok(directory)
    }
}

/// A process id may have gone to somebody else since.
fn is_gateway(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid())).is_ok_and(|name| name.trim() == "runit-gateway")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_gives_back_its_own_file_and_no_other() {
        let data = tempfile::tempdir().expect("a directory");
        let file = ProcessFile::beside(data.path());
        file.claim().expect("claimed");
        file.release();
        assert!(!file.0.exists());
        file.release();

        file.claim().expect("claimed");
        // A successor is in the middle of its claim.
        let claiming = file.alone().expect("nobody else is there");
        std::thread::scope(|scope| {
            let releasing = scope.spawn(|| file.release());
            fs::write(&file.0, "1\n").expect("written");
            drop(claiming);
            releasing.join().expect("no panic");
        });
        assert_eq!(fs::read_to_string(&file.0).expect("still there"), "1\n");
    }
}
