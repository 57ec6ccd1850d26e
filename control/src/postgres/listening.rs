//! What other nodes change, as the database tells of it (`LISTEN`).
//!
//! Invariant: after each connection comes [`Elsewhere::Anything`], since whatever was notified while there was none is
//! lost; after that, every committed change of a session by another store. A connection that is silent is asked for a
//! sign of life, so that a partition is noticed, and not taken for a quiet time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream, StreamExt};
use runit_core::store::Elsewhere;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use super::DbError;
use super::connect::{Connector, in_time};
use super::key_rows::KEYS;
use super::session_rows::CHANNEL;

/// A connection that says nothing for so long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(250);

/// When the connection that listens last said something; clones are the same one.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn silence(&self) -> Duration {
        self.at().elapsed()
    }

    fn note(&self) {
        *self.at() = Instant::now();
    }

    fn at(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection that listens.
struct Listening {
    client: Client,
    messages: mpsc::UnboundedReceiver<AsyncMessage>,
}

/// Changes by other stores than `own`, for ever. `heard` is kept for as long as somebody takes them.
pub(super) fn changes(connector: Connector, own: Uuid, heard: Heard) -> BoxStream<'static, Elsewhere> {
    let own = own.to_string();
    stream::unfold((connector, own, heard, None), |(connector, own, heard, listening)| async move {
        let mut listening: Option<Listening> = listening;
        loop {
            let Some(open) = &mut listening else {
                match listen(&connector).await {
                    Ok(open) => {
                        heard.note();
                        return Some((Elsewhere::Anything, (connector, own, heard, Some(open))));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "changes of other nodes are not heard of");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            };
            match next(open, &own, &heard).await {
                Some(change) => return Some((change, (connector, own, heard, listening))),
                None => listening = None,
            }
        }
    })
    .boxed()
}

async fn listen(connector: &Connector) -> Result<Listening, DbError> {
    let (sender, messages) = mpsc::unbounded_channel();
    let client = connector.listen(sender).await?;
    in_time(async { Ok(client.batch_execute(&format!("LISTEN {CHANNEL}")).await?) }).await?;
    Ok(Listening { client, messages })
}

/// The next change; none when the connection has ended.
async fn next(listening: &mut Listening, own: &str, heard: &Heard) -> Option<Elsewhere> {
    loop {
        let Ok(message) = tokio::time::timeout(QUIET, listening.messages.recv()).await else {
            in_time(async { Ok(listening.client.batch_execute("").await?) }).await.ok()?;
            heard.note();
            continue;
        };
        let message = message?;
        heard.note();
        // Other messages are notices.
        let AsyncMessage::Notification(notification) = message else { continue };
        let Some((store, session)) = notification.payload().split_once(':') else { continue };
        if store == own {
            continue;
        }
        return Some(match session {
            KEYS => Elsewhere::Keys,
            session => session.parse().map_or(Elsewhere::Anything, Elsewhere::Session),
        });
    }
}
