//! How a node is asked and its answer shown: once, again and again, or as a stream.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::Value;
use url::Url;

use super::client::{Client, Failure};
use super::table::{self, EVENTS};

const NODE: &str = "Which node, and who asks";

/// Whom to ask, and how to show the answer.
#[derive(Args)]
pub(crate) struct Asked {
    /// JSON for programs, as the admin API answers it.
    #[arg(long)]
    json: bool,
    /// The node's admin listener.
    #[arg(long, value_name = "URL", env = "RUNIT_ADMIN_URL", default_value = "http://127.0.0.1:9180",
        help_heading = NODE)]
    url: Url,
    /// A file with the operator's key; without it the key is in the environment, as RUNIT_OPERATOR_KEY.
    #[arg(long, value_name = "FILE", help_heading = NODE)]
    key_file: Option<PathBuf>,
}

/// The same for what can be looked at again and again.
#[derive(Args)]
pub(crate) struct Watched {
    /// Show it anew every so many seconds (2, if not said), until interrupted; with --json a line each time.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    #[command(flatten)]
    asked: Asked,
}

/// How an answer is shown to people.
type Shown = fn(&Value) -> String;

/// The parameters that were given.
#[derive(Clone, Default)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(super) fn add(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(super) fn pairs(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

impl Watched {
    /// Shows what is there, and with `--watch` again and again what has become of it.
    pub(super) fn show(&self, path: &str, query: &Query, shown: Shown) -> ExitCode {
        let asked = &self.asked;
        asked.ask(async |client| {
            let mut answer = client.call(Method::GET, path, query, None).await?;
            let Some(seconds) = self.watch else { return asked.say(&answer, shown) };
            loop {
                let text = if asked.json { format!("{answer}\n") } else { format!("{}{}", clear(), shown(&answer)) };
                write(&text)?;
                answer = loop {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    match client.call(Method::GET, path, query, None).await {
                        Ok(answer) => break answer,
                        // The node restarts, perhaps: what is shown is old, and said to be.
                        Err(failure) if failure.may_pass() => complain(&failure),
                        Err(failure) => return Err(failure),
                    }
                };
            }
        })
    }
}

impl Asked {
    /// Shows what is there, once.
    pub(super) fn show(&self, path: &str, query: &Query, shown: Shown) -> ExitCode {
        self.ask(async |client| self.say(&client.call(Method::GET, path, query, None).await?, shown))
    }

    /// Changes something, and says what became of it.
    pub(super) fn send(&self, method: Method, path: &str, body: Option<Value>, shown: Shown) -> ExitCode {
        self.ask(async |client| self.say(&client.call(method, path, &Query::default(), body).await?, shown))
    }

    /// Shows the newest events of `page`, oldest first, then each later one of `which` as it happens.
    pub(super) fn follow(&self, page: &Query, which: &Query) -> ExitCode {
        let say = |event: &Value| write(&if self.json { format!("{event}\n") } else { table::event_line(event) });
        self.ask(async |client| {
            // Asked first: what happens before the page is read is in the page, and what happens after it is told live.
            let last = events(&client, &Query::default().add("limit", Some(1))).await?;
            let newest = events(&client, page).await?;
            if !self.json {
                write(&EVENTS.heads())?;
            }
            newest.iter().rev().try_for_each(say)?;
            let shown = newest.first().or(last.first()).and_then(|event| event["place"].as_u64()).unwrap_or_default();
            client.follow("/admin/v1/events/live", which, shown, say).await
        })
    }

    fn ask(&self, work: impl AsyncFnOnce(Client) -> Result<(), Failure>) -> ExitCode {
        let asked = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Io)?;
            let client = Client::new(&self.url, self.key_file.as_deref())?;
            runtime.block_on(work(client))
        };
        match asked() {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever read the output has read enough.
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(failure) => {
                complain(&failure);
                failure.code().into()
            }
        }
    }

    fn say(&self, answer: &Value, shown: Shown) -> Result<(), Failure> {
        write(&match (self.json, answer) {
            (true, Value::Null) => String::new(),
            (true, answer) => format!("{answer:#}\n"),
            (false, answer) => shown(answer),
        })
    }
}

/// A page of events, the newest first.
async fn events(client: &Client, page: &Query) -> Result<Vec<Value>, Failure> {
    match client.call(Method::GET, "/admin/v1/events", page, None).await?["events"].take() {
        Value::Array(events) => Ok(events),
        _ => Err(Failure::Malformed),
    }
}

/// Clears a terminal; elsewhere nothing.
fn clear() -> &'static str {
    if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(Failure::Io)
}

fn complain(failure: &Failure) {
    #[expect(clippy::print_stderr, reason = "the command's answer")]
    {
        eprintln!("runit-control: {failure}");
    }
}
