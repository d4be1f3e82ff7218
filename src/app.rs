//! A [`Config`] into a running gateway, its reloads, and its ordered end.
//!
//! One worker thread for each core, each with a runtime of its own: it accepts connections and takes its
//! share of the lanes. The calling thread runs the rest: admin side, index, retention, signals.

mod descriptors;
mod endpoints;
mod files;
mod live;
mod reload;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::base::{Clock, Name, SystemClock, Tasks};
use crate::config::Config;
use crate::deliver::{ClientError, Targets};
use crate::dispatch::Dispatch;
use crate::index::Index;
use crate::ingress::{self, Address, BindError, Edge, Listeners};
use crate::intake::{Handle, Intake, Underway};
use crate::journal::log::{self, LogJournal, OpenError};
use crate::journal::{Journal, Pause, Retention};
use crate::provider::CompileError;
use crate::router::RouteError;
use crate::telemetry::{Metrics, logs};

use endpoints::Endpoints;
use files::Seen;
use live::{Live, Parts, SecretPlaces};
use reload::Reloader;

pub use reload::{Load, Watch};

/// Between two looks at what the journal may let go of.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// How long the journal may take to flush what need not be durable.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Journal(#[from] OpenError),
    /// The public side cannot listen.
    #[error("the public side cannot listen")]
    Ingress(#[from] BindError),
    /// The private side cannot listen.
    #[error("the private side cannot listen on {address}; change admin.listen, or stop what uses it")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A source's secrets do not fit its preset.
    #[error("source {source_name}")]
    Source {
        /// Which.
        source_name: Name,
        /// Why not.
        #[source]
        error: CompileError,
    },
    /// The sources' paths.
    #[error("the sources' paths")]
    Routes(#[from] RouteError),
    /// A destination's client.
    #[error("destination {destination}")]
    Destination {
        /// Which.
        destination: Name,
        /// Why not.
        #[source]
        error: ClientError,
    },
    /// Threads, signals.
    #[error("the operating system does not let it start")]
    System(#[from] io::Error),
}

/// How a gateway came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and finished what was under way.
    Drained,
    /// It was asked to, and what was under way did not finish within the grace period (or it was asked twice).
    CutShort,
    /// A part of it failed.
    Failed,
}

/// Where a gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The public side.
    pub ingress: Vec<Address>,
    /// The private side.
    pub admin: SocketAddr,
}

/// Where a gateway's config comes from.
pub struct Origin {
    /// What it was read from.
    pub files: Vec<PathBuf>,
    /// Reads it again.
    pub load: Load,
    /// Whether that is done when those files change.
    pub watch: Watch,
}

/// Runs a gateway by `config`, which may change while it runs, until it is told to stop by SIGTERM or SIGINT. `ready` is
/// called once it listens.
///
/// # Errors
/// [`StartError`]; nothing was taken then.
pub fn run(
    config: Config,
    origin: Origin,
    log: logs::Level,
    ready: impl FnOnce(&Addresses),
) -> Result<Ended, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let gateway = Gateway::start(config, origin, log).await?;
        ready(&gateway.addresses);
        Ok::<_, StartError>(gateway.until_stopped().await)
    });
    runtime.shutdown_timeout(Duration::from_secs(1)); // the index's thread may be in a query
    ended
}

struct Gateway {
    addresses: Addresses,
    journal: LogJournal,
    /// Connections of the public side.
    edge: Tasks,
    /// Lanes, the index, retention.
    work: Tasks,
    admin: Tasks,
    stop_admin: CancellationToken,
    draining: Arc<AtomicBool>,
    grace: watch::Receiver<Duration>,
    terminate: Signal,
    interrupt: Signal,
}

