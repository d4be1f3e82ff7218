//! What the journal has, read from its log as the index does, against what it must have.

use std::collections::BTreeMap;

use forebay::event::{DeadReason, DeliveryId, DeliveryStatus, EventId};
use forebay::journal::log::LogJournal;
use forebay::journal::{Change, Journal, JournalError, Position, Verdict};

use crate::mail::Source;
use crate::oracle::Oracle;
use crate::sim::Sim;
use crate::world::Reach;

/// All that is kept.
#[derive(Default)]
pub struct View {
    pub events: BTreeMap<EventId, Kept>,
    dead_for: BTreeMap<DeliveryId, DeadReason>,
    pub moved: u64,
    pub trimmed: u64,
    pub lost: u64,
}

pub struct Kept {
    pub at: Position,
    source: String,
    group: Option<usize>,
    deliveries: Vec<DeliveryStatus>,
}

impl View {
    /// Reads the whole log.
    pub async fn read(journal: &LogJournal) -> Result<Self, JournalError> {
        let (mut view, mut after) = (Self::default(), Position::START);
        loop {
            let batch = journal.changes(after, 4096).await?;
            if batch.next == after {
                return Ok(view);
            }
            batch.changes.into_iter().for_each(|change| view.apply(change));
            after = batch.next;
        }
    }

    fn apply(&mut self, change: Change) {
        let status = match &change {
            Change::Started { .. } | Change::Rearmed { .. } => DeliveryStatus::Pending,
            Change::Settled(settled) => match settled.verdict {
                Verdict::Delivered => DeliveryStatus::Delivered,
                Verdict::RetryAt(_) => DeliveryStatus::Pending,
                Verdict::Dead(why) => {
                    self.dead_for.insert(settled.delivery, why);
                    DeliveryStatus::Dead
                }
                Verdict::Refused => DeliveryStatus::Refused,
            },
            _ => DeliveryStatus::Pending,
        };
        match change {
            Change::Event { at, event, deliveries, .. } => {
                let group = event.provider_event_id.as_deref().and_then(|id| id.strip_prefix('m')?.parse().ok());
                let was_tried = deliveries.iter().any(|delivery| delivery.attempts > 0);
                let deliveries = deliveries.iter().map(|delivery| delivery.status).collect();
                let before =
                    self.events.insert(event.id, Kept { at, source: event.source.to_string(), group, deliveries });
                self.moved += u64::from(before.is_some() || was_tried);
            }
            Change::Started { delivery, .. } | Change::Rearmed { delivery, .. } => self.set(delivery, status),
            Change::Settled(settled) => self.set(settled.delivery, status),
            Change::Duplicate { .. } | Change::SameBody { .. } | Change::Erased { .. } => {}
            Change::Lost { from, before, .. } => {
                self.lost += 1;
                let lost = self.events.values_mut().filter(|kept| from <= kept.at && kept.at < before);
                for delivery in lost.flat_map(|kept| &mut kept.deliveries) {
                    if *delivery == DeliveryStatus::Pending {
                        *delivery = DeliveryStatus::Dead;
                    }
                }
            }
            Change::Trimmed { from, before } => {
                self.trimmed += 1;
                self.events.retain(|_, kept| kept.at < from || kept.at >= before);
            }
        }
    }

    fn set(&mut self, delivery: DeliveryId, status: DeliveryStatus) {
        let kept = self.events.get_mut(&delivery.event);
        if let Some(known) = kept.and_then(|kept| kept.deliveries.get_mut(usize::from(delivery.index))) {
            *known = status;
        }
    }

    fn count(&self, status: DeliveryStatus) -> u64 {
        self.events.values().flat_map(|kept| &kept.deliveries).filter(|is| **is == status).count() as u64
    }

    fn status(&self, delivery: DeliveryId) -> Option<DeliveryStatus> {
        self.events.get(&delivery.event)?.deliveries.get(usize::from(delivery.index)).copied()
    }
}

/// Pending deliveries, orphaned ones included, and dead ones.
pub fn counts(journal: &LogJournal) -> (u64, u64) {
    let lanes = journal.stats().lanes;
    (lanes.iter().map(|lane| lane.pending + lane.orphans()).sum(), lanes.iter().map(|lane| lane.dead).sum())
}

