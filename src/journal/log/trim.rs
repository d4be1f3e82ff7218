//! Letting go: by age, and where space is short, history first.
//!
//! Space comes back a segment at a time, always the oldest: an outcome stands in the log after its event,
//! so what is left always explains itself. What is still needed of that segment (pending, or dead within its
//! retention) is copied forward to the end of the log, so one undeliverable event never pins a segment;
//! claims are sealed first, so they outlive their events. Pending deliveries are never let go of, whatever
//! the clock says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::{Batch, Broken};
use super::damage::{ROUNDS, Stretch, Survey};
use super::entry::{Entry, Segment, Standing};
use super::facts::EventFacts;
use super::limits::Limits;
use super::parts::Unreadable;
use super::record::{Home, Record};
use super::segment::{self, Found, Scan, SegmentKey};
use super::stored::{self, EventRecord};
use super::writer::{ORDINARY_BYTES, Writer};
use super::{RETRY_AFTER, aside};
use crate::base::{ByteSize, UnixMillis};
use crate::event::{DeliveryId, DeliveryStatus};
use crate::journal::{JournalError, Room, SourceStats};

/// The log is worth going through when at least one byte in this many is no longer needed.
const WORTH_COPYING: u64 = 20;
/// How many segments one call lets go of, so that appends are not kept waiting.
const SEGMENTS_A_CALL: usize = 4;

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// All it has is past its retention.
    Age,
    /// Space is short.
    Space,
}

impl Writer {
    /// Lets go of what is past retention, and measures what the index takes.
    ///
    /// # Errors
    /// [`Broken`] if a copy could not be written.
    pub fn trim(&mut self) -> Result<(), Broken> {
        if let Room::Failed(why) = self.gauges.room() {
            return Err(Broken::Failed(why));
        }
        self.exhausted = false;
        self.follow_keys()?; // where it failed before
        let size = |dir| self.disk.list(dir).map_or(0, |files| files.iter().map(|(_, bytes)| bytes).sum::<u64>());
        self.index_bytes = size("index") + size(aside::DIR);
        let _ = self.tend_claims(); // a failure is logged, shows in `room`, and is tried again
        if let Err(error) = self.time.mark_now_and_then(&*self.disk) {
            tracing::warn!(%error, "the journal's time could not be written down; it is tried again");
        }
        let spare = self.limits.reserve();
        if let Err(error) = self.reserve.hold(&*self.disk, spare) {
            tracing::debug!(%error, "no reserve is held; it is tried again");
        }
        self.measure();
        self.say_who_is_over();
        let (wall, now) = (self.clock.now(), self.time.now());
        let made_at = self.state().segments.get(&self.active.number).map_or(now, |segment| segment.made_at);
        if now.since(made_at) > self.keep.delivered / 8 {
            self.roll()?; // so that a quiet gateway's history ages as well
        }
        for _ in 0..SEGMENTS_A_CALL {
            // By the wall clock, and by the journal's own time as well: see `time`.
            let old = |segment: &Segment| {
                let keep = self.keep.delivered;
                segment.newest_at().plus(keep) < wall && segment.made_at.plus(keep) < now
            };
            let needed = |segment: &Segment| {
                let dead = if segment.newest_dead.plus(self.keep.dead) < now { 0 } else { segment.dead };
                segment.pending + dead
            };
            let oldest = self.oldest_if_worth_it(old, needed).filter(|number| !self.gauges.held.has(*number));
            let Some(number) = oldest else { break };
            self.let_go(number, Why::Age)?;
        }
        Ok(())
    }

    /// Makes room for `bytes` of a fresh event, evicting history if need be. False if there is none.
    ///
    /// # Errors
    /// [`Broken`] if a copy could not be written.
    pub fn make_room(&mut self, bytes: u64, batch: &mut Batch) -> Result<bool, Broken> {
        // Once through the log, at most: what was only copied forward would come round for ever.
        let mut turns = self.state().segments.len();
        loop {
            let used = self.used() + batch.size();
            if used + bytes + self.limits.reserve() <= self.limits.max_bytes && self.disk_has_room() {
                return Ok(true);
            }
            if self.exhausted || turns == 0 {
                self.exhausted = true;
                return Ok(false);
            }
            turns -= 1;
            self.commit(batch)?;
            let everything = |segment: &Segment| segment.pending + segment.dead;
            let mut oldest = self.oldest_if_worth_it(|_| true, everything);
            if oldest.is_none() && self.only_segment_has_events() {
                self.roll()?; // all there is stands in the segment that is written to
                oldest = self.oldest_if_worth_it(|_| true, everything);
            }
            let Some(number) = oldest else {
                self.exhausted = true;
                return Ok(false);
            };
            self.let_go(number, Why::Space)?;
        }
    }

