//! The senders: they send, hang up, come again, come twice, and outlive the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use forebay::base::Clock;
use forebay::intake::{Again, Intake, Receipt, Refusal};
use forebay::journal::log::LogJournal;

use crate::clock::pass;
use crate::mail::{Mail, Source};
use crate::shape::Shape;
use crate::sim::Sim;
use crate::world::Reach;

/// One request, and what becomes of it until it is acknowledged.
#[derive(Clone, Debug)]
pub struct Shot {
    pub mail: usize,
    tries: u32,
    /// After how many steps of the gateway's the sender hangs up, if it does.
    hangs_up: Option<u32>,
}

/// All requests that were not acknowledged yet.
pub struct Post {
    pub mails: Vec<Mail>,
    random: fastrand::Rng,
    queue: BTreeMap<(u64, u64), Shot>,
    under_way: BTreeMap<u64, Shot>,
    sent: u64,
}

impl Post {
    pub fn new(shape: &Shape, mut random: fastrand::Rng) -> Self {
        let mut post = Self {
            mails: Vec::new(),
            random: random.fork(),
            queue: BTreeMap::new(),
            under_way: BTreeMap::new(),
            sent: 0,
        };
        for group in 0..shape.mails {
            let source = [Source::Shop, Source::Shop, Source::Code, Source::Live][random.usize(..4)];
            let bytes = random.usize(shape.body_bytes.clone());
            let at = random.u64(..shape.span_millis);
            let genuine = random.u8(..12) != 0;
            let mail = post.add(Mail::new(source, group, post.mails.len(), bytes, genuine));
            let copies = if random.u8(..5) == 0 { random.u8(2..6) } else { 1 };
            for _ in 0..copies {
                post.at(at, mail);
            }
            while random.u8(..2) == 0 {
                let again = at + random.u64(..2 * shape.span_millis);
                let other_body = source != Source::Code && genuine && random.u8(..4) == 0;
                let number = post.mails.len();
                let mail = if other_body { post.add(Mail::new(source, group, number, bytes / 2, true)) } else { mail };
                post.at(again, mail);
            }
        }
        post
    }

    fn add(&mut self, mail: Mail) -> usize {
        self.mails.push(mail);
        self.mails.len() - 1
    }

    fn at(&mut self, at: u64, mail: usize) {
        let hangs_up = (self.random.u8(..8) == 0).then(|| self.random.u32(1..6));
        self.put(at, Shot { mail, tries: 0, hangs_up });
    }

    fn put(&mut self, at: u64, shot: Shot) {
        self.sent += 1;
        self.queue.insert((at, self.sent), shot);
    }

    /// Puts it back, to be sent again.
    fn again(&mut self, now: u64, shot: Shot) {
        let wait = self.random.u64(100..4_000) * u64::from(shot.tries.min(5) + 1);
        self.put(now + wait, Shot { tries: shot.tries + 1, hangs_up: None, ..shot });
    }

    /// What was under way in a life that has ended: its senders heard nothing, and send again.
    pub fn life_ended(&mut self, now: u64) {
        for (_, shot) in std::mem::take(&mut self.under_way) {
            self.again(now, shot);
        }
    }

    /// What no record but that of a mail of `group` has in it.
    pub fn marks(&self, group: usize) -> Vec<String> {
        let mails = self.mails.iter().enumerate().filter(|(_, mail)| mail.group == group);
        mails.map(|(number, _)| format!("\"mail\":{number},")).collect()
    }

    /// Requests of genuine senders that have yet to be acknowledged.
    pub fn waiting(&self) -> usize {
        self.queue.values().chain(self.under_way.values()).filter(|shot| self.mails[shot.mail].genuine).count()
    }

    fn due(&mut self, now: u64) -> Option<(u64, Shot)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, number), shot) = entry.remove_entry();
        self.under_way.insert(number, shot.clone());
        Some((number, shot))
    }
}

/// Sends what is due, for as long as the gateway lives.
pub async fn run(sim: Arc<Sim>, intake: Arc<Intake<LogJournal>>) {
    loop {
        let now = sim.now();
        while let Some((number, shot)) = { sim.post().due(now) } {
            tokio::spawn(send(Arc::clone(&sim), Arc::clone(&intake), number, shot));
        }
        let next = sim.post().queue.first_key_value().map_or(1_000, |((at, _), _)| at.saturating_sub(now));
        pass(next.clamp(1, 1_000)).await;
    }
}

async fn send(sim: Arc<Sim>, intake: Arc<Intake<LogJournal>>, number: u64, shot: Shot) {
    let began = sim.now();
    let mail = sim.post().mails[shot.mail].clone();
    let routes = sim.routes();
    sim.oracle().sends(&mail, began);
    let answer = intake.receive(mail.request(sim.clock().now()));
    let answer = match shot.hangs_up {
        Some(steps) => with_patience(answer, steps).await,
        None => Some(answer.await),
    };
    if sim.disk.is_dead() {
        return; // the gateway is gone, and nobody heard of it
    }
    sim.post().under_way.remove(&number);
    let now = sim.now();
    let (group, world) = (mail.group, &sim.world);
    match answer {
        None => {
            world.reach(Reach::HangUp);
            world.note(format_args!("sender of m{group} hangs up"));
            sim.post().again(now, shot);
        }
        Some(Ok(receipt)) => {
            world.note(format_args!("m{group}: {}", told(&receipt)));
            let routes = routes.min(sim.routes());
            sim.oracle().acknowledged(&sim, (shot.mail, &mail), &receipt, (began, now), routes);
        }
        Some(Err(refusal)) => {
            world.note(format_args!("m{group}: refused, {:?}", refusal.reason()));
            match refusal {
                Refusal::Unverified(_) if mail.genuine => {
                    world.wrong(format_args!("a genuine request of m{group} is not verified"));
                }
                Refusal::Unverified(_) => world.reach(Reach::Forged),
                _ if mail.genuine => {
                    world.reach(Reach::Refused);
                    sim.post().again(now, shot);
                }
                _ => {}
            }
        }
    }
}

/// Polls `answer` so often, and then drops it.
async fn with_patience<T>(answer: impl Future<Output = T>, mut steps: u32) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if steps == 0 => Poll::Ready(None),
        Poll::Pending => {
            steps -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

fn told(receipt: &Receipt) -> String {
    let often = |again: &Again| if *again == Again::Yes { "again" } else { "first" };
    match receipt {
        Receipt::Stored { id, again, buffered, .. } => format!("stored as {id}, {}, {buffered:?}", often(again)),
        Receipt::Relayed { id, again, status, .. } => format!("relayed {status} as {id}, {}", often(again)),
        Receipt::Handshake(_) => "handshake".to_owned(),
    }
}
