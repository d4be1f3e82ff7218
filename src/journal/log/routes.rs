//! The routes that deliveries were made for, what waits on each, and which of them are gone.
//!
//! A file `routes` beside the log says since when each route is there or gone, one route a line (source, destination,
//! `there` or `gone`, Unix milliseconds), replaced whole: a delivery whose route is back has all its `max_age` before it,
//! and a restart without a change changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use crate::base::{Name, UnixMillis};
use crate::journal::disk::{self, Disk};
use crate::journal::{LaneStats, Routes, Routing};

/// Routes that can be told apart in an [`super::entry::Entry`].
pub const ROUTES_MAX: usize = 1 << 14;

const FILE: &str = "routes";
/// The file as it could ever be: [`ROUTES_MAX`] of the longest names, twice for those of the config without deliveries.
const BYTES_MAX: usize = 8 << 20;

/// All routes that have deliveries here.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Route>,
    /// By source, then by destination.
    of: HashMap<Name, HashMap<Name, u16>>,
    known: Known,
    watch: watch::Sender<Arc<Routing>>,
}

/// One route with deliveries.
#[derive(Debug)]
pub struct Route {
    /// Where its events come in.
    pub source: Name,
    /// Where it leads.
    pub destination: Name,
    /// The destination's lane.
    pub lane: u16,
    /// Deliveries that are pending, orphaned or not.
    pub pending: u64,
    /// Dead ones.
    pub dead: u64,
    /// What unsettled events of its source take, over all its routes.
    pub unsettled: Arc<AtomicU64>,
    /// Since when it is there; a cycle is no older than that.
    pub there_since: UnixMillis,
    /// Pending deliveries whose cycle began then or before are orphaned; none is where none are.
    pub orphans_until: Option<UnixMillis>,
}

impl Table {
    /// Nothing, but for what is `known` of earlier.
    pub fn knowing(known: Known) -> Self {
        Self { known, ..Self::default() }
    }

    /// The routes, as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Routing>> {
        self.watch.subscribe()
    }

    /// Source and destination of each, by number.
    pub fn names(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.routes.iter().map(|route| (&route.source, &route.destination))
    }

    /// The number of a route.
    pub fn find(&self, source: &Name, destination: &Name) -> Option<u16> {
        self.of.get(source)?.get(destination).copied()
    }

    /// Whether so many more could be told apart.
    pub fn has_places(&self, more: usize) -> bool {
        self.routes.len() + more <= ROUTES_MAX
    }

    /// A route to `destination`, whose lane is `lane`; unsettled events of its source take `unsettled`. None if there are too
    /// many.
    pub fn add(&mut self, source: &Name, destination: &Name, lane: u16, unsettled: Arc<AtomicU64>) -> Option<u16> {
        let number = u16::try_from(self.routes.len()).ok().filter(|number| usize::from(*number) < ROUTES_MAX)?;
        let mut route = Route {
            source: source.clone(),
            destination: destination.clone(),
            lane,
            pending: 0,
            dead: 0,
            unsettled,
            there_since: UnixMillis(i64::MIN),
            orphans_until: None,
        };
        route.stands(&self.known, &self.watch.borrow());
        self.routes.push(route);
        self.of.entry(source.clone()).or_default().insert(destination.clone(), number);
        Some(number)
    }

    /// The route of that number.
    pub fn get(&self, number: u16) -> Option<&Route> {
        self.routes.get(usize::from(number))
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u16) -> Option<&mut Route> {
        self.routes.get_mut(usize::from(number))
    }

    /// The numbers of the routes to `lane`.
    pub fn to(&self, lane: u16) -> impl Iterator<Item = (u16, &Route)> {
        (0u16..).zip(&self.routes).filter(move |(_, route)| route.lane == lane)
    }

    /// Whether any route that something waits on is gone.
    pub fn some_are_gone(&self) -> bool {
        self.routes.iter().any(|route| route.pending > 0 && route.orphans_until.is_some())
    }

    /// From now on, `now`, the routes are these. Gives what is to be written down of it, if that has changed.
    pub fn set(&mut self, routes: Routes, now: UnixMillis) -> Option<Known> {
        let mut known = Known::default();
        for (source, destination) in routes.pairs() {
            let key = (source.clone(), destination.clone());
            let since = match self.known.0.get(&key) {
                Some(Since::There(at)) => *at,
                Some(Since::Gone(_)) | None => now,
            };
            known.0.insert(key, Since::There(since));
        }
        let mut gone = BTreeMap::new();
        for route in &self.routes {
            let key = (route.source.clone(), route.destination.clone());
            if !known.0.contains_key(&key) {
                let since = match self.known.0.get(&key) {
                    Some(Since::Gone(at)) => *at,
                    Some(Since::There(_)) | None => now,
                };
                known.0.insert(key.clone(), Since::Gone(since));
                gone.insert(key, since);
            }
        }
        let routing = Routing::new(routes, gone).after(&self.watch.borrow());
        for route in &mut self.routes {
            route.stands(&known, &routing);
        }
        self.watch.send_if_modified(|now| {
            let changed = **now != routing;
            *now = Arc::new(routing);
            changed
        });
        let changed = known != self.known;
        self.known = known;
        changed.then(|| self.known.clone())
    }

    /// What waits on the routes to the lanes, in their order. `ordered` says how many of a gone route's deliveries an
    /// operator has asked for.
    pub fn stats<'n>(&self, lanes: impl Iterator<Item = &'n Name>, ordered: &HashMap<u16, u64>) -> Vec<LaneStats> {
        let none = |name: &Name| LaneStats { destination: name.clone(), pending: 0, orphaned: Vec::new(), dead: 0 };
        let mut lanes: Vec<LaneStats> = lanes.map(none).collect();
        for (number, route) in (0u16..).zip(&self.routes) {
            let Some(lane) = lanes.get_mut(usize::from(route.lane)) else { continue };
            lane.dead += route.dead;
            if route.orphans_until.is_none() {
                lane.pending += route.pending;
                continue;
            }
            let asked_for = ordered.get(&number).copied().unwrap_or(0).min(route.pending);
            lane.pending += asked_for;
            if route.pending > asked_for {
                lane.orphaned.push((route.source.clone(), route.pending - asked_for));
            }
        }
        lanes
    }
}

