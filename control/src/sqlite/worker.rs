//! One thread that owns one connection, and the commands that wait for it.
//!
//! The writer takes all commands that are queued, up to [`BATCH`], into one transaction, each in a savepoint of its own
//! so that one that fails takes no other with it, and answers them all after the commit. While the disk syncs, the next
//! batch gathers: thousands of small writes a second share a few hundred syncs.
//!
//! Invariant: nobody is answered before the commit, and when the commit fails everybody gets an error.

use std::error::Error;
use std::thread;

use runit_core::store::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

/// Commands that share one commit at the most: bounds how long the first one waits for the last.
const BATCH: usize = 512;
/// Commands that may wait; more wait outside, in their callers.
const QUEUE: usize = 4096;

/// Whether the thread's connection writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Batches share a transaction that takes the write lock at its start.
    Write,
    /// Each command sees one moment of the database.
    Read,
}

/// The way to one thread with its connection. The thread ends when this is dropped.
pub(super) struct Worker {
    commands: mpsc::Sender<Command>,
}

/// Runs on the thread, inside the transaction; the answer is sent when that has ended.
type Command = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), String>)>;

/// What a row or the database did wrong; only ever wrapped into a [`StoreError`].
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("damaged row: {0}")]
    Damaged(&'static str),
    #[error("the transaction was rolled back by an earlier failure")]
    RolledBack,
}

impl Worker {
    pub(super) fn start(name: &str, connection: Connection, mode: Mode) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        thread::Builder::new().name(name.to_owned()).spawn(move || serve(connection, mode, queue))?;
        Ok(Self { commands })
    }

    /// Runs `command` in a transaction and answers when that is committed.
    pub(super) async fn run<T, F>(&self, command: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let boxed: Command = Box::new(move |db| {
            let outcome = in_savepoint(db, command);
            Box::new(move |committed| {
                let answer = match (outcome, committed) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(error), _) => Err(StoreError(Box::new(error))),
                    (Ok(_), Err(text)) => Err(StoreError(text.into())),
                };
                // The caller may have gone; what was committed stays.
                let _ = sender.send(answer);
            })
        });
        self.commands.send(boxed).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError(Box::<dyn Error + Send + Sync>::from("the store's thread has ended"))
}

fn serve(mut connection: Connection, mode: Mode, mut queue: mpsc::Receiver<Command>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while mode == Mode::Write && batch.len() < BATCH {
            let Ok(next) = queue.try_recv() else { break };
            batch.push(next);
        }
        run_batch(&mut connection, mode, batch);
    }
}

fn run_batch(connection: &mut Connection, mode: Mode, batch: Vec<Command>) {
    let behavior = match mode {
        Mode::Write => TransactionBehavior::Immediate,
        Mode::Read => TransactionBehavior::Deferred,
    };
    // A batch whose transaction cannot begin is dropped, and with it the senders: every caller gets an error.
    let transaction = match connection.transaction_with_behavior(behavior) {
        Ok(transaction) => transaction,
        Err(error) => return tracing::error!(%error, "the store cannot begin a transaction"),
    };
    let answers: Vec<Answer> = batch.into_iter().map(|command| command(&transaction)).collect();
    let committed = transaction.commit().map_err(|error| format!("not committed: {error}"));
    for answer in answers {
        answer(committed.clone());
    }
}

fn in_savepoint<T>(db: &Connection, command: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
    // A full disk can end the whole transaction; a savepoint outside of one would commit by itself.
    if db.is_autocommit() {
        return Err(DbError::RolledBack);
    }
    db.prepare_cached("SAVEPOINT command")?.execute([])?;
    let outcome = command(db);
    if outcome.is_err() {
        db.prepare_cached("ROLLBACK TO command")?.execute([])?;
    }
    db.prepare_cached("RELEASE command")?.execute([])?;
    outcome
}
