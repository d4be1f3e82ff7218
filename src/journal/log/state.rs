//! What the journal knows in memory: five bytes a kept delivery, and more only for those under way.
//!
//! Whatever the backlog, an event's facts, headers and body are read from the log when they are needed.
//! A delivery's whole story while it waits is its [`Entry`]; a [`Active`] exists only while a lane's owner
//! holds the delivery or waits to retry it, and owners hold a bounded number.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::entry::{Entry, Segment, Standing};
use super::facts::EventFacts;
use super::record::Home;
use super::routes::{Known, Route, Table};
use super::segment;
use super::shares::Sources;
use super::stored::{Progress, StoredDelivery};
use crate::base::{Name, UnixMillis};
use crate::event::{AttemptReason, DeliveryId, EventId};
use crate::journal::{Lane, Located, Pending, Position, Rearm, Verdict};

/// Fresh deliveries that a lane keeps at hand, so that an owner who keeps up never reads the log to find them.
const RING_MAX: usize = 512;

/// Everything the journal knows in memory.
pub struct State {
    /// By number; the last is the one written to. Shared with a checkpoint that is being written, and copied when one of
    /// them changes meanwhile.
    pub segments: BTreeMap<u32, Arc<Segment>>,
    /// One for each destination that ever had a delivery here.
    pub lanes: Vec<LaneState>,
    lane_of: HashMap<Name, u16>,
    /// One for each source and destination of a delivery here.
    pub routes: Table,
    /// What waits of each source.
    pub sources: Sources,
    /// Those under way.
    pub active: HashMap<DeliveryId, Active>,
    /// Destinations that are left alone.
    pub paused: BTreeSet<Name>,
    /// Readers go this far.
    pub tail: Position,
    /// Rises with each opening.
    pub epoch: u64,
    /// Segments that are neither there nor let go of.
    pub missing: Vec<Range<u32>>,
    watch: watch::Sender<Arc<[Lane]>>,
}

/// One lane.
pub struct LaneState {
    /// The destination.
    pub name: Name,
    /// Wakes the owner.
    pub notify: Arc<Notify>,
    ring: VecDeque<(Position, Pending)>,
    /// The ring has everything from here on.
    covers_from: Position,
}

/// A delivery under way.
#[derive(Clone, Copy, Debug)]
pub struct Active {
    pub home: Home,
    pub event_at: Position,
    pub progress: Progress,
}

/// What a lane's owner gets when it asks.
pub enum Ready {
    /// These, from memory.
    Deliveries(Vec<Pending>, Position),
    /// The log must be read, from the position asked for.
    Scan,
    /// Nothing yet.
    Wait,
}

