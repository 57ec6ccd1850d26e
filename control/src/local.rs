//! Commands on this machine's own files: they work whether a node runs or not, and ask no network.
//!
//! Exit codes: 0 done and all well; 1 done, and something is wrong; 2 not done.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use runit_control::{DataDir, SystemClock, sqlite};
use runit_core::Clock;

/// What an operator does with the files in `control.data_dir`.
#[derive(Subcommand)]
pub(crate) enum Local {
    /// Copy the database to a new file, as it is at one moment, while the node runs.
    Backup {
        #[command(flatten)]
        settings: Settings,
        /// The copy; must not be there yet.
        file: PathBuf,
    },
    /// Put a backup where no database is. Locks and tokens in it end; agents register again.
    Restore {
        #[command(flatten)]
        settings: Settings,
        /// What `backup` wrote.
        file: PathBuf,
    },
    /// Look whether the database is whole: file, references, and every row.
    Check {
        #[command(flatten)]
        settings: Settings,
        /// A backup to be looked at, in place of the node's database.
        file: Option<PathBuf>,
    },
}

/// Where the settings come from.
#[derive(Args)]
pub(crate) struct Settings {
    /// Settings; RUNIT_* in the environment wins over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whether what was looked at is as it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Well,
    Wrong,
}

impl Local {
    /// # Errors
    /// When it could not be done.
    pub(crate) fn run(self) -> anyhow::Result<Finding> {
        match self {
            Self::Backup { settings, file } => {
                let bytes = sqlite::backup(&settings.data_dir()?.database(), &file)?;
                say(&format!("{}: {bytes} bytes", file.display()));
                Ok(Finding::Well)
            }
            Self::Restore { settings, file } => {
                let directory = settings.data_dir()?;
                directory.create()?;
                let database = directory.database();
                sqlite::restore(&file, &database, SystemClock::start().now())?;
                say(&format!("{} is {} now", database.display(), file.display()));
                Ok(Finding::Well)
            }
            Self::Check { settings, file } => {
                let file = file.map_or_else(|| settings.data_dir().map(|directory| directory.database()), Ok)?;
                check(&file)
            }
        }
    }
}

impl Settings {
    fn data_dir(&self) -> anyhow::Result<DataDir> {
        Ok(DataDir::of(&runit_config::load_node(self.config.as_deref())?))
    }
}

fn check(file: &Path) -> anyhow::Result<Finding> {
    let problems = sqlite::check(file)?;
    problems.iter().for_each(|problem| say(problem));
    if problems.is_empty() {
        say(&format!("{}: whole", file.display()));
        return Ok(Finding::Well);
    }
    Ok(Finding::Wrong)
}

fn say(line: &str) {
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{line}");
    }
}
