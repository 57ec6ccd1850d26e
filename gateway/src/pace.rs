//! How slow a renter or a provider may be, decided by looking at a connection now and then.
//!
//! A connection has no timer of its own for this, and its bytes pay nothing for it: the guard notes what it waits for, one
//! task ([`crate::watch`]) looks at all connections once a second, and [`Pace`] remembers the last look.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use runit_config::NodeSettings;

use crate::connection::Cut;
use crate::watch::LOOK;

/// What keeps a connection from going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Nothing: no request, or a WebSocket on which nobody has anything to say.
    #[default]
    Nothing,
    /// The renter, to take what there is for him.
    Reader,
    /// The renter, to send the rest of a body.
    Sender,
    /// The provider, to begin its answer.
    Answer,
    /// The provider, to go on with its answer, or to take what there is for it.
    Provider,
}

/// What a connection's task met at its last poll of each side. Words of their own, written by that task and read by the
/// watch: a stale one is a look too early or too late, nothing else.
#[derive(Debug, Default)]
pub(crate) struct Holdups {
    /// The renter's socket took no more of what there is for him.
    pub(crate) renter_full: AtomicBool,
    /// Somebody wants to know [`Self::acknowledged`]. Only who polls the socket may ask it: its number is another's after
    /// it was closed.
    pub(crate) measure: AtomicBool,
    /// Bytes that the renter's kernel had taken when the socket was last asked. What was *written* says nothing of a slow
    /// reader: his socket takes a megabyte at once, and then nothing for minutes.
    pub(crate) acknowledged: AtomicU64,
    /// The renter's socket had nothing to read.
    pub(crate) renter_silent: AtomicBool,
    /// The provider's socket took no more of what there is for it. Noted for WebSockets only.
    pub(crate) provider_full: AtomicBool,
    /// More of the request's body is to come.
    pub(crate) body_expected: AtomicBool,
    /// The head of the provider's answer has come.
    pub(crate) answered: AtomicBool,
    /// It is a WebSocket by now.
    pub(crate) tunnel: AtomicBool,
}

impl Holdups {
    /// Another request.
    pub(crate) fn begin(&self) {
        for holdup in [&self.renter_full, &self.renter_silent, &self.body_expected, &self.answered] {
            holdup.store(false, Ordering::Relaxed);
        }
    }

    /// What it comes to, while a request is served or between two.
    pub(crate) fn waits(&self, serving: bool) -> WaitsFor {
        let is = |holdup: &AtomicBool| holdup.load(Ordering::Relaxed);
        match serving {
            _ if is(&self.renter_full) => WaitsFor::Reader,
            _ if is(&self.tunnel) && is(&self.provider_full) => WaitsFor::Provider,
            _ if is(&self.tunnel) => WaitsFor::Nothing,
            false => WaitsFor::Nothing,
            true if is(&self.body_expected) && is(&self.renter_silent) => WaitsFor::Sender,
            true if is(&self.answered) => WaitsFor::Provider,
            true => WaitsFor::Answer,
        }
    }
}

/// So long before it is judged, a reader is measured: two looks.
const AHEAD: Duration = Duration::from_secs(2);

/// How long each may last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    slowest_bytes_per_second: u64,
    slow: Duration,
    first_byte: Duration,
    silence: Duration,
}

impl Patience {
    /// As the settings have it now.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        Self {
            slowest_bytes_per_second: settings.limits.slowest_bytes_per_second,
            slow: Duration::from_secs(settings.limits.slow_seconds),
            // After the time-out of whoever waits for it, who can still say so to the renter.
            first_byte: Duration::from_millis(settings.gateway.upstream_first_byte_timeout_ms) + LOOK,
            silence: Duration::from_millis(settings.gateway.upstream_silence_timeout_ms),
        }
    }

    fn is_enough(&self, bytes: u64, waited: Duration) -> bool {
        bytes >= self.slowest_bytes_per_second.saturating_mul(waited.as_secs())
    }
}

/// Bytes of a connection, by who sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// By the renter.
    pub(crate) bytes_in: u64,
    /// To the renter.
    pub(crate) bytes_out: u64,
}

/// What one connection has waited for, and since when.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    waits: WaitsFor,
    since: Duration,
    then: Moved,
    /// Whether `then` was measured after the wait began.
    is_measured: bool,
}

impl Pace {
    /// Whether the next look needs to know what the renter's kernel has taken by now. Not each does: to find out wakes the
    /// connection, and of those that wait there may be thousands.
    pub(crate) fn wants_measure(&self, waits: WaitsFor, now: Duration, patience: &Patience) -> bool {
        let judged_soon = now.saturating_sub(self.since) + AHEAD >= patience.slow;
        waits == WaitsFor::Reader && (waits != self.waits || !self.is_measured || judged_soon)
    }

