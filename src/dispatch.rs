//! STORY 2: one delivery, from journal to delivered or dead.
//!
//! A lane is the deliveries of one destination. Its owner here takes them in append order, keeps up to the
//! destination's concurrency under way, waits out retries, and leaves a destination alone that does not
//! answer. It holds at most `HELD_MAX` deliveries; the rest of a backlog stays in the journal.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, Name, Tasks, UnixMillis};
use crate::deliver::{self, Asked, Keep, Outbound, Patience, Target, Targets, Turn, Way};
use crate::event::{AttemptReason, DeadReason, DeliveryId};
use crate::journal::{
    Journal, JournalError, Lane, Pending, PendingBatch, Position, Routing, Settled, Verdict, once_there_is_room,
};

/// Deliveries that one lane's owner holds: under way, ready, or waiting for a retry. Past this, first
/// attempts wait until some of them are settled.
const HELD_MAX: usize = 16_384;
/// Deliveries asked of the journal at once.
const FETCH: usize = 256;
/// After the journal could not be read or written, and between two looks at the gauges.
const PAUSE: Duration = Duration::from_secs(1);

/// Before an event that could not be read is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// Delivers everything the journal has for the destinations in the config.
///
/// Several may run beside each other, each on a runtime of its own: the `share`th of `of` takes every
/// `of`th lane. Deliveries for a destination that is not in the config are orphaned, and kept.
pub struct Dispatch<J> {
    /// Where deliveries come from.
    pub journal: J,
    /// The destinations, from one config to the next.
    pub targets: watch::Receiver<Arc<Targets>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where lanes run.
    pub tasks: Tasks,
    /// Which lanes are this one's.
    pub share: usize,
    /// Among how many they are shared.
    pub of: usize,
}

impl<J: Journal> Dispatch<J> {
    /// Runs until the tasks are told to stop. Lanes are taken up as they come into being, or as their destinations
    /// come into the config. The owner of one whose destination leaves it again stays, and waits.
    pub async fn run(mut self) {
        let stopping = self.tasks.stopping();
        let mut lanes = self.journal.lanes();
        let mut taken = HashSet::new();
        loop {
            let known = Arc::clone(&lanes.borrow_and_update());
            let targets = Arc::clone(&self.targets.borrow_and_update());
            for (number, lane) in known.iter().enumerate().filter(|(number, _)| number % self.of == self.share) {
                if let Some(target) = targets.get(&lane.destination).filter(|_| taken.insert(number)) {
                    self.take_up(lane, target);
                }
            }
            tokio::select! { // all are cancel-safe
                biased;
                () = stopping.cancelled() => return,
                changed = lanes.changed() => if changed.is_err() { return },
                changed = self.targets.changed() => if changed.is_err() { return },
            }
        }
    }

    fn take_up(&self, lane: &Lane, target: &Arc<Target>) {
        let owner = Owner {
            journal: self.journal.clone(),
            lane: lane.clone(),
            target: Arc::clone(target),
            clock: Arc::clone(&self.clock),
            stopping: self.tasks.stopping(),
            tasks: self.tasks.clone(),
            line: None,
            turn: None,
            held: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            under_way: FuturesUnordered::new(),
            fetching: None,
            cursor: Position::START,
            not_before: None,
            sources: BTreeSet::new(),
            routing: self.journal.routing(),
            changes: 0,
            way: target.way(),
            ways: target.ways(),
        };
        self.tasks.spawn("lane", owner.run());
    }
}

/// A lane's owner.
struct Owner<J> {
    journal: J,
    lane: Lane,
    target: Arc<Target>,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
    tasks: Tasks,
    /// The place in line for a turn, while there is none.
    line: Option<oneshot::Receiver<Turn>>,
    /// A turn that the line came to.
    turn: Option<Turn>,
    held: HashMap<DeliveryId, Held>,
    ready: VecDeque<Pending>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    fetching: Option<BoxFuture<'static, Result<PendingBatch, JournalError>>>,
    cursor: Position,
    /// No attempt before this: the rate limit, or a journal that needs a pause.
    not_before: Option<Instant>,
    /// The sources whose routes lead here.
    sources: BTreeSet<Name>,
    routing: watch::Receiver<Arc<Routing>>,
    /// The changes of the routes up to those.
    changes: u64,
    /// The way to the destination by which what waits was told how long.
    way: Arc<Way>,
    ways: watch::Receiver<Arc<Way>>,
}

