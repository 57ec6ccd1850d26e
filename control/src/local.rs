//! Commands on the store: they work whether a node runs or not, and ask nobody but the database that the settings name.
//!
//! Exit codes: 0 done and all well; 1 done, and something is wrong; 2 not done.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use futures::executor::block_on;
use runit_config::NodeSettings;
use runit_control::anchors::{self, AnchorFile};
use runit_control::moving::move_store;
use runit_control::postgres::{PostgresSettings, PostgresStore};
use runit_control::sealer::Sealer;
use runit_control::sqlite::{self, SqliteStore};
use runit_control::webhooks::Target;
use runit_control::{DataDir, SystemClock, billing};
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::trail::{MarkKind, SealedMark, TrailKey};
use runit_core::usage::UsageFilter;
use runit_core::{Clock, ProviderId, SessionId, Store, Timestamp};
use tokio::runtime::Runtime;

/// Events that are read at one time.
const EXPORTED_AT_ONCE: u32 = 1_000;

/// What an operator does with the store: the files in `control.data_dir`, or the database that `store.url` names.
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
    /// Look whether the store is whole: every row, and what rows must agree with; of a file its structure too.
    Check {
        #[command(flatten)]
        settings: Settings,
        /// A backup to be looked at, in place of the node's database.
        file: Option<PathBuf>,
    },
    /// Move what the node's own database holds to the empty one that `store.url` names, and compare the two. No node may run.
    MigrateStore {
        #[command(flatten)]
        settings: Settings,
    },
    /// Try the receivers of events that the settings name.
    #[command(subcommand)]
    Webhooks(Webhooks),
}

/// What is done with the audit trail in the store.
#[derive(Subcommand)]
pub(crate) enum Events {
    /// Look whether any event was changed, moved, inserted or removed since it was written.
    Verify {
        #[command(flatten)]
        settings: Settings,
        /// What the log said after `TRAIL_ANCHOR:`; as often as you like. The anchor file is always asked.
        #[arg(long, value_name = "JSON")]
        anchor: Vec<String>,
    },
    /// Go on with a trail whose end was sealed with another key, and say so in it: where the nodes' key is lost, or the end
    /// was tampered with. Until then no node starts on a store that nodes share.
    Reseal {
        #[command(flatten)]
        settings: Settings,
    },
    /// Write the events as lines of JSON, oldest first, each with its place and its hash.
    Export {
        #[command(flatten)]
        settings: Settings,
        /// Begin after this place.
        #[arg(long, value_name = "PLACE", default_value_t = 0)]
        after: u64,
    },
}

/// What is done with receivers of events.
#[derive(Subcommand)]
pub(crate) enum Webhooks {
    /// Send each receiver a signed message of type TEST, once.
    Test {
        #[command(flatten)]
        settings: Settings,
        /// Only this receiver.
        name: Option<String>,
    },
}

/// What is done with the usage records in the store: what each lock has used.
#[derive(Subcommand)]
pub(crate) enum Usage {
    /// Write what each lock has used, by the start of the lock.
    Export {
        #[command(flatten)]
        settings: Settings,
        /// How a record looks.
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
        /// Only locks that ended then or later: 2026-11-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Only locks that ended before then.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// Only of this session.
        #[arg(long, value_name = "ID")]
        session: Option<SessionId>,
        /// Only of this provider's sessions.
        #[arg(long, value_name = "ID")]
        provider: Option<ProviderId>,
    },
    /// Write what deleted records add up to, by session.
    Carried {
        #[command(flatten)]
        settings: Settings,
        /// How a sum looks.
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
    },
}

/// How a usage record or a sum looks.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// A line of CSV, under a head.
    Csv,
    /// A line of JSON.
    Json,
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
                let bytes = sqlite::backup(&own(&settings.load()?)?, &file)?;
                say(&format!("{}: {bytes} bytes", file.display()))?;
                Ok(Finding::Well)
            }
            Self::Restore { settings, file } => {
                let settings = settings.load()?;
                let directory = DataDir::of(&settings);
                directory.create()?;
                let (database, key) = (own(&settings)?, Sealer::from_file(&directory.sealing_key())?.trail_key());
                sqlite::restore(&file, &database, &key, SystemClock::start().now())?;
                let head = block_on(SqliteStore::open_existing(&database, key)?.trail_marks())?.head;
                AnchorFile::of(&settings).write(&head)?;
                say(&format!("{} is {} now", database.display(), file.display()))?;
                Ok(Finding::Well)
            }
            Self::Check { settings, file: None } => check_store(&settings.load()?),
            Self::Check { file: Some(file), .. } => checked(&file.display().to_string(), &sqlite::check(&file)?),
            Self::MigrateStore { settings } => migrate_store(&settings.load()?),
            Self::Webhooks(Webhooks::Test { settings, name }) => test_webhooks(&settings.load()?, name.as_deref()),
        }
    }
}

