//! Proxy mode: the application answers while it can; what it cannot answer is kept for later.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::underway::{Entered, Lead, Waiting};
use super::{Again, Buffered, Intake, Receipt, Refusal, Verified, acknowledged, count_appended, duplicate_kind};
use crate::deliver::{self, Keep, Made, Outbound, Whole};
use crate::event::{AttemptReason, DeliveryId};
use crate::journal::{
    Entry, FirstAttempt, Journal, JournalError, Located, Relayed, Reserved, Settled, Sync, Verdict, once_there_is_room,
};
use crate::source::Source;

/// The attempt that the request path makes is the first of the event's first delivery.
const FIRST: u32 = 1;
/// What is left of a deadline for making an event durable: a tenth of it, within these.
const FLUSH_LEAST: Duration = Duration::from_millis(50);
const FLUSH_MOST: Duration = Duration::from_millis(250);

/// Where a sender waits for its answer.
type Reply = oneshot::Sender<Result<Receipt, Refusal>>;

/// Lets the application answer a verified event by the source's deadline, or keeps it.
///
/// Requests with one key go to the application one at a time: the others get the answer of the first.
pub(super) async fn relay<J: Journal>(intake: Arc<Intake<J>>, verified: Verified, mut reply: Reply) {
    let deadline = verified.began + verified.source.settings().deadline;
    let lead = match verified.claim.as_ref().map(|claim| intake.underway.enter(claim)) {
        None => None,
        Some(Entered::First(lead)) => Some(lead),
        Some(Entered::Waits(waiting)) => {
            let answer = tokio::select! { // whoever hangs up leaves its place to others; nothing else is lost
                biased;
                answer = intake.wait(&verified.source, waiting, deadline) => answer,
                () = reply.closed() => return,
            };
            return tell(reply, answer);
        }
        Some(Entered::Crowd) => return tell(reply, Err(Refusal::UnderWay)),
    };
    match intake.seen(&verified, deadline).await {
        Ok(None) => {}
        Ok(Some(receipt)) => return tell(reply, Ok(receipt)),
        Err(refusal) => return tell(reply, Err(refusal)),
    }
    let Verified { source, event, claim, lease, began: _ } = verified;
    let entry = source.entry(event, claim, lease);
    Relay { intake, source, deadline, lead, reply }.answer(entry).await;
}

fn tell(reply: Reply, answer: Result<Receipt, Refusal>) {
    drop(reply.send(answer)); // whoever asked may have hung up
}

impl<J: Journal> Intake<J> {
    /// What the first request with the key is told.
    async fn wait(&self, source: &Source, mut waiting: Waiting, deadline: Instant) -> Result<Receipt, Refusal> {
        let answer = timeout_at(deadline, waiting.answer()).await;
        let receipt = answer.ok().flatten().ok_or(Refusal::UnderWay)?;
        source.metrics().duplicate(duplicate_kind(waiting.conflict));
        Ok(receipt.again())
    }

    /// The answer to a request whose event is kept already; none if it is not.
    async fn seen(&self, verified: &Verified, deadline: Instant) -> Result<Option<Receipt>, Refusal> {
        let Some(claim) = &verified.claim else { return Ok(None) };
        let source = &verified.source;
        let late = |_elapsed| Refusal::Late { deadline: source.settings().deadline };
        let reserved = timeout_at(deadline, self.journal.reserve(claim)).await.map_err(late)??;
        let Reserved::Seen { original, conflict } = reserved else { return Ok(None) };
        source.metrics().duplicate(duplicate_kind(conflict));
        let told = timeout_at(deadline, self.told_before(original)).await.map_err(late)?;
        Ok(Some(told.unwrap_or_else(|| acknowledged(source, original.id, Again::Yes, Buffered::No))))
    }

    /// The application's answer to `original`, if that is what its sender was told and it is still kept.
    async fn told_before(&self, original: Located) -> Option<Receipt> {
        let kept = self.journal.event(original).await.ok()??;
        let Relayed { status, content_type, body } = kept.relayed?;
        let headers = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
        Some(Receipt::Relayed { id: original.id, again: Again::Yes, status, headers, body: body? })
    }
}

/// A request on its way to the application.
struct Relay<J> {
    intake: Arc<Intake<J>>,
    source: Arc<Source>,
    deadline: Instant,
    /// Held until the journal knows of the event: whoever comes until then with the same key gets its answer.
    lead: Option<Lead>,
    reply: Reply,
}

