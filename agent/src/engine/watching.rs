//! A container from outside: what it uses, what happens to it, and what it writes. The last is the renter's, and never
//! shown as it was written.

use std::time::Duration;

use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder, StatsOptionsBuilder};
use futures::{Stream, StreamExt};
use runit_core::Secret;

use super::error::{is_missing, refused};
use super::{Engine, EngineError};
use crate::console::{Line, say};

/// Lines of a container's output that are read at most while looking for the one that names its user.
const FIRST_LINES: usize = 50;
/// How much of a container's output is told when it ended while it should have started.
const LAST_LINES: &str = "20";

/// What the engine counted of a running container since its start, and what it uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processor time.
    pub processor: Duration,
    /// Bytes in and out on all of its interfaces but its own loopback.
    pub network_bytes: u64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// What the engine tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A container of ours ended.
    Ended,
    /// A process in it was killed, since its memory was used up.
    OutOfMemory,
}

impl Engine {
    /// What the container used so far.
    ///
    /// # Errors
    /// The engine does not answer, or says nothing.
    pub async fn counted(&self) -> Result<Counted, EngineError> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let stats = self.docker.stats(self.instance.container(), Some(options)).boxed().next().await;
        let stats = stats.ok_or(EngineError::NoContainer)?.map_err(refused("tell what the container uses"))?;
        let networks = stats.networks.unwrap_or_default();
        let nanoseconds = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
        Ok(Counted {
            processor: Duration::from_nanos(nanoseconds.unwrap_or(0)),
            network_bytes: networks.values().fold(0, |sum: u64, network| {
                sum.saturating_add(network.rx_bytes.unwrap_or(0)).saturating_add(network.tx_bytes.unwrap_or(0))
            }),
            memory_bytes: stats.memory_stats.and_then(|memory| memory.usage).unwrap_or(0),
            processes: stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
        })
    }

    /// What happens to our containers, until the engine stops telling.
    pub fn happenings(&self) -> impl Stream<Item = Happening> + '_ {
        let mut filters = self.ours();
        filters.insert("event".to_owned(), vec!["die".to_owned(), "oom".to_owned()]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        self.docker.events(Some(options)).filter_map(|event| async {
            match event.ok()?.action.as_deref() {
                Some("die") => Some(Happening::Ended),
                Some("oom") => Some(Happening::OutOfMemory),
                _ => None,
            }
        })
    }

    /// The container's last output, for a message. `secret` is taken out of it.
    pub async fn last_output(&self, secret: &Secret) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LAST_LINES).build();
        let chunks = self.docker.logs(self.instance.container(), Some(options));
        let text: Vec<String> = chunks.filter_map(|chunk| async { chunk.ok().map(|c| c.to_string()) }).collect().await;
        plain(&text.concat().replace(secret.expose(), "<redacted>"))
    }

    /// The container's output: its last `tail` lines, and with `follow` whatever comes, until it ends. Not as it was
    /// written: it is the renter's, and must not drive a terminal.
    ///
    /// # Errors
    /// The engine does not answer, or there is no container.
    pub fn output(&self, tail: u32, follow: bool) -> impl Stream<Item = Result<String, EngineError>> + '_ {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&tail.to_string()).follow(follow);
        let chunks = self.docker.logs(self.instance.container(), Some(options.build()));
        chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(plain(&chunk.to_string())),
            Err(error) if is_missing(&error) => Err(EngineError::NoContainer),
            Err(error) => Err(EngineError::Refused("show the container's output", error)),
        })
    }

    /// Relays the line by which the image names its user. Only that line, only at the start, and only plain letters:
    /// later the output is the renter's to write.
    pub(super) async fn say_who_runs(&self) {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        let lines = self.docker.logs(self.instance.container(), Some(options));
        let found = lines.take(FIRST_LINES).filter_map(|line| async {
            let line = line.ok()?.to_string();
            running_as(&line).map(str::to_owned)
        });
        let mut found = std::pin::pin!(found);
        match tokio::time::timeout(Duration::from_secs(10), found.next()).await {
            Ok(Some(user)) => say(Line::RunningAs { user: &user }),
            Ok(None) | Err(_) => tracing::warn!("the container did not say which user it runs as"),
        }
    }
}

/// The user in `Running as: <user>`, if it is a plain name.
fn running_as(line: &str) -> Option<&str> {
    let user = line.trim_end().strip_prefix("Running as: ")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!user.is_empty() && user.len() <= 32 && user.chars().all(is_plain)).then_some(user)
}

/// Text without control characters but line ends.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_user_name_is_relayed() {
        assert_eq!(running_as("Running as: jupyteruser\n"), Some("jupyteruser"));
        for line in ["Running as: \u{1b}[2J", "Running as: a b", "Running as: ", "x Running as: a", ""] {
            assert_eq!(running_as(line), None, "{line:?}");
        }
    }
}
