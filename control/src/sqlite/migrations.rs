//! How an older file becomes one of the newest schema: forward only, one numbered file of SQL for each step.
//!
//! Invariant: `user_version` is the number of migrations applied, and each is applied whole or not at all. A file with
//! more than are known here is refused, since an older program cannot know what the newer one promised.
//!
//! What has been on main is never edited, only followed by another. While one process takes over from another both use
//! the file, so a migration leaves the statements of the version before it working: a new column has a default or may be
//! null.

use rusqlite::{Connection, TransactionBehavior};

use super::schema::OpenError;

/// In order; the first one makes version 1.
const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/1_first.sql"),
    include_str!("migrations/2_operators.sql"),
    include_str!("migrations/3_trail.sql"),
    include_str!("migrations/4_usage.sql"),
    include_str!("migrations/5_webhooks.sql"),
    include_str!("migrations/6_carried_usage.sql"),
];

/// The version that this program brings a file to.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the file to the newest schema.
pub(super) fn migrate(db: &mut Connection) -> Result<(), OpenError> {
    while apply_next(db, &MIGRATIONS)? {}
    Ok(())
}

/// Applies the first migration that the file lacks; whether there was one.
fn apply_next(db: &mut Connection, migrations: &[&str]) -> Result<bool, OpenError> {
    // The version is read under the write lock: another process may be at the same.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let applied = version(&transaction)?;
    let pending = usize::try_from(applied).ok().and_then(|applied| migrations.get(applied..));
    let Some((next, _)) = pending.ok_or(OpenError::Newer { found: applied, known: SCHEMA_VERSION })?.split_first()
    else {
        return Ok(false);
    };
    transaction.execute_batch(next)?;
    transaction.pragma_update(None, "user_version", applied + 1)?;
    transaction.commit()?;
    Ok(true)
}

/// How many migrations the file has had.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_applied_whole_or_not_at_all() {
        let mut db = Connection::open_in_memory().expect("in memory");
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); INSERT INTO nowhere VALUES (1)"];
        assert!(apply_next(&mut db, &steps).expect("the first applies"));
        assert!(apply_next(&mut db, &steps).is_err());
        assert_eq!(version(&db).expect("readable"), 1);
        let tables = "SELECT group_concat(name) FROM sqlite_schema";
        assert_eq!(db.query_row(tables, [], |row| row.get::<_, String>(0)).expect("readable"), "a");
        assert!(apply_next(&mut db, &[steps[0], "CREATE TABLE b (x)"]).expect("applies when it is mended"));
    }
}
