//! Where a node keeps what it has spent, so that a `kill -9` does not lose it.
//!
//! A node that dies has leases open. What it spent of them would be forfeited in full when they expire; with this file the
//! next start settles them by what was really spent, plus what was reserved by polls that ran at that moment.
//!
//! One file a node: a header of sixteen words, then slots of sixteen words (128 bytes, two cache lines), one for each
//! session that was active on the node.
//!
//! ```text
//!   header   magic · node id (2 words) · slots used
//!   slot     session id (2 words) · since (2 words) · base in · base out · left and reserved · spent in · spent out
//! ```
//!
//! The base is what had been spent when the session last held no lease, and *since* is the first lease after that: spent
//! less base is what the leases from there on account for. Only a lost host, or a torn power line, loses the page cache.

mod mapping;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runit_core::budget::Cells;
use runit_core::ledger::Spent;
use runit_core::{LeaseId, NodeId, SessionId};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use uuid::Uuid;

use mapping::Mapping;

const MAGIC: u64 = u64::from_be_bytes(*b"RUNITsp1");
const HEADER_WORDS: usize = 16;
const SLOT_WORDS: usize = 16;
/// Slots of a file: 8 MiB. Its blocks are allocated in the beginning, because a store into a mapping that the disk has no
/// room for would end the process.
const SLOTS: usize = 1 << 16;
const EXTENSION: &str = "spent";

/// The file of a running node.
#[derive(Debug)]
pub struct SpentFile {
    mapping: Arc<Mapping>,
    path: PathBuf,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    used: usize,
    free: Vec<usize>,
}

/// The counters of one session.
#[derive(Debug)]
pub struct Slot {
    file: Arc<SpentFile>,
    index: usize,
}

/// What a node that is gone has left of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// The session.
    pub session: SessionId,
    /// What it spent, for the ledger.
    pub spent: Spent,
}

/// A file of a node that is gone, locked for as long as this lives.
#[derive(Debug)]
pub struct Estate {
    path: PathBuf,
    /// Whose it was.
    pub node: NodeId,
    /// What is to be settled.
    pub remains: Vec<Remains>,
    _file: File,
}

impl SpentFile {
    /// Makes the file of `node` in `directory`, which is created where it is missing.
    ///
    /// # Errors
    /// When directory or file cannot be made, for want of space too.
    pub fn create(directory: &Path, node: NodeId) -> io::Result<Arc<Self>> {
        fs::create_dir_all(directory)?;
        let path = directory.join(format!("{node}.{EXTENSION}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let words = HEADER_WORDS + SLOTS * SLOT_WORDS;
        allocate(&file, words as u64 * 8)?;
        let mapping = Mapping::new(file, words)?;
        let (high, low) = node.as_uuid().as_u64_pair();
        mapping.word(1).store(high, Ordering::Relaxed);
        mapping.word(2).store(low, Ordering::Relaxed);
        mapping.word(0).store(MAGIC, Ordering::Release);
        Ok(Arc::new(Self { mapping: Arc::new(mapping), path, slots: Mutex::default() }))
    }

    /// A slot for a session; `None` when the file is full.
    pub fn slot(self: &Arc<Self>, session: SessionId) -> Option<Slot> {
        let index = {
            let mut slots = self.slots();
            match slots.free.pop() {
                Some(index) => index,
                None if slots.used < SLOTS => {
                    slots.used += 1;
                    self.mapping.word(3).store(slots.used as u64, Ordering::Release);
                    slots.used - 1
                }
                None => return None,
            }
        };
        let slot = Slot { file: Arc::clone(self), index };
        // Counters first, name last: a slot with a name has counters of that session.
        (2..SLOT_WORDS).for_each(|word| slot.word(word).store(0, Ordering::Relaxed));
        let (high, low) = session.as_uuid().as_u64_pair();
        slot.word(0).store(high, Ordering::Relaxed);
        slot.word(1).store(low, Ordering::Release);
        Some(slot)
    }

    /// Removes the file, when all is settled.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a new file its length and its blocks.
fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop),
        result => Ok(result?),
    }
}

impl Slot {
    /// The session holds no lease now, so what is spent so far is settled; `since` is the one that it asks for next.
    pub fn rebase(&self, since: LeaseId) {
        let (high, low) = since.as_uuid().as_u64_pair();
        self.word(2).store(high, Ordering::Relaxed);
        self.word(3).store(low, Ordering::Relaxed);
        self.word(4).store(self.spent_in().load(Ordering::Relaxed), Ordering::Relaxed);
        self.word(5).store(self.spent_out().load(Ordering::Relaxed), Ordering::Release);
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        self.file.mapping.word(HEADER_WORDS + self.index * SLOT_WORDS + word)
    }
}

