//! A file of 64 bit counters, mapped shared: a store is in the page cache when it is done, and the page cache does not
//! die with the process.
//!
//! This is the one place with `unsafe`. The argument:
//!
//! - *Valid memory.* The mapping is `LENGTH` words long, made once and unmapped only when the [`Mapping`] is dropped;
//!   every reference borrows it. An index out of range panics before a pointer is made.
//! - *Alignment.* A mapping begins at a page, and a word at a multiple of eight from there.
//! - *Aliasing.* The words are only ever reached as `&AtomicU64` within this process. Another process that writes the
//!   file while we map it would do so by other means than Rust's memory model knows; as far as the hardware goes an
//!   aligned word is still read whole, and no value in it can do more than miscount. The file is locked (flock) for
//!   the owner's life so that another process of ours stays away.
//! - *Truncation.* Somebody who truncates the file makes an access a SIGBUS, which ends the process and does nothing
//!   unsound. The file is in our data directory, mode 0600.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A shared mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    words: usize,
    /// Kept open for its lock.
    _file: File,
}

impl Mapping {
    /// Maps `words` counters of `file`, which must be as long already.
    pub(crate) fn new(file: File, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
        let length = file.metadata()?.len();
        if length < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(Self { map, words, _file: file })
    }

    /// The counter at `index`.
    #[expect(unsafe_code, reason = "the argument is at the top of this file")]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "counter {index} of {}", self.words);
        // SAFETY: in range by the assertion, so within the mapping; aligned, live and shared as argued above.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }
}
