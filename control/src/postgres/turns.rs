//! Whose turn it is to do what one node does for all: one's, for a while, as a row with a time.
//!
//! Not an advisory lock, which a node that is stopped, or behind a partition, would keep for as long as its connection seems
//! alive.

use std::time::Duration;

use deadpool_postgres::Client;
use runit_core::store::Turn;
use uuid::Uuid;

use super::DbError;

/// A turn lasts for so long after it was last asked for.
const TURN: Duration = Duration::from_secs(10);

/// Takes the turn if it is free, and keeps it if it is `node`'s. The time is the database's own.
pub(super) async fn take(db: &Client, turn: &Turn, node: Uuid) -> Result<bool, DbError> {
    let what = match turn {
        Turn::Sweep => "sweep".to_owned(),
        Turn::Webhook(target) => format!("webhook {target}"),
    };
    let sql = "INSERT INTO turns (what, node, until) VALUES ($3, $1, clock_timestamp() + $2 * interval '1 second')
         ON CONFLICT (what) DO UPDATE SET node = excluded.node, until = excluded.until
         WHERE turns.node = excluded.node OR turns.until < clock_timestamp()";
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, &[&node, &TURN.as_secs_f64(), &what]).await? == 1)
}