impl Gateway {
    async fn start(mut config: Config, origin: Origin, log: logs::Level) -> Result<Self, StartError> {
        let Origin { files, load, watch } = origin;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;

        descriptors::fit(&mut config);
        let endpoints = Endpoints::first(&config, &metrics)?;
        log::Lock::peek(&config.journal.dir)?; // said before its addresses are found taken, too
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = ingress::bind(&config.ingress, workers)?;
        let address = config.admin.listen;
        let server = admin::Server::bind(address).await.map_err(|error| StartError::Admin { address, error })?;
        let addresses = Addresses { ingress: bound.addresses(), admin: server.address() };

        let (edge, work, admin) = (Tasks::new(), Tasks::new(), Tasks::new());
        let journal = LogJournal::open(&config.journal, Arc::clone(&clock), metrics.clone())?;
        for target in journal.paused().iter().filter_map(|name| endpoints.targets.get(name)) {
            target.set_pause(Pause::Paused);
        }
        live::follow_routes(&journal, &config).await;
        let dir = log::index_dir(&config.journal.dir);
        let index = Index::open(&dir, journal.identity(), journal.clone(), journal.keys(), &work);
        let (keep, retention) = watch::channel(config.journal.retention);
        work.spawn("retention", trim(journal.clone(), retention, work.clone()));

        let intake = Arc::new(Intake {
            router: ArcSwap::from(Arc::clone(&endpoints.router)),
            journal: journal.clone(),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            tasks: edge.clone(),
            underway: Underway::default(),
        });
        let shared = Shared {
            edge: Edge::new(&config.ingress, &edge, Arc::clone(&clock), metrics.clone()),
            intake: Handle(Arc::clone(&intake)),
            targets: watch::Sender::new(Arc::clone(&endpoints.targets)),
            clock: Arc::clone(&clock),
            connections: edge.clone(),
            work: work.clone(),
            workers,
        };
        let (grace, grace_now) = watch::channel(config.shutdown_grace);
        let listeners = bound.listeners();
        let parts = Parts {
            bound,
            edge: Arc::clone(&shared.edge),
            intake,
            admin: Arc::new(ArcSwap::from_pointee(live::present(&config, &endpoints))),
            targets: shared.targets.clone(),
            secret_places: Arc::new(ArcSwap::from_pointee(SecretPlaces::of(&endpoints))),
            retention: keep,
            grace,
            log,
            metrics: metrics.clone(),
        };

        let (asks, asked) = reload::channel();
        let draining = Arc::new(AtomicBool::new(false));
        let places = Arc::clone(&parts.secret_places);
        let state = admin::State {
            present: Arc::clone(&parts.admin),
            journal: journal.clone(),
            index,
            clock,
            metrics: renderer(&metrics, &journal, parts.targets.subscribe()),
            redactions: Arc::new(move |source, provider| places.load().get(source, provider)),
            reload: Arc::new(move |wanted| {
                let asks = asks.clone();
                Box::pin(async move { reload::ask(&asks, wanted).await })
            }),
            pausing: tokio::sync::Mutex::default(),
            tails: admin::TailPlaces::default(),
            draining: Arc::clone(&draining),
        };
        let stop_admin = CancellationToken::new();
        let serving = server.run(Arc::new(state), admin.clone(), stop_admin.clone());
        admin.spawn("admin", serving);

        let runtimes = (0..workers).map(|_| Builder::new_current_thread().enable_all().build());
        let runtimes: Vec<Runtime> = runtimes.collect::<io::Result<_>>()?;
        for ((number, listeners), runtime) in listeners.into_iter().enumerate().zip(runtimes) {
            let worker = shared.clone();
            let body = work.guard("worker", move || worker.run(number, listeners, &runtime));
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(body)?;
        }
        let live = Live::new(config, endpoints, parts);
        let seen = Seen::default().only(&files); // as nobody looked before it was read, it is read once more
        let stopping = edge.stopping(); // before delivery stops
        let reloader = Reloader { live, load, watch, seen, hangup, asks: asked, metrics, stopping };
        work.spawn("reload", reloader.run());
        Ok(Self { addresses, journal, edge, work, admin, stop_admin, draining, grace: grace_now, terminate, interrupt })
    }

