//! Accepting connections, one worker's share of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{AtEnd, Listener, Listeners, Manner};
use super::connection::{Protocols, Worker};
use super::socket::{Acceptor, is_of_one_connection};
use super::stream::Stream;
use super::watch::LEAVING;
use super::{Handler, Limits, Settings};
use crate::base::{Clock, Rate, Tasks};
use crate::limit::Limiter;
use crate::telemetry::{Metrics, Reason, Word};

/// How long a worker waits when it has no file descriptor left; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all workers of the public side share.
pub struct Edge {
    pub(super) limits: Limits,
    pub(super) health_path: Option<String>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) refusal_log: RefusalLog,
    slots: Arc<Semaphore>,
}

impl Edge {
    /// As `settings` say, with no connections yet. Make one, and give it to every [`serve`].
    #[must_use]
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>, metrics: Metrics) -> Arc<Self> {
        let Settings { limits, health_path, trusted_proxies, .. } = settings.clone();
        let slots = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { limits, health_path, trusted_proxies, clock, metrics, refusal_log: RefusalLog::new(), slots })
    }
}

/// Accepts connections on `listeners`, those that are opened later included, and serves their requests by `handler`,
/// until `tasks` stop and every connection of this worker has ended. Call it on the worker's own runtime.
///
/// A connection beyond the limit waits, and so do those behind it, in the system's queue. Once the tasks stop,
/// socket files go and who is in the queue of a socket that closes is taken in; then nothing more is accepted. Idle
/// connections are closed, and requests under way are answered.
///
/// # Errors
/// The system's, if a socket cannot be used with this runtime.
///
/// # Cancellation
/// Dropped: no door opens any more; those that are open, and connections, go on until `tasks` stop.
pub async fn serve<H: Handler>(listeners: Listeners, edge: Arc<Edge>, handler: H, tasks: Tasks) -> io::Result<()> {
    let protocols = Arc::new(Protocols::new(&edge.limits, &tasks));
    let stopping = tasks.stopping();
    // Counts this worker's doors and connections, so that its runtime can outlive them.
    let doors = Doors { worker: Worker { edge, handler, protocols, tasks }, open: TaskTracker::new() };
    for listener in listeners.take() {
        doors.open(listener)?;
    }
    while let Some(opened) = stopping.run_until_cancelled(listeners.opened()).await {
        doors.open_later(opened);
    }
    doors.open_later(listeners.take()); // their queues, too
    doors.open.close();
    doors.open.wait().await;
    Ok(())
}

/// The doors of one worker.
#[derive(Clone)]
struct Doors<H> {
    worker: Worker<H>,
    open: TaskTracker,
}

impl<H: Handler> Doors<H> {
    fn open(&self, listener: Listener) -> io::Result<()> {
        let Listener { socket, manner, closing, file, at_end } = listener;
        let acceptor = socket.into_acceptor()?;
        let door = Door { manner, closing, stopping: self.worker.tasks.stopping(), at_end };
        let (doors, counted) = (self.clone(), self.open.token());
        self.worker.tasks.spawn("door", async move {
            let (at_end, accepted) = doors.accept(&acceptor, &door).await;
            if let Some(file) = file {
                file.remove(); // so that nobody comes after the last one
            }
            let mut last: Vec<_> = accepted.into_iter().collect();
            if at_end == AtEnd::Drained {
                last.extend(acceptor.into_queue().filter_map(Result::ok));
            }
            let until = Instant::now() + LEAVING;
            for (stream, peer) in last {
                if let Ok(slot) = timeout_at(until, doors.slot()).await {
                    doors.admit(stream, peer, slot, &door);
                }
            }
            drop(counted);
        });
        Ok(())
    }

    /// Opens what came while the gateway runs. It goes on without a door that the system does not let it use.
    fn open_later(&self, opened: Vec<Listener>) {
        for listener in opened {
            if let Err(error) = self.open(listener) {
                tracing::error!(%error, "a worker cannot use a new socket of the public side");
            }
        }
    }

    /// Takes connections in until the door closes. Gives the one that has no place yet as well.
    async fn accept(&self, acceptor: &Acceptor, door: &Door) -> (AtEnd, Option<(Stream, SocketAddr)>) {
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = tokio::select! { // both are cancel-safe
                at_end = door.closed() => return (at_end, None),
                accepted = acceptor.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = PAUSE_MIN;
                    let slot = tokio::select! { // both are cancel-safe
                        slot = self.slot() => slot,
                        at_end = door.closed() => return (at_end, Some((stream, peer))),
                    };
                    self.admit(stream, peer, slot, door);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "no connection can be accepted; trying again");
                    let _ = timeout(pause, door.closed()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// A place among the connections. Cancel-safe.
    async fn slot(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.worker.edge.slots).acquire_owned().await.expect("the semaphore is never closed")
    }

    fn admit(&self, stream: Stream, peer: SocketAddr, slot: OwnedSemaphorePermit, door: &Door) {
        let connection = self.worker.clone().connection(stream, peer, door.manner.load_full());
        let counted = self.open.token();
        self.worker.tasks.spawn("connection", async move {
            connection.await;
            drop((slot, counted));
        });
    }
}

/// What a door's acceptor has to know of it.
struct Door {
    manner: Arc<ArcSwap<Manner>>,
    closing: CancellationToken,
    stopping: CancellationToken,
    at_end: AtEnd,
}

impl Door {
    /// Waits until it closes, alone or with the gateway. Cancel-safe.
    async fn closed(&self) -> AtEnd {
        tokio::select! { // both are cancel-safe
            () = self.stopping.cancelled() => self.at_end,
            () = self.closing.cancelled() => AtEnd::Drained,
        }
    }
}

/// Which refusals are logged: of a flood a sample. The counters count them all.
pub(super) struct RefusalLog(Vec<Limiter>);

impl RefusalLog {
    /// A second, for each reason.
    const LINES: u32 = 100;

    fn new() -> Self {
        let rate = Rate { count: Self::LINES, per: Duration::from_secs(1) };
        Self(Reason::ALL.iter().map(|_| Limiter::new(rate, Self::LINES)).collect())
    }

    pub(super) fn admits(&self, reason: Reason) -> bool {
        self.0.get(reason.place()).is_some_and(|limiter| limiter.try_take().is_ok())
    }
}