    /// Looks at the connection at `now`; answers whether it has to end.
    pub(crate) fn look(&mut self, waits: WaitsFor, moved: Moved, now: Duration, patience: &Patience) -> Option<Cut> {
        let waited = now.saturating_sub(self.since);
        let (goes_on, cut) = match waits {
            _ if waits != self.waits => (true, Cut::SlowRenter),
            WaitsFor::Nothing => (true, Cut::SlowRenter),
            WaitsFor::Reader if !self.is_measured => (true, Cut::SlowRenter),
            WaitsFor::Reader | WaitsFor::Sender if waited < patience.slow => return None,
            WaitsFor::Reader => (patience.is_enough(moved.bytes_out - self.then.bytes_out, waited), Cut::SlowRenter),
            WaitsFor::Sender => (patience.is_enough(moved.bytes_in - self.then.bytes_in, waited), Cut::SlowRenter),
            WaitsFor::Answer | WaitsFor::Provider if moved != self.then => (true, Cut::SlowProvider),
            WaitsFor::Answer if waited < patience.first_byte => return None,
            WaitsFor::Provider if waited < patience.silence => return None,
            WaitsFor::Answer | WaitsFor::Provider => (false, Cut::SlowProvider),
        };
        *self = Self { waits, since: now, then: moved, is_measured: waits == self.waits };
        (!goes_on).then_some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        slowest_bytes_per_second: 100,
        slow: Duration::from_secs(10),
        first_byte: Duration::from_secs(60),
        silence: Duration::from_secs(20),
    };

    /// Looks once a second while `step` says what is waited for and what has moved by then; when and why it was cut.
    fn watch(seconds: u64, step: impl Fn(u64) -> (WaitsFor, Moved)) -> Option<(u64, Cut)> {
        let mut pace = Pace::default();
        (0..seconds).find_map(|second| {
            let (waits, moved) = step(second);
            pace.look(waits, moved, Duration::from_secs(second), &PATIENCE).map(|cut| (second, cut))
        })
    }

    fn out(bytes_out: u64) -> Moved {
        Moved { bytes_in: 0, bytes_out }
    }

    #[test]
    fn a_reader_below_the_rate_is_cut_after_a_window_and_one_at_the_rate_never() {
        assert_eq!(watch(100, |_| (WaitsFor::Reader, out(0))), Some((11, Cut::SlowRenter)));
        assert_eq!(watch(100, |s| (WaitsFor::Reader, out(99 * s))), Some((11, Cut::SlowRenter)));
        assert_eq!(watch(1_000, |s| (WaitsFor::Reader, out(100 * s))), None);
        assert_eq!(
            watch(100, |s| (WaitsFor::Reader, out(s.min(30) * 1_000))),
            Some((41, Cut::SlowRenter)),
            "stops at 30"
        );
    }

    #[test]
    fn a_sender_is_measured_by_what_he_sends_and_a_reader_by_what_he_takes() {
        let sends = |second: u64| Moved { bytes_in: 1_000 * second, bytes_out: 0 };
        assert_eq!(watch(100, |s| (WaitsFor::Sender, sends(s))), None);
        assert_eq!(watch(100, |s| (WaitsFor::Reader, sends(s))), Some((11, Cut::SlowRenter)));
        assert_eq!(watch(100, |s| (WaitsFor::Sender, out(1_000 * s))), Some((10, Cut::SlowRenter)));
    }

    #[test]
    fn who_took_all_that_there_was_is_not_slow() {
        assert_eq!(watch(1_000, |s| (if s % 9 == 0 { WaitsFor::Provider } else { WaitsFor::Reader }, out(s))), None);
    }

    #[test]
    fn nothing_to_do_may_last_for_ever() {
        assert_eq!(watch(100_000, |_| (WaitsFor::Nothing, out(7))), None);
    }

    #[test]
    fn a_provider_has_its_time_to_answer_and_another_to_go_on() {
        assert_eq!(watch(100, |_| (WaitsFor::Answer, out(0))), Some((60, Cut::SlowProvider)));
        assert_eq!(watch(100, |_| (WaitsFor::Provider, out(0))), Some((20, Cut::SlowProvider)));
        assert_eq!(watch(1_000, |s| (WaitsFor::Provider, out(s / 19))), None, "a byte now and then");
        let uploads = |second: u64| Moved { bytes_in: second, bytes_out: 0 };
        assert_eq!(watch(1_000, |s| (WaitsFor::Answer, uploads(s))), None, "it still takes the request");
    }

    #[test]
    fn a_reader_is_measured_when_he_begins_to_wait_and_when_he_is_judged() {
        let mut pace = Pace::default();
        let measured: Vec<_> = (0..12)
            .filter(|&second| {
                let now = Duration::from_secs(second);
                let wanted = pace.wants_measure(WaitsFor::Reader, now, &PATIENCE);
                pace.look(WaitsFor::Reader, out(1_000 * second), now, &PATIENCE);
                wanted
            })
            .collect();
        assert_eq!(measured, [0, 1, 9, 10, 11]);
        assert!(!pace.wants_measure(WaitsFor::Sender, Duration::ZERO, &PATIENCE));
    }

    #[test]
    fn a_rate_of_none_cuts_no_renter() {
        let patience = Patience { slowest_bytes_per_second: 0, ..PATIENCE };
        let mut pace = Pace::default();
        let look = |s| pace.look(WaitsFor::Reader, out(0), Duration::from_secs(s), &patience);
        assert!((0..100).map(look).all(|cut| cut.is_none()));
    }
}
