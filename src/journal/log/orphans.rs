//! Which deliveries are orphaned, and what becomes of them when the routes change.

use std::collections::HashMap;

use super::entry::{Entry, Standing};
use super::record::Home;
use super::routes::Known;
use super::state::State;
use crate::base::UnixMillis;
use crate::event::DeliveryId;
use crate::journal::{LaneStats, Routes, Routing};

impl State {
    /// From now on the routes are these. Gives what is to be written down of it, if that has changed.
    pub fn set_routes(&mut self, routes: Routes, now: UnixMillis) -> Option<Known> {
        self.sources.set(routes.sources());
        // By a clock that was set back, what has come would have come after its route had gone.
        let newest = self.segments.values().map(|segment| segment.newest).max();
        let changed = self.routes.set(routes, now.max(newest.unwrap_or(now)));
        if self.routes.some_are_gone() {
            let (segments, routes) = (&self.segments, &self.routes);
            // Whoever held them gives them back, and of those that were never tried there is nothing to remember.
            self.active.retain(|id, active| {
                let entry = segments.get(&active.home.segment).and_then(|s| s.entries.get(active.home.entry as usize));
                let until = entry.and_then(|entry| routes.get(entry.route())).and_then(|route| route.orphans_until);
                until.is_none_or(|until| until < active.progress.since) || !active.progress.is_fresh(*id)
            });
        }
        changed
    }

    /// Whether the route of the delivery at `home` is there.
    pub fn has_route(&self, home: Home) -> bool {
        self.entry(home).is_some_and(|entry| self.orphans_until(entry).is_none())
    }

    /// Whether a pending delivery whose cycle began at `since` is orphaned.
    pub fn orphaned(&self, entry: Entry, since: UnixMillis) -> bool {
        self.orphans_until(entry).is_some_and(|until| since <= until)
    }

    /// Whether the delivery at `home` is pending and orphaned.
    pub fn is_orphaned(&self, id: DeliveryId, home: Home) -> bool {
        let since = self.progress(id, home, id.event.made_at()).since;
        self.entry(home).is_some_and(|entry| entry.standing() == Standing::Pending && self.orphaned(entry, since))
    }

    /// When the cycle begins of a delivery that is rearmed at `now`: after its route has gone, if it has. None if it would
    /// be orphaned all the same, since its destination is not there.
    pub fn rearmed_at(&self, home: Home, now: UnixMillis) -> Option<UnixMillis> {
        match self.orphans_until(self.entry(home)?) {
            None => Some(now),
            Some(Routing::FOREVER) => None,
            Some(UnixMillis(until)) => Some(now.max(UnixMillis(until + 1))),
        }
    }

    /// By gone route, how many of its pending deliveries an operator has asked for since it went.
    pub fn ordered(&self) -> HashMap<u16, u64> {
        let mut ordered = HashMap::new();
        if self.routes.some_are_gone() {
            for active in self.active.values() {
                let entry = self.entry(active.home).filter(|entry| entry.standing() == Standing::Pending);
                let Some((entry, until)) = entry.and_then(|entry| Some((entry, self.orphans_until(entry)?))) else {
                    continue;
                };
                if active.progress.since > until {
                    *ordered.entry(entry.route()).or_default() += 1;
                }
            }
        }
        ordered
    }

    /// What waits, by destination.
    pub fn lane_stats(&self) -> Vec<LaneStats> {
        self.routes.stats(self.lanes.iter().map(|lane| &lane.name), &self.ordered())
    }

    fn orphans_until(&self, entry: Entry) -> Option<UnixMillis> {
        self.routes.get(entry.route())?.orphans_until
    }
}
