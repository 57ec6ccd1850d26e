//! Which file is where in `control.data_dir`.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use runit_config::NodeSettings;

/// The directory of a node's own files.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory that the settings name.
    pub fn of(settings: &NodeSettings) -> Self {
        Self(settings.control.data_dir.clone())
    }

    /// Makes it, for this user only, where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// The embedded store.
    pub fn database(&self) -> PathBuf {
        self.0.join("runit.db")
    }

    /// The key that credentials are sealed with.
    pub fn sealing_key(&self) -> PathBuf {
        self.0.join("credential.key")
    }

    /// The audit trail's newest anchor, unless the settings have another place for it.
    pub fn anchor(&self) -> PathBuf {
        self.0.join("trail.anchor")
    }
}