impl<J: Journal> Relay<J> {
    /// Makes the first attempt, and relays its answer if there is one in time that can be relayed.
    async fn answer(self, mut entry: Entry) {
        let (intake, source) = (Arc::clone(&self.intake), Arc::clone(&self.source));
        let event = entry.event.event();
        let (delivery, received_at) = (DeliveryId { event: event.id, index: 0 }, event.received_at);
        let cutoff = self.deadline - (source.settings().deadline / 10).clamp(FLUSH_LEAST, FLUSH_MOST);
        let Some(route) = entry.deliveries.first() else { return self.keep(entry).await };
        let Some(target) = source.first_target() else { return self.keep(entry).await };
        let Some(turn) = target.turn(cutoff).await else { return self.keep(entry).await };

        let path = route.path.as_deref();
        let outbound = Outbound { event, delivery, path, number: FIRST, reason: AttemptReason::Initial };
        let started_at = intake.clock.now();
        let mut attempt = pin!(deliver::attempt(target, outbound, Keep::Whole, Arc::clone(&intake.clock)));
        if let Ok(made) = timeout_at(cutoff, &mut attempt).await {
            turn.over(made.healthy());
            let relayable = relayable(&made);
            let verdict = match &relayable {
                Some((200..300, _)) => Verdict::Delivered,
                Some(_) => Verdict::Refused,
                None => made.judge(target, FIRST, received_at),
            };
            made.observe(target, delivery, FIRST, received_at, verdict);
            entry.attempt = Some(FirstAttempt::Over(made.record(FIRST, AttemptReason::Initial), verdict));
            return match relayable {
                Some((status, whole)) => self.pass_on(entry, status, whole).await,
                None => self.keep(entry).await,
            };
        }
        // The attempt goes on; whoever comes to deliver the event waits until it has ended.
        let hand = target.take_in_hand(delivery);
        entry.attempt = Some(FirstAttempt::UnderWay(started_at));
        self.keep(entry).await;
        let made = attempt.await;
        let verdict = made.judge(target, FIRST, received_at);
        made.observe(target, delivery, FIRST, received_at, verdict);
        let attempt = Some(made.record(FIRST, AttemptReason::Initial));
        let settled = Settled { delivery, attempt, verdict };
        let reported = once_there_is_room(|| intake.journal.report(settled.clone())).await;
        // Unknown: its event was erased meanwhile, and nothing follows.
        if let Err(error) =
            reported.or_else(|error| if matches!(error, JournalError::Unknown) { Ok(()) } else { Err(error) })
        {
            tracing::warn!(%delivery, %error, "how an attempt ended is not recorded; another one follows");
        }
        turn.over(made.healthy());
        hand.ended(verdict);
    }

    /// Tells the sender what the application said, and records it: behind, if that is all; before, if other routes
    /// wait, whose deliveries are a promise.
    async fn pass_on(self, mut entry: Entry, status: u16, whole: &Whole) {
        let id = entry.event.event().id;
        let headers = deliver::relayed(&whole.headers);
        // What is encoded means nothing without the header that says so, and that is not kept.
        let can_be_told_again = whole.body.len() <= Relayed::BODY_MAX && !headers.contains_key(CONTENT_ENCODING);
        let body = can_be_told_again.then(|| whole.body.clone());
        entry.relayed = Some(Relayed { status, content_type: headers.get(CONTENT_TYPE).cloned(), body });
        if status >= 400 {
            entry.claim = None; // the application did not take it: the same event may come again
        }
        let receipt = Receipt::Relayed { id, again: Again::No, status, headers, body: whole.body.clone() };
        let Self { intake, source, deadline, mut lead, reply } = self;
        let tell_all = |reply: Reply| {
            if let Some(lead) = &lead {
                lead.tell(&receipt);
            }
            tell(reply, Ok(receipt.clone()));
        };
        let claimed = entry.claim.is_some();
        if entry.deliveries.len() > 1 {
            if let Err(refusal) = intake.append(&source, entry, deadline, Buffered::No).await {
                return tell(reply, Err(refusal));
            }
            tell_all(reply);
        } else {
            tell_all(reply);
            if !claimed {
                lead = None; // its key is free from now on
            }
            match intake.journal.append(entry, Sync::Behind).await {
                Ok(appended) => count_appended(&source, appended),
                Err(error) => {
                    tracing::error!(event = %id, %error, "the application has answered the sender, and its event could not be recorded")
                }
            }
        }
        if claimed {
            note_waited(&intake.journal, lead).await;
        }
    }

    /// Keeps the event for later, durably, and acknowledges it.
    async fn keep(self, entry: Entry) {
        let Self { intake, source, deadline, lead, reply } = self;
        let answer = intake.append(&source, entry, deadline, Buffered::Yes).await;
        if let (Some(lead), Ok(receipt)) = (&lead, &answer) {
            lead.tell(receipt);
        }
        tell(reply, answer);
        note_waited(&intake.journal, lead).await;
    }
}

/// Tells the journal of the duplicates that got the answer of the first, and lets the next request with the key in.
async fn note_waited<J: Journal>(journal: &J, lead: Option<Lead>) {
    let Some(lead) = lead else { return };
    for claim in lead.waited() {
        if let Err(error) = journal.reserve(&claim).await {
            tracing::debug!(%error, "a duplicate is not noted");
        }
    }
}

/// The answer, if its sender can be told it: a 2xx, or a 4xx that does not ask for another try.
fn relayable(made: &Made) -> Option<(u16, &Whole)> {
    let reply = made.outcome.as_ref().ok()?;
    let final_status = matches!(reply.status, 200..300 | 400..500) && !matches!(reply.status, 408 | 425 | 429);
    reply.whole.as_ref().filter(|_| final_status).map(|whole| (reply.status, whole))
}
