//! `[store]`: where the control plane keeps what it knows.

use std::path::PathBuf;

use runit_core::Secret;
use serde::{Deserialize, Serialize};

use crate::check::Checks;
use crate::secret;

/// `[store]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The PostgreSQL that nodes share: `postgres://user:password@host:port/database`. None: SQLite in
    /// `control.data_dir`, for one node.
    #[serde(default, skip_serializing, deserialize_with = "secret::deserialize")]
    pub url: Option<Secret>,
    /// PEM file of the roots that are trusted for the database's certificate. None: the connection is not encrypted.
    pub ca_file: Option<PathBuf>,
}

impl Store {
    pub(crate) fn check(&self, checks: &mut Checks<'_>) {
        let shared = self.url.is_some();
        checks.require("store.ca_file", shared || self.ca_file.is_none(), "is for store.url, which is not set");
    }
}