/// A delivery that is held.
struct Held {
    /// When its cycle began.
    since: UnixMillis,
    /// It was given again meanwhile: rearmed, perhaps, before its owner knew that it was settled.
    again: Option<Box<Pending>>,
}

/// What an attempt came to, and the delivery as it stands after it.
struct Ended {
    pending: Pending,
    result: Result<Verdict, JournalError>,
}

impl<J: Journal> Owner<J> {
    async fn run(mut self) {
        let stopping = self.stopping.clone();
        let mut look = tokio::time::interval(PAUSE);
        self.rerouted();
        loop {
            self.fetch();
            let wake = self.launch();
            tokio::select! { // all are cancel-safe: the set and the fetch are only borrowed
                biased;
                () = stopping.cancelled() => break,
                Some(ended) = self.under_way.next() => if self.ended(ended).is_lost() { return },
                turn = granted(&mut self.line) => self.turn = turn,
                Ok(()) = self.routing.changed() => self.rerouted(),
                Ok(()) = self.ways.changed() => self.another_way(),
                fetched = fetched(&mut self.fetching) => if self.fetched(fetched).is_lost() { return },
                () = tokio::time::sleep_until(wake) => self.wake(),
                _ = look.tick() => self.look(),
            }
        }
        while let Some(ended) = self.under_way.next().await {
            drop(ended); // what is under way is finished and recorded; the app's grace period ends it otherwise
        }
    }

    /// Asks the journal for more while there is room for it.
    fn fetch(&mut self) {
        let enough = self.ready.len() >= FETCH.max(self.target.way().destination.concurrency);
        if self.fetching.is_some() || enough || self.held.len() >= HELD_MAX {
            return;
        }
        let (journal, lane, cursor) = (self.journal.clone(), self.lane.clone(), self.cursor);
        self.fetching = Some(async move { journal.pending(&lane, cursor, FETCH).await }.boxed());
    }

    fn fetched(&mut self, fetched: Result<PendingBatch, JournalError>) -> Standing {
        self.fetching = None;
        match fetched {
            Ok(batch) => {
                self.cursor = batch.next;
                for pending in batch.deliveries {
                    self.hold(pending);
                }
                Standing::Ours
            }
            Err(error) => self.journal_error(&error),
        }
    }

    /// The routes have changed. If those that lead here have, everything that is not under way is given back to the journal,
    /// which has all that is known of it, and read again: without what is orphaned now, with what no longer is. A route that
    /// went and came back between two looks may have been passed over in between.
    fn rerouted(&mut self) {
        let routing = Arc::clone(&self.routing.borrow_and_update());
        let sources = routing.leading_to(&self.lane.destination);
        let in_between = routing.changes().saturating_sub(self.changes) > 1;
        self.changes = routing.changes();
        if sources == self.sources && !in_between {
            return;
        }
        self.sources = sources;
        let waiting = self.waiting.drain().map(|Reverse(waiting)| waiting.pending);
        for pending in self.ready.drain(..).chain(waiting) {
            self.held.remove(&pending.id);
        }
        self.fetching = None;
        self.cursor = Position::START;
    }

    /// The config has changed the way to the destination. Nothing waits longer than it says now; and what failed at another
    /// address need not wait for this one.
    fn another_way(&mut self) {
        let way = Arc::clone(&self.ways.borrow_and_update());
        let policy = &way.destination.retry;
        let moved = way.destination.url != self.way.destination.url;
        let longest = if moved { Duration::ZERO } else { policy.max.max(policy.retry_after_max) };
        let latest = Instant::now() + longest;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting
            .map(|Reverse(Waiting { until, pending })| Reverse(Waiting { until: until.min(latest), pending }))
            .collect();
        self.way = way;
    }

