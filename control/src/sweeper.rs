//! Removes sessions whose provider is silent or whose key is revoked, and ends locks whose renter is absent.
//!
//! The rule itself is checked again in the store's transaction ([`Change::ProviderSilent`], [`Change::RenterAbsent`],
//! [`Change::KeyRevoked`]), so that one who comes back in the last moment is kept.
//!
//! Silence and absence count from when this process began to hear at the earliest: while it was down, stopped, or without
//! its store, nobody could be heard.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::session::Change;
use runit_core::store::{ChangeError, StoreError, Turn};
use runit_core::time::millis;
use runit_core::{SessionId, Timestamp};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::anchors::{AnchorFile, Anchors};
use crate::control::{Control, removed};

/// A removed session is kept for so long: its id stays its agent's, and its ledger, whose window is a day, what it was.
const TOMBSTONES: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often it is looked for removed sessions that are older.
const FORGETTING: Duration = Duration::from_secs(60 * 60);

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Changes at one time: they share commits.
const AT_ONCE: usize = 64;

impl Control {
    /// Sweeps at the configured interval until `stop` turns true; the last heartbeats are written then.
    pub(crate) async fn keep_sweeping(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(self.settings.load().control.sweep_interval_ms));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgetting = tokio::time::interval(FORGETTING);
        forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut anchors = Anchors::default();
        loop {
            let hourly = tokio::select! {
                _ = ticks.tick() => false,
                _ = forgetting.tick() => true,
                _ = stop.wait_for(|&stopped| stopped) => break,
            };
            // What failed is logged by the store, and tried again at the next tick.
            let swept = if hourly { self.forget().await } else { self.sweep().await };
            if swept.is_ok() {
                self.hearing.heard(self.sessions.clock.now(), Instant::now());
            }
            let _ = self.anchor(&mut anchors).await;
        }
        let _ = self.heartbeats.flush(&*self.sessions.store).await;
        let _ = self.anchor(&mut anchors).await;
    }

    /// Hears of changes that other processes make, while this one does not sweep: it has a successor, or is a data plane only.
    pub async fn follow_successor(self, stop: impl Future<Output = ()>) {
        let mut ticks =
            tokio::time::interval(Duration::from_millis(self.settings.load().control.sweep_interval_ms.min(200)));
        let polling = async {
            loop {
                ticks.tick().await;
                // What failed is logged by the store, and tried again at the next tick.
                let _ = self.catch_up().await;
            }
        };
        tokio::select! {
            () = polling => {}
            () = self.follow_store() => {}
            () = stop => {}
        }
    }

    async fn anchor(&self, anchors: &mut Anchors) -> Result<(), StoreError> {
        let file = AnchorFile::of(&self.settings.load());
        anchors.update(&file, &*self.sessions.store, &self.trail, &*self.sessions.clock).await
    }

    /// Forgets sessions that were removed long ago, and old events, or hostile registrations would fill the disk; and
    /// usage records, where the settings say so.
    async fn forget(&self) -> Result<(), StoreError> {
        // Each process has reports of its own.
        let live = self.sessions.directory.sessions().iter().map(|session| session.id).collect();
        self.reports.retain(&live);
        self.heartbeats.retain(&live);
        if !self.sessions.store.has_turn(Turn::Sweep).await? {
            return Ok(());
        }
        let now = self.sessions.clock.now();
        let before = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(millis(TOMBSTONES)));
        self.sessions.store.forget_removed(before).await?;
        let audit = self.settings.load().audit.clone();
        while self.sessions.store.prune_events(audit.keep_events, days_before(now, audit.keep_days)).await? > 0 {}
        if let Some(days) = audit.keep_usage_days {
            while self.sessions.store.prune_usage(days_before(now, days)).await? > 0 {}
        }
        Ok(())
    }

    /// One round: heartbeats are written, other processes heard, then whoever is due is asked about.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        self.heartbeats.flush(&*self.sessions.store).await?;
        let now = self.catch_up().await?;
        let has_turn = self.sessions.store.has_turn(Turn::Sweep).await?;
        self.hearing.reached(Instant::now());
        if !has_turn {
            return Ok(());
        }
        while self.sessions.store.expire_leases(now).await? > 0 {}
        self.remove_revoked().await?;
        let settings = self.settings.load();
        let silent_after = Duration::from_secs(settings.control.provider_silent_seconds);
        let absent_after = Duration::from_secs(settings.control.renter_absent_seconds);
        let due = self.sessions.store.due(self.limit(silent_after), self.limit(absent_after)).await?;
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |id| async move {
                if !self.ask(id, Change::ProviderSilent(silent_after), silent_after).await {
                    self.ask(id, Change::RenterAbsent(absent_after), absent_after).await;
                }
            })
            .await;
        Ok(())
    }

    /// Takes over what other processes have changed, and notes that it has: also where this one does not sweep. Answers when.
    async fn catch_up(&self) -> Result<Timestamp, StoreError> {
        if self.sessions.catch_up().await? {
            self.keys.reload().await?;
        }
        let now = self.sessions.clock.now();
        self.swept.note(now);
        self.trail.with_tally(|tally| tally.locked(self.sessions.directory.counts().locked, now));
        Ok(now)
    }

    /// Removes sessions whose key is revoked. Whoever revokes one removes those that he knows, and whoever registers with one
    /// looks at it again, but at two nodes each may not have heard of the other yet.
    async fn remove_revoked(&self) -> Result<(), StoreError> {
        let revoked = self.keys.revoked();
        if revoked.is_empty() {
            return Ok(());
        }
        for known in self.sessions.directory.registered_with(&revoked) {
            let Some(key) = known.provider_key else { continue };
            match self.sessions.change(known.id, Change::KeyRevoked(key)).await {
                Ok(session) => self.note(removed(&session, self.sessions.clock.now()).key(key)).await,
                Err(ChangeError::Store(error)) => return Err(error),
                Err(ChangeError::Refused(_) | ChangeError::Unknown) => {}
            }
        }
        Ok(())
    }

    /// Who was seen then or before is due; nobody is while this process has not heard for as long.
    fn limit(&self, after: Duration) -> Timestamp {
        let now = self.sessions.clock.now();
        if now.since(self.hearing.since(now, Instant::now())) < after {
            return Timestamp::default();
        }
        Timestamp::from_unix_ms(now.unix_ms().saturating_sub(millis(after)))
    }

    /// Whether the change happened.
    async fn ask(&self, id: SessionId, change: Change, after: Duration) -> bool {
        if self.limit(after) == Timestamp::default() {
            return false;
        }
        let is_silence = matches!(change, Change::ProviderSilent(_));
        if is_silence && self.heartbeats.heard_at(id).is_some_and(|heard| heard > self.limit(after)) {
            return false;
        }
        let changed = self.sessions.change(id, change).await;
        if !matches!(changed, Err(ChangeError::Store(_))) {
            self.hearing.reached(Instant::now());
        }
        match changed {
            Ok(session) => {
                let now = self.sessions.clock.now();
                let event = match is_silence {
                    true => removed(&session, now),
                    false => SecurityEvent::new(EventKind::SessionAutoUnlocked, now).session(id),
                };
                self.note(event).await;
                true
            }
            Err(ChangeError::Refused(_) | ChangeError::Unknown | ChangeError::Store(_)) => false,
        }
    }
}

fn days_before(now: Timestamp, days: u64) -> Timestamp {
    let time = Duration::from_secs(days.saturating_mul(DAY_SECONDS));
    Timestamp::from_unix_ms(now.unix_ms().saturating_sub(millis(time)))
}
