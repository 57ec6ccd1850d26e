//! This agent among others on the machine: what its containers, volumes, network and rules are called.
//!
//! Invariant: two agents with different state directories share no name; the same directory gives the same names after
//! any crash, so that what was left is found.

use std::path::Path;

use sha2::{Digest, Sha256};

/// The names of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    label: String,
    stem: String,
    tag: String,
}

impl Instance {
    /// The agent that keeps its state in `directory` (its canonical name). `name` is the container's, where it was set.
    pub fn new(directory: &Path, name: Option<&str>) -> Self {
        let label = directory.display().to_string();
        let tag: String = Sha256::digest(&label)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let stem = name.map_or_else(|| format!("runit-session-{tag}"), str::to_owned);
        Self { label, stem, tag }
    }

    /// The value of [`crate::engine::INSTANCE_LABEL`] on everything that this agent makes.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        &self.stem
    }

    /// The name of a workspace's volume.
    pub fn volume(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.stem)
    }

    /// The name of the container's network.
    pub fn network(&self) -> String {
        format!("{}-net", self.stem)
    }

    /// The name of that network's bridge: 14 characters, of which Linux takes 15.
    pub fn bridge(&self) -> String {
        format!("runit-{}", self.tag)
    }

    /// The name of the table of rules.
    pub fn table(&self) -> String {
        format!("runit_{}", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_with_different_directories_share_no_name() {
        let [one, other] = ["/var/lib/one", "/var/lib/other"].map(|path| Instance::new(Path::new(path), None));
        assert_ne!(one.container(), other.container());
        assert_ne!(one.network(), other.network());
        assert_ne!(one.bridge(), other.bridge());
        assert_ne!(one.table(), other.table());
        assert_eq!(one, Instance::new(Path::new("/var/lib/one"), None));
    }

    #[test]
    fn a_name_that_was_set_is_kept() {
        let instance = Instance::new(Path::new("/var/lib/one"), Some("mine"));
        assert_eq!((instance.container(), instance.volume("0a").as_str()), ("mine", "mine-0a"));
    }

    #[test]
    fn linux_takes_the_bridges_name() {
        assert_eq!(Instance::new(Path::new("/x"), Some(&"long".repeat(40))).bridge().len(), 14);
    }
}
