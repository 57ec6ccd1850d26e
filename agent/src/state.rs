//! What survives a restart of the agent: the session's id and secret, and how long no tunnel may be asked for.
//!
//! One JSON file, mode 0600, replaced as a whole. A lock beside it keeps a second agent away from the same directory.
//! Invariant: an id is written before it is first used, a secret before it is first needed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use runit_core::{Secret, SessionId};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::egress::meter::Usage;

const FILE: &str = "session.json";
const LOCK: &str = "agent.lock";

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory is another agent's.
    #[error("another agent runs with {}: stop it, or give this one its own [agent] state_dir", .0.display())]
    InUse(PathBuf),
    /// The file is not one of ours.
    #[error("{} cannot be understood: remove it to start with a new session", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
    /// Reading or writing failed.
    #[error("cannot keep the agent's state in {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// The session as control knows it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Chosen by the agent, since Jupyter is started under it.
    pub session: SessionId,
    /// Given by control at the first registration.
    pub secret: Option<Secret>,
}

/// The open state file. The directory is ours as long as it lives.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    content: Content,
    _lock: File,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    /// Whose secret it is: it is shown to no other control.
    control_url: String,
    session_id: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_secret: Option<Bare>,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_tunnel_before: Option<u64>,
    /// What the session's containers moved by themselves.
    #[serde(default)]
    egress: Usage,
}

/// A secret on its way to or from the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Bare(String);

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl StateFile {
    /// Opens the state in `directory`, which is created if it is missing. `new_session` is used if there is none yet, or
    /// if it was registered at another control.
    ///
    /// # Errors
    /// Another agent has the directory, or it cannot be read or written.
    pub fn open(directory: &Path, control_url: &str, new_session: SessionId) -> Result<Self, StateError> {
        let io_error = |error| StateError::Io(directory.to_owned(), error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error)?;
        // One directory has one name, however it was spelt.
        let directory = directory.canonicalize().map_err(io_error)?;
        let lock = lock(&directory)?;
        let path = directory.join(FILE);
        let found = match std::fs::read(&path) {
            Ok(bytes) => {
                let content: Content =
                    serde_json::from_slice(&bytes).map_err(|error| StateError::Malformed(path, error))?;
                Some(content)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StateError::Io(directory, error)),
        };
        let tunnel_pause = found.as_ref().and_then(|content| content.no_tunnel_before);
        let content = found.filter(|content| content.control_url == control_url).unwrap_or_else(|| Content {
            control_url: control_url.to_owned(),
            session_id: new_session,
            provider_secret: None,
            no_tunnel_before: tunnel_pause,
            egress: Usage::default(),
        });
        let mut state = Self { directory, content: content.clone(), _lock: lock };
        state.write(content)?;
        Ok(state)
    }

    /// The directory's one name.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The session.
    pub fn identity(&self) -> Identity {
        let secret = self.content.provider_secret.as_ref().map(|Bare(text)| Secret::new(text.clone()));
        Identity { session: self.content.session_id, secret }
    }

    /// Keeps another identity.
    ///
    /// # Errors
    /// It cannot be written; then the former one stays.
    pub fn set_identity(&mut self, identity: &Identity) -> Result<(), StateError> {
        let secret = identity.secret.as_ref().map(|secret| Bare(secret.expose().to_owned()));
        let egress =
            if identity.session == self.content.session_id { self.content.egress.clone() } else { Usage::default() };
        self.write(Content { session_id: identity.session, provider_secret: secret, egress, ..self.content.clone() })
    }

    /// What the session's containers moved by themselves; kept with the next write.
    pub fn egress_mut(&mut self) -> &mut Usage {
        &mut self.content.egress
    }

    /// Keeps what was changed without being written.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&mut self) -> Result<(), StateError> {
        self.write(self.content.clone())
    }

    /// Until when, in Unix seconds, no tunnel may be asked for.
    pub fn no_tunnel_before(&self) -> Option<u64> {
        self.content.no_tunnel_before
    }

    /// Keeps until when, in Unix seconds, no tunnel may be asked for.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_no_tunnel_before(&mut self, unix_secs: Option<u64>) -> Result<(), StateError> {
        if self.content.no_tunnel_before == unix_secs {
            return Ok(());
        }
        self.write(Content { no_tunnel_before: unix_secs, ..self.content.clone() })
    }

    /// Whole or not at all: a temporary file (made with mode 0600), flushed, takes the old one's place.
    fn write(&mut self, content: Content) -> Result<(), StateError> {
        let replace = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(&serde_json::to_vec(&content)?)?;
            file.as_file().sync_all()?;
            file.persist(self.directory.join(FILE))?;
            File::open(&self.directory)?.sync_all()
        };
        replace().map_err(|error| StateError::Io(self.directory.clone(), error))?;
        self.content = content;
        Ok(())
    }
}

