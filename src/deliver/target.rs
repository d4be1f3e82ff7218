//! One destination, ready to be delivered to: whose turn it is, and one attempt.
//!
//! The request path and the lane's owner deliver to a destination at the same time. They share its concurrency, its
//! rate and its breaker here: whoever wants to make an attempt asks for a [`Turn`], and whoever has to wait stands in
//! one line with everybody else, so that neither a backlog nor live requests starve the other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{Breaker, Client, ClientError, Connector, Destination, Gate};
use crate::base::Name;
use crate::event::DeliveryId;
use crate::journal::{Pause, Verdict};
use crate::limit::Limiter;
use crate::telemetry::{BreakerState, DestinationMetrics};

/// One destination, ready to be delivered to: the same from one config to the next, while the way there may change.
pub struct Target {
    /// Its name in the config.
    pub name: Name,
    /// What is counted of it.
    pub metrics: Arc<DestinationMetrics>,
    way: watch::Sender<Arc<Way>>,
    turns: Mutex<Turns>,
    in_hand: Mutex<HashMap<DeliveryId, watch::Receiver<Option<Verdict>>>>,
}

/// The way to a destination: what one config says of it, and what was made of that. An attempt keeps to one.
pub struct Way {
    /// What the config says.
    pub destination: Destination,
    /// Its client.
    pub client: Client,
    limiter: Option<Arc<Limiter>>,
}

impl Way {
    /// The way that `destination` describes.
    ///
    /// # Errors
    /// [`ClientError`] if there is no TLS to be had.
    pub fn new(destination: Destination) -> Result<Self, ClientError> {
        Ok(Self::by(Client::new(&destination)?, destination))
    }

    /// The way that `destination` describes, over connections made by `connector`.
    #[must_use]
    pub fn over(destination: Destination, connector: Connector) -> Self {
        Self::by(Client::over(&destination, connector), destination)
    }

    fn by(client: Client, destination: Destination) -> Self {
        let limiter = destination.rate_limit.map(|rate| Arc::new(Limiter::new(rate, 1)));
        Self { client, limiter, destination }
    }

    /// Goes on with what was spent of a rate that has stayed the same.
    fn after(mut self, before: &Self) -> Self {
        if self.destination.rate_limit == before.destination.rate_limit {
            self.limiter.clone_from(&before.limiter);
        }
        self
    }
}

struct Turns {
    breaker: Breaker,
    pause: Pause,
    /// Whether the config has it.
    place: Place,
    under_way: usize,
    line: VecDeque<oneshot::Sender<Turn>>,
    /// The line waits for the rate, until then.
    rate_at: Option<Instant>,
    /// When the line is as long as this, those who have left it are taken out.
    sweep_at: usize,
}

/// Whether a destination is in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Taken,
    /// It was taken out: it is left alone as if it were paused, until a config has it again.
    Vacant,
}

/// How many may stand in line before it is first looked through for those who have left.
const SWEEP_LEAST: usize = 64;

/// What somebody is willing to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A free place.
    Place,
    /// Whatever it takes.
    Any,
}

/// What is said to somebody who wants to make an attempt.
pub enum Asked {
    /// Go on.
    Granted(Turn),
    /// Wait in line: the turn comes, or the line is sent away and it is time to ask again.
    Line(oneshot::Receiver<Turn>),
    /// There is nothing that the asker would wait for.
    Not(Wait),
    /// The breaker is open until then.
    Shut(Instant),
}

/// Why somebody has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As many attempts are under way as the destination takes, or as its rate allows.
    Full,
    /// One attempt is under way to see whether the destination is back.
    Probing,
    /// The destination is paused.
    Paused,
}

impl Target {
    /// A destination that nothing has been delivered to yet.
    #[must_use]
    pub fn new(way: Way, metrics: Arc<DestinationMetrics>, pause: Pause) -> Self {
        let breaker = Breaker::new(way.destination.breaker, way.destination.concurrency);
        Self {
            name: way.destination.name.clone(),
            way: watch::Sender::new(Arc::new(way)),
            turns: Mutex::new(Turns {
                breaker,
                pause,
                place: Place::Taken,
                under_way: 0,
                line: VecDeque::new(),
                rate_at: None,
                sweep_at: SWEEP_LEAST,
            }),
            in_hand: Mutex::new(HashMap::new()),
            metrics,
        }
    }