    /// Waits for the end, then: refuse new connections, finish requests, stop delivery, flush the journal,
    /// close the admin side.
    async fn until_stopped(mut self) -> Ended {
        let failed = tokio::select! { // all are cancel-safe
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            () = self.edge.failed() => true,
            () = self.work.failed() => true,
            () = self.admin.failed() => true,
        };
        let grace = *self.grace.borrow();
        tracing::info!(?grace, "shutting down");
        self.draining.store(true, Ordering::Release);
        let until = Instant::now() + grace;
        let journal = self.journal.clone();
        let finish = async {
            let drained = drain(&self.edge, &self.work, until).await;
            let closed = tokio::time::timeout(CLOSE_WITHIN, journal.close()).await; // a disk may hang
            drained && closed.is_ok()
        };
        let drained = tokio::select! { // a second signal ends it at once; what was acknowledged is durable already
            drained = finish => drained,
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
        };
        self.stop_admin.cancel();
        self.admin.stop();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.admin.ended()).await; // it only ever reads
        match (failed, drained) {
            (true, _) => Ended::Failed,
            (false, true) => Ended::Drained,
            (false, false) => Ended::CutShort,
        }
    }
}

async fn drain(edge: &Tasks, work: &Tasks, until: Instant) -> bool {
    edge.stop();
    let edge_done = tokio::time::timeout_at(until, edge.ended()).await.is_ok();
    work.stop();
    // Attempts under way are given the rest of the grace period, and never less than a moment.
    let until = until.max(Instant::now() + Duration::from_millis(100));
    let work_done = tokio::time::timeout_at(until, work.ended()).await.is_ok();
    edge_done && work_done
}

/// What a worker needs; all workers share it.
#[derive(Clone)]
struct Shared {
    edge: Arc<Edge>,
    intake: Handle<LogJournal>,
    targets: watch::Sender<Arc<Targets>>,
    clock: Arc<dyn Clock>,
    connections: Tasks,
    work: Tasks,
    workers: usize,
}

impl Shared {
    fn run(self, number: usize, listeners: Listeners, runtime: &Runtime) {
        runtime.block_on(async move {
            let dispatch = Dispatch {
                journal: self.intake.0.journal.clone(),
                targets: self.targets.subscribe(),
                clock: self.clock,
                tasks: self.work.clone(),
                share: number,
                of: self.workers,
            };
            self.work.spawn("dispatch", dispatch.run());
            if let Err(error) = ingress::serve(listeners, self.edge, self.intake, self.connections.clone()).await {
                tracing::error!(%error, "a worker cannot use its sockets");
                self.connections.fail();
            }
            self.work.stopping().cancelled().await;
            self.work.ended().await; // its lanes run here
        });
    }
}

async fn trim(journal: LogJournal, keep: watch::Receiver<Retention>, tasks: Tasks) {
    let stopping = tasks.stopping();
    let mut every = tokio::time::interval(TRIM_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(every.tick()).await.is_some() {
        let keep = *keep.borrow();
        if let Err(error) = journal.trim(keep).await {
            tracing::debug!(%error, "nothing was let go of"); // what is wrong shows in `room`, and was logged there
        }
        if !journal.is_manned() {
            tracing::error!("a part of the journal has panicked; shutting down");
            tasks.fail(); // whether or not anything is delivered that would come upon it
            return;
        }
    }
}

/// Renders the metrics, the journal's gauges brought up to date first. Never scans the journal.
fn renderer(
    metrics: &Metrics,
    journal: &LogJournal,
    targets: watch::Receiver<Arc<Targets>>,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let (metrics, journal) = (metrics.clone(), journal.clone());
    Arc::new(move || {
        let (stats, targets) = (journal.stats(), Arc::clone(&targets.borrow()));
        metrics.journal().set_bytes(stats.bytes);
        metrics.journal().set_share(stats.share_bytes.unwrap_or(stats.max_bytes));
        for source in &stats.sources {
            metrics.set_unsettled(&source.source, source.unsettled_bytes);
        }
        for target in targets.iter() {
            target.metrics.set_breaker(target.breaker());
        }
        for lane in &stats.lanes {
            match targets.get(&lane.destination) {
                Some(target) => {
                    target.metrics.set_pending(lane.pending);
                    target.metrics.set_orphaned(lane.orphans());
                    target.metrics.set_dead_letters(lane.dead);
                }
                None => metrics.set_gone(&lane.destination, lane.orphans(), lane.dead),
            }
        }
        metrics.render()
    })
}
