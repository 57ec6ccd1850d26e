//! Settings of every RUNIT program: a TOML file, then the environment on top, checked as a whole.
//!
//! Answers for: what may be set, its default, its range, and a complete list of what is wrong. Does not open what
//! the settings point at (certificates, directories): whoever uses them does.
//!
//! Invariants: a value that is returned has passed every check; an unknown key is a problem, never ignored; no
//! message and no `Debug` shows a [`Secret`].
//!
//! A variable `RUNIT_<SECTION>__<KEY>` stands for `key` in `[section]` and wins over the file. Its value is read as
//! TOML where the key takes it (`8`, `true`, `["a"]`, `{ requests = 10, seconds = 60 }`), else as plain text.

mod agent;
mod check;
mod limits;
mod live;
mod node;
mod origins;
mod overlay;
mod problem;
mod secret;
mod store;
mod traces;
mod webhooks;

pub use agent::{
    Agent, AgentSettings, Container, Egress, EgressMode, Gate, Tunnel, TunnelKind, TunnelProtocol, Workspace,
};
pub use limits::{Limits, Rate};
pub use live::{LiveSettings, RELOADABLE, Reload};
pub use node::{Control, Gateway, Limit, Lock, Log, LogFormat, NodeSettings, Quota, Registration, Tls, Upstream};
pub use problem::{Problem, Problems, Source};
pub use runit_core::{LockMode, Secret};
pub use store::Store;
pub use traces::Traces;
pub use webhooks::{WebhookTarget, Webhooks};

use std::ffi::OsString;
use std::path::Path;

use check::Checks;
use overlay::{Overlay, SettingsFile};

/// Settings of a node, from `file` (none: defaults) and this process's environment.
///
/// # Errors
/// Everything that is wrong, at once: see [`Problems`].
pub fn load_node(file: Option<&Path>) -> Result<NodeSettings, Problems> {
    let text = file.map(read).transpose()?;
    parse_node(file.zip(text.as_deref()), std::env::vars_os())
}

/// Settings of an agent, from `file` (none: defaults) and this process's environment.
///
/// # Errors
/// Everything that is wrong, at once: see [`Problems`].
pub fn load_agent(file: Option<&Path>) -> Result<AgentSettings, Problems> {
    let text = file.map(read).transpose()?;
    parse_agent(file.zip(text.as_deref()), std::env::vars_os())
}

/// [`load_node`] without the outside world: `file` is a name for messages and the text, `environment` any variables.
///
/// # Errors
/// Everything that is wrong, at once: see [`Problems`].
pub fn parse_node<K, V>(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<NodeSettings, Problems>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    parse(file, environment, &AgentSettings::SECTIONS, NodeSettings::check)
}

/// [`load_agent`] without the outside world: `file` is a name for messages and the text, `environment` any variables.
///
/// # Errors
/// Everything that is wrong, at once: see [`Problems`].
pub fn parse_agent<K, V>(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<AgentSettings, Problems>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    parse(file, environment, &NodeSettings::SECTIONS, AgentSettings::check)
}

/// `neighbours` are the sections of the programs that may share this environment: their variables are not ours.
fn parse<T, K, V>(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (K, V)>,
    neighbours: &[&str],
    check: fn(&T, &mut Checks<'_>),
) -> Result<T, Problems>
where
    T: Default + serde::Serialize + serde::de::DeserializeOwned,
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut overlay = Overlay::<T>::new();
    if let Some((name, text)) = file {
        overlay.add_file(&SettingsFile::new(name, text));
    }
    for (name, value) in environment {
        overlay.add_variable(&name.into(), &value.into(), neighbours);
    }
    overlay.finish(check)
}

fn read(file: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(file).map_err(|error| {
        Problem {
            key: String::new(),
            source: Source::File { path: file.to_owned(), line: None },
            message: error.to_string(),
        }
        .into()
    })
}
