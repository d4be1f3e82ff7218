//! A [`Config`] into a running gateway, and its ordered end.
//!
//! One worker thread for each core, each with a runtime of its own: it accepts connections and takes its
//! share of the lanes. The calling thread runs the rest: admin side, index, retention, signals.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::admit::Budget;
use crate::base::{Clock, Name, SystemClock, Tasks};
use crate::config::{Config, presets};
use crate::deliver::{ClientError, Target};
use crate::dispatch::Dispatch;
use crate::index::{Index, IndexError};
use crate::ingress::{self, BindError, Edge, Listeners};
use crate::intake::{Handle, Intake, Underway};
use crate::journal::log::{self, LogJournal, OpenError};
use crate::journal::{Journal, Pause, Retention, Routes};
use crate::limit::Limits;
use crate::provider::{CompileError, Place};
use crate::router::{RouteError, Router};
use crate::source::{Bodies, Source};
use crate::telemetry::Metrics;

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
    /// The index cannot be opened.
    #[error("the index cannot be opened")]
    Index(#[from] IndexError),
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
    pub ingress: Vec<SocketAddr>,
    /// The private side.
    pub admin: SocketAddr,
}

/// Runs a gateway until it is told to stop by SIGTERM or SIGINT. `ready` is called once it listens.
///
/// # Errors
/// [`StartError`]; nothing was taken then.
pub fn run(config: Config, ready: impl FnOnce(&Addresses)) -> Result<Ended, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let gateway = Gateway::start(config).await?;
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
    grace: Duration,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Gateway {
    async fn start(config: Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;

        let sources = sources(&config, &metrics)?;
        let routes = sources.iter().map(|source| {
            let settings = source.settings();
            (settings.host.clone(), settings.path.clone(), Arc::clone(source))
        });
        let router = Router::new(routes)?;
        let targets = Arc::new(targets(&config, &metrics)?);
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = ingress::bind(&config.ingress, workers)?;
        let address = config.admin.listen;
        let server = admin::Server::bind(address).await.map_err(|error| StartError::Admin { address, error })?;
        let addresses = Addresses { ingress: bound.addresses().to_vec(), admin: server.address() };

        let (edge, work, admin) = (Tasks::new(), Tasks::new(), Tasks::new());
        let journal = LogJournal::open(&config.journal, Arc::clone(&clock), metrics.clone())?;
        for target in journal.paused().iter().filter_map(|name| targets.get(name)) {
            target.set_pause(Pause::Paused);
        }
        follow_routes(&journal, &config).await;
        let index = Index::open(&log::index_dir(&config.journal.dir), journal.identity(), journal.clone(), &work)?;
        work.spawn("retention", trim(journal.clone(), config.journal.retention, work.stopping()));

        let draining = Arc::new(AtomicBool::new(false));
        let state = admin::State {
            access: admin::Access::new(&config.admin),
            journal: journal.clone(),
            index,
            clock: Arc::clone(&clock),
            metrics: renderer(&metrics, &journal, &targets),
            redactions: redactions(&sources),
            sources: config.sources.iter().map(admin::Source::from).collect(),
            targets: admin::Targets::new(
                config.destinations.iter().filter_map(|one| targets.get(&one.name).cloned()).collect(),
            ),
            tails: admin::TailPlaces::default(),
            draining: Arc::clone(&draining),
        };
        let stop_admin = CancellationToken::new();
        let serving = server.run(Arc::new(state), admin.clone(), stop_admin.clone());
        admin.spawn("admin", serving);

        let shared = Shared {
            edge: Edge::new(&config.ingress, Arc::clone(&clock), metrics.clone()),
            intake: Handle(Arc::new(Intake {
                router,
                journal: journal.clone(),
                clock: Arc::clone(&clock),
                metrics,
                targets: Arc::clone(&targets),
                tasks: edge.clone(),
                underway: Underway::default(),
            })),
            targets,
            clock,
            connections: edge.clone(),
            work: work.clone(),
            workers,
        };
        let runtimes = (0..workers).map(|_| Builder::new_current_thread().enable_all().build());
        let runtimes: Vec<Runtime> = runtimes.collect::<io::Result<_>>()?;
        for ((number, listeners), runtime) in bound.into_workers().into_iter().enumerate().zip(runtimes) {
            let worker = shared.clone();
            let body = move || worker.run(number, listeners, &runtime);
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(body)?;
        }
        Ok(Self {
            addresses,
            journal,
            edge,
            work,
            admin,
            stop_admin,
            draining,
            grace: config.shutdown_grace,
            terminate,
            interrupt,
            hangup,
        })
    }

    /// Waits for the end, then: refuse new connections, finish requests, stop delivery, flush the journal,
    /// close the admin side.
    async fn until_stopped(mut self) -> Ended {
        let failed = loop {
            tokio::select! { // all are cancel-safe
                _ = self.terminate.recv() => break false,
                _ = self.interrupt.recv() => break false,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: this version cannot reload its config yet; restart it instead");
                }
                () = self.edge.failed() => break true,
                () = self.work.failed() => break true,
                () = self.admin.failed() => break true,
            }
        };
        tracing::info!(grace = ?self.grace, "shutting down");
        self.draining.store(true, Ordering::Release);
        let until = Instant::now() + self.grace;
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
    targets: Arc<HashMap<Name, Arc<Target>>>,
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
                targets: self.targets,
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

fn sources(config: &Config, metrics: &Metrics) -> Result<Vec<Arc<Source>>, StartError> {
    let limits = &config.ingress.limits;
    let bodies = Bodies {
        timeout: limits.body_timeout,
        min_rate: limits.body_min_rate,
        budget: Budget::new(limits.in_flight_bytes),
    };
    let unverified = Arc::new(Limits::new(limits.unverified.iter().cloned().collect()));
    let source = |settings: &crate::source::SourceSettings| {
        let made = Source::new(settings.clone(), &bodies, metrics);
        made.map(|source| Arc::new(source.with_unverified(Arc::clone(&unverified))))
            .map_err(|error| StartError::Source { source_name: settings.name.clone(), error })
    };
    config.sources.iter().map(source).collect()
}

fn targets(config: &Config, metrics: &Metrics) -> Result<HashMap<Name, Arc<Target>>, StartError> {
    let target = |destination: &crate::deliver::Destination| {
        let name = destination.name.clone();
        let made = Target::new(destination.clone(), metrics.destination(&name), Pause::Resumed);
        let target = made.map_err(|error| StartError::Destination { destination: name.clone(), error })?;
        Ok((name, Arc::new(target)))
    };
    config.destinations.iter().map(target).collect()
}

/// Tells the journal which routes there are, and says what is kept for those that are gone. Call it whenever the config has
/// changed, after what takes events has been told.
async fn follow_routes(journal: &LogJournal, config: &Config) {
    let destinations = config.destinations.iter().map(|destination| destination.name.clone());
    let routes = config.sources.iter().fold(Routes::to(destinations), |routes, source| {
        routes.with(source.name.clone(), source.routes.iter().map(|route| route.destination.clone()))
    });
    if let Err(error) = journal.set_routes(routes).await {
        tracing::error!(%error, "since when routes are there could not be written down; they are followed all the same");
    }
    for lane in journal.stats().lanes {
        for (source, deliveries) in &lane.orphaned {
            tracing::warn!(
                %source,
                destination = %lane.destination,
                deliveries,
                "the config has no route for deliveries that are kept: they are orphaned until it is back"
            );
        }
    }
}

async fn trim(journal: LogJournal, keep: Retention, stopping: CancellationToken) {
    let mut every = tokio::time::interval(TRIM_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(every.tick()).await.is_some() {
        if let Err(error) = journal.trim(keep).await {
            tracing::debug!(%error, "nothing was let go of"); // what is wrong shows in `room`, and was logged there
        }
    }
}

/// Renders the metrics, the journal's gauges brought up to date first. Never scans the journal.
fn renderer(
    metrics: &Metrics,
    journal: &LogJournal,
    targets: &Arc<HashMap<Name, Arc<Target>>>,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let (metrics, journal, targets) = (metrics.clone(), journal.clone(), Arc::clone(targets));
    Arc::new(move || {
        let stats = journal.stats();
        metrics.journal().set_bytes(stats.bytes);
        metrics.journal().set_share(stats.share_bytes.unwrap_or(stats.max_bytes));
        for source in &stats.sources {
            metrics.set_unsettled(&source.source, source.unsettled_bytes);
        }
        for target in targets.values() {
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

/// What is secret in a request of a source, by the source's preset; by the provider's, for events of a source
/// that is no longer in the config.
fn redactions(sources: &[Arc<Source>]) -> admin::Redactions {
    let built_in = presets::built_in().unwrap_or_default(); // a test holds that they are sound
    let providers: HashMap<Name, Vec<Place>> =
        built_in.into_iter().map(|preset| (preset.name.clone(), preset.secret_places())).collect();
    let places: HashMap<Name, Vec<Place>> = sources
        .iter()
        .map(|source| (source.settings().name.clone(), source.settings().preset.secret_places()))
        .collect();
    Arc::new(move |source, provider| places.get(source).or_else(|| providers.get(provider)).cloned())
}
