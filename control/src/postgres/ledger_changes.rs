//! Changing ledgers by compare-and-set, one or several at a time: from what is remembered of them, or read where nothing is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use runit_core::ledger::{Lease, LeasePolicy, LeaseRequest, Ledger};
use runit_core::store::{GrantError, StoreError};
use runit_core::{LockId, SessionId, Timestamp};
use tokio::sync::OwnedMutexGuard;

use super::ledger_rows::{self, Known, Replacement};
use super::{ATTEMPTS, DbError, PostgresStore};

impl PostgresStore {
    /// Changes a ledger or several, until nobody else was faster. `change` may be called more than once; what it answers
    /// with the ledgers that were written counts.
    pub(super) async fn change_ledgers<T>(
        &self,
        mut sessions: Vec<SessionId>,
        mut change: impl FnMut(SessionId, &Known) -> Option<(Ledger, T)> + Send,
    ) -> Result<Vec<(SessionId, T)>, DbError>
    where
        T: Send,
    {
        sessions.sort_unstable();
        sessions.dedup();
        let mut outcomes = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut places = BTreeMap::new();
            for &session in &sessions {
                // In order, so that two who change several do not wait for each other.
                places.insert(session, self.ledgers.place(session).lock_owned().await);
            }
            self.look_up(&mut places).await?;
            let changed: Vec<_> = places
                .iter()
                .filter_map(|(&session, place)| Some((session, change(session, (**place).as_ref()?)?)))
                .collect();
            let (written, answers): (Vec<_>, Vec<_>) =
                changed.into_iter().map(|(session, (ledger, answer))| ((session, ledger), (session, answer))).unzip();
            let replaced = self.write(&mut places, written).await?;
            outcomes.extend(answers.into_iter().filter(|(session, _)| replaced.contains(session)));
            sessions.retain(|session| places.get(session).is_some_and(|place| place.is_none()));
            if sessions.is_empty() {
                return Ok(outcomes);
            }
        }
        Err(DbError::Contended)
    }

    /// Reads what is not known yet.
    async fn look_up(&self, places: &mut BTreeMap<SessionId, OwnedMutexGuard<Option<Known>>>) -> Result<(), DbError> {
        let unknown: Vec<_> = places.iter().filter(|(_, place)| place.is_none()).map(|(&session, _)| session).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for (session, known) in self.ask(async |db| ledger_rows::load(&db, &unknown).await).await? {
            if let Some(place) = places.get_mut(&session) {
                **place = Some(known);
            }
        }
        // A session that does not exist has nothing to change.
        places.retain(|_, place| place.is_some());
        Ok(())
    }

    /// Writes ledgers; those that were not the known ones any more are forgotten.
    async fn write(
        &self,
        places: &mut BTreeMap<SessionId, OwnedMutexGuard<Option<Known>>>,
        written: Vec<(SessionId, Ledger)>,
    ) -> Result<Vec<SessionId>, DbError> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        let known: Vec<(SessionId, Known, Ledger)> = written
            .into_iter()
            .filter_map(|(session, ledger)| {
                // Forgotten until the database has answered: should it not, nobody knows what is there.
                Some((session, places.get_mut(&session)?.take()?, ledger))
            })
            .collect();
        let replacements: Vec<_> =
            known.iter().map(|(session, known, ledger)| Replacement { session: *session, known, ledger }).collect();
        let replaced = self.ask(async |db| ledger_rows::replace(&db, &replacements).await).await?;
        for (session, known, ledger) in known {
            if replaced.contains(&session) {
                self.forfeited.fetch_add(ledger_rows::forfeited(&known.ledger, &ledger), Ordering::Relaxed);
                if let Some(place) = places.get_mut(&session) {
                    // What was booked is in the records now.
                    let ledger = Ledger { bookings: BTreeMap::new(), ..ledger };
                    **place = Some(Known { version: known.version + 1, ledger, ..known });
                }
            }
        }
        Ok(replaced)
    }

    /// Grants a lease by what is known here, which may be of an earlier lock.
    pub(super) async fn grant_once(
        &self,
        request: LeaseRequest,
        policy: LeasePolicy,
        now: Timestamp,
    ) -> Result<Lease, GrantError> {
        let mut refused = GrantError::Unknown;
        let granted = self.change_ledgers(vec![request.session], |_, known| {
            let cap_bytes = known.cap_bytes?;
            if known.lock.map(LockId::of) != Some(request.lock) {
                refused = GrantError::NoLock;
                return None;
            }
            let mut ledger = known.ledger.clone();
            match ledger.grant(&request, cap_bytes, &policy, now) {
                Ok(lease) => Some((ledger, lease)),
                Err(shortage) => {
                    refused = GrantError::Short(shortage);
                    None
                }
            }
        });
        let granted = granted.await.map_err(StoreError::from)?;
        granted.into_iter().map(|(_, lease)| lease).next().ok_or(refused)
    }
}