    /// Takes a delivery in. The journal may give one twice: the second is only remembered.
    fn hold(&mut self, pending: Pending) {
        if let Some(held) = self.held.get_mut(&pending.id) {
            held.again = Some(Box::new(pending));
            return;
        }
        self.held.insert(pending.id, Held { since: pending.since, again: None });
        if let Some(ends) = self.target.in_hand(pending.id) {
            self.under_way.push(made_elsewhere(ends, pending, Arc::clone(&self.clock)).boxed());
            return;
        }
        match pending.not_before {
            Some(due) if due > self.clock.now() => self.wait(pending, due),
            _ => self.ready.push_back(pending),
        }
    }

    /// Puts a delivery aside until `due`. A clock set back makes no wait longer than the longest there is.
    fn wait(&mut self, pending: Pending, due: UnixMillis) {
        let way = self.target.way();
        let policy = &way.destination.retry;
        let wait = due.since(self.clock.now()).min(policy.max.max(policy.retry_after_max));
        self.waiting.push(Reverse(Waiting { until: Instant::now() + wait, pending }));
    }

    /// Moves what is due from waiting to ready. Its turn has been waited for, so it goes first.
    fn wake(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse(first)| first.until <= now) {
            if let Some(Reverse(first)) = self.waiting.pop() {
                self.ready.push_front(first.pending);
            }
        }
        if self.not_before.is_some_and(|until| until <= now) {
            self.not_before = None;
        }
    }

    /// Begins attempts as far as the destination has turns. Says when to look again.
    fn launch(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(3600);
        if let Some(Reverse(first)) = self.waiting.peek() {
            wake = wake.min(first.until);
        }
        while self.line.is_none() {
            if self.ready.is_empty() {
                self.turn = None;
                return wake;
            }
            if let Some(until) = self.not_before {
                return wake.min(until);
            }
            let asked = self.turn.take().map_or_else(|| self.target.ask(Patience::Any), Asked::Granted);
            let turn = match asked {
                Asked::Granted(turn) => turn,
                Asked::Line(line) => {
                    self.line = Some(line);
                    break;
                }
                Asked::Shut(until) => return wake.min(until),
                Asked::Not(_) => return wake, // not said to those who wait for anything
            };
            let Some(pending) = self.ready.pop_front() else { return wake };
            let (journal, lane) = (self.journal.clone(), self.lane.clone());
            let (target, clock) = (Arc::clone(&self.target), Arc::clone(&self.clock));
            self.under_way.push(deliver(journal, lane, target, clock, pending, turn).boxed());
        }
        self.target.call_on_line().map_or(wake, |at| wake.min(at))
    }

    fn ended(&mut self, ended: Ended) -> Standing {
        let Ended { pending, result } = ended;
        match result {
            Ok(Verdict::Delivered | Verdict::Dead(_) | Verdict::Refused) => {
                let again = self.held.remove(&pending.id).and_then(|held| held.again);
                // A cycle that began after this attempt is another one.
                if let Some(again) = again.filter(|again| again.attempts_before > pending.attempts) {
                    self.hold(*again);
                }
                Standing::Ours
            }
            Ok(Verdict::RetryAt(due)) => {
                self.wait(pending, due);
                Standing::Ours
            }
            Err(JournalError::Unknown | JournalError::Erased | JournalError::Orphaned) => {
                // Settled already, or erased, or its route has gone; it may be back by now.
                if let Some(again) = self.held.remove(&pending.id).and_then(|held| held.again) {
                    self.hold(*again);
                }
                Standing::Ours
            }
            Err(JournalError::Read(error)) => {
                tracing::error!(delivery = %pending.id, %error, "the event cannot be read; it is tried again, the others go on");
                let due = self.clock.now().plus(UNREADABLE_PAUSE);
                self.wait(pending, due);
                Standing::Ours
            }
            Err(error) => {
                self.ready.push_front(pending);
                self.journal_error(&error)
            }
        }
    }

    fn journal_error(&mut self, error: &JournalError) -> Standing {
        if matches!(error, JournalError::Fenced | JournalError::Closed) {
            if !self.stopping.is_cancelled() {
                tracing::error!(destination = %self.lane.destination, %error, "delivery ends: the lane is lost");
                self.tasks.fail(); // a gateway that no longer delivers must not look alive
            }
            return Standing::Lost;
        }
        if self.not_before.is_none() {
            tracing::error!(destination = %self.lane.destination, %error, "delivery pauses: the journal cannot be used");
        }
        self.not_before = Some(Instant::now() + PAUSE);
        Standing::Ours
    }

    /// The oldest of a lane's deliveries are always among those held: they are fetched in order.
    fn look(&mut self) {
        let now = self.clock.now();
        let oldest = self.held.values().map(|held| held.since).min();
        let oldest = oldest.map_or(Duration::ZERO, |since| now.since(since));
        self.target.metrics.set_oldest_pending(oldest);
    }
}