impl Cells for Slot {
    fn balance(&self) -> &AtomicU64 {
        self.word(6)
    }

    fn spent_in(&self) -> &AtomicU64 {
        self.word(7)
    }

    fn spent_out(&self) -> &AtomicU64 {
        self.word(8)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.word(1).store(0, Ordering::Relaxed);
        self.word(0).store(0, Ordering::Release);
        self.file.slots().free.push(self.index);
    }
}

impl Estate {
    /// Finds the files of nodes that are gone: those that nobody holds locked.
    ///
    /// # Errors
    /// When the directory cannot be read. A file that is not ours or not whole is passed over and kept.
    pub fn find(directory: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut estates = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                estates.extend(Self::open(path)?);
            }
        }
        Ok(estates)
    }

    /// Removes the file, when all that it says is settled.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn settled(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None); // its node lives
        }
        let words = usize::try_from(file.metadata()?.len() / 8).unwrap_or(usize::MAX);
        let mapping = Mapping::new(file.try_clone()?, words)?;
        if words < HEADER_WORDS || mapping.word(0).load(Ordering::Acquire) != MAGIC {
            return Ok(None);
        }
        let pair = |at: usize| {
            Uuid::from_u64_pair(mapping.word(at).load(Ordering::Acquire), mapping.word(at + 1).load(Ordering::Acquire))
        };
        let used = usize::try_from(mapping.word(3).load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let slots = used.min((words - HEADER_WORDS) / SLOT_WORDS);
        let remains = (0..slots).filter_map(|slot| {
            let at = HEADER_WORDS + slot * SLOT_WORDS;
            let word = |offset: usize| mapping.word(at + offset).load(Ordering::Acquire);
            let session = pair(at);
            (!session.is_nil()).then(|| Remains {
                session: SessionId::from_uuid(session),
                spent: Spent {
                    since: LeaseId::from_uuid(pair(at + 2)),
                    bytes_in: word(7).saturating_sub(word(4)),
                    bytes_out: word(8).saturating_sub(word(5)),
                    reserved: word(6) & u64::from(u32::MAX),
                },
            })
        });
        Ok(Some(Self { node: NodeId::from_uuid(pair(1)), remains: remains.collect(), path, _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::from_uuid(Uuid::new_v4())
    }

    fn session() -> SessionId {
        SessionId::from_uuid(Uuid::new_v4())
    }

    #[test]
    fn what_was_spent_is_found_by_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let (node, first) = (node(), session());
        let file = SpentFile::create(&directory.path().join("alive"), node).expect("created");
        let slot = file.slot(first).expect("room");
        slot.spent_in().store(100, Ordering::Relaxed);
        let since = LeaseId::from_uuid(Uuid::new_v4());
        slot.rebase(since);
        slot.spent_in().fetch_add(7, Ordering::Relaxed);
        slot.spent_out().fetch_add(9, Ordering::Relaxed);
        slot.balance().store(5 << 32 | 3, Ordering::Relaxed);
        drop(file.slot(session()).expect("room"));
        // What a killed process leaves: the file as it is now, and no lock.
        fs::copy(&file.path, directory.path().join("dead.spent")).expect("copied");
        let estates = Estate::find(directory.path()).expect("readable");
        let [estate] = &estates[..] else { panic!("{estates:?}") };
        assert_eq!(estate.node, node);
        let remains = Remains { session: first, spent: Spent { since, bytes_in: 7, bytes_out: 9, reserved: 3 } };
        assert_eq!(estate.remains, [remains]);
        for estate in estates {
            estate.settled().expect("removed");
        }
        assert!(Estate::find(directory.path()).expect("readable").is_empty());
    }

    #[test]
    fn a_living_nodes_file_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let _file = SpentFile::create(directory.path(), node()).expect("created");
        assert!(Estate::find(directory.path()).expect("readable").is_empty());
    }

    #[test]
    fn a_slot_is_used_again_and_begins_at_zero() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = SpentFile::create(directory.path(), node()).expect("created");
        let slot = file.slot(session()).expect("room");
        slot.spent_out().store(1, Ordering::Relaxed);
        let index = slot.index;
        drop(slot);
        let again = file.slot(session()).expect("room");
        assert_eq!((again.index, again.spent_out().load(Ordering::Relaxed)), (index, 0));
    }

    #[test]
    fn a_strange_file_is_kept_and_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in [("a.spent", &b""[..]), ("b.spent", &[7; 100]), ("c.txt", b"x")] {
            fs::write(directory.path().join(name), content).expect("written");
        }
        assert!(Estate::find(directory.path()).expect("readable").is_empty());
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 3);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Estate::find(&directory.path().join("none")).expect("fine").is_empty());
    }
}
