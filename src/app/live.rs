//! The parts of a running gateway that go by the config, and the config they go by.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::descriptors;
use super::endpoints::Endpoints;
use crate::admin::{self, ConfigProblem};
use crate::base::{Chain, Name};
use crate::config::{Config, presets};
use crate::deliver::Targets;
use crate::ingress::{Bound, Edge};
use crate::intake::Intake;
use crate::journal::log::{self, LogJournal};
use crate::journal::{Journal, Pause, Retention, Routes};
use crate::provider::Place;
use crate::telemetry::{Metrics, logs};

/// The parts of a running gateway that go by the config, and the config they go by.
pub(super) struct Live {
    config: Config,
    endpoints: Endpoints,
    parts: Parts,
}

/// What a config is put in force in.
pub(super) struct Parts {
    pub(super) bound: Bound,
    pub(super) edge: Arc<Edge>,
    pub(super) intake: Arc<Intake<LogJournal>>,
    pub(super) admin: Arc<ArcSwap<admin::Present>>,
    pub(super) targets: watch::Sender<Arc<Targets>>,
    pub(super) secret_places: Arc<ArcSwap<SecretPlaces>>,
    pub(super) retention: watch::Sender<Retention>,
    pub(super) grace: watch::Sender<Duration>,
    pub(super) log: logs::Level,
    pub(super) metrics: Metrics,
}

impl Live {
    /// `endpoints` and `parts` go by `config`.
    pub(super) fn new(config: Config, endpoints: Endpoints, parts: Parts) -> Self {
        Self { config, endpoints, parts }
    }

    /// The config in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Puts `config` in force, or says why that cannot be; then nothing has changed.
    pub(super) async fn change(&mut self, mut config: Config) -> Result<(), Vec<ConfigProblem>> {
        let fixed = self.fixed(&config);
        if !fixed.is_empty() {
            return Err(fixed);
        }
        let encryption = &config.journal.encryption;
        log::lacks(self.parts.intake.journal.locked_to(encryption), encryption)
            .map_err(|error| vec![problem("journal.encryption_key", error.to_string())])?;
        descriptors::fit(&mut config);
        let parts = &mut self.parts;
        let endpoints = self.endpoints.next(&self.config, &config, &parts.metrics);
        let mut endpoints = endpoints.map_err(|error| vec![unusable("", &error)])?;
        let before = parts.bound.addresses();
        let addresses = parts.bound.change(&config.ingress);
        let addresses = addresses.map_err(|error| vec![unusable("ingress.listen", &error)])?;

        // From here on nothing fails.
        if addresses != before {
            let public: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            tracing::info!(ingress = public.join(","), "the public side listens elsewhere");
        }
        parts.edge.change(&config.ingress);
        endpoints.budget.resize(config.ingress.limits.in_flight_bytes);
        for name in parts.intake.journal.paused() {
            let target = endpoints.targets.get(&name);
            if let Some(target) = target.filter(|target| target.pause() != Pause::Paused) {
                target.set_pause(Pause::Paused); // it was paused under a config of before, and has come back
            }
        }
        endpoints.put_in_force(|endpoints| {
            parts.intake.router.store(Arc::clone(&endpoints.router));
            parts.secret_places.store(Arc::new(SecretPlaces::of(endpoints)));
            parts.admin.store(Arc::new(present(&config, endpoints)));
            parts.targets.send_replace(Arc::clone(&endpoints.targets));
        });
        if let Err(error) = parts.log.change(&config.log.level) {
            tracing::error!(%error, "the log level stays as it was"); // `config` has read it: it is one
        }
        if config.journal.max_size != self.config.journal.max_size
            && let Err(error) = parts.intake.journal.resize(config.journal.max_size).await
        {
            tracing::error!(%error, "history could not be let go of; journal.max_size holds all the same");
        }
        if config.journal.encryption != self.config.journal.encryption
            && let Err(error) = parts.intake.journal.set_encryption(&config.journal.encryption).await
        {
            tracing::error!(%error, "no segment could be begun for the new key; it is tried again, what is new is sealed as before");
        }
        parts.retention.send_replace(config.journal.retention);
        parts.grace.send_replace(config.shutdown_grace);
        follow_routes(&parts.intake.journal, &config).await;
        (self.config, self.endpoints) = (config, endpoints);
        Ok(())
    }

    /// What cannot change while the gateway runs, and yet is different in `config`.
    pub(super) fn fixed(&self, config: &Config) -> Vec<ConfigProblem> {
        let now = &self.config;
        let checks = [
            ("admin.listen", now.admin.listen == config.admin.listen),
            ("journal.dir", now.journal.dir == config.journal.dir),
            ("log.format", now.log.format == config.log.format),
        ];
        checks.into_iter().filter(|(_, same)| !same).map(|(path, _)| needs_restart(path)).collect()
    }
}

fn needs_restart(path: &str) -> ConfigProblem {
    problem(path, "cannot change while the gateway runs; restart it, or write what it was".to_owned())
}

fn unusable(path: &str, error: &dyn Error) -> ConfigProblem {
    problem(path, Chain(error).to_string())
}

fn problem(path: &str, message: String) -> ConfigProblem {
    ConfigProblem {
        severity: "error".to_owned(),
        file: String::new(),
        line: 0,
        column: 0,
        path: path.to_owned(),
        message,
    }
}

/// What the private side has of a config.
pub(super) fn present(config: &Config, endpoints: &Endpoints) -> admin::Present {
    admin::Present {
        access: admin::Access::new(&config.admin),
        sources: config.sources.iter().map(admin::Source::from).collect(),
        targets: Arc::clone(&endpoints.targets),
    }
}

/// What is secret in a request of a source, by the source's preset; by the provider's, for events of a source
/// that is no longer in the config, or had another provider.
pub(super) struct SecretPlaces {
    /// By the source's name: its preset's, and that preset's name.
    sources: HashMap<Name, (Name, Vec<Place>)>,
}

/// Of the presets that are compiled in, whatever the config says.
static BUILT_IN: LazyLock<HashMap<Name, Vec<Place>>> = LazyLock::new(|| {
    let built_in = presets::built_in().unwrap_or_default(); // a test holds that they are sound
    built_in.into_iter().map(|preset| (preset.name.clone(), preset.secret_places())).collect()
});

impl SecretPlaces {
    pub(super) fn of(endpoints: &Endpoints) -> Self {
        let sources = endpoints.sources.iter().map(|source| {
            let settings = source.settings();
            let preset = &settings.preset;
            (settings.name.clone(), (preset.name.clone(), preset.secret_places()))
        });
        Self { sources: sources.collect() }
    }

    pub(super) fn get(&self, source: &Name, provider: &Name) -> Option<Vec<Place>> {
        let own = self.sources.get(source).filter(|(preset, _)| preset == provider).map(|(_, places)| places);
        own.or_else(|| BUILT_IN.get(provider)).cloned()
    }
}

/// Tells the journal which routes there are, and says what is kept for those that are gone. Call it whenever the config has
/// changed, after what takes events has been told.
pub(super) async fn follow_routes(journal: &LogJournal, config: &Config) {
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