/// Whether a lane is still this owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    Lost,
}

impl Standing {
    fn is_lost(self) -> bool {
        self == Self::Lost
    }
}

/// Waits for the fetch under way; forever if there is none. Cancel-safe: it only borrows it.
async fn fetched<T>(fetching: &mut Option<BoxFuture<'static, T>>) -> T {
    match fetching {
        Some(fetching) => fetching.await,
        None => std::future::pending().await,
    }
}

/// Waits for the place in line to come up; forever without one. None when the line was sent away. Cancel-safe.
async fn granted(line: &mut Option<oneshot::Receiver<Turn>>) -> Option<Turn> {
    let Some(waits) = line else { return std::future::pending().await };
    let turn = waits.await.ok();
    *line = None;
    turn
}

/// An attempt that the request path has under way: this delivery waits until it has ended and is recorded.
async fn made_elsewhere(mut ends: watch::Receiver<Option<Verdict>>, pending: Pending, clock: Arc<dyn Clock>) -> Ended {
    let verdict = ends.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict);
    // Nobody could say how it ended: its outcome is unknown, and another one follows.
    Ended { pending, result: Ok(verdict.unwrap_or_else(|| Verdict::RetryAt(clock.now()))) }
}

/// One attempt of one delivery: read the event, record that it begins, ask the application, record how it ended.
async fn deliver<J: Journal>(
    journal: J,
    lane: Lane,
    target: Arc<Target>,
    clock: Arc<dyn Clock>,
    mut pending: Pending,
    turn: Turn,
) -> Ended {
    let kept = match journal.event(pending.event).await {
        Ok(Some(kept)) => kept,
        Ok(None) | Err(JournalError::Damaged) => {
            tracing::error!(delivery = %pending.id, "the event's record can no longer be read; its delivery is dead");
            let verdict = Verdict::Dead(DeadReason::Damaged);
            let settled = Settled { delivery: pending.id, attempt: None, verdict };
            let result = once_there_is_room(|| journal.settle(&lane, settled.clone())).await.map(|()| verdict);
            return Ended { pending, result };
        }
        Err(error) => return Ended { pending, result: Err(error) },
    };
    let (number, reason) = (pending.attempts.saturating_add(1), pending.reason);
    if let Err(error) = journal.start(&lane, pending.id, number).await {
        return Ended { pending, result: Err(error) };
    }
    let route = kept.deliveries.get(usize::from(pending.id.index));
    let path = route.and_then(|route| route.path.as_deref());
    let outbound = Outbound { event: &kept.event, delivery: pending.id, path, number, reason };
    let made = deliver::attempt(&target, outbound, Keep::Start, clock).await;
    let verdict = made.judge(&target, number - pending.attempts_before, pending.since);
    made.observe(&target, pending.id, number, pending.since, verdict);
    let settled = Settled { delivery: pending.id, attempt: Some(made.record(number, reason)), verdict };
    (pending.attempts, pending.reason) = (number, AttemptReason::Retry);
    let result = once_there_is_room(|| journal.settle(&lane, settled.clone())).await.map(|()| verdict);
    turn.over(made.healthy());
    Ended { pending, result }
}

/// A delivery that waits, ordered by when it is due.
struct Waiting {
    until: Instant,
    pending: Pending,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.until, self.pending.id).cmp(&(other.until, other.pending.id))
    }
}
