//! One life of the gateway: the real journal, intake and dispatch on a runtime of its own, whose time is virtual.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay::admit::Budget;
use forebay::base::{ByteSize, Clock, Name, Tasks};
use forebay::deliver::{Target, Targets, Way};
use forebay::dispatch::Dispatch;
use forebay::intake::{Intake, Underway};
use forebay::journal::log::{Crew, LogJournal, OpenError, Workplace};
use forebay::journal::{Journal, Pause, Settings};
use forebay::router::Router;
use forebay::source::{Bodies, DedupeSettings, Route, Source, SourceSettings};
use forebay::telemetry::Metrics;
use tokio::sync::watch;

use crate::app::connector;
use crate::clock::pass;
use crate::disk::View;
use crate::sim::{Routed, Sim};

/// Between two looks at what the journal may let go of, as in the program.
const TRIM_EVERY: u64 = 1_000;

pub struct Gateway {
    pub journal: LogJournal,
    pub intake: Arc<Intake<LogJournal>>,
    pub targets: Arc<Targets>,
    present: watch::Sender<Arc<Targets>>,
    pub tasks: Tasks,
    metrics: Metrics,
    bodies: Bodies,
}

impl Gateway {
    /// Opens the journal and puts everything together; nothing runs yet.
    pub fn open(sim: &Arc<Sim>, disk: View) -> Result<Self, OpenError> {
        let (shape, tasks, metrics) = (&sim.shape, Tasks::new(), Metrics::new("simulation"));
        let settings = Settings {
            dir: "/nowhere".into(),
            max_size: shape.max_size,
            retention: shape.retention,
            encryption: Default::default(),
        };
        let workplace = Workplace { crew: Crew::Tasks(tasks.clone()), claims_in_memory: shape.claims_in_memory };
        let clock: Arc<dyn Clock> = Arc::clone(sim.clock()) as _;
        let disk = Arc::new(disk);
        let journal = LogJournal::open_with(disk, &settings, Arc::clone(&clock), metrics.clone(), None, &workplace)?;
        let target = |(number, destination): (usize, &forebay::deliver::Destination)| {
            let way = Way::over(destination.clone(), connector(sim, number));
            Arc::new(Target::new(way, metrics.destination(&destination.name), Pause::Resumed))
        };
        let targets: Arc<Targets> =
            Arc::new(crate::shape::SETTINGS.destinations.iter().enumerate().map(target).collect());
        let budget = Budget::new(ByteSize(64 << 20));
        let bodies = Bodies { timeout: Duration::from_secs(30), min_rate: None, budget };
        let none = Router::new([]).expect("no routes are in each other's way");
        let intake = Intake {
            router: ArcSwap::from_pointee(none),
            journal: journal.clone(),
            clock,
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            underway: Underway::default(),
        };
        let present = watch::Sender::new(Arc::clone(&targets));
        let gateway = Self { journal, intake: Arc::new(intake), targets, present, tasks, metrics, bodies };
        gateway.route(sim, sim.routes());
        Ok(gateway)
    }

    /// Takes what `routed` has routes for. Tell the journal afterwards.
    pub fn route(&self, sim: &Sim, routed: Routed) {
        let sources = crate::shape::SETTINGS.sources.iter().filter_map(|settings| {
            let source = [crate::mail::Source::Shop, crate::mail::Source::Code, crate::mail::Source::Live]
                .into_iter()
                .find(|source| settings.name.as_str() == source.name())?;
            let leads = routed.leads(source);
            let route = |to: &&str| Route { destination: Name::new(to).expect("a name"), path: None };
            let settings = SourceSettings {
                dedupe: DedupeSettings { window: sim.shape.window, ..settings.dedupe.clone() },
                routes: leads.iter().map(route).collect(),
                ..settings.clone()
            };
            let path = settings.path.clone();
            let source = Source::new(settings, &self.bodies, &self.metrics).expect("its secrets are there");
            (!leads.is_empty()).then(|| (None, path, Arc::new(source.leading_to(&self.targets))))
        });
        self.intake.router.store(Arc::new(Router::new(sources).expect("paths of their own")));
    }

    /// Begins to deliver, and to let go.
    pub async fn run(&self, sim: &Arc<Sim>) {
        for name in self.journal.paused() {
            if let Some(target) = self.targets.get(&name) {
                target.set_pause(Pause::Paused);
            }
        }
        let _ = self.journal.set_routes(sim.routes().routes()).await; // they are followed all the same
        let dispatch = Dispatch {
            journal: self.journal.clone(),
            targets: self.present.subscribe(),
            clock: Arc::clone(sim.clock()) as _,
            tasks: self.tasks.clone(),
            share: 0,
            of: 1,
        };
        self.tasks.spawn("dispatch", dispatch.run());
        let (journal, keep) = (self.journal.clone(), sim.shape.retention);
        self.tasks.spawn("retention", async move {
            loop {
                let _ = journal.trim(keep).await; // what is wrong shows in `room`
                pass(TRIM_EVERY).await;
            }
        });
    }

    /// What is paused, by name.
    pub fn paused(&self) -> BTreeMap<String, ()> {
        self.journal.paused().into_iter().map(|name| (name.to_string(), ())).collect()
    }
}
