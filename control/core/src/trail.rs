//! The audit trail as a chain: each event's hash covers the event and the hash before it.
//!
//! ```text
//!   base ── event ── event ── ... ── event = head
//!   hash(n) = SHA-256( hex(hash(n-1)) "\n" canonical JSON of event n, its place among it )
//! ```
//!
//! A change, a removal or a swap within the chain breaks the next hash. Whoever rewrites all the hashes that follow, or drops
//! the end, has to move the *head* too, and that is sealed (HMAC-SHA256) with a key that is not in the store. An old
//! head with its old seal is found out by an *anchor*: a head that was written down elsewhere. The *base* is where what
//! retention has removed ended; it is sealed as well, so that nobody else can shorten the beginning.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::event::{EventKind, SecurityEvent};

/// The hash of an event and of all that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

/// A place in the chain. Places count up; where the chain was not written for a while they may leave numbers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The event's place; 0 before the first.
    pub place: u64,
    /// The hash at that place.
    pub hash: ChainHash,
}

/// What a mark is of; a seal for one is none for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The last event that was removed, or the beginning.
    Base,
    /// The last event.
    Head,
}

/// A mark with the proof that its writer had the key. As JSON it is an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedMark {
    /// The mark.
    #[serde(flatten)]
    pub mark: Mark,
    /// HMAC-SHA256 over kind and mark.
    pub seal: ChainHash,
}

/// Both ends of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailMarks {
    /// Where it begins.
    pub base: SealedMark,
    /// Where it ends.
    pub head: SealedMark,
}

/// An event with its place and its hash, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its place.
    pub place: u64,
    /// Its hash; none if it was written by something that keeps no chain.
    pub hash: Option<ChainHash>,
    /// What happened.
    pub event: SecurityEvent,
}

/// What seals both ends; it is not in the store.
#[derive(Clone)]
pub struct TrailKey([u8; 32]);

impl ChainHash {
    /// What comes before the first event.
    pub const START: Self = Self([0; 32]);
}

impl Mark {
    /// Before the first event.
    pub const START: Self = Self { place: 0, hash: ChainHash::START };

    /// The mark of `event`, which comes at `place` after this one.
    #[must_use]
    pub fn followed_by(&self, event: &SecurityEvent, place: u64) -> Self {
        let json = Value::Object(canonical(event, place)).to_string();
        let hash = Sha256::new_with_prefix(self.hash.to_string()).chain_update("\n").chain_update(json).finalize();
        Self { place, hash: ChainHash(hash.into()) }
    }
}

impl Link {
    /// A line of an export: the canonical JSON, with the hash among it.
    pub fn to_json(&self) -> String {
        let mut members = canonical(&self.event, self.place);
        members.insert("hash".into(), self.hash.map_or(Value::Null, |hash| hash.to_string().into()));
        Value::Object(members).to_string()
    }
}

impl SealedMark {
    /// Whether a trail that begins at this base may lack what `anchor` names: nothing, or an event that retention has
    /// removed. A base without a seal is where a chain begins that has never been shortened, so that no anchor is older.
    pub fn excuses(&self, anchor: &Mark) -> bool {
        let was_shortened = self.mark.hash != ChainHash::START;
        anchor.hash == ChainHash::START || was_shortened && anchor.place <= self.mark.place
    }
}

impl TrailKey {
    /// From 32 bytes that are used for nothing else.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Seals a mark.
    pub fn seal(&self, kind: MarkKind, mark: Mark) -> SealedMark {
        SealedMark { mark, seal: ChainHash(self.mac(kind, &mark).finalize().into_bytes().into()) }
    }

    /// Whether a mark was sealed with this key. The beginning of all needs no seal, wherever it is: a mark there says of no
    /// event that it was, and excuses none ([`SealedMark::excuses`]).
    pub fn holds(&self, kind: MarkKind, sealed: &SealedMark) -> bool {
        let is_start = sealed.mark.hash == ChainHash::START;
        is_start || self.mac(kind, &sealed.mark).verify_slice(&sealed.seal.0).is_ok()
    }

    fn mac(&self, kind: MarkKind, mark: &Mark) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        let kind = match kind {
            MarkKind::Base => "runit trail base",
            MarkKind::Head => "runit trail head",
        };
        mac.chain_update(format!("{kind}\n{}\n{}", mark.place, mark.hash))
    }
}

impl fmt::Debug for TrailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrailKey(..)")
    }
}

