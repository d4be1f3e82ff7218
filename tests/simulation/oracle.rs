//! What must be true, by what senders were told and what the applications saw.

use std::collections::BTreeMap;

use forebay::event::{DeliveryId, EventId};
use forebay::intake::{Again, Buffered, Receipt};

use crate::clock::BEGAN;
use crate::disk::Crash;
use crate::mail::{Mail, Source};
use crate::shape::Shape;
use crate::sim::{Routed, Sim};
use crate::world::Reach;

/// What need not be durable at once is so after this.
const BEHIND: u64 = 100;

pub struct Oracle {
    pub lives: Vec<Life>,
    pub events: BTreeMap<EventId, Told>,
    pub deliveries: BTreeMap<DeliveryId, Seen>,
    /// When a request of each group was sent first, and its events.
    groups: BTreeMap<usize, Group>,
    in_flight: Vec<usize>,
    window: u64,
    /// Nobody sets it.
    clock_is_right: bool,
    /// How far the clock was set ahead before the machine was restarted: by so much claims may end early (docs/dedupe.md).
    pub ahead: u64,
    jumped: u64,
    /// Bits that were flipped: each may cost a record.
    pub rotten: u32,
    /// When each destination was paused.
    pub paused: BTreeMap<&'static str, u64>,
    /// When a route went.
    pub routes_since: u64,
    /// Power is cut at that many more acknowledgements.
    pub cut_in: Option<u32>,
}

/// A life of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub opened: bool,
    pub ended: Option<(u64, Crash)>,
    pub disk_failed: bool,
    /// How long the disk hung, or when the clock was set.
    pub jumped: bool,
}

#[derive(Default)]
struct Group {
    first_sent: u64,
    events: Vec<EventId>,
}

/// An event that a sender was told of, or an application.
pub struct Told {
    pub source: Source,
    pub group: usize,
    /// Told to a sender as kept.
    pub acknowledged: bool,
    /// It was kept no earlier than this, and no later than that.
    sent: u64,
    known: u64,
    /// It has at least so many deliveries.
    pub routes: usize,
    mail: Option<usize>,
    /// The journal let go of it, rightly.
    pub gone: bool,
}

/// What an application saw of a delivery.
#[derive(Default)]
pub struct Seen {
    last: Option<(u32, u64, usize)>,
    /// It was taken then.
    pub taken: Option<(u64, usize)>,
    pub gave_up: bool,
    not_before: Option<(u64, u64, usize)>,
    /// It was asked for again since.
    pub asked_again: bool,
    /// It had been asked for when it was taken: if that was forgotten, it is asked for still.
    taken_when_asked: bool,
    pub dead: bool,
    /// A duplicate was sent since it was found dead.
    pub may_be_rearmed: bool,
}

/// One request at an application.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    delivery: DeliveryId,
    number: u32,
    life: usize,
    application: usize,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{}", self.delivery, self.number)
    }
}

pub const APPLICATIONS: [(&str, usize); 3] = [("app", 4), ("audit", 2), ("desk", 3)];

impl Oracle {
    pub fn new(shape: &Shape) -> Self {
        Self {
            lives: Vec::new(),
            events: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            groups: BTreeMap::new(),
            in_flight: vec![0; APPLICATIONS.len()],
            window: u64::try_from(shape.window.as_millis()).unwrap_or(u64::MAX),
            clock_is_right: !shape.jumps,
            ahead: 0,
            jumped: 0,
            rotten: 0,
            paused: BTreeMap::new(),
            routes_since: 0,
            cut_in: None,
        }
    }

    pub fn life_begins(&mut self) {
        self.lives.push(Life::default());
        self.in_flight.fill(0);
    }

    pub fn life_ends(&mut self, at: u64, how: Crash, disk_failed: bool) {
        if how != Crash::Kill {
            self.ahead += std::mem::take(&mut self.jumped);
        }
        if let Some(life) = self.lives.last_mut() {
            life.ended = Some((at, how));
            life.disk_failed = disk_failed;
        }
    }

