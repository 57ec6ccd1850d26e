//! How a session's data is used, as server-sent events: for the page that its renter has open.
//!
//! Each stream looks at the ledger once a second, and says what has changed. It is no presence: heartbeats are.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, StreamExt};
use runit_core::{AccessToken, RenterAddress};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use super::Api;
use super::live::KEEP_ALIVE;
use super::problem::Problem;
use super::renter::{UsageNow, parse, usage_of};
use super::request::{Segment, Sender};
use crate::occupancy::Place;

/// How often a stream looks at the ledger; nodes report to it about twice a second.
const LOOK: Duration = Duration::from_secs(1);

/// One open stream.
struct Watcher {
    api: Api,
    token: AccessToken,
    from: RenterAddress,
    known: Option<UsageNow>,
    look: Interval,
    _place: Place,
}

/// The same as server-sent events named `usage`: first as it is, then whenever it has changed.
///
/// When the token opens nothing any more an event `refused` with `{error, code}` ends the stream. Watching is no presence.
#[utoipa::path(get, path = "/renter/usage/{token}/events", operation_id = "usageEvents", tag = "renters",
    params(("token" = String, Path, format = Uuid)),
    responses((status = 200, description = "A stream", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    State(api): State<Api>,
    Sender(from): Sender,
    Segment(token): Segment,
) -> Result<impl IntoResponse, Problem> {
    let token = parse(&token)?;
    let place = api.live.enter(from)?;
    // A token that opens nothing is refused with a status, not by a stream.
    usage_of(&api, &token, from).await?;
    let stopped = api.live.stopped();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher { api, token, from, known: None, look, _place: place };
    let events = stream::unfold(Some(watcher), |watcher| async move { watcher?.next().await });
    let events = Sse::new(events.take_until(stopped)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([(header::CACHE_CONTROL, "no-store")], events))
}

impl Watcher {
    /// The next event; after a refusal there is none.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Option<Self>)> {
        loop {
            self.look.tick().await; // the first is at once
            match usage_of(&self.api, &self.token, self.from).await {
                Ok(usage) if self.known.as_ref() == Some(&usage) => {}
                Ok(usage) => {
                    let event = Event::default().event("usage").json_data(&usage).unwrap_or_default();
                    self.known = Some(usage);
                    return Some((Ok(event), Some(self)));
                }
                Err(Problem::Unavailable) => {} // the store's trouble, and perhaps over in a second
                Err(problem) => {
                    let (_, code, text) = problem.row();
                    let event =
                        Event::default().event("refused").data(json!({ "error": text, "code": code }).to_string());
                    return Some((Ok(event), None));
                }
            }
        }
    }
}
