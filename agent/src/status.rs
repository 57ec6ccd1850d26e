//! What a running agent says of itself, for `status`: one file in its state directory, replaced as a whole. Holds no secret.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use runit_core::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "status.json";

/// Where a session stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not registered yet, or not any more.
    Starting,
    /// Listed; the container runs.
    Ready,
    /// Listed; the container starts when somebody comes.
    Asleep,
    /// A renter is there.
    Rented,
    /// The renter is gone, the workspace is being replaced.
    Recycling,
    /// Registered, but nobody could be served.
    Unreachable,
    /// Told to stop.
    Stopping,
}

impl Phase {
    /// Whether a renter is served, or would be.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Asleep | Self::Rented)
    }
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The session, as control knows it.
    pub session_id: SessionId,
    /// Where it stands.
    pub phase: Phase,
    /// Where the gateway reaches it.
    pub url: Option<String>,
    /// See [`crate::Report`].
    pub container: Value,
    /// See [`crate::gate::Counts`].
    pub gate: Value,
}

impl Status {
    /// Puts this in the former one's place. It need not survive a crash of the machine, and is not flushed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(path(directory))?;
        Ok(())
    }

    /// The latest, if there is one.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(directory)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file.
    pub fn clear(directory: &Path) {
        // Who asks looks first whether an agent runs.
        let _ = std::fs::remove_file(path(directory));
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