impl Route {
    fn stands(&mut self, known: &Known, routing: &Routing) {
        let key = (self.source.clone(), self.destination.clone());
        self.there_since = match known.0.get(&key) {
            Some(Since::There(at)) => *at,
            Some(Since::Gone(_)) | None => UnixMillis(i64::MIN),
        };
        self.orphans_until = routing.orphans_until(&self.source, &self.destination);
    }
}

/// Since when each route is there, or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<(Name, Name), Since>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    There(UnixMillis),
    Gone(UnixMillis),
}

impl Known {
    /// As it was when the journal was last open. A line that says nothing is passed over.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn read(disk: &dyn Disk) -> io::Result<Self> {
        let file = match disk.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; BYTES_MAX];
        let length = disk::read_around(&*file, &mut bytes, 0)?;
        bytes.truncate(length);
        let text = String::from_utf8_lossy(&bytes);
        let route = |line: &str| {
            let route = route(line);
            if route.is_none() {
                tracing::warn!(file = FILE, "a line is no route and is passed over");
            }
            route
        };
        Ok(Self(text.lines().filter_map(route).collect()))
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// As the operating system says; the file is then as it was.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let line = |((source, destination), since): (&(Name, Name), &Since)| match since {
            Since::There(at) => format!("{source} {destination} there {}\n", at.0),
            Since::Gone(at) => format!("{source} {destination} gone {}\n", at.0),
        };
        let text: String = self.0.iter().map(line).collect();
        disk::replace(disk, ".", FILE, text.as_bytes())
    }
}

fn route(line: &str) -> Option<((Name, Name), Since)> {
    let mut words = line.split(' ');
    let (source, destination) = (Name::new(words.next()?).ok()?, Name::new(words.next()?).ok()?);
    let (how, at) = (words.next()?, UnixMillis(words.next()?.parse().ok()?));
    let since = match how {
        "there" => Since::There(at),
        "gone" => Since::Gone(at),
        _ => return None,
    };
    words.next().is_none().then_some(((source, destination), since))
}
