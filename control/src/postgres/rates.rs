//! Limits that hold for all nodes together, as the times of what was admitted in the last window.
//!
//! One statement decides, and holds the row while it does. The time is the database's own, so that all nodes count by one
//! clock.

use std::time::Duration;

use deadpool_postgres::Client;
use runit_core::Timestamp;
use runit_core::store::{SharedRate, SharedVerdict};

use super::DbError;

const ADMIT: &str = "INSERT INTO rates AS r (name, whom, times, over_at)
     SELECT $1, $2, ARRAY[now], now + $3::bigint
     FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) AS clock
     ON CONFLICT (name, whom) DO UPDATE SET
         times = ARRAY(SELECT t FROM unnest(r.times) AS t WHERE t > excluded.times[1] - $3) || excluded.times,
         over_at = greatest(r.over_at, excluded.over_at)
     WHERE (SELECT count(*) FROM unnest(r.times) AS t WHERE t > excluded.times[1] - $3) < $4
     RETURNING r.times[cardinality(r.times)]";

const REFUSE: &str = "WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now),
     told AS (
         UPDATE rates SET reported = now FROM clock
         WHERE name = $1 AND whom = $2 AND reported <= now - $3 RETURNING name)
     SELECT EXISTS (SELECT FROM told), coalesce((
         SELECT t FROM rates, unnest(times) AS t
         WHERE name = $1 AND whom = $2 AND t > now - $3
         ORDER BY t DESC OFFSET $4::bigint - 1 LIMIT 1) + $3 - now, 0)
     FROM clock";

/// Counts one request if it is not one too many.
pub(super) async fn admit(db: &Client, rate: &SharedRate) -> Result<SharedVerdict, DbError> {
    let window = i64::try_from(rate.limit.window.as_millis()).unwrap_or(i64::MAX);
    let most = i64::from(rate.limit.requests.max(1));
    let statement = db.prepare_cached(ADMIT).await?;
    if let Some(row) = db.query_opt(&statement, &[&rate.name, &rate.whom, &window, &most]).await? {
        let at: i64 = row.try_get(0)?;
        return Ok(SharedVerdict::Admitted(Timestamp::from_unix_ms(u64::try_from(at).unwrap_or_default())));
    }
    let statement = db.prepare_cached(REFUSE).await?;
    let row = db.query_one(&statement, &[&rate.name, &rate.whom, &window, &most]).await?;
    let wait: i64 = row.try_get(1)?;
    let next_free = Duration::from_millis(u64::try_from(wait).unwrap_or_default());
    Ok(SharedVerdict::TooMany { next_free, first: row.try_get(0)? })
}

/// Takes one admission of that time out again.
pub(super) async fn forgive(db: &Client, rate: &SharedRate, admitted_at: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE rates SET times = times[:array_position(times, $3) - 1] || times[array_position(times, $3) + 1:]
         WHERE name = $1 AND whom = $2 AND array_position(times, $3) IS NOT NULL";
    let at = i64::try_from(admitted_at.unix_ms()).unwrap_or(i64::MAX);
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&rate.name, &rate.whom, &at]).await?;
    Ok(())
}

/// Forgets who has nothing left in a window.
pub(super) async fn forget_old(db: &Client) -> Result<(), DbError> {
    let sql = "DELETE FROM rates WHERE over_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[]).await?;
    Ok(())
}
