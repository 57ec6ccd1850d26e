//! Anchors of the audit trail: where its head was at some time, written down outside of the store.
//!
//! Whoever puts an older store in the place of the present one takes its head, with its seal, along. The anchor file is
//! brought up to date at each sweep, and the log has an anchor a minute; a trail that lacks what an anchor names was
//! shortened. Before an anchor replaces another the trail is asked for the older one, so that nothing is covered up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runit_config::NodeSettings;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::store::{Store, StoreError};
use runit_core::trail::{ChainHash, Mark, SealedMark, TrailKey, TrailMarks, Verdict, Verifier};
use runit_core::{Clock, Timestamp};

use crate::data_dir::DataDir;
use crate::trail::Trail;

/// The log gets an anchor so often, if there was an event.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Events that are read at one time.
const PAGE: u32 = 1_000;

/// The file that holds the newest anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorFile(PathBuf);

impl AnchorFile {
    /// The one that the settings name, or the one in the data directory.
    pub fn of(settings: &NodeSettings) -> Self {
        Self(settings.audit.anchor_file.clone().unwrap_or_else(|| DataDir::of(settings).anchor()))
    }

    /// The anchor; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(&self) -> io::Result<Option<SealedMark>> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the anchor, as a whole, also where the machine loses its power.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, anchor: &SealedMark) -> io::Result<()> {
        let draft = self.0.with_extension(format!("anchor.{}", std::process::id()));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all((to_json(anchor) + "\n").as_bytes())?;
        file.sync_data()?;
        fs::rename(draft, &self.0)?;
        let directory = self.0.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Writes the first anchor of a trail that has no event yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(&self, head: &SealedMark) -> io::Result<()> {
        if head.mark.hash == ChainHash::START && !self.0.exists() { self.write(head) } else { Ok(()) }
    }
}

/// Why the trail is not, or may not be, what it was.
#[derive(Debug, thiserror::Error)]
enum Shortened {
    #[error("it lacks the anchored event {0}")]
    Lacks(u64),
    #[error("the anchor is gone")]
    NoAnchor,
    #[error("the anchor cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Writes anchors for as long as the node runs.
#[derive(Default)]
pub(crate) struct Anchors {
    written: Option<(AnchorFile, SealedMark)>,
    logged: Option<(Mark, Timestamp)>,
    /// The trail has been told that it was shortened, which is found again until an anchor can be written.
    told: bool,
}

impl Anchors {
    /// Brings file and log up to date.
    pub(crate) async fn update(
        &mut self,
        file: &AnchorFile,
        store: &dyn Store,
        trail: &Trail,
        clock: &dyn Clock,
    ) -> Result<(), StoreError> {
        let marks = store.trail_marks().await?;
        if self.written.as_ref().is_some_and(|(at, written)| at == file && *written == marks.head) {
            return Ok(());
        }
        let mut head = marks.head;
        let shortened = self.shortened(file, store, &marks).await?;
        if let (Some(why), false) = (shortened, self.told) {
            tracing::error!(%why, "the audit trail was shortened, or may have been");
            trail.record(vec![SecurityEvent::new(EventKind::TrailTampered, clock.now())]).await?;
            self.told = true;
            head = store.trail_marks().await?.head;
        }
        // It waits for the disk.
        let writing = file.clone();
        let written =
            tokio::task::spawn_blocking(move || writing.write(&head)).await.map_err(io::Error::from).flatten();
        match written {
            Ok(()) => (self.written, self.told) = (Some((file.clone(), head)), false),
            Err(error) => tracing::error!(%error, "the audit trail's anchor cannot be written"),
        }
        self.log(&head, clock.now());
        Ok(())
    }

    /// Whether the trail has what was anchored last, by this process or by the one before it.
    async fn shortened(
        &self,
        file: &AnchorFile,
        store: &dyn Store,
        marks: &TrailMarks,
    ) -> Result<Option<Shortened>, StoreError> {
        let before = match &self.written {
            Some((_, written)) => Ok(Some(*written)),
            None => file.read(),
        };
        Ok(match before {
            Ok(Some(before)) if marks.base.excuses(&before.mark) || has(store, before.mark).await? => None,
            Ok(Some(before)) => Some(Shortened::Lacks(before.mark.place)),
            // A node that joins others has none yet; one with a store of its own has had one before its first event.
            Ok(None) if store.is_shared() || marks.head.mark.hash == ChainHash::START => None,
            Ok(None) => Some(Shortened::NoAnchor),
            Err(error) => Some(error.into()),
        })
    }

    fn log(&mut self, head: &SealedMark, now: Timestamp) {
        let due = self.logged.is_none_or(|(mark, at)| mark != head.mark && now.since(at) >= LOGGED_EVERY);
        if due && head.mark != Mark::START {
            self.logged = Some((head.mark, now));
            tracing::info!(target: "runit_security", "[SECURITY] {now} - TRAIL_ANCHOR: {}", to_json(head));
        }
    }
}

/// Whether the trail still has an event as it was.
async fn has(store: &dyn Store, mark: Mark) -> Result<bool, StoreError> {
    let found = store.events_after(mark.place.saturating_sub(1), 1).await?;
    Ok(found.first().is_some_and(|link| link.place == mark.place && link.hash == Some(mark.hash)))
}

/// Follows the whole trail, which may grow meanwhile.
///
/// # Errors
/// When the store fails.
pub async fn verify(store: &dyn Store, key: &TrailKey, anchors: &[SealedMark]) -> Result<Verdict, StoreError> {
    loop {
        let base = store.trail_marks().await?.base;
        let mut verifier = Verifier::new(key.clone(), &base, anchors);
        let mut ended = false;
        let marks = loop {
            let links = store.events_after(verifier.place(), PAGE).await?;
            links.iter().for_each(|link| verifier.follow(link));
            // The head is read after the last event; if it is further on, there may be more events by now.
            let marks = store.trail_marks().await?;
            if links.is_empty() && (ended || marks.head.mark.place <= verifier.place()) {
                break marks;
            }
            ended = links.is_empty();
        };
        // Retention has removed events meanwhile that were to be followed.
        if marks.base == base {
            return Ok(verifier.finish(&marks.head));
        }
    }
}

fn to_json(anchor: &SealedMark) -> String {
    serde_json::to_string(anchor).expect("texts and a number")
}