impl Oracle {
    /// Holds `view` against what senders and applications know.
    pub fn audits(&mut self, sim: &Sim, view: &View, (pending, dead): (u64, u64)) {
        let world = &sim.world;
        let mut lost = 0;
        for (id, told) in &mut self.events {
            let known = |index: u8| self.deliveries.get(&DeliveryId { event: *id, index });
            let routes = u8::try_from(told.routes).unwrap_or(0);
            if told.acknowledged && !told.gone && !view.events.contains_key(id) {
                if (0..routes).all(|index| known(index).is_some_and(|seen| seen.taken.is_some() && !seen.dead)) {
                    told.gone = true;
                } else {
                    lost += 1;
                    if lost > self.rotten {
                        world.wrong(format_args!("D1: {id} of m{} was acknowledged, and is lost", told.group));
                    }
                }
            }
        }
        for (id, kept) in &view.events {
            let sent = kept
                .group
                .and_then(|group| Some((group, sim.post().mails.iter().find(|mail| mail.group == group)?.clone())));
            match sent {
                Some((_, mail)) if mail.genuine && mail.source.name() == kept.source => {}
                _ => world.wrong(format_args!("D2, S1: {id} is kept, and nobody sent it")),
            }
            for (index, status) in (0u8..).zip(&kept.deliveries) {
                let delivery = DeliveryId { event: *id, index };
                self.audits_delivery(sim, view, delivery, *status);
            }
        }
        let found = (view.count(DeliveryStatus::Pending), view.count(DeliveryStatus::Dead));
        if found != (pending, dead) && self.rotten == 0 {
            world.wrong(format_args!(
                "D5: the log has {found:?} deliveries that are pending and dead, the journal counts {:?}",
                (pending, dead)
            ));
        }
    }

    fn audits_delivery(&mut self, sim: &Sim, view: &View, delivery: DeliveryId, status: DeliveryStatus) {
        let world = &sim.world;
        let rotten = self.rotten > 0;
        let told = self.events.get(&delivery.event);
        let is_live = told.is_none_or(|told| told.source == Source::Live);
        if let Some(told) = self.events.get_mut(&delivery.event) {
            told.routes = told.routes.max(usize::from(delivery.index) + 1);
        }
        let seen = self.deliveries.entry(delivery).or_default();
        match status {
            DeliveryStatus::Delivered if seen.taken.is_none() && !is_live => {
                world.wrong(format_args!("L1: {delivery} counts as delivered, and no application took it"));
            }
            DeliveryStatus::Dead => {
                world.reach(Reach::DeadLetter);
                (seen.dead, seen.may_be_rearmed) = (true, false);
                match view.dead_for.get(&delivery) {
                    Some(DeadReason::GaveUp) if !seen.gave_up && !rotten => {
                        world.wrong(format_args!("{delivery} was given up for a 410 that nobody said"));
                    }
                    Some(DeadReason::Damaged) if !rotten => {
                        world.wrong(format_args!("{delivery} is dead for damage, and nothing is damaged"));
                    }
                    _ => {}
                }
            }
            DeliveryStatus::Pending if seen.dead && !seen.asked_again && !seen.may_be_rearmed && !rotten => {
                world.wrong(format_args!("D6, D8: {delivery} was dead, and is pending"));
            }
            _ => {}
        }
    }

    /// Once all is well again: everything that was acknowledged was delivered, or is dead, and visible.
    pub fn settles(&self, sim: &Sim, view: &View) {
        for (id, told) in self.events.iter().filter(|(_, told)| told.acknowledged && !told.gone) {
            for index in (0..).take(told.routes) {
                let delivery = DeliveryId { event: *id, index };
                let taken = self.deliveries.get(&delivery).is_some_and(|seen| seen.taken.is_some());
                let dead = matches!(view.status(delivery), Some(DeliveryStatus::Dead | DeliveryStatus::Refused));
                if !taken && !dead && self.rotten == 0 {
                    sim.world.wrong(format_args!(
                        "liveness: {delivery} was acknowledged, and is neither delivered nor dead"
                    ));
                }
            }
        }
    }
}
