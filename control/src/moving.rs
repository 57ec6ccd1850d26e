//! Moves a node's own database to the one that many nodes share, and compares the two by what anybody can read of them.

use std::collections::HashMap;
use std::path::Path;

use runit_core::ledger::Ledger;
use runit_core::session::Session;
use runit_core::store::{Store, StoreError};
use runit_core::trail::TrailKey;
use runit_core::usage::UsageFilter;
use runit_core::{SessionId, Timestamp};

use crate::postgres::{ImportError, PostgresStore};
use crate::sqlite::{self, CareError, Contents, SqliteStore};

/// Rows that are compared at one time.
const PAGE: u32 = 1_000;

/// A store was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The one that it is in cannot be read.
    #[error(transparent)]
    From(#[from] CareError),
    /// The other one did not take it.
    #[error(transparent)]
    Into(#[from] ImportError),
    /// They could not be compared.
    #[error("the two could not be compared")]
    Compare(#[from] StoreError),
}

/// Moves all that `database` holds into `store`, which must be empty. The database stays as it is.
///
/// Answers what was moved, and what differs, which is nothing.
///
/// # Errors
/// [`MoveError`]; unless it is [`MoveError::Compare`], nothing was moved.
pub async fn move_store(
    database: &Path,
    store: &PostgresStore,
    key: TrailKey,
    now: Timestamp,
) -> Result<(Contents, Vec<&'static str>), MoveError> {
    let contents = sqlite::contents(database)?;
    store.import(&contents).await?;
    let from = SqliteStore::open_existing(database, key)?;
    let differences = differences(&from, store, &contents, now).await?;
    Ok((contents, differences))
}

async fn differences(
    from: &dyn Store,
    to: &dyn Store,
    contents: &Contents,
    now: Timestamp,
) -> Result<Vec<&'static str>, StoreError> {
    let mut differences = Vec::new();
    let mut compare = |what, same: bool| {
        if !same {
            differences.push(what);
        }
    };
    for sessions in contents.sessions.chunks(PAGE as usize) {
        let ids: Vec<SessionId> = sessions.iter().map(|(session, _)| session.id).collect();
        let (left, right) = (from.records(ids.clone(), now).await?, to.records(ids, now).await?);
        compare("sessions and ledgers", same_sessions(&left, &right));
    }
    compare("listed sessions", from.live_sessions().await?.len() == to.live_sessions().await?.len());
    let mut after = None;
    loop {
        let left = from.usage_records(UsageFilter::default(), after, PAGE).await?;
        let right = to.usage_records(UsageFilter::default(), after, PAGE).await?;
        compare("usage records", left == right);
        let Some(last) = left.last().filter(|_| left == right) else { break };
        after = Some((last.started_at, last.lock));
    }
    let carried = async |store: &dyn Store| {
        let mut carried = store.carried_usage(None, u32::MAX).await?;
        // Databases have orders of their own for text.
        carried.sort_unstable_by(|a, b| {
            (a.session, &a.provider, a.registered_at).cmp(&(b.session, &b.provider, b.registered_at))
        });
        Ok::<_, StoreError>(carried)
    };
    compare("deleted usage records", carried(from).await? == carried(to).await?);
    let mut place = 0;
    loop {
        let (left, right) = (from.events_after(place, PAGE).await?, to.events_after(place, PAGE).await?);
        compare("events", left == right);
        let Some(last) = left.last().filter(|_| left == right) else { break };
        place = last.place;
    }
    compare("ends of the audit trail", from.trail_marks().await? == to.trail_marks().await?);
    compare("keys", from.keys().await? == to.keys().await?);
    for (target, _) in &contents.webhook_cursors {
        let places = (from.webhook_cursor(target.clone()).await?, to.webhook_cursor(target.clone()).await?);
        compare("places of webhooks", places.0 == places.1);
    }
    Ok(differences)
}

fn same_sessions(left: &[(Session, Ledger)], right: &[(Session, Ledger)]) -> bool {
    let right: HashMap<SessionId, &(Session, Ledger)> = right.iter().map(|both| (both.0.id, both)).collect();
    let is_same = |(session, ledger): &(Session, Ledger)| {
        right
            .get(&session.id)
            .is_some_and(|(other, other_ledger)| same_session(session, other) && ledger == other_ledger)
    };
    left.len() == right.len() && left.iter().all(is_same)
}

/// Their text leaves out hashes, which are compared by themselves.
fn same_session(left: &Session, right: &Session) -> bool {
    let text = |session: &Session| format!("{session:?}");
    let hashes = |session: &Session| (session.provider_secret, session.offer.credential_hash);
    text(left) == text(right)
        && left.state == right.state
        && hashes(left) == hashes(right)
        && left.offer.sealed_credential == right.offer.sealed_credential
}