    /// Says in the log which sources have come to take more than their share, and which no longer do.
    fn say_who_is_over(&mut self) {
        let stats = self.state().sources.stats();
        for SourceStats { source, unsettled_bytes, over_share } in stats {
            if over_share && self.over_share.insert(source.clone()) {
                tracing::warn!(%source, unsettled_bytes, share_bytes = self.shares.share(), "what waits of the source takes its share of the journal: its events are refused until some of it is settled; those of others are kept");
            } else if !over_share && self.over_share.remove(&source) {
                tracing::info!(%source, unsettled_bytes, "the source's events are kept again");
            }
        }
    }

    /// Opens the door again where there is room for an ordinary event.
    pub fn refresh_room(&mut self) {
        if matches!(self.gauges.room(), Room::Failed(_)) {
            return;
        }
        let wanted = ORDINARY_BYTES.min(self.limits.max_bytes / 16);
        let room = match self.make_room(wanted, &mut Batch::default()) {
            Ok(true) => Room::Open,
            Ok(false) => Room::Full { retry_after: RETRY_AFTER, refused: None },
            Err(_) => return, // `room` says why
        };
        self.gauges.set_room(room);
    }

    /// Takes no more than `max_size` from now on. History that is over it goes at once; what waits stays, whatever it takes.
    pub fn resize(&mut self, max_size: ByteSize) -> Result<(), JournalError> {
        let total = self.disk.space().map_err(|error| JournalError::Read(Arc::from(error.to_string())))?.total;
        self.limits = Limits::of(max_size, total);
        self.gauges.max_bytes.store(self.limits.max_bytes, Ordering::Relaxed);
        self.shares.set_capacity(self.limits.capacity());
        let done = self.trim().map_err(JournalError::from);
        self.refresh_room();
        done
    }

    /// Whether all events there are stand in the segment that is written to.
    fn only_segment_has_events(&self) -> bool {
        let state = self.state();
        state.segments.len() == 1 && state.segments.values().any(|segment| segment.events > 0)
    }

    fn disk_has_room(&self) -> bool {
        let reserve = self.limits.reserve();
        self.disk.space().map_or(true, |space| space.free > reserve.min(space.total / 10))
    }

    /// The oldest segment, if a good part of those that are `of_interest` is not `needed`.
    fn oldest_if_worth_it(
        &self,
        of_interest: impl Fn(&Segment) -> bool,
        needed: impl Fn(&Segment) -> u32,
    ) -> Option<u32> {
        let state = self.state();
        let sealed = || state.segments.iter().filter(|(number, _)| **number != self.active.number);
        let (mut all, mut kept) = (0u64, 0u64);
        for (_, segment) in sealed().filter(|(_, segment)| of_interest(segment)) {
            all += u64::from(segment.end);
            kept += segment.needed_bytes(needed(segment));
        }
        let (number, oldest) = sealed().next()?;
        let worth_it = of_interest(oldest) && all.saturating_sub(kept) * WORTH_COPYING >= all;
        worth_it.then_some(*number)
    }

    /// Copies forward what is needed of segment `number`, and removes it.
    fn let_go(&mut self, number: u32, why: Why) -> Result<(), Broken> {
        let Some((end, events, needed)) = self
            .state()
            .segments
            .get(&number)
            .map(|segment| (segment.end, segment.events, segment.pending + segment.dead))
        else {
            return Ok(());
        };
        if self.sealed_through < segment::position(number, end) {
            self.seal_claims()?;
        }
        let mut batch = Batch::default();
        let mut copied = 0;
        if needed > 0 {
            let Some(count) = self.copy_forward(number, end, &mut batch)? else {
                tracing::warn!(
                    segment = number,
                    "what can be read of it changes from one try to the next; it is let go of later"
                );
                return Ok(());
            };
            copied = count;
            // A power cut may take the first pages of a write and leave the last: what says that the segment has gone
            // is written only once the copies are durable.
            self.commit(&mut batch)?;
        }
        self.add(&Record::Trimmed { segment: number }, &mut batch)?;
        batch.must_be_durable();
        self.commit(&mut batch)?; // only what is durable elsewhere may go here
        self.remove_segment(number, end)?;
        if why == Why::Space {
            let gone = u64::from(events.saturating_sub(copied));
            self.metrics.journal().evicted(gone);
            self.gauges.evicted.fetch_add(gone, Ordering::Relaxed);
        }
        tracing::debug!(segment = number, events, copied, ?why, "segment let go");
        Ok(())
    }

    /// Removes segment `number`, which has `end` bytes, and which the log says is let go of.
    pub fn remove_segment(&mut self, number: u32, end: u32) -> Result<(), Broken> {
        let removed = self.disk.remove(&segment::path(number)).and_then(|()| self.disk.sync_dir(segment::DIR));
        if let Err(error) = removed {
            return Err(self.write_failed(&error, "remove a segment"));
        }
        self.log_bytes = self.log_bytes.saturating_sub(u64::from(end));
        self.state().remove_segment(number);
        Ok(())
    }