/// The process id of the agent that has the directory; none where no agent runs with it.
///
/// # Errors
/// The lock cannot be looked at.
pub fn holder(directory: &Path) -> io::Result<Option<Pid>> {
    let mut file = match File::open(directory.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let pid = text.trim().parse().ok().and_then(Pid::from_raw);
            pid.map(Some).ok_or_else(|| io::Error::other("the agent has not written its process id yet"))
        }
    }
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let io_error = |error| StateError::Io(directory.to_owned(), error);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK));
    let mut file = file.map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(io_error)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(StateError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(StateError::Io(directory.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use uuid::Uuid;

    const CONTROL: &str = "http://127.0.0.1:10000/";

    fn id(n: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(n))
    }

    fn open(directory: &Path, control: &str, n: u128) -> StateFile {
        StateFile::open(directory, control, id(n)).expect("opens")
    }

    #[test]
    fn id_and_secret_survive_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = open(directory.path(), CONTROL, 1);
        assert!(state.identity().secret.is_none());
        let identity = Identity { session: id(1), secret: Some(Secret::new("s")) };
        state.set_identity(&identity).expect("written");
        drop(state);
        let found = open(directory.path(), CONTROL, 2).identity();
        assert_eq!(found.session, id(1));
        assert_eq!(found.secret.expect("a secret").expose(), "s");
    }

    #[test]
    fn an_id_that_was_never_registered_survives_too() {
        let directory = tempfile::tempdir().expect("a directory");
        drop(open(directory.path(), CONTROL, 1));
        assert_eq!(open(directory.path(), CONTROL, 2).identity().session, id(1));
    }

    #[test]
    fn another_control_gets_another_session_and_not_the_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = open(directory.path(), CONTROL, 1);
        state.set_identity(&Identity { session: id(1), secret: Some(Secret::new("s")) }).expect("written");
        state.set_no_tunnel_before(Some(7)).expect("written");
        drop(state);
        let state = open(directory.path(), "http://127.0.0.1:10001/", 2);
        assert_eq!(state.identity().session, id(2));
        assert!(state.identity().secret.is_none());
        assert_eq!(state.no_tunnel_before(), Some(7));
    }

    #[test]
    fn only_the_owner_can_read_it_and_nothing_else_is_left_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = open(directory.path(), CONTROL, 1);
        let mode = std::fs::metadata(state.directory().join(FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, [LOCK, FILE]);
    }

    #[test]
    fn a_second_agent_is_kept_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = open(directory.path(), CONTROL, 1);
        let second = StateFile::open(directory.path(), CONTROL, id(2)).expect_err("locked");
        assert!(matches!(second, StateError::InUse(_)), "{second}");
    }

    #[test]
    fn who_has_the_directory_is_known_as_long_as_he_has_it() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(holder(directory.path()).expect("looked"), None);
        let state = open(directory.path(), CONTROL, 1);
        let holder_pid = holder(directory.path()).expect("looked").expect("held");
        assert_eq!(holder_pid.as_raw_nonzero().get(), i32::try_from(std::process::id()).expect("a pid"));
        drop(state);
        assert_eq!(holder(directory.path()).expect("looked"), None);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_left_alone_and_named() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), "{").expect("written");
        let error = StateFile::open(directory.path(), CONTROL, id(1)).expect_err("malformed");
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(std::fs::read(directory.path().join(FILE)).expect("still there"), b"{");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = open(directory.path(), CONTROL, 1);
        state.set_identity(&Identity { session: id(1), secret: Some(Secret::new("hunter2")) }).expect("written");
        assert!(!format!("{state:?}").contains("hunter2"));
    }
}