impl State {
    /// Nothing, opened for the `epoch`th time, but for what is `known` of routes.
    pub fn new(epoch: u64, known: Known) -> Self {
        Self {
            segments: BTreeMap::new(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            routes: Table::knowing(known),
            sources: Sources::default(),
            active: HashMap::new(),
            paused: BTreeSet::new(),
            tail: Position::START,
            epoch,
            missing: Vec::new(),
            watch: watch::Sender::new(Arc::from([])),
        }
    }

    /// The lanes, as they come.
    pub fn watch(&self) -> watch::Receiver<Arc<[Lane]>> {
        self.watch.subscribe()
    }

    /// The route from `source` to `destination`, made where it is new. None when there are too many.
    pub fn route(&mut self, source: &Name, destination: &Name) -> Option<u16> {
        if let Some(number) = self.routes.find(source, destination) {
            return Some(number);
        }
        let lane = self.lane_index(destination)?;
        self.routes.add(source, destination, lane, self.sources.of(source))
    }

    /// The lane of `destination`, made where it is new.
    fn lane_index(&mut self, destination: &Name) -> Option<u16> {
        if let Some(index) = self.lane_of.get(destination) {
            return Some(*index);
        }
        let index = u16::try_from(self.lanes.len()).ok()?;
        self.lanes.push(LaneState {
            name: destination.clone(),
            notify: Arc::new(Notify::new()),
            ring: VecDeque::new(),
            covers_from: self.tail,
        });
        self.lane_of.insert(destination.clone(), index);
        let epoch = self.epoch;
        let lanes = self.lanes.iter().map(|lane| Lane { destination: lane.name.clone(), slot: 0, epoch });
        self.watch.send_replace(lanes.collect());
        Some(index)
    }

    /// The log has been read back up to `tail`: from here on the rings tell what is new.
    pub fn recovered(&mut self, tail: Position) {
        self.tail = tail;
        for lane in &mut self.lanes {
            lane.covers_from = tail;
        }
    }

    /// The lane's state, if it is ours.
    pub fn lane(&mut self, lane: &Lane) -> Option<&mut LaneState> {
        if lane.epoch != self.epoch || lane.slot != 0 {
            return None;
        }
        let index = *self.lane_of.get(&lane.destination)?;
        self.lanes.get_mut(usize::from(index))
    }

    /// Takes note of an event's record at `at`, its first entry being `first`.
    ///
    /// Deliveries that are pending go to their lanes' rings when the record is `live`, i.e. written now and
    /// not read back; a copy of a straggler leaves its old home, and its owner may be given it again.
    pub fn add_event(&mut self, at: Position, first: u32, record: &EventFacts, live: bool) {
        let (number, _) = segment::split(at);
        if let Some((old, old_first)) = record.moved_from {
            for index in 0..record.deliveries.len() {
                let entry = old_first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
                self.stand(Home { segment: segment::split(old).0, entry }, Standing::Moved, None);
            }
        }
        let route = |delivery: &StoredDelivery| self.route(&record.source, &delivery.destination).unwrap_or(0);
        let routes: Vec<u16> = record.deliveries.iter().map(route).collect();
        self.reach(number, first);
        let Some(segment) = self.segments.get_mut(&number).map(Arc::make_mut) else { return };
        segment.events += 1;
        segment.event_bytes += u64::from(record.bytes);
        segment.newest = segment.newest.max(record.received_at);
        segment.classes.push_event(routes.len(), record.bytes);
        for (delivery, route) in record.deliveries.iter().zip(&routes) {
            segment.push(Standing::Moved, *route, delivery.progress.attempts);
        }
        for (index, delivery) in (0u8..).zip(&record.deliveries) {
            let home = Home { segment: number, entry: first.saturating_add(u32::from(index)) };
            let id = DeliveryId { event: record.id, index };
            let standing = if record.erased { Standing::Erased } else { Standing::from(delivery.status) };
            self.stand(home, standing, None);
            if standing == Standing::Dead {
                self.dead_at(home, delivery.progress.since);
            }
            if let Some(active) = self.active.get_mut(&id) {
                (active.home, active.event_at) = (home, at);
            } else if standing == Standing::Pending && !delivery.progress.is_fresh(id) {
                self.active.insert(id, Active { home, event_at: at, progress: delivery.progress });
            }
            if live && standing == Standing::Pending {
                let event = Located { id: record.id, at };
                self.ring(home, at, pending(id, event, delivery.progress));
            }
        }
    }

    /// An attempt is about to run. Without an end its number is spent, and another attempt is due at once.
    pub fn started(&mut self, id: DeliveryId, home: Home, event_at: Position, number: u32) {
        let Some(entry) = self.entry(home) else { return };
        if let Some(segment) = self.segments.get_mut(&home.segment).map(Arc::make_mut) {
            segment.set(home.entry, entry.standing(), entry.route(), number);
        }
        if entry.standing() == Standing::Pending {
            let progress = Progress::fresh(id.event.made_at());
            let active = self.active.entry(id).or_insert(Active { home, event_at, progress });
            active.progress.attempts = number;
            active.progress.reason = AttemptReason::Retry;
            active.progress.not_before = None;
        }
    }

    /// Attempt `number` ended, or the delivery was given up without one, at `at`.
    pub fn settled(&mut self, id: DeliveryId, home: Home, number: Option<u32>, verdict: Verdict, at: UnixMillis) {
        let standing = match verdict {
            Verdict::RetryAt(when) => {
                if let Some(active) = self.active.get_mut(&id) {
                    active.progress.not_before = Some(when);
                }
                return;
            }
            Verdict::Delivered => Standing::Delivered,
            Verdict::Refused => Standing::Refused,
            Verdict::Dead(_) => {
                self.dead_at(home, at);
                Standing::Dead
            }
        };
        // The request path's attempt is not recorded before it runs.
        let attempts = self.attempts(home).max(number.unwrap_or(0));
        self.stand(home, standing, Some(attempts));
        self.active.remove(&id);
    }

    /// A delivery is pending again; its record is at `record_at`.
    pub fn rearmed(&mut self, rearmed: &Rearmed, record_at: Position, live: bool) {
        let Rearmed { id, home, event_at, why, attempts, at } = *rearmed;
        if self.entry(home).is_none_or(|entry| entry.standing() == Standing::Moved) {
            return;
        }
        self.stand(home, Standing::Pending, Some(attempts));
        let reason = if why == Rearm::Replay { AttemptReason::Replay } else { AttemptReason::Rearm };
        let progress = Progress { attempts, attempts_before: attempts, since: at, not_before: None, reason };
        self.active.insert(id, Active { home, event_at, progress });
        if let Some(segment) = self.segments.get_mut(&segment::split(record_at).0).map(Arc::make_mut) {
            segment.has_rearm = true;
        }
        if live {
            self.ring(home, record_at, pending(id, Located { id: id.event, at: event_at }, progress));
        }
    }

    /// The event whose deliveries have these homes, one after the other, is erased: whatever waited of it has ended.
    pub fn erased(&mut self, event: EventId, first: Home, deliveries: u8) {
        for (index, home) in first.and_following(deliveries) {
            self.stand(home, Standing::Erased, None);
            self.active.remove(&DeliveryId { event, index });
        }
    }

    /// Forgets a segment.
    pub fn remove_segment(&mut self, number: u32) {
        self.forget_unsettled(number);
        let Some(segment) = self.segments.remove(&number) else { return };
        if !segment.lost.is_empty() {
            self.forget_active(number);
        }
        for entry in &segment.entries {
            if let Some(route) = self.routes.get_mut(entry.route()) {
                match entry.standing() {
                    Standing::Pending => route.pending = route.pending.saturating_sub(1),
                    Standing::Dead => route.dead = route.dead.saturating_sub(1),
                    Standing::Delivered | Standing::Refused | Standing::Moved | Standing::Erased => {}
                }
            }
        }
    }

    /// The entry at `home`.
    pub fn entry(&self, home: Home) -> Option<Entry> {
        self.segments.get(&home.segment)?.entries.get(home.entry as usize).copied()
    }

    /// Attempts started so far at the delivery at `home`.
    pub fn attempts(&self, home: Home) -> u32 {
        self.segments.get(&home.segment).map_or(0, |segment| segment.attempts(home.entry))
    }

    /// The destination of the delivery at `home`.
    pub fn destination(&self, home: Home) -> Option<&Name> {
        let route = self.entry(home)?.route();
        self.routes.get(route).map(|route| &route.destination)
    }

    /// Where a delivery under way is kept, and where its event's record is.
    pub fn home(&self, id: DeliveryId) -> Option<(Home, Position)> {
        self.active.get(&id).map(|active| (active.home, active.event_at))
    }

    /// Where the record of an event with a delivery under way is now.
    pub fn event_at(&self, event: EventId) -> Option<Position> {
        (0..=u8::MAX).find_map(|index| self.active.get(&DeliveryId { event, index })).map(|active| active.event_at)
    }

    /// How far the delivery at `home` has come, for an event received at `received_at`.
    pub fn progress(&self, id: DeliveryId, home: Home, received_at: UnixMillis) -> Progress {
        let fresh = || {
            let attempts = self.attempts(home);
            let reason = if attempts == 0 { AttemptReason::Initial } else { AttemptReason::Retry };
            Progress { attempts, reason, ..Progress::fresh(received_at) }
        };
        self.active.get(&id).map_or_else(fresh, |active| active.progress)
    }

    /// What a lane's owner can have without reading the log.
    pub fn ready(&mut self, lane: &Lane, after: Position, max: usize) -> Option<Ready> {
        let tail = self.tail;
        let state = self.lane(lane)?;
        while let Some((at, _)) = state.ring.pop_front_if(|(at, _)| *at < after) {
            state.covers_from = state.covers_from.max(Position(at.0 + 1)); // whoever begins anew reads the log so far
        }
        if after < state.covers_from {
            return Some(if after < tail { Ready::Scan } else { Ready::Wait });
        }
        let Some((last, _)) = state.ring.iter().take(max.max(1)).next_back() else { return Some(Ready::Wait) };
        let last = *last; // a position is given whole: one event may have two deliveries here
        let taken: Vec<_> = state.ring.iter().take_while(|(at, _)| *at <= last).cloned().collect();
        let next = Position(last.0 + 1);
        let mut given = Vec::with_capacity(taken.len());
        for (_, mut pending) in taken {
            if self.hand_out(&mut pending) {
                given.push(pending);
            }
        }
        Some(Ready::Deliveries(given, next))
    }

    /// Brings `pending` up to date and notes that its lane's owner holds it now. False if it is settled by now, or orphaned.
    pub fn hand_out(&mut self, pending: &mut Pending) -> bool {
        let (home, progress) = match self.active.get(&pending.id) {
            Some(active) => (active.home, active.progress),
            None => {
                let (segment, _) = segment::split(pending.event.at);
                let home = Home { segment, entry: pending.entry };
                (home, self.progress(pending.id, home, pending.since))
            }
        };
        let Some(entry) = self.entry(home).filter(|entry| entry.standing() == Standing::Pending) else { return false };
        if self.orphaned(entry, progress.since) {
            return false;
        }
        self.active.entry(pending.id).or_insert(Active { home, event_at: pending.event.at, progress });
        pending.attempts = progress.attempts;
        pending.attempts_before = progress.attempts_before;
        (pending.not_before, pending.reason) = (progress.not_before, progress.reason);
        let there_since = self.routes.get(entry.route()).map(|route| route.there_since);
        pending.since = progress.since.max(there_since.unwrap_or(progress.since));
        true
    }

    /// The segments from `after` on that may have something for `lane`.
    pub fn plan(&mut self, lane: &Lane, after: Position) -> Vec<(u32, u32)> {
        let Some(index) = self.lane_of.get(&lane.destination).copied() else { return Vec::new() };
        let (first, _) = segment::split(after);
        let ordered = self.ordered();
        let wanted = |(number, route): (u16, &Route)| {
            (route.orphans_until.is_none() || ordered.contains_key(&number)).then_some(number)
        };
        let wanted: BTreeSet<u16> = self.routes.to(index).filter_map(wanted).collect();
        let may_have = |segment: &Segment| segment.pending_by_route.keys().any(|route| wanted.contains(route));
        self.segments
            .range(first..)
            .filter(|(_, segment)| segment.has_rearm || may_have(segment))
            .map(|(number, segment)| (*number, segment.end))
            .collect()
    }

    fn ring(&mut self, home: Home, at: Position, mut pending: Pending) {
        pending.entry = home.entry;
        let lane =
            self.entry(home).and_then(|entry| self.routes.get(entry.route())).map(|route| usize::from(route.lane));
        let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(lane)) else { return };
        lane.ring.push_back((at, pending));
        if lane.ring.len() > RING_MAX
            && let Some((dropped, _)) = lane.ring.pop_front()
        {
            lane.covers_from = Position(dropped.0 + 1);
            // Others at the same place go as well: a position is given whole or not at all.
            while lane.ring.front().is_some_and(|(at, _)| *at == dropped) {
                lane.ring.pop_front();
            }
        }
        lane.notify.notify_one();
    }

