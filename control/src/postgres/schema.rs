//! How a database becomes one of the newest schema: forward only, one numbered file of SQL for each step.

use std::cmp::Ordering;

use deadpool_postgres::Client;

use super::{DbError, OpenError};

/// In order; the first one makes version 1. What has been on main is never edited, only followed by another.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/1_first.sql"),
    include_str!("migrations/2_carried_usage.sql"),
    include_str!("migrations/3_rates.sql"),
];

/// Names the advisory lock that nodes take turns by: "runit", and what it is for.
const MIGRATING: i64 = 0x7275_6e69_7401;

/// Applies what is missing, one node at a time; each migration is applied whole or not at all.
pub(super) async fn migrate(client: &mut Client) -> Result<(), OpenError> {
    while apply_next(client).await? {}
    Ok(())
}

/// Refuses what a node would migrate.
pub(super) async fn require_newest(client: &Client) -> Result<(), OpenError> {
    let (found, known) = (version(client).await?, known());
    match found.cmp(&known) {
        Ordering::Less => Err(OpenError::Older { found, known }),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(OpenError::Newer { found, known }),
    }
}

/// The version that the last migration makes.
fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

async fn version(client: &Client) -> Result<i64, DbError> {
    let table = client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    if !table.try_get(0)? {
        return Ok(0);
    }
    Ok(client.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[]).await?.try_get(0)?)
}

async fn apply_next(client: &mut Client) -> Result<bool, OpenError> {
    let transaction = client.transaction().await.map_err(DbError::from)?;
    // A large table takes its time, and so does a node that migrates before this one.
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await.map_err(DbError::from)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATING]).await.map_err(DbError::from)?;
    transaction
        .batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)")
        .await
        .map_err(DbError::from)?;
    let row = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])
        .await
        .map_err(DbError::from)?;
    let found: i64 = row.try_get(0).map_err(DbError::from)?;
    let pending = usize::try_from(found).ok().and_then(|applied| MIGRATIONS.get(applied..));
    let Some((next, _)) = pending.ok_or(OpenError::Newer { found, known: known() })?.split_first() else {
        return Ok(false);
    };
    transaction.batch_execute(next).await.map_err(DbError::from)?;
    transaction
        .execute("INSERT INTO schema_version (version) VALUES ($1)", &[&(found + 1)])
        .await
        .map_err(DbError::from)?;
    transaction.commit().await.map_err(DbError::from)?;
    Ok(true)
}
