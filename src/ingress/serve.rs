//! Accepting connections, one worker's share of them.

use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::bind::Listeners;
use super::connection::{Protocols, Worker};
use super::places::{Places, TooMany};
use super::{Handler, Limits, Settings};
use crate::base::{Clock, Rate, Tasks};
use crate::limit::{ClientKey, Limiter};
use crate::telemetry::{CutOff, Metrics, Reason, Word};

/// How long a worker waits when it has no file descriptor left; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// This machine itself: whatever stands in front of the gateway here speaks for many.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// What all workers of the public side share.
pub struct Edge {
    pub(super) limits: Limits,
    pub(super) health_path: Option<String>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) refusal_log: Sample<Reason>,
    cut_off_log: Sample<CutOff>,
    /// Whose connections are not counted by client.
    exempt: Vec<IpNet>,
    places: Arc<Places>,
}

impl Edge {
    /// As `settings` say, with no connections yet. Make one, and give it to every [`serve`].
    #[must_use]
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>, metrics: Metrics) -> Arc<Self> {
        Self::exempting(&LOOPBACK, settings, clock, metrics)
    }

    /// The same with these networks, beside the trusted proxies, in place of loopback.
    pub(super) fn exempting(
        networks: &[IpNet],
        settings: &Settings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let Settings { limits, health_path, trusted_proxies, .. } = settings.clone();
        let places = Places::new(limits.connections, limits.per_client, metrics.clone());
        let exempt = [networks, &trusted_proxies].concat();
        let (refusal_log, cut_off_log) = (Sample::new(), Sample::new());
        Arc::new(Self {
            limits,
            health_path,
            trusted_proxies,
            clock,
            metrics,
            refusal_log,
            cut_off_log,
            exempt,
            places,
        })
    }

    /// Whose connections a new one from `peer` counts among; nobody's, if they come from this machine or from a proxy
    /// that speaks for many.
    fn counts_as(&self, peer: IpAddr) -> Option<ClientKey> {
        let peer = peer.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&peer)) { None } else { Some(ClientKey::of(peer)) }
    }

    /// A client has more connections than its share: the one at `peer` goes.
    fn turn_away(&self, peer: IpAddr) {
        self.metrics.connections().cut_off(CutOff::PerClient);
        if self.cut_off_log.admits(CutOff::PerClient) {
            let limit = self.limits.per_client;
            tracing::info!(client = %peer, limit, "a client has too many connections; the next one is closed");
        }
    }
}

/// Accepts connections on `listeners` and serves their requests by `handler`, until `tasks` stop and every
/// connection of this worker has ended. Call it on the worker's own runtime.
///
/// For a connection beyond the limit the one that has been silent longest goes; where none is silent it waits, and so do
/// those behind it, in the system's queue. One beyond its client's share is closed at once. Once the tasks stop
/// nothing more is accepted, idle connections are closed, and requests under way are answered.
///
/// # Errors
/// The system's, if a socket cannot be used with this runtime.
///
/// # Cancellation
/// Dropped: nothing more is accepted; connections go on until `tasks` stop.
pub async fn serve<H: Handler>(listeners: Listeners, edge: Arc<Edge>, handler: H, tasks: Tasks) -> io::Result<()> {
    let protocols = Arc::new(Protocols::new(&edge.limits, &tasks));
    let worker = Worker { edge, handler, protocols, tasks };
    let open = TaskTracker::new(); // counts this worker's connections, so that its runtime can outlive them
    let mut doors = Vec::new();
    for listener in listeners.0 {
        let socket = TcpListener::from_std(listener.socket)?;
        doors.push(accept(socket, listener.tls, worker.clone(), open.clone()));
    }
    join_all(doors).await;
    open.close();
    open.wait().await;
    Ok(())
}

async fn accept<H: Handler>(socket: TcpListener, tls: Option<Arc<ServerConfig>>, worker: Worker<H>, open: TaskTracker) {
    let stopping = worker.tasks.stopping();
    let mut pause = PAUSE_MIN;
    while let Some(accepted) = stopping.run_until_cancelled(socket.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                let entered = worker.edge.places.enter(worker.edge.counts_as(peer.ip()));
                let place = match stopping.run_until_cancelled(entered).await {
                    None => return,
                    Some(Err(TooMany)) => {
                        worker.edge.turn_away(peer.ip());
                        continue;
                    }
                    Some(Ok(place)) => place,
                };
                let (connection, counted) =
                    (worker.clone().connection(stream, peer, tls.clone(), place.seat()), open.token());
                worker.tasks.spawn("connection", async move {
                    place.evicted().run_until_cancelled(connection).await; // it is silent then
                    drop((place, counted));
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "no connection can be accepted; trying again");
                worker.edge.places.make_room(); // what is short is most likely descriptors
                let _ = stopping.run_until_cancelled(sleep(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether only the connection that would have been accepted is lost; the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Which of the events with a word are logged: of a flood a sample. The counters count them all.
pub(super) struct Sample<W>(Vec<Limiter>, PhantomData<W>);

impl<W: Word> Sample<W> {
    /// A second, for each word.
    const LINES: u32 = 100;

    fn new() -> Self {
        let rate = Rate { count: Self::LINES, per: Duration::from_secs(1) };
        Self(W::ALL.iter().map(|_| Limiter::new(rate, Self::LINES)).collect(), PhantomData)
    }

    pub(super) fn admits(&self, word: W) -> bool {
        self.0.get(word.place()).is_some_and(|limiter| limiter.try_take().is_ok())
    }
}