    pub fn clock_jumps(&mut self, by: i64) {
        self.jumped += u64::try_from(by).unwrap_or(0);
        self.lives.last_mut().expect("in a life").jumped = true;
    }

    fn life(&self) -> usize {
        self.lives.len() - 1
    }

    /// Whether what was written in `life` at `at`, and need not be durable at once, may have been forgotten since.
    fn forgot(&self, life: usize, at: u64) -> bool {
        for (number, life) in self.lives.iter().enumerate().skip(life) {
            let Some((ended, how)) = life.ended else { return false };
            let is_cut = how != Crash::Kill && (ended.saturating_sub(at) <= BEHIND || !life.opened);
            if is_cut || life.disk_failed {
                return true;
            }
            let next_opened = self.lives.get(number + 1).is_some_and(|next| next.opened);
            if next_opened {
                return false; // it was read back, and flushed
            }
        }
        false
    }

    /// Whether what happened in `life` at `at` may not have been written before it ended.
    fn cut_off(&self, life: usize, at: u64) -> bool {
        let life = &self.lives[life];
        life.ended.is_some_and(|(ended, _)| ended.saturating_sub(at) <= BEHIND || life.disk_failed)
    }

    pub fn sends(&mut self, mail: &Mail, at: u64) {
        if mail.genuine {
            let group = self.groups.entry(mail.group).or_insert(Group { first_sent: at, events: Vec::new() });
            for event in &group.events {
                for index in 0..2 {
                    let delivery = DeliveryId { event: *event, index };
                    self.deliveries.entry(delivery).or_default().may_be_rearmed = true;
                }
            }
        }
    }