/// Members in the order of their names, which is serde_json's own for maps.
fn canonical(event: &SecurityEvent, place: u64) -> Map<String, Value> {
    let mut members = event.details();
    members.insert("at".into(), event.at.to_string().into());
    members.insert("kind".into(), event.kind.as_str().into());
    members.insert("place".into(), place.into());
    members
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An event and its hash do not fit what comes before.
    #[error("event {place}: changed, or what stood before it was changed, removed or moved")]
    Changed {
        /// Where.
        place: u64,
    },
    /// An event that is not part of the chain.
    #[error("event {place}: written by something that keeps no chain")]
    Unchained {
        /// Where.
        place: u64,
    },
    /// The node itself found the trail tampered with, and went on.
    #[error("event {place}: the node reports that the trail before was tampered with")]
    Reported {
        /// Where.
        place: u64,
    },
    /// The chain stops before its head.
    #[error("the trail ends at event {last} and should end at {head}: its end was removed")]
    Shortened {
        /// The last event that is there.
        last: u64,
        /// The last one that was written.
        head: u64,
    },
    /// Events after the head, or another last event than the head's.
    #[error("the trail does not end with the event that was written last, {head}")]
    OtherEnd {
        /// The last one that was written.
        head: u64,
    },
    /// One end is not sealed with this key.
    #[error("the {0} of the trail has no valid seal: it was changed, or the sealing key was")]
    Unsealed(&'static str),
    /// What an anchor names is not in the chain.
    #[error("an anchor says that event {place} was written, and it is not there as it was")]
    AnchorLost {
        /// Where.
        place: u64,
    },
    /// An anchor was not sealed with this key.
    #[error("the anchor of event {place} has no valid seal: it proves nothing")]
    AnchorUnsealed {
        /// Where.
        place: u64,
    },
}

/// Follows the chain from its base to its head.
#[derive(Debug)]
pub struct Verifier {
    key: TrailKey,
    at: Mark,
    anchors: Vec<Mark>,
    events: u64,
    findings: Vec<Finding>,
}

impl Verifier {
    /// Begins at `base`. Anchors that it excuses can say nothing any more.
    pub fn new(key: TrailKey, base: &SealedMark, anchors: &[SealedMark]) -> Self {
        let mut findings = Vec::new();
        if !key.holds(MarkKind::Base, base) {
            findings.push(Finding::Unsealed("base"));
        }
        let mut sound = Vec::new();
        for anchor in anchors {
            let place = anchor.mark.place;
            if !key.holds(MarkKind::Head, anchor) {
                findings.push(Finding::AnchorUnsealed { place });
            } else if !base.excuses(&anchor.mark) {
                sound.push(anchor.mark);
            }
        }
        Self { key, at: base.mark, anchors: sound, events: 0, findings }
    }

    /// The place of the last event that was followed.
    pub const fn place(&self) -> u64 {
        self.at.place
    }

    /// Follows the next event.
    pub fn follow(&mut self, link: &Link) {
        self.events += 1;
        let place = link.place;
        let expected = self.at.followed_by(&link.event, place);
        if link.event.kind == EventKind::TrailTampered {
            self.findings.push(Finding::Reported { place });
        }
        match link.hash {
            None => {
                self.findings.push(Finding::Unchained { place });
                self.at.place = place;
                return;
            }
            Some(hash) if hash == expected.hash && place > self.at.place => self.at = expected,
            Some(hash) => {
                self.findings.push(Finding::Changed { place });
                // The stored hash goes on, so that what is whole after it is not reported as well.
                self.at = Mark { place, hash };
                return;
            }
        }
        self.anchors.retain(|anchor| *anchor != expected);
    }

    /// There is no further event, and `head` was read after the last one.
    pub fn finish(mut self, head: &SealedMark) -> Verdict {
        if !self.key.holds(MarkKind::Head, head) {
            self.findings.push(Finding::Unsealed("head"));
        }
        let (last, head) = (self.at, head.mark);
        if last.place < head.place {
            self.findings.push(Finding::Shortened { last: last.place, head: head.place });
        } else if last != head {
            self.findings.push(Finding::OtherEnd { head: head.place });
        }
        self.findings.extend(self.anchors.iter().map(|anchor| Finding::AnchorLost { place: anchor.place }));
        Verdict { events: self.events, findings: self.findings }
    }
}

/// What came of following the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Events that were looked at.
    pub events: u64,
    /// What is not as it was written; nothing, if all is well.
    pub findings: Vec<Finding>,
}

/// Lower-case hexadecimal.
impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NoHash;

impl FromStr for ChainHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoHash);
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NoHash)?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
