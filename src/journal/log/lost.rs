//! What becomes of deliveries whose events can no longer be read.
//!
//! A record `Lost` says which stretch of which segment cannot be read, and takes the place of the events that were there: it has an
//! entry for each of their deliveries that was pending or dead, all of them dead now, and is copied forward for as long as dead
//! letters are kept. So nothing that was acknowledged goes uncounted, although nothing more can be made of it. An attempt that was under
//! way then, and had read its event before, may still end well: its outcome is recorded against the new entry.
//!
//! The payload of kind 8, numbers little-endian: segment u32; first offset u32, first offset after u32; why u8 (1 damaged, 2 torn, 3 this
//! was copied from there); position u64 of the first of the events, position u64 after them; when it was found i64; u16 count of routes (source, destination bytes); u32 count of deliveries
//! (entry in that segment u32, route u16, attempts u32).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::aside::{self, Aside};
use super::codec::{Decoder, Encoder, Malformed};
use super::commit::{Batch, Broken, Effect};
use super::damage::Stretch;
use super::entry::{Lost, Standing};
use super::parts::{CLEAR, Payload};
use super::record::{Home, KIND_LOST};
use super::segment;
use super::state::State;
use super::writer::Writer;
use crate::base::{Name, UnixMillis};
use crate::event::DeadReason;
use crate::journal::{Position, Verdict};

/// The source and the destination of a delivery of which nobody can say any more whose it was.
pub const NOBODY: &str = "forebay.lost";
/// Deliveries in one record, at most.
const DELIVERIES_MAX: usize = 8192;

/// One record of what is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment with the stretch.
    pub segment: u32,
    /// The stretch.
    pub bytes: Range<u32>,
    /// What it is.
    pub why: Lost,
    /// Where the events were, however often this was copied since.
    pub events: Range<Position>,
    /// When it was found, by the journal's time: since then its deliveries are dead.
    pub at: UnixMillis,
    /// Those of its deliveries that were not settled, or dead.
    pub deliveries: Vec<LostDelivery>,
}

/// A delivery whose event is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostDelivery {
    /// Its entry in the segment with the stretch.
    pub entry: u32,
    /// Where its event came in.
    pub source: Name,
    /// Where it was to go.
    pub destination: Name,
    /// Attempts started.
    pub attempts: u32,
}