    /// A sender was told that all is well with its mail, after `began` and at `now`.
    pub fn acknowledged(
        &mut self,
        sim: &Sim,
        (number, mail): (usize, &Mail),
        receipt: &Receipt,
        (began, now): (u64, u64),
        routed: Routed,
    ) {
        let world = &sim.world;
        if !mail.genuine {
            return world.wrong(format_args!("S1: a forged request of m{} is told that all is well", mail.group));
        }
        let (id, again) = match receipt {
            Receipt::Stored { id, again, buffered, .. } => {
                if *buffered == Buffered::Yes {
                    world.reach(Reach::Buffered);
                }
                (*id, *again)
            }
            Receipt::Relayed { .. } => return world.reach(Reach::Relayed),
            Receipt::Handshake(_) => return world.wrong(format_args!("a handshake")),
        };
        world.reach(Reach::Acked);
        if again == Again::Yes {
            self.duplicate(sim, (number, mail), id);
        } else if self.rotten == 0 {
            self.first_of_its_window(sim, mail.group, id, now);
        }
        // A duplicate's original came at some time after the first of its group.
        let sent = if again == Again::No { began } else { self.earliest(id, mail.group) };
        // Which routes there were when a duplicate's original came is not known here; there was one at least.
        let routes = if again == Again::No { routed.leads(mail.source).len() } else { 1 };
        self.know(id, mail, (sent, now), routes);
        let is_over = self.events[&id].gone || self.is_over(id) || (self.rotten > 0 && again == Again::Yes);
        let relayed = mail.source == Source::Live && again == Again::Yes; // the application's own answer, recorded behind it
        if !relayed {
            if let Some(told) = self.events.get_mut(&id) {
                told.acknowledged = true;
            }
            if !is_over && !sim.disk.would_keep(&sim.post().marks(mail.group)) {
                world.wrong(format_args!(
                    "D3: {id} of m{} is acknowledged, and a power cut now would take it",
                    mail.group
                ));
            }
        }
        if let Some(left) = &mut self.cut_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.cut_in = None;
                world.reach(Reach::PowerCutAtAck);
                sim.disk.end();
                sim.cut.notify_one();
            }
        }
    }

    fn duplicate(&mut self, sim: &Sim, (number, mail): (usize, &Mail), id: EventId) {
        let world = &sim.world;
        world.reach(Reach::Duplicate);
        match self.events.get(&id) {
            Some(told) if told.group != mail.group => {
                world.wrong(format_args!("m{} is told to be {id}, which is of m{}", mail.group, told.group));
            }
            Some(told) => {
                if told.mail.is_some_and(|first| first != number) {
                    world.reach(Reach::Conflict);
                }
                if self.lives.last().is_some() && self.lives.len() > 1 && told.known < self.lives_began() {
                    world.reach(Reach::DuplicateAfterCrash);
                }
                let is_over = self.is_over(id);
                if !is_over {
                    world.reach(Reach::DuplicateInFlight);
                }
            }
            None => {}
        }
        for (_, seen) in
            self.deliveries.range_mut(DeliveryId { event: id, index: 0 }..=DeliveryId { event: id, index: 255 })
        {
            if seen.dead {
                world.reach(Reach::Rearm);
                (seen.dead, seen.asked_again) = (false, true);
            }
        }
    }

    fn lives_began(&self) -> u64 {
        let before = self.lives.iter().rev().nth(1);
        before.and_then(|life| life.ended).map_or(0, |(at, _)| at)
    }

    /// U1, U2: within the window, a group is one event.
    fn first_of_its_window(&mut self, sim: &Sim, group: usize, id: EventId, now: u64) {
        let window = self.window.saturating_sub(self.ahead);
        for other in &self.groups[&group].events {
            let Some(told) = self.events.get(other).filter(|_| *other != id) else { continue };
            if told.source == Source::Live && !told.acknowledged {
                continue;
            }
            // Either of them may have been the first.
            let apart = now.saturating_sub(told.sent).max(told.known.saturating_sub(self.earliest(id, group)));
            if apart < window {
                sim.world.wrong(format_args!("U2: m{group} is kept as {id} and, within the window, as {other}"));
            } else {
                sim.world.reach(Reach::Expired);
            }
        }
    }

    /// Before this, the event was not kept.
    fn earliest(&self, id: EventId, group: usize) -> u64 {
        let first_sent = self.groups.get(&group).map_or(0, |group| group.first_sent);
        let received = u64::try_from(id.made_at().0 - BEGAN).unwrap_or(0);
        if self.clock_is_right { first_sent.max(received) } else { first_sent }
    }

    fn know(&mut self, id: EventId, mail: &Mail, (sent, known): (u64, u64), routes: usize) {
        self.events.entry(id).or_insert_with(|| {
            self.groups.entry(mail.group).or_default().events.push(id);
            Told {
                source: mail.source,
                group: mail.group,
                acknowledged: false,
                sent,
                known,
                routes,
                mail: None,
                gone: false,
            }
        });
    }

    /// Whether all that is known to be delivered of the event was.
    pub fn is_over(&self, id: EventId) -> bool {
        let routes = self.events.get(&id).map_or(0, |told| told.routes);
        let taken = |index: usize| {
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            self.deliveries.get(&DeliveryId { event: id, index }).is_some_and(|seen| seen.taken.is_some())
        };
        (0..routes).all(taken)
    }

    /// A request comes to an application. None if it makes no sense.
    pub fn arrives(
        &mut self,
        sim: &Sim,
        application: usize,
        header: impl Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Option<Request> {
        let world = &sim.world;
        let delivery: Option<DeliveryId> = header("forebay-delivery-id").and_then(|text| text.parse().ok());
        let number: Option<u32> = header("forebay-attempt").and_then(|text| text.parse().ok());
        let reason = header("forebay-attempt-reason").unwrap_or_default();
        let mail = Mail::number(body).and_then(|number| Some((number, sim.post().mails.get(number)?.clone())));
        let (Some(delivery), Some(number), Some((mail_number, mail))) = (delivery, number, mail) else {
            world.wrong(format_args!("D2: a request that nobody sent comes to {}", APPLICATIONS[application].0));
            return None;
        };
        let (now, life, id) = (sim.now(), self.life(), delivery.event);
        world.note(format_args!("{application}: {delivery} #{number} {reason} of m{}", mail.group));
        if !mail.genuine || body != mail.body {
            world.wrong(format_args!("D2, S1: {id} is not what its sender sent"));
        }
        if mail.source != Source::Live && !self.events.contains_key(&id) && self.rotten == 0 {
            self.first_of_its_window(sim, mail.group, id, now);
        }
        let earliest = self.earliest(id, mail.group);
        self.know(id, &mail, (earliest, now), 0);
        let told = self.events.get_mut(&id).expect("just made known");
        let another = told.mail.replace(mail_number).is_some_and(|before| before != mail_number);
        if another || told.group != mail.group {
            world.wrong(format_args!("L3: {id} has another body than before"));
        }
        self.is_in_order(sim, delivery, (number, now, life), &reason);
        let orphaned = now.saturating_sub(self.routes_since) > 200
            && !sim.routes().leads(mail.source).contains(&APPLICATIONS[application].0);
        let paused = self.paused.get(APPLICATIONS[application].0).is_some_and(|since| now - since > 200);
        let asked_again = self.deliveries.get(&delivery).is_some_and(|seen| {
            let forgotten = |(at, of)| of != life && (self.cut_off(of, at) || self.forgot(of, at));
            seen.asked_again || seen.taken_when_asked && seen.taken.is_some_and(forgotten)
        });
        if (orphaned && !asked_again || paused) && !world.disk_has_failed() {
            world.wrong(format_args!("{delivery} is attempted, and it is orphaned ({orphaned}) or paused ({paused})"));
        }
        let seen = self.deliveries.entry(delivery).or_default();
        seen.last = Some((number, now, life));
        seen.dead = false;
        self.in_flight[application] += 1;
        Some(Request { delivery, number, life, application })
    }

    /// L2, L3, L4: an attempt has a reason, a number of its own, and its time.
    fn is_in_order(&self, sim: &Sim, delivery: DeliveryId, (number, now, life): (u32, u64, usize), reason: &str) {
        let Some(seen) = self.deliveries.get(&delivery).filter(|_| self.rotten == 0) else { return };
        let world = &sim.world;
        if let Some((before, at, of)) = seen.last.filter(|(before, ..)| number <= *before)
            && !self.forgot(of, at)
        {
            world.wrong(format_args!("L3: attempt {number} of {delivery} comes after attempt {before}"));
        }
        if let Some((at, of)) = seen.taken
            && !seen.asked_again
            && !world.hung_near(at)
            && (of == life || !(self.cut_off(of, at) || self.forgot(of, at)))
        {
            world.wrong(format_args!("L2: {delivery} was taken, and is attempted again ({reason})"));
        }
        let jumped = self.lives.iter().any(|life| life.jumped);
        if let Some((until, at, of)) = seen.not_before
            && now + 2 < until
            && reason == "retry"
            && !world.hung_near(at)
            && !seen.asked_again
            && !jumped
            && !(of != life && (self.cut_off(of, at) || self.forgot(of, at)))
        {
            world.wrong(format_args!("L4: {delivery} was to wait until {until}, and is attempted"));
        }
    }

    /// L5: no more at a time than was said.
    pub fn counts(&self, sim: &Sim, application: usize) {
        let (name, most) = APPLICATIONS[application];
        if self.in_flight[application] > most {
            sim.world.wrong(format_args!("L5: {} requests at a time to {name}", self.in_flight[application]));
        }
    }

    /// The application is done with a request: it has answered in full, or not.
    pub fn done(&mut self, sim: &Sim, request: Request, status: Option<u16>, retry_after: Option<u64>) {
        let Request { delivery, life, application, .. } = request;
        if life != self.life() {
            return;
        }
        self.in_flight[application] -= 1;
        let (now, seen) = (sim.now(), self.deliveries.entry(delivery).or_default());
        seen.not_before = retry_after.map(|wait| (now + wait, now, life));
        match status {
            Some(200..300) => {
                seen.taken_when_asked = std::mem::take(&mut seen.asked_again);
                seen.taken = Some((now, life));
            }
            Some(410) => {
                seen.gave_up = true;
                sim.gone.notify_one();
            }
            _ => {}
        }
    }

    /// An operator asks for all deliveries of an event again.
    pub fn replays(&mut self, id: EventId) {
        for index in 0..2 {
            let seen = self.deliveries.entry(DeliveryId { event: id, index }).or_default();
            (seen.asked_again, seen.dead) = (true, false);
        }
    }
}
