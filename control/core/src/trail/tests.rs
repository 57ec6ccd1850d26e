use super::*;
use crate::address::RenterAddress;
use crate::id::SessionId;
use crate::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

fn key() -> TrailKey {
    TrailKey::new([7; 32])
}

fn event(number: u64) -> SecurityEvent {
    SecurityEvent::new(EventKind::SessionLocked, Timestamp::from_unix_ms(1_795_334_400_000 + number))
        .session(SessionId::from_uuid(Uuid::from_u128(number.into())))
        .address(RenterAddress::new([127, 0, 0, 1].into()))
}

/// A trail of so many events, as a store keeps it.
#[derive(Clone)]
struct Trail {
    base: SealedMark,
    links: Vec<Link>,
    head: SealedMark,
}

impl Trail {
    fn of(events: u64) -> Self {
        let base = SealedMark { mark: Mark::START, seal: ChainHash::START };
        let mut trail = Self { base, links: Vec::new(), head: base };
        (1..=events).for_each(|number| trail.append(event(number)));
        trail
    }

    fn append(&mut self, event: SecurityEvent) {
        let place = self.head.mark.place + 1;
        let mark = self.head.mark.followed_by(&event, place);
        self.links.push(Link { place, hash: Some(mark.hash), event });
        self.head = key().seal(MarkKind::Head, mark);
    }

    /// Whoever has no key computes the hashes anew and leaves the marks.
    fn rehash(&mut self) {
        let mut at = self.base.mark;
        for link in &mut self.links {
            at = at.followed_by(&link.event, link.place);
            link.hash = Some(at.hash);
        }
    }

    /// Whoever has no key takes all events out, and moves both marks to a beginning of his own, which needs no seal.
    fn erase(&mut self, place: u64) {
        let mark = Mark { place, hash: ChainHash::START };
        self.links.clear();
        self.base = SealedMark { mark, seal: ChainHash::START };
        self.head = self.base;
    }

    fn findings(&self, anchors: &[SealedMark]) -> Vec<Finding> {
        let mut verifier = Verifier::new(key(), &self.base, anchors);
        self.links.iter().for_each(|link| verifier.follow(link));
        verifier.finish(&self.head).findings
    }
}

#[test]
fn a_chain_that_nobody_touched_is_whole_also_with_anchors_of_every_age() {
    let mut trail = Trail::of(0);
    let mut anchors = vec![trail.head];
    assert_eq!(trail.findings(&anchors), []);
    for number in 1..=20 {
        trail.append(event(number));
        anchors.push(trail.head);
    }
    assert_eq!(trail.findings(&anchors), []);
}

