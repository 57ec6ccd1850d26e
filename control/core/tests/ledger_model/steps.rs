//! What can happen, and how often it does.

use proptest::prelude::*;
use runit_core::budget::Direction;

/// One thing that happens. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A poll moves `most` bytes or fewer.
    Spend { node: usize, most: usize, direction: Direction },
    /// Polls move all that the node has left.
    Drain { node: usize, direction: Direction },
    /// A poll reserves bytes, has moved some of them, and has not said so yet.
    BeginPoll { node: usize, want: usize, moves: usize },
    /// The oldest such poll ends.
    EndPoll { node: usize },
    /// The node settles what it can and asks for a lease.
    Ask { node: usize, want: u64, fate: Fate },
    /// The node reports; `all` of its unspent bytes go back.
    Report { node: usize, all: bool, fate: Fate },
    /// A message that was held up arrives, perhaps not for the last time.
    Deliver { message: usize, again: bool },
    /// The node dies and another takes its place.
    Crash { node: usize, legacy: Legacy },
    /// Time passes.
    Pass(Span),
    /// The clock on the wall steps by this many milliseconds.
    MoveClock(i64),
    /// The session's cap is another from now on.
    SetCap(u64),
    /// The lock ended, and another was taken.
    Relock,
}

/// What becomes of a message and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    /// It arrives, and once more later.
    Repeated,
    /// It never arrives.
    Lost,
    /// It arrives, and its sender never learns that.
    AnswerLost,
    /// It arrives after its sender gave up on it.
    Late,
}

/// What a dead node left behind, and when its successor comes to settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Legacy {
    /// Settled at once.
    Prompt,
    /// Settled whenever the message arrives.
    Late,
    /// The host is lost.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Span {
    Millis(u64),
    /// To the edge of the present bucket, and so many milliseconds on.
    BucketEdge(i64),
    /// To a window after a byte moved, and so many milliseconds on.
    WindowAfterByte(usize, i64),
}

pub(crate) const BUCKET_MS: i64 = 5 * 60 * 1000;
const HOUR_MS: i64 = 60 * 60 * 1000;

pub(crate) fn cap() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, 90..110u64, 100..6000u64]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..80)
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..3usize;
    prop_oneof![
        12 => (node(), 0..700usize, direction()).prop_map(|(node, most, direction)| Step::Spend { node, most, direction }),
        8 => (node(), direction()).prop_map(|(node, direction)| Step::Drain { node, direction }),
        3 => (node(), 0..500usize, 0..500usize).prop_map(|(node, want, moves)| Step::BeginPoll { node, want, moves }),
        3 => node().prop_map(|node| Step::EndPoll { node }),
        14 => (node(), 0..1200u64, fate()).prop_map(|(node, want, fate)| Step::Ask { node, want, fate }),
        8 => (node(), any::<bool>(), fate()).prop_map(|(node, all, fate)| Step::Report { node, all, fate }),
        4 => (0..20usize, any::<bool>()).prop_map(|(message, again)| Step::Deliver { message, again }),
        3 => (node(), legacy()).prop_map(|(node, legacy)| Step::Crash { node, legacy }),
        9 => span().prop_map(Step::Pass),
        2 => prop_oneof![Just(HOUR_MS), Just(-HOUR_MS), -3000..3000i64].prop_map(Step::MoveClock),
        1 => cap().prop_map(Step::SetCap),
        3 => Just(Step::Relock),
    ]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::In), Just(Direction::Out)]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Arrives),
        1 => Just(Fate::Repeated),
        1 => Just(Fate::Lost),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Late),
    ]
}

fn legacy() -> impl Strategy<Value = Legacy> {
    prop_oneof![4 => Just(Legacy::Prompt), 2 => Just(Legacy::Late), 1 => Just(Legacy::Nothing)]
}

fn span() -> impl Strategy<Value = Span> {
    let near_edge = || prop_oneof![Just(-1i64), Just(0), Just(1)];
    let near_day = prop_oneof![
        near_edge(),
        near_edge().prop_map(|ms| BUCKET_MS + ms),
        near_edge().prop_map(|ms| ms - BUCKET_MS),
        -BUCKET_MS..BUCKET_MS,
    ];
    prop_oneof![
        3 => (0..2000u64).prop_map(Span::Millis),
        3 => (0..70_000u64).prop_map(Span::Millis),
        2 => near_edge().prop_map(Span::BucketEdge),
        1 => (0..HOUR_MS.unsigned_abs() * 25).prop_map(Span::Millis),
        3 => (0..50usize, near_day).prop_map(|(byte, ms)| Span::WindowAfterByte(byte, ms)),
    ]
}
