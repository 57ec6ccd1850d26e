//! The list of free sessions as server-sent events: made once for all who watch, whenever it has changed, and not while nobody
//! does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, StreamExt};
use runit_core::RenterAddress;
use tokio::sync::{Notify, watch};

use super::Api;
use super::problem::Problem;
use super::request::Sender;
use crate::control::Control;
use crate::occupancy::{Occupancy, Place};

/// Changes that come this close after each other make one event.
const COALESCE: Duration = Duration::from_millis(100);
/// One part in so many of the time goes into making lists: those of a large table are rarer, down to one in [`RAREST`].
const SHARE: u32 = 10;
const RAREST: Duration = Duration::from_secs(2);
/// A comment after so long without an event keeps proxies from closing the stream.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams that one network may have open: each is a browser's tab.
const STREAMS_PER_NETWORK: usize = 20;
/// Streams that may be open at all.
const STREAMS: usize = 2_000;

/// The list as JSON text, and who watches it.
pub(crate) struct LiveList {
    /// None while nobody watches, from the next change on.
    json: watch::Sender<Option<Arc<str>>>,
    /// Somebody does now.
    watched: Notify,
    open: Arc<Occupancy>,
    stop: watch::Receiver<bool>,
}

impl LiveList {
    pub(crate) fn new(stop: watch::Receiver<bool>) -> Arc<Self> {
        let open = Occupancy::new(STREAMS, STREAMS_PER_NETWORK);
        Arc::new(Self { json: watch::Sender::new(None), watched: Notify::new(), open, stop })
    }

    /// A place for one more stream of any kind, if this network may have one.
    pub(super) fn enter(&self, from: RenterAddress) -> Result<Place, Problem> {
        self.open.enter(from.network()).ok_or(Problem::TooManyStreams)
    }

    /// Resolves when streams have to end.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move { stop.wait_for(|&stopped| stopped).await.map_or((), drop) }
    }

    /// The list as it is, then whenever it has changed.
    fn watch(&self) -> watch::Receiver<Option<Arc<str>>> {
        let mut json = self.json.subscribe();
        json.mark_changed();
        self.watched.notify_one();
        json
    }

    /// Keeps the list as the directory is; ends when the control plane stops.
    pub(crate) async fn follow(self: Arc<Self>, control: Control) {
        let mut changed = control.sessions.directory.changed();
        let follow = async {
            loop {
                while self.json.receiver_count() == 0 {
                    self.json.send_replace(None);
                    self.watched.notified().await;
                }
                changed.mark_unchanged();
                let began = Instant::now();
                let listing = control.clone();
                // A large one is made aside: who sends a heartbeat does not wait for it.
                match tokio::task::spawn_blocking(move || rendered(&listing)).await {
                    Ok(list) => {
                        self.json.send_if_modified(|known| {
                            let differs = known.as_ref() != Some(&list);
                            *known = Some(list);
                            differs
                        });
                    }
                    Err(error) => tracing::error!(%error, "the list of free sessions could not be made"),
                }
                tokio::time::sleep(COALESCE.max(began.elapsed() * (SHARE - 1)).min(RAREST)).await;
                tokio::select! {
                    change = changed.changed() => if change.is_err() { return },
                    () = control.reports.changed() => {}
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = self.stopped() => {}
        }
    }
}

impl LiveList {
    /// Ends when the control plane stops: what waits for something else ends then too.
    pub(super) async fn stopping(&self) {
        let _ = self.stop.clone().wait_for(|&stopped| stopped).await;
    }
}

/// The same list as server-sent events named `sessions`: first as it is, then whenever it has changed.
#[utoipa::path(get, path = "/renter/sessions/events", operation_id = "freeSessionEvents", tag = "renters",
    responses((status = 200, description = "A stream", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(State(api): State<Api>, Sender(from): Sender) -> Result<impl IntoResponse, Problem> {
    let place = api.live.enter(from)?;
    let lists = stream::unfold((api.live.watch(), place), |(mut json, place)| async move {
        loop {
            json.changed().await.ok()?;
            let list = json.borrow_and_update().clone();
            if let Some(list) = list {
                return Some((Ok::<_, Infallible>(Event::default().event("sessions").data(&*list)), (json, place)));
            }
        }
    });
    let events = Sse::new(lists.take_until(api.live.stopped())).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([(header::CACHE_CONTROL, "no-store")], events))
}

fn rendered(control: &Control) -> Arc<str> {
    serde_json::to_string(&control.ready()).unwrap_or_else(|_| "[]".into()).into()
}
