//! A run's result: JSON with every number, and tables of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::{Metric, Samples};
use crate::peer::Kind;
use crate::scenario::Scenario;
use crate::targets::{Bound, TARGETS, Verdict};

/// Everything that one run measured, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) rounds: usize,
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) scenarios: BTreeMap<Scenario, Vec<Samples>>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(machine: Machine, rounds: usize) -> Self {
        let versions = Kind::ALL.into_iter().skip(1).map(|kind| (kind.name().to_owned(), kind.version()));
        let mut commit = said_by("git", &["rev-parse", "--short=12", "HEAD"]);
        if !said_by("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit.push_str(", with changes");
        }
        Self {
            command: std::env::args().skip(1).fold("runit-bench".to_owned(), |line, word| line + " " + &word),
            commit,
            date: said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            rounds,
            machine,
            versions: versions.chain([("Rust".to_owned(), said_by("rustc", &["--version"]))]).collect(),
            scenarios: BTreeMap::new(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is not there or not one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// As Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let Machine { processor, cores, memory_gib, kernel, pinning, load_average } = &self.machine;
        let mut text = format!(
            "`{}` at commit {}, {}; {cores} cores of {processor}, {memory_gib} GiB, Linux {kernel}; {pinning}; load \
             average {load_average} before the run. Medians of {} rounds, in brackets the middle half of them.\n\n",
            self.command, self.commit, self.date, self.rounds
        );
        let versions: Vec<String> = self.versions.iter().map(|(of, version)| format!("{of}: {version}")).collect();
        let _ = writeln!(text, "{}.\n", versions.join("; "));
        let verdicts = self.verdicts();
        if !verdicts.is_empty() {
            text += &targets_table(&verdicts);
        }
        for (scenario, measured) in &self.scenarios {
            let _ = writeln!(text, "### {}\n\n{}.\n", scenario.name(), scenario.about());
            text += &scenario_table(measured);
        }
        text
    }

    /// What became of the targets of what was measured.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let judge = |measured: &Vec<Samples>, scenario| {
            let targets = TARGETS.iter().filter(move |target| target.scenario == scenario);
            targets.filter_map(|target| target.judge(measured)).collect::<Vec<_>>()
        };
        self.scenarios.iter().flat_map(|(&scenario, measured)| judge(measured, scenario)).collect()
    }

    /// Both results' medians beside each other.
    pub(crate) fn compared_with(&self, other: &Self) -> String {
        let mut text = format!(
            "a: commit {}, {}; b: commit {}, {}\n\n| scenario | of | number | a | b | b / a |\n\
             | --- | --- | --- | ---: | ---: | ---: |\n",
            self.commit, self.date, other.commit, other.date
        );
        for (scenario, measured) in &self.scenarios {
            for samples in measured {
                let others = other.scenarios.get(scenario).and_then(|all| all.iter().find(|o| o.of == samples.of));
                for &metric in samples.by_metric.keys() {
                    let (Some(a), Some(b)) = (samples.median(metric), others.and_then(|o| o.median(metric))) else {
                        continue;
                    };
                    let _ = writeln!(
                        text,
                        "| {} | {} | {} | {} | {} | {:.3} |",
                        scenario.name(),
                        samples.of,
                        metric.name(),
                        plain(a),
                        plain(b),
                        b / a
                    );
                }
            }
        }
        text
    }
}

fn targets_table(verdicts: &[Verdict]) -> String {
    let mut text = "| target | bound | measured | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for Verdict { target, reached, holds } in verdicts {
        let bound = match target.bound {
            Bound::AtMost(bound) => format!("<= {bound}"),
            Bound::AtLeast(bound) => format!(">= {bound}"),
        };
        let verdict = if *holds { "reached" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {bound} | {} | {verdict} |", target.what(), plain(*reached));
    }
    text + "\n"
}

/// One row for each peer, one column for each number.
fn scenario_table(measured: &[Samples]) -> String {
    let mut metrics: Vec<Metric> = measured.iter().flat_map(|samples| samples.by_metric.keys().copied()).collect();
    metrics.sort();
    metrics.dedup();
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", names.join(" | "), " ---: |".repeat(metrics.len()));
    for samples in measured {
        let cell = |&metric: &Metric| match (samples.median(metric), samples.spread(metric)) {
            (Some(median), Some((low, high))) => format!("{} ({} to {})", plain(median), plain(low), plain(high)),
            _ => String::new(),
        };
        let cells: Vec<String> = metrics.iter().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", samples.of, cells.join(" | "));
    }
    text + "\n"
}

/// Three digits that count.
pub(crate) fn plain(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 || number == 0.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.01 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
