//! Shows how an image's build gets on: a bar where a person watches, plain lines otherwise.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::{Line, say};

const STEP_CHARS: usize = 120;

/// Follows one build.
#[derive(Debug)]
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    /// A bar on standard error if that is a terminal, else lines on standard output.
    pub(super) fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self::Bar(bar)
    }

    /// One line of the build's output.
    pub(super) fn line(&mut self, line: &str) {
        match (self, step(line)) {
            (Self::Bar(bar), Some((number, of))) => {
                bar.set_length(of);
                bar.set_position(number.saturating_sub(1));
                bar.set_message(line.to_owned());
            }
            (Self::Bar(bar), None) => bar.set_message(line.to_owned()),
            (Self::Lines, Some(_)) => say(Line::BuildStep { step: &shortened(line) }),
            (Self::Lines, None) => tracing::debug!(line, "docker build"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A step's command may be a whole script.
fn shortened(step: &str) -> String {
    step.chars().take(STEP_CHARS).collect()
}

/// The numbers in `Step 3/12 : RUN ...`, which is how the engine's classic builder announces a step.
fn step(line: &str) -> Option<(u64, u64)> {
    let (numbers, _) = line.strip_prefix("Step ")?.split_once(" : ")?;
    let (number, of) = numbers.split_once('/')?;
    Some((number.parse().ok()?, of.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_recognised_and_other_lines_are_not() {
        assert_eq!(step("Step 3/12 : RUN apt-get update"), Some((3, 12)));
        for line in ["Step by step", "Step 3/x : RUN", " ---> 43f2d97ccb9d", ""] {
            assert_eq!(step(line), None, "{line:?}");
        }
    }
}
