//! Accepting connections, one worker's share of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{AtEnd, Listener, Listeners, Manner};
use super::connection::Worker;
use super::places::{Place, TooMany};
use super::socket::{Acceptor, is_of_one_connection};
use super::stream::Stream;
use super::{Edge, Handler, ProxyProtocol};
use crate::base::Tasks;

/// How long a worker waits when it has no file descriptor left; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Accepts connections on `listeners`, those that are opened later included, and serves their requests by `handler`,
/// until `tasks` stop and every connection of this worker has ended. Call it on the worker's own runtime.
///
/// For a connection beyond the limit the one that has been silent longest goes; where none is silent it waits, and so do
/// those behind it, in the system's queue. One beyond its client's share is closed at once. Once the tasks stop,
/// socket files go and who is in the queue of a socket that closes is taken in; then nothing more is accepted. Idle
/// connections are closed, and requests under way are answered.
///
/// # Errors
/// The system's, if a socket cannot be used with this runtime.
///
/// # Cancellation
/// Dropped: no door opens any more; those that are open, and connections, go on until `tasks` stop.
pub async fn serve<H: Handler>(listeners: Listeners, edge: Arc<Edge>, handler: H, tasks: Tasks) -> io::Result<()> {
    let stopping = tasks.stopping();
    // Counts this worker's doors and connections, so that its runtime can outlive them.
    let rules = edge.rules();
    let doors = Doors { worker: Worker { edge, rules, handler, tasks }, open: TaskTracker::new() };
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
            for (stream, peer) in last {
                if let Ok(place) = doors.place(peer, &door).await {
                    doors.admit(stream, peer, place, &door); // idle ones leave; the grace period ends it otherwise
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
                    let place = tokio::select! { // both are cancel-safe
                        place = self.place(peer, door) => place,
                        at_end = door.closed() => return (at_end, Some((stream, peer))),
                    };
                    if let Ok(place) = place {
                        self.admit(stream, peer, place, door);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "no connection can be accepted; trying again");
                    self.worker.edge.places.make_room(); // what is short is most likely descriptors
                    let _ = timeout(pause, door.closed()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// A place among the connections; the client has too many already if there is none. Where a PROXY header is to come,
    /// it will say whose connection it is. Cancel-safe.
    async fn place(&self, peer: SocketAddr, door: &Door) -> Result<Place, TooMany> {
        let edge = &self.worker.edge;
        let is_proxy = door.manner.load().proxy_protocol == ProxyProtocol::Required;
        let client = if is_proxy { None } else { edge.counts_as(peer.ip()) };
        let place = edge.places.enter(client).await;
        place.inspect_err(|TooMany| edge.turn_away(peer.ip()))
    }

    fn admit(&self, stream: Stream, peer: SocketAddr, place: Place, door: &Door) {
        let worker = Worker { rules: self.worker.edge.rules(), ..self.worker.clone() };
        let connection = worker.connection(stream, peer, door.manner.load_full(), place.seat());
        let counted = self.open.token();
        self.worker.tasks.spawn("connection", async move {
            place.evicted().run_until_cancelled(connection).await; // cut off: it is silent, so nothing is lost
            drop((place, counted));
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
