//! Which routes there are, by the config, and which deliveries that leaves orphaned.
//!
//! A delivery is *orphaned* while the config no longer has the route it was made for: its source is gone, or no longer
//! names its destination, or the destination itself is gone. It is kept as it is, no attempt is made, and it goes on when
//! the route is back. Nothing is written for it: which deliveries are orphaned follows from the routes alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Name, UnixMillis};

/// The sources, where each sends to, and the destinations: as the config says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    sources: BTreeMap<Name, BTreeSet<Name>>,
    destinations: BTreeSet<Name>,
}

impl Routes {
    /// No source yet, and these destinations.
    #[must_use]
    pub fn to(destinations: impl IntoIterator<Item = Name>) -> Self {
        Self { sources: BTreeMap::new(), destinations: destinations.into_iter().collect() }
    }

    /// The same with a source that sends there.
    #[must_use]
    pub fn with(mut self, source: Name, destinations: impl IntoIterator<Item = Name>) -> Self {
        self.sources.entry(source).or_default().extend(destinations);
        self
    }

    /// Every source.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.sources.keys()
    }

    /// Every route, as source and destination.
    pub fn pairs(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.sources.iter().flat_map(|(source, to)| to.iter().map(move |destination| (source, destination)))
    }

    /// Whether `destination` is in the config, whoever sends to it.
    #[must_use]
    pub fn has_destination(&self, destination: &str) -> bool {
        self.destinations.contains(destination)
    }

    /// Whether `source` sends to `destination`.
    #[must_use]
    pub fn leads(&self, source: &str, destination: &str) -> bool {
        self.has_destination(destination) && self.sources.get(source).is_some_and(|to| to.contains(destination))
    }
}

/// The routes as the journal holds deliveries to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// What the config says; none before the journal was told.
    routes: Option<Routes>,
    /// Routes that deliveries were made for and that are gone: source, destination, and when they went.
    gone: BTreeMap<(Name, Name), UnixMillis>,
    /// How often they have changed.
    changes: u64,
}

impl Routing {
    /// Later than any cycle begins.
    pub const FOREVER: UnixMillis = UnixMillis(i64::MAX);

    /// The config's `routes`, beside which those of `gone` were there until then.
    #[must_use]
    pub fn new(routes: Routes, gone: BTreeMap<(Name, Name), UnixMillis>) -> Self {
        Self { routes: Some(routes), gone, changes: 0 }
    }

    /// The same, after those of `before`.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        self.changes = before.changes;
        self.changes += u64::from(self != *before);
        self
    }

    /// How often they have changed: whoever looks now and then sees by it whether there were others between.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The routes of the config; none while nobody has said which they are.
    #[must_use]
    pub fn routes(&self) -> Option<&Routes> {
        self.routes.as_ref()
    }

    /// The sources that send to `destination`.
    #[must_use]
    pub fn leading_to(&self, destination: &Name) -> BTreeSet<Name> {
        let pairs = self.routes.iter().flat_map(Routes::pairs);
        pairs.filter(|(_, to)| *to == destination).map(|(source, _)| source.clone()).collect()
    }

    /// Deliveries from `source` to `destination` whose present cycle began at this time or before are orphaned; none is
    /// where none are. A cycle that began later was asked for by an operator, although the route was gone.
    #[must_use]
    pub fn orphans_until(&self, source: &Name, destination: &Name) -> Option<UnixMillis> {
        let routes = self.routes.as_ref()?;
        if routes.leads(source.as_str(), destination.as_str()) {
            return None;
        }
        // To a destination that is not there nothing can be delivered, whoever asks for it.
        let went = || self.gone.get(&(source.clone(), destination.clone())).copied();
        Some(went().filter(|_| routes.has_destination(destination.as_str())).unwrap_or(Self::FOREVER))
    }

    /// Whether a pending delivery from `source` to `destination` whose present cycle began at `since` is orphaned.
    #[must_use]
    pub fn orphans(&self, source: &Name, destination: &Name, since: UnixMillis) -> bool {
        self.orphans_until(source, destination).is_some_and(|until| since <= until)
    }

    /// For every route that is there none, for every one that is gone until when its deliveries are orphaned. One that
    /// is not among them is gone for ever.
    pub fn known(&self) -> impl Iterator<Item = (&Name, &Name, Option<UnixMillis>)> {
        let there = self.routes.iter().flat_map(Routes::pairs);
        let all = there.chain(self.gone.keys().map(|(source, destination)| (source, destination)));
        all.map(|(source, destination)| (source, destination, self.orphans_until(source, destination)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_delivery_is_orphaned_while_its_route_is_gone_unless_it_was_asked_for_since() {
        let routes = Routes::to([name("app"), name("audit")]).with(name("shop"), [name("app")]);
        let went = UnixMillis(1_000);
        let gone = [(name("shop"), name("audit")), (name("old"), name("app")), (name("shop"), name("no"))];
        let routing = Routing::new(routes, gone.map(|pair| (pair, went)).into());
        for (source, destination, before, after) in [
            ("shop", "app", false, false),
            ("shop", "audit", true, false), // no longer named
            ("old", "app", true, false),    // the source is gone
            ("shop", "no", true, true),     // nobody could deliver it
            ("never", "app", true, true),
        ] {
            let orphaned = |since| routing.orphans(&name(source), &name(destination), UnixMillis(since));
            assert_eq!((orphaned(1_000), orphaned(1_001)), (before, after), "{source} to {destination}");
        }
        assert_eq!(routing.leading_to(&name("app")), [name("shop")].into());
        assert!(!Routing::default().orphans(&name("shop"), &name("app"), went), "nobody has said what is there");
    }
}