#[test]
fn an_export_can_be_verified_by_anyone_with_sha_256() {
    let mut trail = Trail::of(0);
    trail.append(event(7));
    let line = trail.links[0].to_json();
    let json = concat!(
        r#"{"address":"127.0.0.1","at":"2026-11-22T08:00:00.007Z","kind":"SESSION_LOCKED","place":1,"#,
        r#""session":"00000000-0000-0000-0000-000000000007"}"#
    );
    let hash = Sha256::digest(format!("{}\n{json}", "0".repeat(64)));
    let hash = ChainHash(hash.into());
    assert_eq!(trail.links[0].hash, Some(hash));
    assert_eq!(line, json.replace(r#","kind""#, &format!(r#","hash":"{hash}","kind""#)));
}

#[test]
fn retention_leaves_a_chain_that_still_holds_and_that_nobody_else_can_shorten() {
    let mut trail = Trail::of(10);
    let pruned = Mark { place: 4, hash: trail.links[3].hash.expect("chained") };
    trail.links.drain(..4);
    trail.base = SealedMark { mark: pruned, seal: ChainHash([1; 32]) };
    assert_eq!(trail.findings(&[]), [Finding::Unsealed("base")]);
    trail.base = key().seal(MarkKind::Head, pruned);
    assert_eq!(trail.findings(&[]), [Finding::Unsealed("base")], "a head's seal, seen earlier, is none for a base");
    trail.base = key().seal(MarkKind::Base, pruned);
    assert_eq!(trail.findings(&[]), []);
    trail.links.drain(..2);
    assert_eq!(trail.findings(&[]), [Finding::Changed { place: 7 }]);
}

#[test]
fn an_end_that_was_dropped_together_with_its_head_is_found_by_an_anchor() {
    let early = Trail::of(10);
    let late = Trail::of(20);
    assert_eq!(early.findings(&[]), [], "an old head has its old seal");
    assert_eq!(early.findings(&[late.head]), [Finding::AnchorLost { place: 20 }]);
    let mut other = Trail::of(19);
    other.append(event(77));
    assert_eq!(other.findings(&[late.head]), [Finding::AnchorLost { place: 20 }]);
}

#[test]
fn a_trail_that_was_erased_is_found_by_an_anchor_wherever_it_says_that_it_begins() {
    let whole = Trail::of(20);
    for place in [0, 5, 20, 1_000_000] {
        let mut trail = whole.clone();
        trail.erase(place);
        assert_eq!(trail.findings(&[whole.head]), [Finding::AnchorLost { place: 20 }], "{place}");
    }
}

#[test]
fn a_chain_that_was_introduced_after_other_events_is_whole_with_anchors_of_every_age() {
    let mut trail = Trail::of(0);
    trail.erase(1_000);
    let mut anchors = vec![trail.head];
    for number in 1..=3 {
        trail.append(event(number));
        anchors.push(trail.head);
    }
    assert_eq!(trail.findings(&anchors), []);
}

#[test]
fn another_key_seals_nothing() {
    let trail = Trail::of(3);
    let mut verifier = Verifier::new(TrailKey::new([8; 32]), &trail.base, &[trail.head]);
    trail.links.iter().for_each(|link| verifier.follow(link));
    let findings = verifier.finish(&trail.head).findings;
    assert_eq!(findings, [Finding::AnchorUnsealed { place: 3 }, Finding::Unsealed("head")]);
}

#[test]
fn what_keeps_no_chain_and_what_the_node_found_itself_is_reported() {
    let mut trail = Trail::of(2);
    trail.append(SecurityEvent::new(EventKind::TrailTampered, Timestamp::default()));
    assert_eq!(trail.findings(&[]), [Finding::Reported { place: 3 }]);
    let mut trail = Trail::of(2);
    trail.links[1].hash = None;
    assert!(trail.findings(&[]).contains(&Finding::Unchained { place: 2 }));
}

#[derive(Clone, Debug)]
enum Tampering {
    Change(usize),
    Remove(usize, usize),
    Swap(usize, usize),
    SwapPlaces(usize, usize),
    Insert(usize),
    DropLast(usize),
    MoveHeadBack(usize),
    EraseAll(u64),
}

impl Tampering {
    /// Does it; whether anything is different then.
    fn apply(&self, trail: &mut Trail) -> bool {
        let length = trail.links.len();
        let before = trail.links.clone();
        match *self {
            Self::Change(at) => trail.links[at % length].event.at = Timestamp::from_unix_ms(5),
            Self::Remove(at, count) => {
                let at = at % length;
                trail.links.drain(at..(at + 1 + count).min(length));
            }
            Self::Swap(a, b) => trail.links.swap(a % length, b % length),
            Self::SwapPlaces(a, b) => {
                let (a, b) = (a % length, b % length);
                let events = (trail.links[a].event.clone(), trail.links[b].event.clone());
                (trail.links[b].event, trail.links[a].event) = events;
            }
            Self::Insert(at) => {
                let mut link = trail.links[at % length].clone();
                link.event.kind = EventKind::SessionReleased;
                trail.links.insert(at % length, link);
            }
            Self::DropLast(count) => trail.links.truncate(length - 1 - count % length),
            Self::MoveHeadBack(count) => {
                trail.links.truncate(length - 1 - count % length);
                trail.head.mark = trail
                    .links
                    .last()
                    .map_or(Mark::START, |last| Mark { place: last.place, hash: last.hash.expect("chained") });
                // To drop all is to say that there never was anything: only an anchor knows better.
                return !trail.links.is_empty();
            }
            Self::EraseAll(place) => {
                trail.erase(place);
                return false;
            }
        }
        trail.links != before
    }
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = || 0..40usize;
    prop_oneof![
        at().prop_map(Tampering::Change),
        (at(), 0..10usize).prop_map(|(at, count)| Tampering::Remove(at, count)),
        (at(), at()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        (at(), at()).prop_map(|(a, b)| Tampering::SwapPlaces(a, b)),
        at().prop_map(Tampering::Insert),
        at().prop_map(Tampering::DropLast),
        at().prop_map(Tampering::MoveHeadBack),
        (0..2_000_000u64).prop_map(Tampering::EraseAll),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_without_the_key_is_found(
        length in 1..40u64,
        tamperings in prop::collection::vec(tampering(), 1..3),
        rehash in any::<bool>(),
    ) {
        let whole = Trail::of(length);
        let mut trail = whole.clone();
        let mut changed = false;
        for tampering in &tamperings {
            if !trail.links.is_empty() {
                changed |= tampering.apply(&mut trail);
            }
        }
        if rehash {
            trail.rehash();
        }
        let undone = trail.links == whole.links && trail.head == whole.head;
        if changed && !undone && !(trail.links.is_empty() && trail.head.mark.hash == ChainHash::START) {
            prop_assert!(!trail.findings(&[]).is_empty(), "{tamperings:?}");
        }
        if trail.links != whole.links {
            prop_assert!(!trail.findings(&[whole.head]).is_empty(), "an anchor finds what is left: {tamperings:?}");
        }
    }
}
