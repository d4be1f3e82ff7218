//! The sources and destinations of one config: made whole before anything of it is in force.

use std::collections::HashMap;
use std::sync::Arc;

use crate::admit::Budget;
use crate::base::Name;
use crate::config::Config;
use crate::deliver::{Destination, Target, Targets, Way};
use crate::journal::Pause;
use crate::limit::Limits;
use crate::router::Router;
use crate::source::{Bodies, Source, SourceSettings};
use crate::telemetry::Metrics;

use super::StartError;

/// The sources and destinations of one config.
pub(super) struct Endpoints {
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) router: Arc<Router<Arc<Source>>>,
    pub(super) targets: Arc<Targets>,
    /// Every destination that there ever was, by name. One that leaves the config keeps its target: attempts may be
    /// under way, and its lane's owner waits for it to come back.
    known: HashMap<Name, Arc<Target>>,
    /// What has yet to be done to be in force: the new ways of destinations that there were before.
    ways: Vec<(Arc<Target>, Way)>,
    /// One for all configs: [`Budget::resize`] changes it.
    pub(super) budget: Budget,
    unverified: Arc<Limits>,
}

impl Endpoints {
    /// Those of the first config.
    ///
    /// # Errors
    /// [`StartError`] for the first that cannot be made.
    pub(super) fn first(config: &Config, metrics: &Metrics) -> Result<Self, StartError> {
        let limits = &config.ingress.limits;
        let none = Self {
            sources: Vec::new(),
            router: Arc::new(Router::new([])?),
            targets: Arc::default(),
            known: HashMap::new(),
            ways: Vec::new(),
            budget: Budget::new(limits.in_flight_bytes),
            unverified: Arc::new(Limits::new(limits.unverified.iter().cloned().collect())),
        };
        none.next(config, config, metrics)
    }

    /// Those of `config`, which comes after the config `before`. Nothing of them is in force yet.
    ///
    /// # Errors
    /// [`StartError`] for the first that cannot be made; nothing has changed.
    pub(super) fn next(&self, before: &Config, config: &Config, metrics: &Metrics) -> Result<Self, StartError> {
        let (old, limits) = (&before.ingress.limits, &config.ingress.limits);
        let unverified = if old.unverified == limits.unverified {
            Arc::clone(&self.unverified)
        } else {
            Arc::new(Limits::new(limits.unverified.iter().cloned().collect()))
        };
        let (mut known, mut ways) = (self.known.clone(), Vec::new());
        let targets = config.destinations.iter().map(|destination| {
            let name = &destination.name;
            let Some(target) = known.get(name) else {
                let target = Arc::new(Target::new(way(destination)?, metrics.destination(name), Pause::Resumed));
                known.insert(name.clone(), Arc::clone(&target));
                return Ok(target);
            };
            let unchanged = self.targets.get(name).is_some() && target.way().destination == *destination;
            if !unchanged {
                ways.push((Arc::clone(target), way(destination)?));
            }
            Ok(Arc::clone(target))
        });
        let targets: Targets = targets.collect::<Result<Vec<_>, StartError>>()?.into_iter().collect();

        let bodies =
            Bodies { timeout: limits.body_timeout, min_rate: limits.body_min_rate, budget: self.budget.clone() };
        let earlier: HashMap<&Name, &Arc<Source>> =
            self.sources.iter().map(|source| (&source.settings().name, source)).collect();
        let source = |settings: &SourceSettings| {
            let made = Source::new(settings.clone(), &bodies, metrics)
                .map_err(|error| StartError::Source { source_name: settings.name.clone(), error })?
                .with_unverified(Arc::clone(&unverified))
                .leading_to(&targets);
            Ok(Arc::new(match earlier.get(&settings.name) {
                Some(before) => made.after(before),
                None => made,
            }))
        };
        let sources = config.sources.iter().map(source).collect::<Result<Vec<_>, StartError>>()?;
        let routes = sources.iter().map(|source| {
            let settings = source.settings();
            (settings.host.clone(), settings.path.clone(), Arc::clone(source))
        });
        let router = Arc::new(Router::new(routes)?);
        Ok(Self { router, targets: Arc::new(targets), sources, known, ways, budget: self.budget.clone(), unverified })
    }

    /// Puts them in force: what stays from one config to the next is brought in line with this one, before and after
    /// `swap` puts the rest in its place. Cannot fail.
    pub(super) fn put_in_force(&mut self, swap: impl FnOnce(&Self)) {
        for (target, way) in self.ways.drain(..) {
            target.go(way);
        }
        swap(self);
        for (name, target) in &self.known {
            if self.targets.get(name).is_none() {
                target.leave_alone();
            }
        }
    }
}

fn way(destination: &Destination) -> Result<Way, StartError> {
    Way::new(destination.clone())
        .map_err(|error| StartError::Destination { destination: destination.name.clone(), error })
}