    /// The way there, by the present config.
    pub fn way(&self) -> Arc<Way> {
        Arc::clone(&self.way.borrow())
    }

    /// The way there from one config to the next, for whoever has deliveries that wait.
    pub fn ways(&self) -> watch::Receiver<Arc<Way>> {
        self.way.subscribe()
    }

    /// Goes another way from now on. Attempts under way keep to theirs; whoever waits for a turn asks again.
    pub fn go(self: &Arc<Self>, way: Way) {
        let mut turns = self.turns();
        turns.breaker.change(way.destination.breaker, way.destination.concurrency);
        turns.place = Place::Taken;
        let way = way.after(&self.way());
        self.way.send_replace(Arc::new(way));
        turns.send_away();
    }

    /// The config has it no longer: nothing more is delivered to it, until [`Target::go`] says where to.
    pub fn leave_alone(&self) {
        let mut turns = self.turns();
        turns.place = Place::Vacant;
        turns.send_away();
    }

    fn concurrency(&self) -> usize {
        self.way.borrow().destination.concurrency
    }

    /// Asks for a turn, and spends one of the destination's rate with it.
    pub fn ask(self: &Arc<Self>, patience: Patience) -> Asked {
        let now = Instant::now();
        let mut turns = self.turns();
        let why = match turns.may_begin(now, self.concurrency()) {
            May::Begin if turns.line.is_empty() && self.take_rate(&mut turns, now) => {
                turns.begin();
                return Asked::Granted(Turn { target: Arc::clone(self), ends: Ends::NotBegun });
            }
            May::Begin => Wait::Full, // others have waited longer, or the rate is spent
            May::Wait(why) => why,
            May::Shut(until) => return Asked::Shut(until),
        };
        if patience == Patience::Place && why != Wait::Full {
            return Asked::Not(why);
        }
        let (turn, waits) = oneshot::channel();
        turns.line_up(turn);
        self.serve(turns);
        Asked::Line(waits)
    }

    /// Gives those in line the turns that the rate allows by now. Says when to call it again, while somebody waits for
    /// the rate: whoever stands in line does.
    pub fn call_on_line(self: &Arc<Self>) -> Option<Instant> {
        let turns = self.turns();
        if turns.rate_at.is_some_and(|at| at <= Instant::now()) {
            self.serve(turns);
            return self.turns().rate_at;
        }
        turns.rate_at
    }

    /// Waits for a turn, no longer than `until`. None if it would be in vain: the time is over, the breaker is open, or
    /// the destination is paused.
    pub async fn turn(self: &Arc<Self>, until: Instant) -> Option<Turn> {
        loop {
            if Instant::now() >= until {
                return None;
            }
            let mut line = match self.ask(Patience::Place) {
                Asked::Granted(turn) => return Some(turn),
                Asked::Line(line) => line,
                Asked::Shut(_) | Asked::Not(_) => return None,
            };
            loop {
                let look_again = self.call_on_line().map_or(until, |at| at.min(until));
                match tokio::time::timeout_at(look_again, &mut line).await {
                    Ok(Ok(turn)) => return Some(turn),
                    Ok(Err(_sent_away)) => break, // it asks again, and hears why
                    Err(_elapsed) if Instant::now() >= until => return None,
                    Err(_elapsed) => {}
                }
            }
        }
    }

    /// Spends one of the destination's rate; false, and noted for the line, if there is none.
    fn take_rate(&self, turns: &mut Turns, now: Instant) -> bool {
        let way = self.way();
        let wait = way.limiter.as_ref().and_then(|limiter| limiter.try_take().err());
        turns.rate_at = wait.map(|wait| now + wait);
        wait.is_none()
    }

    /// Pauses the destination, or lets it go on. Attempts under way are not cut off.
    pub fn set_pause(self: &Arc<Self>, pause: Pause) {
        let mut turns = self.turns();
        turns.pause = pause;
        turns.send_away(); // everybody asks again
    }

    /// Whether it is paused.
    pub fn pause(&self) -> Pause {
        self.turns().pause
    }

    /// Notes that the request path has an attempt of `delivery` under way whose event is about to be kept.
    pub fn take_in_hand(self: &Arc<Self>, delivery: DeliveryId) -> InHand {
        let (verdict, ended) = watch::channel(None);
        self.hands().insert(delivery, ended);
        InHand { target: Arc::clone(self), delivery, verdict }
    }

