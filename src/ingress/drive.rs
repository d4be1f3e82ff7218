//! Stepping a connection to its end, under the eyes of its [`Watch`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep_until};

use super::watch::Watch;
use crate::base::Tasks;
use crate::telemetry::{CutOff, Metrics};

/// A step of a connection.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Do what there is to do.
    Go,
    /// Finish what is under way, and take no more.
    Leave,
}

/// What came of a step.
pub(super) enum Stepped {
    /// It goes on. After [`Step::Leave`]: this is not the time to say so.
    Goes,
    /// It will end by itself.
    Leaves,
    /// It is over.
    Done { broken: bool },
}

impl<T, E> From<Poll<Result<T, E>>> for Stepped {
    fn from(polled: Poll<Result<T, E>>) -> Self {
        match polled {
            Poll::Pending => Self::Goes,
            Poll::Ready(ended) => Self::Done { broken: ended.is_err() },
        }
    }
}

/// How a connection, or a stretch of it, came to its end.
pub(super) enum End {
    /// By itself.
    Done { broken: bool },
    /// There is nothing to do until more bytes come.
    Rests,
    /// It waited too long.
    TimedOut,
}

/// Whether a connection with nothing to do is stepped on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It may end as [`End::Rests`].
    Allowed,
    /// It is.
    Taken,
}

/// Steps a connection until it is done, rests, has waited too long, or has left because the tasks stop.
pub(super) async fn drive(
    mut step: impl FnMut(&mut Context<'_>, Step) -> Stepped,
    rest: Rest,
    watch: &Watch,
    tasks: &Tasks,
    metrics: &Metrics,
) -> End {
    let stopping = tasks.stopping();
    let mut stopped = pin!(stopping.cancelled());
    let mut alarm = pin!(sleep_until(watch.deadline().unwrap_or_else(Instant::now)));
    let mut told = false;
    poll_fn(|cx| {
        loop {
            if !watch.is_leaving() && stopped.as_mut().poll(cx).is_ready() {
                watch.leave();
            }
            if let Stepped::Done { broken } = step(cx, Step::Go) {
                return Poll::Ready(End::Done { broken });
            }
            if !told && watch.is_leaving() {
                match step(cx, Step::Leave) {
                    Stepped::Goes => {}
                    Stepped::Done { broken } => return Poll::Ready(End::Done { broken }),
                    Stepped::Leaves => {
                        told = true;
                        continue;
                    }
                }
            }
            let rests_at = if rest == Rest::Allowed { watch.rests_at() } else { None };
            // At once, if at all: what is allocated in between would keep the allocator from giving the room to the next.
            if rests_at.is_some_and(|at| at <= Instant::now()) {
                return Poll::Ready(End::Rests);
            }
            let deadline = [rests_at, watch.deadline()].into_iter().flatten().min();
            let Some(deadline) = deadline else { return Poll::Pending };
            // Moved only when it must ring earlier, or has rung too early: a busy connection seldom touches it.
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline > Instant::now() {
                alarm.as_mut().reset(deadline);
                continue;
            }
            if rests_at == Some(deadline) {
                continue;
            }
            let missing = watch.missing();
            if missing == CutOff::Idle && watch.deserves_notice() {
                metrics.connections().cut_off(missing);
                watch.leave();
                continue;
            }
            if missing != CutOff::Idle {
                metrics.connections().cut_off(missing); // an idle one was counted when it had notice
            }
            return Poll::Ready(End::TimedOut);
        }
    })
    .await
}