impl Events {
    /// # Errors
    /// When it could not be done.
    pub(crate) fn run(self) -> anyhow::Result<Finding> {
        match self {
            Self::Verify { settings, anchor } => verify(&settings.load()?, &anchor),
            Self::Reseal { settings } => reseal(&settings.load()?),
            Self::Export { settings, after } => export(&settings.load()?, after),
        }
    }
}

impl Usage {
    /// # Errors
    /// When it could not be done.
    pub(crate) fn run(self) -> anyhow::Result<Finding> {
        match self {
            Self::Export { settings, format, since, until, session, provider } => {
                let filter = UsageFilter { session, provider, ended_since: since, ended_before: until };
                export_usage(&settings.load()?, filter, format)
            }
            Self::Carried { settings, format } => carried_usage(&settings.load()?, format),
        }
    }
}

/// The exit code for what came of a command.
pub(crate) fn ended(outcome: anyhow::Result<Finding>) -> ExitCode {
    match outcome {
        Ok(Finding::Well) => ExitCode::SUCCESS,
        Ok(Finding::Wrong) => ExitCode::FAILURE,
        Err(error) if is_read_enough(&error) => ExitCode::SUCCESS,
        Err(error) => crate::failed(&error, crate::NOT_DONE.into()),
    }
}

impl Settings {
    fn load(&self) -> anyhow::Result<NodeSettings> {
        Ok(runit_config::load_node(self.config.as_deref())?)
    }
}

fn check_store(settings: &NodeSettings) -> anyhow::Result<Finding> {
    let directory = DataDir::of(settings);
    let Some(place) = shared(settings) else {
        let database = directory.database();
        return checked(&database.display().to_string(), &sqlite::check(&database)?);
    };
    let key = Sealer::from_existing_file(&directory.sealing_key())?.trail_key();
    let problems = Runtime::new()?
        .block_on(async { anyhow::Ok(PostgresStore::connect_existing(&place, key).await?.check().await?) })?;
    checked("the shared store", &problems)
}

fn checked(what: &str, problems: &[String]) -> anyhow::Result<Finding> {
    if problems.is_empty() {
        return Finding::Well.told(&[format!("{what}: whole")]);
    }
    Finding::Wrong.told(problems)
}

fn migrate_store(settings: &NodeSettings) -> anyhow::Result<Finding> {
    let place = shared(settings).context("store.url names no database to move to")?;
    let directory = DataDir::of(settings);
    let key = Sealer::from_existing_file(&directory.sealing_key())?.trail_key();
    let now = SystemClock::start().now();
    let (moved, differences) = Runtime::new()?.block_on(async {
        let store = PostgresStore::connect(&place, key.clone()).await?;
        anyhow::Ok(move_store(&directory.database(), &store, key, now).await?)
    })?;
    let [sessions, records] = [moved.sessions.len(), moved.records.len()];
    let [events, keys] = [moved.events.len(), moved.keys.len()];
    let finding = if differences.is_empty() { Finding::Well } else { Finding::Wrong };
    let mut lines =
        vec![format!("{sessions} sessions, {records} usage records, {events} events and {keys} keys moved")];
    lines.extend(differences.iter().map(|what| format!("not the same in both: {what}")));
    finding.told(&lines)
}

fn verify(settings: &NodeSettings, given: &[String]) -> anyhow::Result<Finding> {
    let Opened { runtime, store, key } = open(settings)?;
    let anchored = AnchorFile::of(settings).read().context("the anchor file cannot be read")?;
    let given = given.iter().map(|text| serde_json::from_str(text).context("not an anchor"));
    let anchors = anchored.map(Ok).into_iter().chain(given).collect::<anyhow::Result<Vec<SealedMark>>>()?;
    let verdict = runtime.block_on(anchors::verify(&*store, &key, &anchors))?;
    let mut lines: Vec<String> = verdict.findings.iter().map(ToString::to_string).collect();
    if anchors.is_empty() && verdict.events > 0 {
        lines.push("there is no anchor: a removed end could not be seen".to_owned());
        return Finding::Wrong.told(&lines);
    }
    lines.push(format!("{} events, {} anchors, {} findings", verdict.events, anchors.len(), verdict.findings.len()));
    let finding = if verdict.findings.is_empty() { Finding::Well } else { Finding::Wrong };
    finding.told(&lines)
}

