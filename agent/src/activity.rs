//! Whether a container is used, and why it counts as used. Pure: what was seen comes in as values.
//!
//! Two witnesses: Jupyter (kernels, terminals), and the engine's count of processor time, for what Jupyter does not know of.
//! A browser's tab is none: it goes on asking when nobody sits before it.

use std::time::Duration;

use serde::Deserialize;

/// Thousandths of a core, on average between two looks: more than Jupyter and an idle kernel need.
const IDLE_MILLICORES: u64 = 50;

/// Why a container counts as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// So many kernels run a cell, or start.
    Kernels(usize),
    /// A kernel ran something since the last look.
    KernelRan,
    /// A terminal was read or written since the last look.
    Terminal,
    /// So many thousandths of a core are in use.
    Computing(u64),
    /// Jupyter does not answer: what cannot be seen is left alone.
    Silent,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernels(1) => f.write_str("a kernel is busy"),
            Self::Kernels(count) => write!(f, "{count} kernels are busy"),
            Self::KernelRan => f.write_str("a kernel was used"),
            Self::Terminal => f.write_str("a terminal was used"),
            Self::Computing(millicores) => {
                let tenths = millicores.saturating_add(50) / 100;
                write!(f, "{}.{} cores are in use", tenths / 10, tenths % 10)
            }
            Self::Silent => f.write_str("jupyter does not answer"),
        }
    }
}

/// One of `/api/kernels`.
#[derive(Debug, Clone, Deserialize)]
pub struct Kernel {
    /// `idle`, `busy`, `starting`, ...
    pub execution_state: String,
    /// When it was last used; RFC 3339.
    pub last_activity: String,
}

/// One of `/api/terminals`.
#[derive(Debug, Clone, Deserialize)]
pub struct Terminal {
    /// When it was last used; RFC 3339.
    pub last_activity: String,
}

/// What Jupyter said at one look.
#[derive(Debug, Clone)]
pub struct Jupyter {
    /// Each kernel.
    pub kernels: Vec<Kernel>,
    /// Each terminal.
    pub terminals: Vec<Terminal>,
}

/// Remembers the last look, to tell what is new.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    kernels: Vec<String>,
    terminals: Vec<String>,
    processor: Option<(Duration, Duration)>,
}

impl Watch {
    /// Why the container counts as used, after what Jupyter said; none: it is idle.
    pub fn jupyter(&mut self, said: Option<Jupyter>) -> Option<Busy> {
        let Some(said) = said else { return Some(Busy::Silent) };
        let times = |times: Vec<&String>| {
            let mut times: Vec<String> = times.into_iter().cloned().collect();
            times.sort();
            times
        };
        let kernels = times(said.kernels.iter().map(|kernel| &kernel.last_activity).collect());
        let terminals = times(said.terminals.iter().map(|terminal| &terminal.last_activity).collect());
        let used = |now: &[String], last: &[String]| now.iter().any(|time| !last.contains(time));
        let kernel_ran = used(&kernels, &self.kernels);
        let terminal_used = used(&terminals, &self.terminals);
        (self.kernels, self.terminals) = (kernels, terminals);

        // One that nobody connected to may stay "starting" for ever; it is new only once.
        let busy = said.kernels.iter().filter(|kernel| kernel.execution_state == "busy").count();
        match (busy, kernel_ran, terminal_used) {
            (1.., _, _) => Some(Busy::Kernels(busy)),
            (0, true, _) => Some(Busy::KernelRan),
            (0, false, true) => Some(Busy::Terminal),
            (0, false, false) => None,
        }
    }

    /// Thousandths of a core in use since the last look, after what the engine counted: processor time since the
    /// container's start, at a time of any clock that does not step. None at the first look.
    pub fn millicores(&mut self, used: Duration, at: Duration) -> Option<u64> {
        let (used_then, then) = self.processor.replace((used, at))?;
        let used = used.checked_sub(used_then)?.as_nanos();
        let millicores = used.saturating_mul(1_000).checked_div(at.checked_sub(then)?.as_nanos())?;
        u64::try_from(millicores).ok()
    }
}

/// Whether a container that uses so many thousandths of a core counts as used.
pub fn computing(millicores: u64) -> Option<Busy> {
    (millicores > IDLE_MILLICORES).then_some(Busy::Computing(millicores))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kernels: &[(&str, &str)], terminals: &[&str]) -> Option<Jupyter> {
        let kernel =
            |&(state, time): &(&str, &str)| Kernel { execution_state: state.into(), last_activity: time.into() };
        let terminal = |time: &&str| Terminal { last_activity: (*time).into() };
        Some(Jupyter {
            kernels: kernels.iter().map(kernel).collect(),
            terminals: terminals.iter().map(terminal).collect(),
        })
    }

    #[test]
    fn a_busy_kernel_is_never_idle_however_long_it_says_nothing() {
        let mut watch = Watch::default();
        for _ in 0..3 {
            assert_eq!(watch.jupyter(said(&[("busy", "10:00"), ("idle", "10:00")], &[])), Some(Busy::Kernels(1)));
        }
    }

    #[test]
    fn a_tab_that_only_asks_is_no_activity() {
        let mut watch = Watch::default();
        let tab = || said(&[("idle", "10:00")], &["10:01"]);
        assert_eq!(watch.jupyter(tab()), Some(Busy::KernelRan));
        assert_eq!(watch.jupyter(tab()), None);
    }

    #[test]
    fn a_kernel_or_a_terminal_that_was_used_between_looks_counts() {
        let mut watch = Watch::default();
        assert_eq!(watch.jupyter(said(&[("idle", "10:00")], &["10:00"])), Some(Busy::KernelRan));
        assert_eq!(watch.jupyter(said(&[("idle", "10:02")], &["10:00"])), Some(Busy::KernelRan));
        assert_eq!(watch.jupyter(said(&[("idle", "10:02")], &["10:03"])), Some(Busy::Terminal));
        assert_eq!(watch.jupyter(said(&[("idle", "10:02")], &["10:03"])), None);
        assert_eq!(watch.jupyter(said(&[], &[])), None);
    }

    #[test]
    fn a_kernel_that_nobody_connects_to_does_not_keep_a_container_for_ever() {
        let mut watch = Watch::default();
        assert!(watch.jupyter(said(&[("starting", "10:00")], &[])).is_some());
        assert_eq!(watch.jupyter(said(&[("starting", "10:00")], &[])), None);
    }

    #[test]
    fn what_cannot_be_seen_is_left_alone() {
        assert_eq!(Watch::default().jupyter(None), Some(Busy::Silent));
    }

    #[test]
    fn a_computation_that_jupyter_does_not_know_of_counts() {
        let mut watch = Watch::default();
        let secs = Duration::from_secs;
        assert_eq!(watch.millicores(secs(5), secs(100)), None);
        assert_eq!(watch.millicores(secs(8), secs(103)), Some(1_000));
        assert_eq!(watch.millicores(secs(8) + Duration::from_millis(100), secs(106)), Some(33));
        // A new container counts from nothing; the same moment twice says nothing.
        assert_eq!(watch.millicores(secs(1), secs(109)), None);
        assert_eq!(watch.millicores(secs(2), secs(109)), None);
        assert_eq!((computing(50), computing(51)), (None, Some(Busy::Computing(51))));
        assert_eq!(Busy::Computing(1_960).to_string(), "2.0 cores are in use");
    }
}
