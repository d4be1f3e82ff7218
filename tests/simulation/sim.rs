//! One run: what outlives the lives of the gateway.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay::base::Name;
use forebay::journal::{Located, Routes};
use tokio::sync::Notify;

use crate::app::Moods;
use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::mail::Source;
use crate::oracle::Oracle;
use crate::post::Post;
use crate::shape::{SETTINGS, Shape};
use crate::world::World;

pub struct Sim {
    pub shape: Shape,
    pub world: World,
    pub disk: SimDisk,
    post: Mutex<Post>,
    moods: Mutex<Moods>,
    oracle: Mutex<Oracle>,
    routes: Mutex<Routed>,
    /// A life is to end now, by a power cut.
    pub cut: Notify,
    /// An application has said 410.
    pub gone: Notify,
    /// What an operator has seen in the journal.
    pub events: Mutex<Vec<Located>>,
}

/// Which routes the config has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Routed {
    /// No source `code`, and `shop` without its second route.
    Few,
    /// `shop` without its second route.
    NoAudit,
    All,
}

impl Routed {
    pub fn leads(self, source: Source) -> &'static [&'static str] {
        match (source, self) {
            (Source::Shop, Self::All) => &["app", "audit"],
            (Source::Shop, Self::Few | Self::NoAudit) => &["app"],
            (Source::Code, Self::Few) => &[],
            (Source::Code, Self::All | Self::NoAudit) => &["app"],
            (Source::Live, _) => &["desk"],
        }
    }

    pub fn routes(self) -> Routes {
        let name = |text: &str| Name::new(text).expect("a name");
        let all = Routes::to(SETTINGS.destinations.iter().map(|destination| destination.name.clone()));
        [Source::Shop, Source::Code, Source::Live].into_iter().fold(all, |routes, source| {
            let leads = self.leads(source);
            if leads.is_empty() { routes } else { routes.with(name(source.name()), leads.iter().map(|to| name(to))) }
        })
    }
}

impl Sim {
    pub fn new(seed: u64, shape: Shape, mut random: fastrand::Rng, print: bool) -> Arc<Self> {
        fastrand::seed(seed); // the gateway's own: ids of events, and how retries are spread
        let world = World::new(print);
        Arc::new(Self {
            disk: SimDisk::new(world.clone(), random.fork()),
            post: Mutex::new(Post::new(&shape, random.fork())),
            moods: Mutex::new(Moods::new(random.fork(), SETTINGS.destinations.len())),
            oracle: Mutex::new(Oracle::new(&shape)),
            routes: Mutex::new(Routed::All),
            cut: Notify::new(),
            gone: Notify::new(),
            events: Mutex::default(),
            world,
            shape,
        })
    }

    pub fn clock(&self) -> &Arc<SimClock> {
        &self.world.1
    }

    pub fn now(&self) -> u64 {
        self.clock().millis()
    }

    pub fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn moods(&self) -> MutexGuard<'_, Moods> {
        self.moods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn routes(&self) -> Routed {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_routes(&self, routed: Routed) {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = routed;
    }
}