    fn dead_at(&mut self, home: Home, at: UnixMillis) {
        if let Some(segment) = self.segments.get_mut(&home.segment).map(Arc::make_mut) {
            segment.newest_dead = segment.newest_dead.max(at);
        }
    }

    /// Moves the entry at `home` to another standing, and every count with it.
    pub fn stand(&mut self, home: Home, standing: Standing, attempts: Option<u32>) {
        let before = self.is_unsettled(home);
        self.stand_only(home, standing, attempts);
        self.recount(home, before);
    }

    fn stand_only(&mut self, home: Home, standing: Standing, attempts: Option<u32>) {
        let Some(segment) = self.segments.get_mut(&home.segment).map(Arc::make_mut) else { return };
        let Some(before) = segment.entries.get(home.entry as usize).copied() else { return };
        let attempts = attempts.unwrap_or_else(|| segment.attempts(home.entry));
        segment.set(home.entry, standing, before.route(), attempts);
        let Some(route) = self.routes.get_mut(before.route()) else { return };
        match before.standing() {
            Standing::Pending => {
                segment.pending -= 1;
                route.pending -= 1;
                if let Some(count) = segment.pending_by_route.get_mut(&before.route()) {
                    *count -= 1;
                    if *count == 0 {
                        segment.pending_by_route.remove(&before.route());
                    }
                }
            }
            Standing::Dead => {
                segment.dead -= 1;
                route.dead -= 1;
            }
            Standing::Delivered | Standing::Refused | Standing::Moved | Standing::Erased => {}
        }
        match standing {
            Standing::Pending => {
                segment.pending += 1;
                route.pending += 1;
                *segment.pending_by_route.entry(before.route()).or_default() += 1;
            }
            Standing::Dead => {
                segment.dead += 1;
                route.dead += 1;
            }
            Standing::Delivered | Standing::Refused | Standing::Moved | Standing::Erased => {}
        }
    }
}

/// A delivery that is made pending again.
#[derive(Clone, Copy, Debug)]
pub struct Rearmed {
    /// Which.
    pub id: DeliveryId,
    /// Where its state is.
    pub home: Home,
    /// Where its event's record is.
    pub event_at: Position,
    /// Why.
    pub why: Rearm,
    /// Attempts started so far.
    pub attempts: u32,
    /// When.
    pub at: UnixMillis,
}

/// The delivery `id` as its lane's owner sees it.
pub fn pending(id: DeliveryId, event: Located, progress: Progress) -> Pending {
    Pending {
        id,
        event,
        entry: 0,
        attempts: progress.attempts,
        attempts_before: progress.attempts_before,
        since: progress.since,
        not_before: progress.not_before,
        reason: progress.reason,
    }
}
