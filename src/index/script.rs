//! For tests: a journal whose changes are written down by the test.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::sync::watch;

use crate::base::{Name, UnixMillis};
use crate::event::{Attempt, AttemptReason, Client, DeadReason, DeliveryId, DeliveryStatus, Event, EventId, Proof};
use crate::journal::{
    AppendError, Appended, Backup, Change, Changes, Claim, DeliveryState, Entry, Erased, Journal, JournalError, Kept,
    Lane, Located, Pause, PendingBatch, Position, Rearm, Reserved, Retention, Room, Routes, Routing, Settled, Sync,
    Verdict,
};

/// When the first scripted event comes.
pub(crate) const T0: UnixMillis = UnixMillis(1_700_000_000_000);

/// A journal that gives the changes it was told. A change's position is its place, times ten.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<State>>);

struct State {
    changes: Vec<Change>,
    events: HashMap<EventId, Event>,
    room: Room,
    failing: bool,
    routing: watch::Sender<Arc<Routing>>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let routing = watch::Sender::default();
        let state = State { changes: Vec::new(), events: HashMap::new(), room: Room::Open, failing: false, routing };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_room(&self, room: Room) {
        self.state().room = room;
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
    }

    pub(crate) fn push(&self, change: Change) {
        self.state().changes.push(change);
    }

    /// Keeps `event` with pending deliveries to `destinations`.
    pub(crate) fn keep(&self, event: &Event, destinations: &[&str]) -> EventId {
        let deliveries = destinations.iter().map(|name| (name_of(name), DeliveryStatus::Pending)).collect();
        self.record(event, deliveries);
        event.id
    }

    /// The record of `event`, its first or a later one, its deliveries standing like this.
    pub(crate) fn record(&self, event: &Event, deliveries: Vec<(Name, DeliveryStatus)>) {
        let mut state = self.state();
        let at = Position(state.changes.len() as u64 * 10);
        let body_bytes = event.body.len() as u64;
        state.events.insert(event.id, event.clone());
        let event = Box::new(Event { body: Bytes::new(), ..event.clone() });
        let since = event.received_at;
        let standing = |(destination, status)| DeliveryState { destination, status, attempts: 0, since };
        let deliveries = deliveries.into_iter().map(standing).collect();
        state.changes.push(Change::Event { at, event, body_bytes, deliveries });
    }

    pub(crate) fn settle(&self, event: EventId, index: u8, number: u32, verdict: Verdict) {
        let status = if verdict == Verdict::Delivered { 200 } else { 500 };
        let attempt = Attempt {
            number,
            reason: if number == 1 { AttemptReason::Initial } else { AttemptReason::Retry },
            started_at: T0.plus(Duration::from_secs(number.into())),
            took: Duration::from_millis(12),
            status: Some(status),
            error: None,
            answer: Bytes::from_static(b"answer"),
        };
        let delivery = DeliveryId { event, index };
        self.push(Change::Settled(Settled { delivery, attempt: Some(attempt), verdict }));
    }

    pub(crate) fn deliver(&self, event: EventId, index: u8) {
        self.settle(event, index, 1, Verdict::Delivered);
    }

    pub(crate) fn bury(&self, event: EventId, index: u8) {
        self.settle(event, index, 1, Verdict::Dead(DeadReason::GaveUp));
    }

    /// Drops every event recorded before now.
    pub(crate) fn trim_all(&self) {
        let before = Position(self.state().changes.len() as u64 * 10);
        self.state().events.clear();
        self.push(Change::Trimmed { from: Position::START, before });
    }
}