impl Loss {
    /// The record's payload.
    pub fn encode(&self, out: &mut Encoder) {
        let mut numbers: HashMap<(&Name, &Name), u16> = HashMap::new();
        let mut routes = Vec::new();
        for delivery in &self.deliveries {
            let route = (&delivery.source, &delivery.destination);
            numbers.entry(route).or_insert_with(|| {
                routes.push(route);
                u16::try_from(routes.len() - 1).unwrap_or(u16::MAX) // there are fewer routes than that in a journal
            });
        }
        out.u32(self.segment).u32(self.bytes.start).u32(self.bytes.end).u8(self.why.code());
        out.u64(self.events.start.0).u64(self.events.end.0).i64(self.at.0);
        out.u16(u16::try_from(routes.len()).unwrap_or(u16::MAX));
        for (source, destination) in routes {
            out.bytes(source.as_str().as_bytes()).bytes(destination.as_str().as_bytes());
        }
        out.u32(u32::try_from(self.deliveries.len()).unwrap_or(u32::MAX));
        for delivery in &self.deliveries {
            let route = numbers.get(&(&delivery.source, &delivery.destination)).copied().unwrap_or(0);
            out.u32(delivery.entry).u16(route).u32(delivery.attempts);
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(from: &mut Decoder) -> Result<Self, Malformed> {
        let (segment, bytes) = (from.u32()?, from.u32()?..from.u32()?);
        let why = Lost::from_code(from.u8()?).ok_or(Malformed)?;
        let events = Position(from.u64()?)..Position(from.u64()?);
        let at = UnixMillis(from.i64()?);
        let name = |from: &mut Decoder| Name::new(&from.text()?).map_err(|_| Malformed);
        let routes = (0..from.u16()?).map(|_| Ok((name(from)?, name(from)?))).collect::<Result<Vec<_>, Malformed>>()?;
        let count = from.u32()?;
        let delivery = |_| {
            let (entry, route, attempts) = (from.u32()?, from.u16()?, from.u32()?);
            let (source, destination) = routes.get(usize::from(route)).cloned().ok_or(Malformed)?;
            Ok(LostDelivery { entry, source, destination, attempts })
        };
        let deliveries = (0..count).map(delivery).collect::<Result<_, _>>()?;
        Ok(Self { segment, bytes, why, events, at, deliveries })
    }
}

impl State {
    /// Takes note of `loss`, whose record is at `at`, takes `bytes` and has its first entry at `first`. Live, an attempt may be under
    /// way at one of its deliveries; read back, none is.
    pub fn add_loss(&mut self, at: Position, first: u32, loss: &Loss, bytes: u32, live: bool) {
        let (number, _) = segment::split(at);
        self.reach(number, first);
        let mut moved = HashMap::new();
        for (entry, delivery) in (first..).zip(&loss.deliveries) {
            let (old, new) = (Home { segment: loss.segment, entry: delivery.entry }, Home { segment: number, entry });
            self.stand(old, Standing::Moved, None);
            let route = self.route(&delivery.source, &delivery.destination).unwrap_or(0);
            self.add_entry(number, route, delivery.attempts);
            self.stand(new, Standing::Dead, None);
            moved.insert(old, new);
        }
        if let Some(segment) = self.segments.get_mut(&number).filter(|_| !moved.is_empty()).map(Arc::make_mut) {
            segment.event_bytes += u64::from(bytes);
            segment.newest_dead = segment.newest_dead.max(loss.at);
        }
        if let Some(segment) = self.segments.get_mut(&loss.segment).map(Arc::make_mut) {
            segment.lost.push((loss.bytes.clone(), loss.why));
        }
        if !moved.is_empty() {
            self.active.retain(|_, active| {
                let Some(home) = moved.get(&active.home) else { return true };
                (active.home, active.event_at) = (*home, at);
                live
            });
        }
    }

    /// Entries of segment `number` up to `first`, none of which was seen, are those of events that cannot be read: pending, for
    /// all that is known yet. So damage leaves a gap in the numbers, never a shift.
    pub fn reach(&mut self, number: u32, first: u32) {
        let length = self.segments.get(&number).map(|segment| segment.entries.len());
        let Some(length) = length.and_then(|length| u32::try_from(length).ok()).filter(|length| *length < first) else {
            return;
        };
        let Ok(nobody) = Name::new(NOBODY) else { return };
        let route = self.route(&nobody, &nobody).unwrap_or(0);
        for entry in length..first {
            self.add_entry(number, route, 0);
            self.stand(Home { segment: number, entry }, Standing::Pending, None);
        }
    }

    fn add_entry(&mut self, number: u32, route: u16, attempts: u32) {
        if let Some(segment) = self.segments.get_mut(&number).map(Arc::make_mut) {
            segment.classes.push_event(1, 0);
            segment.push(Standing::Moved, route, attempts);
        }
    }

    /// Puts deliveries down to the routes that a damaged record says, where it can be believed: it says as many as
    /// there are, and there are such routes.
    pub fn believe(&mut self, stretch: &Stretch) {
        let routes = stretch.said.iter().map(|(source, destination)| self.routes.find(source, destination));
        let Some(routes) = routes.collect::<Option<Vec<u16>>>() else { return };
        if routes.len() != stretch.entries.len() {
            return;
        }
        for (entry, route) in stretch.entries.clone().zip(routes) {
            let home = Home { segment: stretch.segment, entry };
            let Some(before) = self.entry(home) else { return };
            self.stand(home, Standing::Moved, None);
            let attempts = self.attempts(home);
            if let Some(segment) = self.segments.get_mut(&home.segment).map(Arc::make_mut) {
                segment.set(home.entry, Standing::Moved, route, attempts);
            }
            self.stand(home, before.standing(), None);
        }
    }

    /// The deliveries of `stretch` that are not settled, or dead. None if the stretch is known by now, or its segment gone.
    fn unsettled_in(&self, stretch: &Stretch) -> Option<Vec<LostDelivery>> {
        let segment = self.segments.get(&stretch.segment)?;
        if self.lost_in(stretch.segment, &stretch.bytes).is_some() {
            return None;
        }
        let delivery = |number: u32| {
            let entry = segment.entries.get(number as usize).filter(|entry| entry.standing().is_unsettled())?;
            let route = self.routes.get(entry.route())?;
            let (source, destination) = (route.source.clone(), route.destination.clone());
            Some(LostDelivery { entry: number, source, destination, attempts: segment.attempts(number) })
        };
        Some(stretch.entries.clone().filter_map(delivery).collect())
    }

    /// Forgets attempts under way at what segment `number` has, which goes: their deliveries are lost, and were dead.
    pub fn forget_active(&mut self, number: u32) {
        self.active.retain(|_, active| active.home.segment != number);
    }
}

impl Writer {
    /// Takes note of `stretches`, durably: their pending deliveries are dead from now on, their bytes are set aside, and whoever
    /// reads passes over them. Those that are known are left out, and so are those that can be read after all; false if there are
    /// such. Call it when no batch is open.
    ///
    /// # Errors
    /// [`Broken`] if it could not be written. Whoever comes upon them next will say so again.
    pub fn lost(&mut self, stretches: Vec<Stretch>) -> Result<bool, Broken> {
        let (mut batch, mut noted) = (Batch::default(), Vec::new());
        let mut all = true;
        for stretch in stretches {
            let Some(deliveries) = self.state().unsettled_in(&stretch) else { continue };
            let end = self.state().segments.get(&stretch.segment).map_or(0, |segment| segment.end);
            if stretch.why == Lost::Damaged && !stretch.is_still_there(&*self.disk, self.store, end) {
                all = false;
                continue;
            }
            let (at, mut rest) = (self.time.now(), deliveries.as_slice());
            loop {
                let (some, more) = rest.split_at(rest.len().min(DELIVERIES_MAX));
                let (segment, bytes, why) = (stretch.segment, stretch.bytes.clone(), stretch.why);
                let events = segment::position(segment, bytes.start)..segment::position(segment, bytes.end);
                self.add_loss(Loss { segment, bytes, why, events, at, deliveries: some.to_vec() }, &mut batch)?;
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            noted.push((stretch, deliveries.len()));
        }
        if noted.is_empty() {
            return Ok(all);
        }
        batch.must_be_durable();
        self.commit(&mut batch)?;
        let mut aside = Aside::look(&*self.disk, self.limits.max_bytes / aside::PART);
        for (Stretch { segment, bytes, why, .. }, deliveries) in noted {
            if why == Lost::Damaged {
                let aside = aside.keep(&*self.disk, segment, &bytes);
                self.gauges.damaged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.metrics.journal().damaged();
                let (from, to) = (bytes.start, bytes.end);
                tracing::error!(
                    segment,
                    from,
                    to,
                    deliveries,
                    aside,
                    "damaged: the records in this stretch are lost, and their deliveries that were not made are dead letters; what stands after it is read"
                );
            }
        }
        Ok(all)
    }

    /// Adds a record of what is lost; it counts with the batch.
    pub fn add_loss(&mut self, loss: Loss, batch: &mut Batch) -> Result<(), Broken> {
        let mut payload = Encoder::default();
        loss.encode(&mut payload);
        let size = segment::record_bytes(payload.0.len());
        let at = self.place(size, batch)?;
        let first = self.active.entries;
        self.frame(KIND_LOST, first, &Payload { form: CLEAR, bytes: payload.0 }, batch);
        self.active.entries += u32::try_from(loss.deliveries.len()).unwrap_or(0);
        let bytes = u32::try_from(size).unwrap_or(u32::MAX);
        batch.late.push(Effect::Lost { at, first, loss: Box::new(loss), bytes });
        Ok(())
    }

    /// Copies a record of what is lost forward, for as long as some of its deliveries are dead letters.
    pub fn copy_loss(&mut self, home: Home, bytes: Range<u32>, loss: &Loss, batch: &mut Batch) -> Result<(), Broken> {
        let Home { segment, entry: first } = home;
        if loss.at.plus(self.keep.dead) < self.time.now() {
            return Ok(());
        }
        let deliveries: Vec<_> = {
            let state = self.state();
            let dead = |entry| state.entry(Home { segment, entry }).is_some_and(|now| now.standing() == Standing::Dead);
            let entries = (first..).zip(&loss.deliveries).filter(|(entry, _)| dead(*entry));
            entries.map(|(entry, delivery)| LostDelivery { entry, ..delivery.clone() }).collect()
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        batch.must_be_durable();
        let (why, events) = (Lost::Moved, loss.events.clone());
        self.add_loss(Loss { segment, bytes, why, events, at: loss.at, deliveries }, batch)
    }

    /// Sets what an attempt came to against where its delivery stands now: one whose event was lost meanwhile is not tried again.
    pub fn verdict_of(&self, home: Home, verdict: Verdict) -> Verdict {
        let dead = self.state().entry(home).is_some_and(|entry| entry.standing() == Standing::Dead);
        if dead && matches!(verdict, Verdict::RetryAt(_)) { Verdict::Dead(DeadReason::Damaged) } else { verdict }
    }
}
