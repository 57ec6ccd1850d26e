//! A look at whether the database is whole: whether every row can be read, and whether ledgers agree with what they are of.
//! Its pages and indexes are PostgreSQL's to look at.

use std::collections::HashMap;

use deadpool_postgres::Client;
use runit_core::SessionId;
use runit_core::session::Session;
use uuid::Uuid;

use super::ledger_rows::Known;
use super::{DbError, event_rows, key_rows, ledger_rows, session_rows, usage_rows};
use crate::wholeness::problem_of;

/// Rows that are read at one time.
const PAGE: u32 = 1_000;

/// Everything that is wrong, as of one moment; nodes go on writing.
pub(super) async fn problems(db: &Client) -> Result<Vec<String>, DbError> {
    db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let problems = look(db).await;
    db.batch_execute("ROLLBACK").await?;
    problems
}

async fn look(db: &Client) -> Result<Vec<String>, DbError> {
    let mut problems = Vec::new();
    found(&mut problems, "events", event_rows::readable(db, PAGE).await)?;
    found(&mut problems, "keys", key_rows::all(db).await)?;
    let mut after = None;
    loop {
        let page = session_rows::page(db, after, PAGE).await?;
        let Some(&(last, _)) = page.last() else { return Ok(problems) };
        after = Some(last);
        let mut sessions = Vec::with_capacity(page.len());
        for (id, read) in page {
            sessions.extend(found(&mut problems, &format!("session {id}"), read)?);
        }
        look_at_ledgers(db, &sessions, &mut problems).await?;
    }
}

async fn look_at_ledgers(db: &Client, sessions: &[Session], problems: &mut Vec<String>) -> Result<(), DbError> {
    let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    let mut ledgers: HashMap<Uuid, Result<Known, DbError>> = ledger_rows::each(db, &ids).await?.into_iter().collect();
    let mut sums = usage_rows::sums(db, sessions).await?;
    for session in sessions {
        let what = format!("ledger of session {}", session.id);
        let id = session.id.as_uuid();
        let (Some(ledger), Some(sum)) = (ledgers.remove(&id), sums.remove(&id)) else { continue };
        let ledger = found(problems, &what, ledger)?;
        let sum = found(problems, &format!("usage records of session {}", session.id), sum)?;
        if let (Some(known), Some(sum)) = (ledger, sum)
            && let Some(problem) = problem_of(session, &known.ledger, &sum)
        {
            problems.push(format!("{what}: {problem}"));
        }
    }
    Ok(())
}

/// What was read; or, of what cannot be read though the database has answered, a problem more.
fn found<T>(problems: &mut Vec<String>, what: &str, read: Result<T, DbError>) -> Result<Option<T>, DbError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(DbError::Postgres(error)) if error.as_db_error().is_some() || error.is_closed() => Err(error.into()),
        Err(error @ (DbError::Damaged(_) | DbError::Postgres(_))) => {
            problems.push(format!("{what}: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
