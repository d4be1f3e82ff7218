//! What is recorded with an event of the attempt that the request path made, or is making, at its first delivery.

use super::commit::Effect;
use super::record::{Home, Record};
use crate::base::UnixMillis;
use crate::event::{DeliveryId, EventId};
use crate::journal::{FirstAttempt, Position, Settled, Verdict};

/// Whether an event with so many deliveries will be unsettled, where the request path made `attempt` at its first.
pub fn will_wait(deliveries: usize, attempt: Option<&FirstAttempt>) -> bool {
    let settled = matches!(attempt, Some(FirstAttempt::Over(_, Verdict::Delivered | Verdict::Refused)));
    deliveries > usize::from(settled)
}

/// What is recorded of the attempt that the request path made, or is making, at an event's first delivery.
pub fn attempt_notes(
    event: EventId,
    home: Home,
    event_at: Position,
    attempt: &FirstAttempt,
    now: UnixMillis,
) -> Vec<(Record, Effect)> {
    const FIRST: u32 = 1;
    let id = DeliveryId { event, index: 0 };
    let (started, ended) = match attempt {
        FirstAttempt::UnderWay(started) => (Some(*started), None),
        // What is still to be delivered is counted as any attempt is: when it starts.
        FirstAttempt::Over(attempt, verdict @ Verdict::RetryAt(_)) => {
            (Some(attempt.started_at), Some((attempt, *verdict)))
        }
        FirstAttempt::Over(attempt, verdict) => (None, Some((attempt, *verdict))),
    };
    let started = started.map(|at| {
        let record = Record::Started { delivery: id, home, event_at, number: FIRST, at };
        (record, Effect::Started { id, home, event_at, number: FIRST })
    });
    let ended = ended.map(|(attempt, verdict)| {
        let settled = Settled { delivery: id, attempt: Some(attempt.clone()), verdict };
        let record = Record::Settled { settled, home, at: now };
        (record, Effect::Settled { id, home, number: Some(FIRST), verdict, at: now })
    });
    started.into_iter().chain(ended).collect()
}
