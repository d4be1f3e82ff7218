//! What happens, as it happens, as server-sent events (WHATWG HTML, section 9.2).
//!
//! A tail is pulled by its reader: it holds no more than it has just read from the index, so a slow reader costs
//! nothing. New events are never lost on it; of changes it is told, and where too many wait it ends and says so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Of};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::MayRead;
use super::events::{Parameters, hide_target, pairs};
use super::filter::{List, bad, filter};
use super::problem::Problem;
use super::pulse::Pulse;
use super::{Redactions, State, view};
use crate::event::EventId;
use crate::index::{Filter, Follower, Index, IndexError, Item, Lost, Mark, Start};
use crate::journal::Journal;

/// Tails at the same time: each holds a connection for as long as its reader likes.
const TAILS: usize = 16;

/// Items that are read from the index at a time, and held.
const PAGE: usize = 100;

/// A quiet tail says this often that it lives, and finds out whether its reader does.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What a reader is to wait before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// Where a reader that connects again left off.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Places for those who follow what happens: 16.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TAILS)))
    }
}

/// New events, and events whose deliveries have changed, from now on or from where it is told.
pub(super) async fn tail<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Problem> {
    let (changes, pairs): (Vec<_>, Vec<_>) = pairs(parameters)?.into_iter().partition(|(name, _)| name == "changes");
    let changes = match changes.as_slice() {
        [] => true,
        [(_, value)] if value == "true" => true,
        [(_, value)] if value == "false" => false,
        [(name, value), ..] => return Err(bad(name, value, "write true or false, once")),
    };
    let mut filter = filter(List::Tail, &pairs, state.clock.now())?;
    filter.limit = PAGE;
    let start = match (last_event_id(request.headers())?, filter.since) {
        (Some(id), _) => {
            filter.since = None; // it may have been as long ago as it likes
            Start::After(id)
        }
        (None, Some(since)) => Start::Since(since),
        (None, None) => Start::Newest,
    };
    let place = Arc::clone(&state.tails.0).try_acquire_owned();
    let place = place.map_err(|_| Problem::Unavailable(format!("{TAILS} tails are open; close one, or wait")))?;

    let freshness = state.catch_up().await;
    let follower = state.index.follow()?;
    let (mark, before) = state.index.mark(start).await?;
    let tail = Tail {
        index: state.index.clone(),
        redactions: Arc::clone(&state.redactions),
        filter,
        changes,
        follower,
        mark,
        reading: true,
        waiting: VecDeque::from([greeting(before)]),
        ended: false,
        pulse: request.extensions().get().cloned(),
        _place: place,
    };
    let stream = futures_util::stream::unfold(tail, async |mut tail| {
        let next = tail.next().await?;
        Some((Ok::<_, Infallible>(next), tail))
    });
    // A proxy that gathers an answer before it hands it on would gather this one for ever.
    Ok(freshness.mark(([("x-accel-buffering", "no")], Sse::new(stream)).into_response()))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Problem::Bad("`Last-Event-ID` is not an event's id; leave it out".into()))
}

/// Tells the reader where it begins, so that it misses nothing if it has to come again before the first event.
fn greeting(before: Option<EventId>) -> Event {
    let greeting = Event::default().comment("events as they come").retry(RETRY);
    match before {
        Some(id) => greeting.id(id.to_string()),
        None => greeting,
    }
}

struct Tail {
    index: Index,
    redactions: Redactions,
    filter: Filter,
    changes: bool,
    follower: Follower,
    /// Up to where new events were read.
    mark: Mark,
    /// There may be more of them.
    reading: bool,
    waiting: VecDeque<Event>,
    ended: bool,
    pulse: Option<Pulse>,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    async fn next(&mut self) -> Option<Event> {
        if let Some(pulse) = &self.pulse {
            pulse.taken();
        }
        while self.waiting.is_empty() && !self.ended {
            if let Err(why) = self.more().await {
                self.waiting.push_back(Event::default().comment(why));
                self.ended = true;
            }
        }
        if let Some(pulse) = &self.pulse {
            pulse.given();
        }
        self.waiting.pop_front()
    }

    /// Reads more, or waits for it; an error is what the reader is told at the end.
    async fn more(&mut self) -> Result<(), String> {
        if self.reading {
            let batch = self.index.from_mark(self.mark, self.filter.clone()).await.map_err(|error| unread(&error))?;
            self.mark = batch.next;
            self.reading = batch.more;
            self.give(batch.items);
            return Ok(());
        }
        // The wait is cancel-safe; what follows it is not, and nothing cuts it off.
        let changed = match tokio::time::timeout(HEARTBEAT, self.follower.changed()).await {
            Err(_) => {
                self.waiting.push_back(Event::default().comment("still here"));
                return Ok(());
            }
            Ok(Ok(changed)) => changed,
            Ok(Err(Lost::Behind)) if !self.changes => Vec::new(),
            Ok(Err(Lost::Behind)) => return Err(BEHIND.to_owned()),
            Ok(Err(Lost::Closed)) => return Err("the gateway is shutting down; connect again".to_owned()),
        };
        self.reading = true; // what is new among them is read in its order
        if self.changes {
            let known = self.index.before_mark(changed, self.mark, self.filter.clone()).await;
            self.give(known.map_err(|error| unread(&error))?);
        }
        Ok(())
    }

    fn give(&mut self, mut items: Vec<Item>) {
        items.iter_mut().for_each(|row| hide_target(&self.redactions, row));
        self.waiting.extend(items.iter().filter_map(message));
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.ended();
        }
    }
}

const BEHIND: &str =
    "too slow: changes came faster than they were read, and some are lost; connect again, or narrow it";

fn unread(error: &IndexError) -> String {
    format!("the index could not be read: {error}; connect again").replace(['\r', '\n'], " ")
}

fn message(item: &Item) -> Option<Event> {
    let event = Event::default().event("event").id(item.located.id.to_string());
    event.json_data(view::listed(item)).ok() // strings and numbers: they are always JSON
}
