//! `/admin/v1/events`: the audit trail, by pages and live.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, StreamExt};
use runit_core::key::Operator;
use runit_core::query::{EventFilter, EventsFrom, PlacedEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::access::Reader;
use super::page::{page, parsed};
use super::view::EventShown;
use crate::api::live::KEEP_ALIVE;
use crate::api::problem::Problem;
use crate::api::request::{Asked, Sender};
use crate::control::Control;
use crate::occupancy::Place;

/// Events in one answer, unless asked for otherwise, and at the most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;
/// What another process has appended is looked for this often; what comes close together is sent together.
const LOOK: Duration = Duration::from_secs(2);
const COALESCE: Duration = Duration::from_millis(100);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of these kinds, with commas between them.
    kind: Option<String>,
    /// About this session.
    #[param(format = Uuid)]
    session: Option<String>,
    /// About this provider.
    provider: Option<String>,
}

/// Which events, and which part of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct WantedPage {
    /// Of these kinds, with commas between them.
    kind: Option<String>,
    /// About this session.
    #[param(format = Uuid)]
    session: Option<String>,
    /// About this provider.
    provider: Option<String>,
    /// Then or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Before then.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Older than this place; the newest of those first.
    before: Option<u64>,
    /// Newer than this place; the oldest of those first.
    after: Option<u64>,
    /// Show so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventPage {
    /// The newest first, unless `after` was given.
    events: Vec<EventShown>,
    /// What to give as `before` (or `after`) for the next page; none when this was the last.
    next: Option<u64>,
}

/// The audit trail.
#[utoipa::path(get, path = "/admin/v1/events", operation_id = "events", tag = "events", params(WantedPage),
    security(("operator" = [])), responses((status = 200, description = "A page", body = EventPage)))]
pub(super) async fn list(
    _: Reader,
    State(admin): State<Admin>,
    Asked(wanted): Asked<WantedPage>,
) -> Result<Json<EventPage>, Problem> {
    let (since, until) = (parsed("since", wanted.since.as_deref())?, parsed("until", wanted.until.as_deref())?);
    let (kind, session, provider) = (wanted.kind, wanted.session, wanted.provider);
    let filter = EventFilter { since, until, ..Wanted { kind, session, provider }.filter()? };
    let from = match (wanted.before, wanted.after) {
        (None, None) => EventsFrom::Newest,
        (Some(place), None) => EventsFrom::Before(place),
        (None, Some(place)) => EventsFrom::After(place),
        (Some(_), Some(_)) => return Err(Problem::InvalidQuery("before, after: one or the other".into())),
    };
    let limit = page(wanted.limit, PAGE, LARGEST_PAGE)?;
    let found = find(&admin.control, filter, from, limit).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.place);
    Ok(Json(EventPage { events: found.iter().map(EventShown::new).collect(), next }))
}

/// The audit trail as server-sent events: from now on, or from the `Last-Event-ID` that a client presents.
///
/// Each is named `event`, its id is its place in the trail, its data an event as in a page. It ends when the key is revoked.
#[utoipa::path(get, path = "/admin/v1/events/live", operation_id = "liveEvents", tag = "events", params(Wanted),
    security(("operator" = [])),
    responses((status = 200, description = "A stream", content_type = "text/event-stream", body = String)))]
pub(super) async fn live(
    Reader(operator): Reader,
    Sender(from): Sender,
    State(admin): State<Admin>,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let filter = wanted.filter()?;
    let place = admin.streams.enter(from.network()).ok_or(Problem::TooManyStreams)?;
    let news = admin.control.trail.news();
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let last = match seen {
        Some(seen) => seen,
        None => newest(&admin.control).await?,
    };
    let follower = Follower { control: admin.control, operator, filter, last, news, _place: place };
    let batches = stream::unfold(follower, Follower::next);
    let mut stop = admin.stop;
    let stopped = async move { stop.wait_for(|&stopped| stopped).await.map(drop) };
    let events = batches.flat_map(stream::iter).take_until(stopped);
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([(header::CACHE_CONTROL, "no-store")], events))
}

struct Follower {
    control: Control,
    operator: Operator,
    filter: EventFilter,
    last: u64,
    news: watch::Receiver<()>,
    _place: Place,
}

impl Follower {
    /// The next events that pass the filter, once there are some; none for whom the key was taken from.
    async fn next(mut self) -> Option<(Vec<Result<Event, Infallible>>, Self)> {
        loop {
            self.news.mark_unchanged();
            // The store's trouble, which it has logged, may be over at the next look.
            let found = self.look().await.unwrap_or_default();
            if !self.control.keys.admits(self.operator) {
                return None;
            }
            if !found.is_empty() {
                return Some((found.iter().map(sent).collect(), self));
            }
            let _ = tokio::time::timeout(LOOK, self.news.changed()).await;
            tokio::time::sleep(COALESCE).await;
        }
    }

    /// Looks at what was not looked at before: no event twice, however few of them pass.
    async fn look(&mut self) -> Result<Vec<PlacedEvent>, Problem> {
        let newest = newest(&self.control).await?;
        let from = EventsFrom::After(self.last);
        let found = find(&self.control, self.filter.clone(), from, LARGEST_PAGE).await?;
        self.last = found.last().map_or(newest.max(self.last), |last| last.place);
        Ok(found)
    }
}

impl Wanted {
    fn filter(&self) -> Result<EventFilter, Problem> {
        let kinds = self.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|kind| kind.parse().map_err(|_| Problem::InvalidQuery("kind: not an event's".into())));
        Ok(EventFilter {
            kinds: kinds.collect::<Result<_, _>>()?,
            session: parsed("session", self.session.as_deref())?,
            provider: parsed("provider", self.provider.as_deref())?,
            ..EventFilter::default()
        })
    }
}

async fn newest(control: &Control) -> Result<u64, Problem> {
    let newest = find(control, EventFilter::default(), EventsFrom::Newest, 1).await?;
    Ok(newest.first().map_or(0, |event| event.place))
}

async fn find(
    control: &Control,
    filter: EventFilter,
    from: EventsFrom,
    limit: usize,
) -> Result<Vec<PlacedEvent>, Problem> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Ok(control.sessions.store.find_events(filter, from, limit).await?)
}

fn sent(placed: &PlacedEvent) -> Result<Event, Infallible> {
    let data = serde_json::to_string(&EventShown::new(placed)).unwrap_or_default();
    Ok(Event::default().event("event").id(placed.place.to_string()).data(data))
}
