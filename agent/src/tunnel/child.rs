//! A child process that cannot outlive the agent, and the last lines of its output.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The hidden command by which the agent's own program becomes the child: see [`exec_bound`].
pub const EXEC_BOUND: &str = "exec-bound";

/// How long a child may take to end when asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(4);
const LAST_WORDS: Duration = Duration::from_secs(1);
const LAST_LINES: usize = 20;
const LINE_BYTES: usize = 1 << 10;

/// Becomes `program`, as a process that the kernel kills when its parent dies: what a supervisor that is killed itself
/// could not do. `parent` is the process that asked for it; if that is gone already, nothing is started.
///
/// # Errors
/// Returns only if the program could not be started.
pub fn exec_bound(parent: u32, program: &OsString, arguments: &[OsString]) -> io::Result<Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The right to set rules, where the agent has it as a service, is not the child's.
    rustix::thread::clear_ambient_capability_set()?;
    let parent_now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent_now != i32::try_from(parent).ok() {
        return Err(io::Error::other("the parent is gone"));
    }
    Err(std::process::Command::new(program).args(arguments).exec())
}

/// A running child.
#[derive(Debug)]
pub(super) struct BoundChild {
    child: Child,
    output: Output,
    follower: Option<JoinHandle<()>>,
}

/// The last lines that a child wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Output(Arc<Mutex<VecDeque<String>>>);

impl BoundChild {
    /// Starts `program` through `launcher`, with nothing of our environment but `environment`. The kernel binds the
    /// child to the thread that starts it, so this wants a thread that lives as long as the runtime: a worker.
    pub(super) fn start(
        launcher: &Path,
        program: &Path,
        arguments: Vec<OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let mut child = Command::new(launcher)
            .arg(EXEC_BOUND)
            .arg(std::process::id().to_string())
            .arg(program)
            .arg("--")
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Not in the terminal's group: Ctrl-C is for the agent, which takes the session back first.
            .process_group(0)
            .spawn()?;
        let output = Output::default();
        let follower = child.stderr.take().map(|stderr| tokio::spawn(follow(stderr, output.clone())));
        Ok(Self { child, output, follower })
    }

    /// Ends when the child has, and its last words were read; cancel-safe.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        if let Some(follower) = &mut self.follower {
            // A grandchild may hold the pipe open.
            let _ = tokio::time::timeout(LAST_WORDS, follower).await;
            self.follower = None;
        }
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Asks the child to end, waits, and kills it if it does not.
    pub(super) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "the child could not be asked to end");
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::warn!(%error, "the child could not be killed");
        }
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }
}

impl Output {
    /// The last lines, as one text.
    pub(super) fn last_lines(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| is_it(line))
    }

    fn push(&self, bytes: &[u8]) {
        let line = String::from_utf8_lossy(bytes).trim_end().escape_debug().to_string();
        tracing::debug!(line, "cloudflared");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Reads until the end, so that the child never waits for us. A line that is too long is cut into several.
async fn follow(mut from: impl AsyncRead + Unpin, output: Output) {
    let mut line = Vec::with_capacity(LINE_BYTES);
    let mut buffer = [0; LINE_BYTES];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        for &byte in &buffer[..count] {
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() == LINE_BYTES {
                output.push(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        output.push(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_without_lines_is_kept_in_bounds() {
        let noise = vec![b'x'; 1 << 20];
        let output = Output::default();
        follow(&noise[..], output.clone()).await;
        assert!(output.last_lines().len() <= LAST_LINES * (LINE_BYTES + 1));
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_control_characters_shown() {
        let text: String = (0..100).map(|n| format!("line {n}\u{1b}[0m\n")).collect();
        let output = Output::default();
        follow(text.as_bytes(), output.clone()).await;
        assert!(output.last_lines().starts_with("line 80\\u{1b}[0m\nline 81"));
        assert!(output.any(|line| line.starts_with("line 99")));
        assert!(!output.any(|line| line.starts_with("line 79")));
    }
}