pub(crate) fn name_of(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// An event of source `acme`, received `offset_ms` after [`T0`].
pub(crate) fn event_at(offset_ms: i64) -> Event {
    let received_at = UnixMillis(T0.0 + offset_ms);
    let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    Event {
        id: EventId::new(received_at),
        source: name_of("acme"),
        provider: name_of("acme"),
        kind: Some("order.paid".into()),
        provider_event_id: Some(format!("order_{offset_ms}").into()),
        method: Method::POST,
        path: "/acme".into(),
        query: None,
        params: Vec::new(),
        headers: vec![header("content-type", "application/json"), header("x-acme-token", "hunter2")],
        body: Bytes::from_static(br#"{"token":"hunter2","n":1}"#),
        received_at,
        client: Client { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), tls: false, host: None },
        proof: Proof { scheme: "hmac".into(), slot: "secret[0]".into() },
    }
}

impl Journal for Script {
    fn stats(&self) -> crate::journal::Stats {
        crate::journal::Stats::default()
    }

    fn room(&self) -> Room {
        self.state().room.clone()
    }

    async fn reserve(&self, _: &Claim) -> Result<Reserved, AppendError> {
        Err(AppendError::Closed)
    }

    async fn report(&self, _: Settled) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    async fn pause(&self, _: &Name, _: Pause) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    fn room_for(&self, _: &Name) -> Room {
        self.room()
    }

    async fn set_routes(&self, routes: Routes) -> Result<(), JournalError> {
        self.state().routing.send_replace(Arc::new(Routing::new(routes, Default::default())));
        Ok(())
    }

    fn routing(&self) -> watch::Receiver<Arc<Routing>> {
        self.state().routing.subscribe()
    }

    fn paused(&self) -> std::collections::BTreeSet<Name> {
        std::collections::BTreeSet::new()
    }

    async fn append(&self, _: Entry, _: Sync) -> Result<Appended, AppendError> {
        Err(AppendError::Closed)
    }

    fn lanes(&self) -> watch::Receiver<Arc<[Lane]>> {
        watch::channel(Arc::from([])).1
    }

    async fn pending(&self, _: &Lane, _: Position, _: usize) -> Result<PendingBatch, JournalError> {
        Err(JournalError::Closed)
    }

    async fn start(&self, _: &Lane, _: DeliveryId, _: u32) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    async fn settle(&self, _: &Lane, _: Settled) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    /// Rearms what the changes so far have settled.
    async fn rearm(&self, at: Located, only: Option<Name>, why: Rearm) -> Result<Vec<DeliveryId>, JournalError> {
        let mut state = self.state();
        if !state.events.contains_key(&at.id) {
            return Err(JournalError::Unknown);
        }
        let mut deliveries: Vec<DeliveryState> = Vec::new();
        for change in &state.changes {
            let (delivery, status) = match change {
                Change::Event { event, deliveries: now, .. } if event.id == at.id => {
                    deliveries = now.clone();
                    continue;
                }
                Change::Settled(settled) => match settled.verdict {
                    Verdict::Delivered => (settled.delivery, DeliveryStatus::Delivered),
                    Verdict::Dead(_) => (settled.delivery, DeliveryStatus::Dead),
                    Verdict::Refused => (settled.delivery, DeliveryStatus::Refused),
                    Verdict::RetryAt(_) => (settled.delivery, DeliveryStatus::Pending),
                },
                Change::Rearmed { delivery, .. } => (*delivery, DeliveryStatus::Pending),
                _ => continue,
            };
            if delivery.event == at.id {
                deliveries[usize::from(delivery.index)].status = status;
            }
        }
        let wanted = |delivery: &DeliveryState| {
            let asked_for = only.as_ref().is_none_or(|only| *only == delivery.destination);
            asked_for && delivery.status != DeliveryStatus::Pending
        };
        let rearmed: Vec<DeliveryId> = (0u8..)
            .zip(&deliveries)
            .filter(|(_, delivery)| wanted(delivery))
            .map(|(index, _)| DeliveryId { event: at.id, index })
            .collect();
        for delivery in &rearmed {
            state.changes.push(Change::Rearmed { delivery: *delivery, why, at: T0 });
        }
        Ok(rearmed)
    }

    async fn erase(&self, at: Located) -> Result<Erased, JournalError> {
        let mut state = self.state();
        state.events.remove(&at.id).ok_or(JournalError::Erased)?;
        state.changes.push(Change::Erased { event: at.id, at: T0 });
        Ok(Erased { purged: 1 })
    }

    async fn backup(&self) -> Result<Backup, JournalError> {
        Err(JournalError::Busy)
    }

    async fn event(&self, at: Located) -> Result<Option<Kept>, JournalError> {
        let event = self.state().events.get(&at.id).cloned();
        Ok(event.map(|event| Kept { event, deliveries: Vec::new(), relayed: None }))
    }

    fn changes(&self, after: Position, max: usize) -> impl Future<Output = Result<Changes, JournalError>> + Send {
        let state = self.state();
        if state.failing {
            return std::future::ready(Err(JournalError::Failed("on purpose".into())));
        }
        let from = after.0 as usize / 10;
        let changes: Vec<Change> = state.changes.iter().skip(from).take(max).cloned().collect();
        let next = Position((from + changes.len()) as u64 * 10);
        std::future::ready(Ok(Changes { changes, next }))
    }

    fn tail(&self) -> Position {
        Position(self.state().changes.len() as u64 * 10)
    }

    async fn trim(&self, _: Retention) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }
}