fn reseal(settings: &NodeSettings) -> anyhow::Result<Finding> {
    let Opened { runtime, store, key } = open(settings)?;
    let head = runtime.block_on(store.trail_marks())?.head;
    if key.holds(MarkKind::Head, &head) {
        say("the trail ends with a seal of this key already")?;
        return Ok(Finding::Well);
    }
    let event = SecurityEvent::new(EventKind::TrailTampered, SystemClock::start().now());
    runtime.block_on(store.append_events(vec![event]))?;
    say("sealed with this key; the trail says so with TRAIL_TAMPERED")?;
    Ok(Finding::Well)
}

fn export(settings: &NodeSettings, mut after: u64) -> anyhow::Result<Finding> {
    let Opened { runtime, store, .. } = open(settings)?;
    loop {
        let links = runtime.block_on(store.events_after(after, EXPORTED_AT_ONCE))?;
        let Some(last) = links.last() else { return Ok(Finding::Well) };
        after = last.place;
        links.iter().try_for_each(|link| say(&link.to_json()))?;
    }
}

fn export_usage(settings: &NodeSettings, filter: UsageFilter, format: Format) -> anyhow::Result<Finding> {
    let Opened { runtime, store, .. } = open(settings)?;
    let now = SystemClock::start().now();
    if let Format::Csv = format {
        say(billing::CSV_HEAD)?;
    }
    runtime.block_on(billing::export(&*store, filter, |record| match format {
        Format::Csv => say(&billing::to_csv(record, now)),
        Format::Json => say(&billing::to_json(record, now).to_string()),
    }))?;
    Ok(Finding::Well)
}

fn carried_usage(settings: &NodeSettings, format: Format) -> anyhow::Result<Finding> {
    let Opened { runtime, store, .. } = open(settings)?;
    if let Format::Csv = format {
        say(billing::CARRIED_CSV_HEAD)?;
    }
    runtime.block_on(billing::export_carried(&*store, |carried| match format {
        Format::Csv => say(&billing::carried_to_csv(carried)),
        Format::Json => say(&billing::carried_to_json(carried).to_string()),
    }))?;
    Ok(Finding::Well)
}

fn test_webhooks(settings: &NodeSettings, name: Option<&str>) -> anyhow::Result<Finding> {
    let mut targets = Target::all(settings)?;
    targets.retain(|target| name.is_none_or(|name| name == target.name()));
    anyhow::ensure!(!targets.is_empty(), "the settings have no such receiver");
    let (runtime, clock) = (Runtime::new()?, SystemClock::start());
    let mut finding = Finding::Well;
    for target in &targets {
        match runtime.block_on(target.test(&clock)) {
            Ok(()) => finding.told(&[format!("{}: taken", target.name())])?,
            Err(error) => {
                finding = Finding::Wrong;
                finding.told(&[format!("{}: {error}", target.name())])?
            }
        };
    }
    Ok(finding)
}

/// The store that the settings name, and what runs its answers.
struct Opened {
    runtime: Runtime,
    store: Box<dyn Store>,
    key: TrailKey,
}

fn open(settings: &NodeSettings) -> anyhow::Result<Opened> {
    let (directory, runtime) = (DataDir::of(settings), Runtime::new()?);
    let key = Sealer::from_existing_file(&directory.sealing_key())?.trail_key();
    let store: Box<dyn Store> = match shared(settings) {
        Some(place) => Box::new(runtime.block_on(PostgresStore::connect_existing(&place, key.clone()))?),
        None => Box::new(SqliteStore::open_existing(&directory.database(), key.clone())?),
    };
    Ok(Opened { runtime, store, key })
}

/// The database of many nodes, where the settings name one.
fn shared(settings: &NodeSettings) -> Option<PostgresSettings> {
    let url = settings.store.url.clone()?;
    Some(PostgresSettings { url, ca_file: settings.store.ca_file.clone() })
}

/// The node's own database.
fn own(settings: &NodeSettings) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(
        settings.store.url.is_none(),
        "the store is the database that store.url names: PostgreSQL's own tools do that, pg_dump and pg_restore"
    );
    Ok(DataDir::of(settings).database())
}

impl Finding {
    /// What was found, whether or not anybody reads all that is said of it.
    fn told(self, lines: &[String]) -> anyhow::Result<Self> {
        match lines.iter().try_for_each(|line| say(line)) {
            Err(error) if !is_read_enough(&error) => Err(error),
            _ => Ok(self),
        }
    }
}

/// Whoever reads the output has closed it.
fn is_read_enough(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|Untold(why)| why.kind() == io::ErrorKind::BrokenPipe)
}

/// Nobody takes the command's answer.
#[derive(Debug, thiserror::Error)]
#[error("standard output")]
struct Untold(#[source] io::Error);

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}").map_err(Untold)?)
}
