//! The label sets, and the families that hold a metric for each of them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::metrics::{DestinationMetrics, SourceMetrics};
use super::words::{DeliveryOutcome, DuplicateKind, LimitedPer, Reason, RequestOutcome, Word};

/// For requests and attempts, seconds.
const DURATIONS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From receipt to delivery, seconds: an outage of days is still told from one of hours.
const LAGS: [f64; 13] =
    [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0, 259_200.0];
/// For a flush of the disk, seconds.
pub(super) const SYNCS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// A counter for each word of a set.
#[derive(Debug)]
pub(super) struct Counters<W>(Box<[Counter]>, std::marker::PhantomData<W>);

impl<W: Word> Counters<W> {
    pub(super) fn resolve<L>(family: &Family<L, Counter>, labels: impl Fn(W) -> L) -> Self
    where
        L: Clone + std::hash::Hash + Eq,
    {
        let counters = W::ALL.iter().map(|word| family.get_or_create_owned(&labels(*word)));
        Self(counters.collect(), std::marker::PhantomData)
    }

    pub(super) fn of(&self, word: W) -> &Counter {
        self.0.get(word.place()).expect("there is a counter for each word")
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct WhyLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SourceLabels {
    pub(super) source: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SourceOutcomeLabels {
    pub(super) source: String,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) source: String,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) source: String,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PerLabels {
    pub(super) source: String,
    pub(super) per: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct VerificationLabels {
    pub(super) source: String,
    pub(super) outcome: &'static str,
    pub(super) slot: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DestinationLabels {
    pub(super) destination: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DestinationOutcomeLabels {
    pub(super) destination: String,
    pub(super) outcome: &'static str,
}

pub(super) type OutcomeFamily = Family<OutcomeLabels, Counter>;
pub(super) type WhyFamily = Family<WhyLabels, Counter>;
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

fn lags() -> Histogram {
    Histogram::new(LAGS)
}

pub(super) fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register_this(registry, name, help, M::default())
}

pub(super) fn register_this<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

#[derive(Debug)]
pub(super) struct SourceFamilies {
    pub(super) requests: Family<SourceOutcomeLabels, Counter>,
    pub(super) request_duration: Histograms<SourceLabels>,
    pub(super) events_stored: Family<SourceLabels, Counter>,
    pub(super) duplicates: Family<KindLabels, Counter>,
    pub(super) verifications: Family<VerificationLabels, Counter>,
    pub(super) refusals: Family<ReasonLabels, Counter>,
    pub(super) rate_limited: Family<PerLabels, Counter>,
    pub(super) unsettled: Family<SourceLabels, Gauge>,
}

impl SourceFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Histograms::new_with_constructor(durations as fn() -> Histogram);
        Self {
            requests: register(registry, "requests", "Requests answered"),
            request_duration: register_this(
                registry,
                "request_duration_seconds",
                "From the complete head of a request to its answer",
                durations,
            ),
            events_stored: register(registry, "events_stored", "Events kept"),
            duplicates: register(registry, "duplicates", "Requests that brought a known event"),
            verifications: register(registry, "verifications", "Requests checked for being genuine"),
            refusals: register(registry, "refusals", "Requests turned away"),
            rate_limited: register(registry, "rate_limited", "Requests over a rate limit"),
            unsettled: register(
                registry,
                "unsettled_bytes",
                "What events in the journal take that have a delivery that is pending, orphaned or dead",
            ),
        }
    }

    pub(super) fn resolve(&self, name: &str) -> SourceMetrics {
        let source = || name.to_owned();
        let labels = SourceLabels { source: source() };
        SourceMetrics {
            requests: Counters::resolve(&self.requests, |word: RequestOutcome| SourceOutcomeLabels {
                source: source(),
                outcome: word.as_str(),
            }),
            request_duration: self.request_duration.get_or_create_owned(&labels),
            events_stored: self.events_stored.get_or_create_owned(&labels),
            duplicates: Counters::resolve(&self.duplicates, |word: DuplicateKind| KindLabels {
                source: source(),
                kind: word.as_str(),
            }),
            refusals: Counters::resolve(&self.refusals, |word: Reason| ReasonLabels {
                source: source(),
                reason: word.as_str(),
            }),
            rate_limited: Counters::resolve(&self.rate_limited, |word: LimitedPer| PerLabels {
                source: source(),
                per: word.as_str(),
            }),
            verifications: self.verifications.clone(),
            source: source(),
        }
    }
}

#[derive(Debug)]
pub(super) struct DestinationFamilies {
    pub(super) deliveries: Family<DestinationOutcomeLabels, Counter>,
    pub(super) duration: Histograms<DestinationLabels>,
    pub(super) lag: Histograms<DestinationLabels>,
    pub(super) pending: Family<DestinationLabels, Gauge>,
    pub(super) oldest_pending: Family<DestinationLabels, Gauge<f64, AtomicU64>>,
    pub(super) orphaned: Family<DestinationLabels, Gauge>,
    pub(super) dead_letters: Family<DestinationLabels, Gauge>,
    pub(super) breaker: Family<DestinationLabels, Gauge>,
}

impl DestinationFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let duration = Histograms::new_with_constructor(durations as fn() -> Histogram);
        let lag = Histograms::new_with_constructor(lags as fn() -> Histogram);
        Self {
            deliveries: register(registry, "deliveries", "Attempts to deliver that ended"),
            duration: register_this(registry, "delivery_duration_seconds", "How long an attempt took", duration),
            lag: register_this(registry, "delivery_lag_seconds", "From receipt to delivery", lag),
            pending: register(registry, "pending_deliveries", "Deliveries that wait for an attempt"),
            oldest_pending: register(registry, "oldest_pending_seconds", "Age of the oldest pending delivery"),
            orphaned: register(
                registry,
                "orphaned_deliveries",
                "Deliveries that wait for their route to be in the config again",
            ),
            dead_letters: register(registry, "dead_letters", "Deliveries that were given up and are kept"),
            breaker: register(registry, "breaker_state", "0 closed, 1 open, 2 probing"),
        }
    }

    /// What is kept for a destination that is not in the config; nothing is shown of it once there is nothing.
    pub(super) fn set_gone(&self, name: &str, orphaned: i64, dead: i64) {
        let labels = DestinationLabels { destination: name.to_owned() };
        for (family, count) in [(&self.orphaned, orphaned), (&self.dead_letters, dead)] {
            if orphaned == 0 && dead == 0 {
                family.remove(&labels);
            } else {
                family.get_or_create_owned(&labels).set(count);
            }
        }
    }

    pub(super) fn resolve(&self, name: &str) -> DestinationMetrics {
        let labels = DestinationLabels { destination: name.to_owned() };
        DestinationMetrics {
            deliveries: Counters::resolve(&self.deliveries, |word: DeliveryOutcome| DestinationOutcomeLabels {
                destination: name.to_owned(),
                outcome: word.as_str(),
            }),
            duration: self.duration.get_or_create_owned(&labels),
            lag: self.lag.get_or_create_owned(&labels),
            pending: self.pending.get_or_create_owned(&labels),
            oldest_pending: self.oldest_pending.get_or_create_owned(&labels),
            orphaned: self.orphaned.get_or_create_owned(&labels),
            dead_letters: self.dead_letters.get_or_create_owned(&labels),
            breaker: self.breaker.get_or_create_owned(&labels),
        }
    }
}
