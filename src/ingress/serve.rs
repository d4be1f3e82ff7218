//! Accepting connections, one worker's share of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::bind::Listeners;
use super::connection::{Protocols, Worker};
use super::{Handler, Limits, Settings};
use crate::base::{Clock, Rate, Tasks};
use crate::limit::Limiter;
use crate::router::Router;
use crate::telemetry::{Metrics, Reason, Word};

/// How long a worker waits when it has no file descriptor left; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all workers of the public side share.
pub struct Edge {
    pub(super) limits: Limits,
    pub(super) health_path: Option<String>,
    pub(super) secret_paths: Vec<Router<()>>,
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
        let Settings { limits, health_path, trusted_proxies, secret_paths, .. } = settings.clone();
        // A table each: the same path on two hosts would clash in one, and the host makes no difference here.
        let table = |path| Router::new([(None, path, ())]).ok();
        let secret_paths = secret_paths.into_iter().filter_map(table).collect();
        let slots = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let refusal_log = RefusalLog::new();
        Arc::new(Self { limits, health_path, secret_paths, trusted_proxies, clock, metrics, refusal_log, slots })
    }
}

/// Accepts connections on `listeners` and serves their requests by `handler`, until `tasks` stop and every
/// connection of this worker has ended. Call it on the worker's own runtime.
///
/// A connection beyond the limit waits, and so do those behind it, in the system's queue. Once the tasks stop
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
                let slot = Arc::clone(&worker.edge.slots).acquire_owned();
                let Some(Ok(slot)) = stopping.run_until_cancelled(slot).await else { return };
                let (connection, counted) = (worker.clone().connection(stream, peer, tls.clone()), open.token());
                worker.tasks.spawn("connection", async move {
                    connection.await;
                    drop((slot, counted));
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "no connection can be accepted; trying again");
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