    /// Copies the events of segment `number` that have a pending delivery or a dead one within its retention. None if there is
    /// something that could not be read, and then could: it must not be let go of before that is copied as well.
    fn copy_forward(&mut self, number: u32, end: u32, batch: &mut Batch) -> Result<Option<u32>, Broken> {
        let mut copied = 0;
        for _ in 0..ROUNDS {
            let (more, found) = self.copy_what_can_be_read(number, end, batch)?;
            copied += more; // what is copied is not copied again
            if self.lost(found)? {
                return Ok(Some(copied));
            }
        }
        Ok(None)
    }

    fn copy_what_can_be_read(
        &mut self,
        number: u32,
        end: u32,
        batch: &mut Batch,
    ) -> Result<(u32, Vec<Stretch>), Broken> {
        let key = SegmentKey { store: self.store, number };
        let now = self.time.now();
        let opened = self.disk.open(&segment::path(number));
        let file = opened.map_err(|error| self.write_failed(&error, &format!("read segment {number}")))?;
        let mut scan = Scan::new(file, key, 0, end, 1 << 20);
        let (mut copied, mut survey) = (0, Survey::of(number));
        loop {
            let raw = match scan.next() {
                Ok(None) => break,
                Ok(Some(Found::Record(raw))) => raw,
                Ok(Some(Found::Damage { from, to, suspect })) => {
                    survey.damage(from..to, suspect);
                    continue;
                }
                Err(error) => return Err(self.write_failed(&error, &format!("read segment {number}"))),
            };
            survey.record(&raw);
            let (offset, first) = (raw.offset, raw.entry);
            let mut event = match Record::decode(&raw, &self.keys.load()) {
                Ok(Record::Event(event)) => event,
                Ok(Record::Lost(loss)) => {
                    self.copy_loss(Home { segment: number, entry: first }, offset..raw.end, &loss, batch)?;
                    continue;
                }
                Err(Unreadable::NoKey(key)) => {
                    return Err(self.fail(&format!("segment {number} is sealed with a key that is not there: {key}")));
                }
                Ok(_) | Err(Unreadable::Malformed | Unreadable::Altered) => continue,
            };
            if !self.bring_up_to_date(&mut event, number, first, now) {
                continue;
            }
            event.moved_from = Some((segment::position(number, offset), first));
            let payload = stored::encode_event(&event, self.active.sealer.as_deref());
            let payload = payload.map_err(|error| self.fail(&error.to_string()))?;
            let facts = EventFacts::of(event.outline(), payload.bytes.len());
            let (at, first) = self.add_event(&payload, facts, batch)?;
            if let Some(claim) = event.claim.filter(|claim| claim.until > now) {
                let held = super::claims::Held::new(&claim, event.event.id, at, first, event.deliveries.len());
                batch.claim(&mut self.claims, claim.hash, held);
            }
            batch.must_be_durable();
            copied += 1;
            if batch.size() > 4 << 20 {
                self.commit(batch)?;
            }
        }
        self.commit(batch)?;
        let entries = self.state().segments.get(&number).map_or(0, |segment| segment.entries.len());
        Ok((copied, survey.end(u32::try_from(entries).unwrap_or(u32::MAX))))
    }

    /// Sets the record's deliveries to where they stand now. False if nothing of it is needed.
    fn bring_up_to_date(&self, event: &mut EventRecord, segment: u32, first: u32, now: UnixMillis) -> bool {
        let state = self.state();
        let newest_dead = state.segments.get(&segment).map_or(now, |segment| segment.newest_dead);
        let (id, received_at) = (event.event.id, event.event.received_at);
        let mut needed = false;
        for (index, delivery) in (0u8..).zip(&mut event.deliveries) {
            let home = Home { segment, entry: first.saturating_add(u32::from(index)) };
            let standing = state.entry(home).map_or(Standing::Moved, Entry::standing);
            let recorded = (delivery.status, delivery.progress);
            delivery.progress = state.progress(DeliveryId { event: id, index }, home, received_at);
            delivery.status = match standing {
                Standing::Pending => DeliveryStatus::Pending,
                Standing::Dead => DeliveryStatus::Dead,
                Standing::Delivered => DeliveryStatus::Delivered,
                Standing::Refused => DeliveryStatus::Refused,
                Standing::Moved => return false, // already copied, before a crash
                Standing::Erased => return false,
            };
            if standing == Standing::Dead {
                // A copy says when it died, unless it was tried again since; for the rest it is known no closer than this.
                let (status, progress) = recorded;
                let as_recorded = status == DeliveryStatus::Dead && progress.attempts == delivery.progress.attempts;
                delivery.progress.since = if as_recorded { progress.since } else { newest_dead };
            }
            let past = standing == Standing::Dead && delivery.progress.since.plus(self.keep.dead) < now;
            needed |= standing == Standing::Pending || (standing == Standing::Dead && !past);
        }
        needed
    }
}