    /// If the request path has an attempt of `delivery` under way: what tells how it ended. It is recorded by then.
    pub fn in_hand(&self, delivery: DeliveryId) -> Option<watch::Receiver<Option<Verdict>>> {
        self.hands().get(&delivery).cloned()
    }

    /// Gives turns to those in line, as far as there are any.
    fn serve(self: &Arc<Self>, mut turns: MutexGuard<'_, Turns>) {
        let now = Instant::now();
        turns.rate_at = None;
        while !turns.line.is_empty() {
            match turns.may_begin(now, self.concurrency()) {
                May::Begin => {}
                May::Wait(_) => break,
                May::Shut(_) => {
                    turns.send_away(); // nobody waits for a breaker in line
                    break;
                }
            }
            if turns.line.front().is_some_and(oneshot::Sender::is_closed) {
                turns.line.pop_front();
                continue;
            }
            if !self.take_rate(&mut turns, now) {
                break;
            }
            let Some(next) = turns.line.pop_front() else { break };
            turns.begin();
            let turn = Turn { target: Arc::clone(self), ends: Ends::NotBegun };
            if let Err(mut unwanted) = next.send(turn) {
                unwanted.ends = Ends::Over; // its end would ask for the lock that is held here
                turns.end(now, Ends::NotBegun);
            }
        }
    }

    /// Where its breaker stands.
    pub fn breaker(&self) -> BreakerState {
        self.turns().breaker.shown(Instant::now())
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hands(&self) -> MutexGuard<'_, HashMap<DeliveryId, watch::Receiver<Option<Verdict>>>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum May {
    Begin,
    Wait(Wait),
    Shut(Instant),
}

impl Turns {
    fn may_begin(&mut self, now: Instant, concurrency: usize) -> May {
        if self.pause == Pause::Paused || self.place == Place::Vacant {
            return May::Wait(Wait::Paused);
        }
        match self.breaker.gate(now) {
            Gate::Open { at_most } if self.under_way < at_most.min(concurrency) => May::Begin,
            Gate::Open { .. } => May::Wait(Wait::Full),
            Gate::Probing => May::Wait(Wait::Probing),
            Gate::Shut { until } => May::Shut(until),
        }
    }

    fn line_up(&mut self, turn: oneshot::Sender<Turn>) {
        if self.line.len() >= self.sweep_at {
            self.line.retain(|turn| !turn.is_closed());
            self.sweep_at = (self.line.len() * 2).max(SWEEP_LEAST);
        }
        self.line.push_back(turn);
    }

    fn send_away(&mut self) {
        self.line.clear();
        self.rate_at = None;
    }

    fn begin(&mut self) {
        self.under_way += 1;
        self.breaker.begun();
    }

    fn end(&mut self, now: Instant, ends: Ends) {
        self.under_way = self.under_way.saturating_sub(1);
        match ends {
            Ends::Well => self.breaker.succeeded(),
            Ends::Badly => self.breaker.failed(now),
            Ends::NotBegun => self.breaker.not_begun(now),
            Ends::Over => {}
        }
    }
}

/// The right to make one attempt. Dropped without [`Turn::over`], no attempt was made.
pub struct Turn {
    target: Arc<Target>,
    ends: Ends,
}

/// How a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The destination answered sensibly.
    Well,
    /// It did not.
    Badly,
    /// It was not asked.
    NotBegun,
    /// It has ended already.
    Over,
}

impl Turn {
    /// The attempt was made; `healthy` says whether the destination answered sensibly.
    pub fn over(mut self, healthy: Healthy) {
        self.ends = if healthy == Healthy::Yes { Ends::Well } else { Ends::Badly };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.ends == Ends::Over {
            return;
        }
        let mut turns = self.target.turns();
        turns.end(Instant::now(), self.ends);
        self.target.serve(turns);
    }
}

/// Whether a destination is well: it answered, and not with what says that it is overloaded or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healthy {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// An attempt of the request path that outlives its request. Dropped without [`InHand::ended`], its outcome is unknown.
pub struct InHand {
    target: Arc<Target>,
    delivery: DeliveryId,
    verdict: watch::Sender<Option<Verdict>>,
}

impl InHand {
    /// The attempt has ended, and that is recorded.
    pub fn ended(self, verdict: Verdict) {
        self.verdict.send_replace(Some(verdict));
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.target.hands().remove(&self.delivery);
    }
}

#[cfg(test)]
mod tests;
