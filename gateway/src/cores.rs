//! Which processor cores the data plane has to itself (`sched_setaffinity(2)`).
//!
//! A thread starts on the cores that whoever starts it may use, so two threads decide for all of them: the main one for the
//! control plane, and the one that starts the proxy's workers.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a process whose proxy has some to itself.
pub(crate) struct Cores {
    proxy: CpuSet,
    others: CpuSet,
}

impl Cores {
    /// Shares out the cores that this process may use: `wanted` for the proxy, and what is left of them, or all if nothing
    /// is, for everything else, which is this thread and those that it starts from now on. None if nothing is wanted.
    ///
    /// # Errors
    /// When this process may not use all of `wanted`.
    pub(crate) fn share(wanted: &BTreeSet<usize>) -> Result<Option<Self>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let allowed = sched_getaffinity(None)?;
        let (mut proxy, mut others) = (CpuSet::new(), allowed);
        for &core in wanted {
            ensure!(allowed.is_set(core), "this process may not use core {core}");
            proxy.set(core);
            others.unset(core);
        }
        let cores = Self { proxy, others: if others.count() == 0 { allowed } else { others } };
        // Now, where it can still be told.
        cores.confine_proxy()?;
        sched_setaffinity(None, &cores.others)?;
        Ok(Some(cores))
    }

    /// Keeps this thread, and those that it starts from now on, on the proxy's cores.
    ///
    /// # Errors
    /// When the kernel does not let us any more.
    pub(crate) fn confine_proxy(&self) -> Result<(), Errno> {
        sched_setaffinity(None, &self.proxy)
    }
}
