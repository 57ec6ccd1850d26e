//! The list of free sessions as server-sent events: made once for all who watch, whenever it has changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, StreamExt};
use runit_core::RenterAddress;
use tokio::sync::watch;

use super::Api;
use super::problem::Problem;
use super::request::Sender;
use crate::control::Control;
use crate::occupancy::{Occupancy, Place};

/// Changes that come this close after each other make one event.
const COALESCE: Duration = Duration::from_millis(100);
/// Changes that are taken at once.
const CHANGES: usize = 1_024;
/// A comment after so long without an event keeps proxies from closing the stream.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams that one network may have open: each is a browser's tab.
const STREAMS_PER_NETWORK: usize = 20;
/// Streams that may be open at all.
const STREAMS: usize = 2_000;

/// The list as JSON text, and who watches it.
pub(crate) struct LiveList {
    json: watch::Sender<Arc<str>>,
    open: Arc<Occupancy>,
    stop: watch::Receiver<bool>,
}

impl LiveList {
    pub(crate) fn new(control: &Control, stop: watch::Receiver<bool>) -> Arc<Self> {
        let json = watch::Sender::new(rendered(control));
        Arc::new(Self { json, open: Occupancy::new(STREAMS, STREAMS_PER_NETWORK), stop })
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

    /// Keeps the list as the directory is; ends when the control plane stops.
    pub(crate) async fn follow(self: Arc<Self>, control: Control) {
        // Whatever has changed by now makes one list.
        let mut changes = control.sessions.directory.watch().ready_chunks(CHANGES);
        let follow = async {
            loop {
                tokio::select! {
                    change = changes.next() => if change.is_none() { return },
                    () = control.reports.changed() => {}
                }
                let list = rendered(&control);
                self.json.send_if_modified(|known| {
                    let differs = *known != list;
                    *known = list;
                    differs
                });
                tokio::time::sleep(COALESCE).await;
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
    let mut json = api.live.json.subscribe();
    json.mark_changed(); // the list as it is now comes first
    let lists = stream::unfold((json, place), |(mut json, place)| async move {
        json.changed().await.ok()?;
        let list = Arc::clone(&json.borrow_and_update());
        Some((Ok::<_, Infallible>(Event::default().event("sessions").data(&*list)), (json, place)))
    });
    let events = Sse::new(lists.take_until(api.live.stopped())).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([(header::CACHE_CONTROL, "no-store")], events))
}

fn rendered(control: &Control) -> Arc<str> {
    serde_json::to_string(&control.ready()).unwrap_or_else(|_| "[]".into()).into()
}
