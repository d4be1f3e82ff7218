//! Every metric, its name and its handles.
//!
//! Handles of a source or destination are resolved once, when it is set up: counting is one atomic addition, and
//! no label value comes from a request. The library appends `_total` to a counter's name.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::families::{
    Counters, DestinationFamilies, OutcomeFamily, OutcomeLabels, SYNCS, SourceFamilies, SourceLabels,
    VerificationLabels, WhyFamily, WhyLabels, register,
};
use super::words::{
    CutOff, DeliveryOutcome, DuplicateKind, LimitedPer, Reason, ReloadOutcome, RequestOutcome, VerificationOutcome,
    Word,
};
use crate::base::Name;

/// The type of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The source label of requests that no source has; no [`Name`] can be it.
const UNKNOWN: &str = "_unknown";

/// All metrics. A handle: all clones are one registry.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    sources: SourceFamilies,
    destinations: DestinationFamilies,
    journal: JournalMetrics,
    connections: ConnectionMetrics,
    config_reloads: Counters<ReloadOutcome>,
    unknown: Arc<SourceMetrics>,
}

impl Metrics {
    /// An empty set, `version` being that of the program.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("forebay");
        let sources = SourceFamilies::register(&mut registry);
        let destinations = DestinationFamilies::register(&mut registry);
        let journal = JournalMetrics::register(&mut registry);
        let connections = ConnectionMetrics::register(&mut registry);
        let reloads = register::<OutcomeFamily>(&mut registry, "config_reloads", "Reloads of the config");
        registry.register("build", "The program that runs", Info::new(vec![("version", version)]));
        let unknown = Arc::new(sources.resolve(UNKNOWN));
        let outcome = |outcome: ReloadOutcome| OutcomeLabels { outcome: outcome.as_str() };
        let config_reloads = Counters::resolve(&reloads, outcome);
        Self(Arc::new(Inner { registry, sources, destinations, journal, connections, config_reloads, unknown }))
    }

    /// The handles of a source. Looked up: ask once, when the source is set up.
    #[must_use]
    pub fn source(&self, name: &Name) -> Arc<SourceMetrics> {
        Arc::new(self.0.sources.resolve(name.as_str()))
    }

    /// The handles for requests that no source has.
    #[must_use]
    pub fn unknown_source(&self) -> &Arc<SourceMetrics> {
        &self.0.unknown
    }

    /// The handles of a destination. Looked up: ask once, when the destination is set up.
    #[must_use]
    pub fn destination(&self, name: &Name) -> Arc<DestinationMetrics> {
        Arc::new(self.0.destinations.resolve(name.as_str()))
    }

    /// Events of `source` that are not settled take so many bytes of the journal. Zero is not shown.
    pub fn set_unsettled(&self, source: &Name, bytes: u64) {
        let (family, labels) = (&self.0.sources.unsettled, SourceLabels { source: source.to_string() });
        if bytes == 0 {
            family.remove(&labels);
        } else {
            family.get_or_create_owned(&labels).set(whole(bytes));
        }
    }

    /// So many deliveries are kept for `destination`, which is not in the config: orphaned ones, and dead ones. Those that
    /// have none are not shown, so that there are no more labels than destinations somebody once wrote down.
    pub fn set_gone(&self, destination: &Name, orphaned: u64, dead: u64) {
        self.0.destinations.set_gone(destination.as_str(), whole(orphaned), whole(dead));
    }

    /// The journal's handles.
    #[must_use]
    pub fn journal(&self) -> &JournalMetrics {
        &self.0.journal
    }

    /// The handles for connections of the public side.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.0.connections
    }

    /// Counts a reload of the config.
    pub fn reloaded(&self, outcome: ReloadOutcome) {
        self.0.config_reloads.of(outcome).inc();
    }

    /// All metrics as OpenMetrics text ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail; if a metric's own encoder ever did, half a page is no page.
        if encode(&mut text, &self.0.registry).is_err() { "# EOF\n".to_owned() } else { text }
    }
}

/// What is counted of one source.
#[derive(Debug)]
pub struct SourceMetrics {
    pub(super) requests: Counters<RequestOutcome>,
    pub(super) request_duration: Histogram,
    pub(super) events_stored: Counter,
    pub(super) duplicates: Counters<DuplicateKind>,
    pub(super) refusals: Counters<Reason>,
    pub(super) rate_limited: Counters<LimitedPer>,
    pub(super) verifications: Family<VerificationLabels, Counter>,
    pub(super) source: String,
}

impl SourceMetrics {
    /// A request was answered `took` after its head was complete.
    pub fn answered(&self, outcome: RequestOutcome, took: Duration) {
        self.requests.of(outcome).inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// An event was kept.
    pub fn stored(&self) {
        self.events_stored.inc();
    }

    /// A duplicate came.
    pub fn duplicate(&self, kind: DuplicateKind) {
        self.duplicates.of(kind).inc();
    }

    /// A request was turned away.
    pub fn refused(&self, reason: Reason) {
        self.refusals.of(reason).inc();
    }

    /// A request was over a limit.
    pub fn rate_limited(&self, per: LimitedPer) {
        self.rate_limited.of(per).inc();
    }

    /// The counter of verifications by the secret `slot`, which comes from the config; empty where none matched.
    /// Looked up: ask once for each slot, when the source is set up.
    #[must_use]
    pub fn verifications(&self, outcome: VerificationOutcome, slot: &str) -> Counter {
        let labels =
            VerificationLabels { source: self.source.clone(), outcome: outcome.as_str(), slot: slot.to_owned() };
        self.verifications.get_or_create_owned(&labels)
    }
}

/// What is counted of one destination.
#[derive(Debug)]
pub struct DestinationMetrics {
    pub(super) deliveries: Counters<DeliveryOutcome>,
    pub(super) duration: Histogram,
    pub(super) lag: Histogram,
    pub(super) pending: Gauge,
    pub(super) oldest_pending: Gauge<f64, AtomicU64>,
    pub(super) orphaned: Gauge,
    pub(super) dead_letters: Gauge,
    pub(super) breaker: Gauge,
}

/// How a destination's breaker stands, as `forebay_breaker_state` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// 0: attempts are made.
    Closed,
    /// 1: none are made.
    Open,
    /// 2: one is made, to see.
    Probing,
}

impl BreakerState {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Probing => "probing",
        }
    }
}

impl DestinationMetrics {
    /// An attempt ended after `took`.
    pub fn attempted(&self, outcome: DeliveryOutcome, took: Duration) {
        self.deliveries.of(outcome).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// An event was delivered, `lag` after it was received.
    pub fn delivered_after(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// So many deliveries are pending.
    pub fn set_pending(&self, deliveries: u64) {
        self.pending.set(whole(deliveries));
    }

    /// So many deliveries wait for their route.
    pub fn set_orphaned(&self, deliveries: u64) {
        self.orphaned.set(whole(deliveries));
    }

    /// The oldest pending delivery has waited so long; zero if there are none.
    pub fn set_oldest_pending(&self, age: Duration) {
        self.oldest_pending.set(age.as_secs_f64());
    }

    /// So many deliveries are dead.
    pub fn set_dead_letters(&self, deliveries: u64) {
        self.dead_letters.set(whole(deliveries));
    }

    /// The breaker now stands so.
    pub fn set_breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::Probing => 2,
        });
    }
}

/// What is counted of the public side's connections.
#[derive(Debug)]
pub struct ConnectionMetrics {
    open: Gauge,
    cut_off: Counters<CutOff>,
}

impl ConnectionMetrics {
    fn register(registry: &mut Registry) -> Self {
        let open = register(registry, "connections", "Connections of the public side that are open");
        let help = "Connections that the public side ended by itself";
        let cut_off = register::<WhyFamily>(registry, "connections_cut_off", help);
        let cut_off = Counters::resolve(&cut_off, |why: CutOff| WhyLabels { reason: why.as_str() });
        Self { open, cut_off }
    }

    /// So many are open.
    pub fn set_open(&self, connections: usize) {
        self.open.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// One was ended, by us.
    pub fn cut_off(&self, why: CutOff) {
        self.cut_off.of(why).inc();
    }
}

/// What is counted of the journal.
#[derive(Debug)]
pub struct JournalMetrics {
    bytes: Gauge,
    share: Gauge,
    sync: Histogram,
    history_evicted: Counter,
    erased: Counter,
    purged: Counter,
    damaged: Counter,
}

impl JournalMetrics {
    fn register(registry: &mut Registry) -> Self {
        let sync = Histogram::new(SYNCS);
        registry.register("journal_sync_seconds", "How long a flush of the journal took", sync.clone());
        Self {
            bytes: register(registry, "journal_bytes", "Bytes the journal takes on disk"),
            share: register(registry, "journal_share_bytes", "What unsettled events of one source may take now"),
            sync,
            history_evicted: register(registry, "history_evicted", "Settled events let go early to make room"),
            erased: register(registry, "events_erased", "Events that an operator has erased"),
            purged: register(registry, "deliveries_purged", "Deliveries that ended as their event was erased"),
            damaged: register(registry, "journal_damaged", "Stretches of the log found damaged, by whoever read them"),
        }
    }

    /// The journal takes so many bytes on disk.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.set(whole(bytes));
    }

    /// Unsettled events of one source may take so many bytes now.
    pub fn set_share(&self, bytes: u64) {
        self.share.set(whole(bytes));
    }

    /// An event was erased, and so many deliveries with it that waited or were dead.
    pub fn erased(&self, purged: u64) {
        self.erased.inc();
        self.purged.inc_by(purged);
    }

    /// A flush took so long.
    pub fn synced(&self, took: Duration) {
        self.sync.observe(took.as_secs_f64());
    }

    /// A stretch of the log was found damaged.
    pub fn damaged(&self) {
        self.damaged.inc();
    }

    /// So many settled events were let go before their time, to make room.
    pub fn evicted(&self, events: u64) {
        self.history_evicted.inc_by(events);
    }
}

/// A gauge's value.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything_once() -> Metrics {
        let metrics = Metrics::new("1.2.3");
        let source = metrics.source(&Name::new("acme").unwrap());
        source.answered(RequestOutcome::Stored, Duration::from_millis(3));
        source.stored();
        source.duplicate(DuplicateKind::Conflict);
        source.refused(Reason::Unverified);
        source.rate_limited(LimitedPer::ClientIp);
        source.verifications(VerificationOutcome::Verified, "secret[0]").inc();
        metrics.unknown_source().refused(Reason::NoRoute);
        let destination = metrics.destination(&Name::new("app").unwrap());
        destination.attempted(DeliveryOutcome::Delivered, Duration::from_millis(20));
        destination.delivered_after(Duration::from_secs(2));
        destination.set_pending(7);
        destination.set_oldest_pending(Duration::from_millis(1500));
        destination.set_orphaned(4);
        destination.set_dead_letters(2);
        destination.set_breaker(BreakerState::Open);
        metrics.set_unsettled(&Name::new("acme").unwrap(), 700);
        metrics.journal().set_bytes(4096);
        metrics.journal().set_share(2048);
        metrics.journal().synced(Duration::from_micros(200));
        metrics.journal().evicted(5);
        metrics.journal().erased(3);
        metrics.reloaded(ReloadOutcome::Rejected);
        metrics.connections().set_open(3);
        metrics.connections().cut_off(CutOff::PerClient);
        metrics
    }

    #[test]
    fn the_exposed_names_and_labels_are_the_documented_ones() {
        let text = everything_once().render();
        for line in [
            r#"forebay_requests_total{source="acme",outcome="stored"} 1"#,
            r#"forebay_request_duration_seconds_count{source="acme"} 1"#,
            r#"forebay_events_stored_total{source="acme"} 1"#,
            r#"forebay_duplicates_total{source="acme",kind="conflict"} 1"#,
            r#"forebay_verifications_total{source="acme",outcome="verified",slot="secret[0]"} 1"#,
            r#"forebay_refusals_total{source="acme",reason="unverified"} 1"#,
            r#"forebay_refusals_total{source="_unknown",reason="no_route"} 1"#,
            r#"forebay_rate_limited_total{source="acme",per="client_ip"} 1"#,
            r#"forebay_deliveries_total{destination="app",outcome="delivered"} 1"#,
            r#"forebay_delivery_duration_seconds_count{destination="app"} 1"#,
            r#"forebay_delivery_lag_seconds_sum{destination="app"} 2.0"#,
            r#"forebay_pending_deliveries{destination="app"} 7"#,
            r#"forebay_oldest_pending_seconds{destination="app"} 1.5"#,
            r#"forebay_orphaned_deliveries{destination="app"} 4"#,
            r#"forebay_dead_letters{destination="app"} 2"#,
            r#"forebay_breaker_state{destination="app"} 1"#,
            r#"forebay_unsettled_bytes{source="acme"} 700"#,
            r#"forebay_journal_bytes 4096"#,
            r#"forebay_journal_share_bytes 2048"#,
            r#"forebay_journal_sync_seconds_count 1"#,
            r#"forebay_history_evicted_total 5"#,
            "forebay_events_erased_total 1",
            "forebay_deliveries_purged_total 3",
            r#"forebay_config_reloads_total{outcome="rejected"} 1"#,
            r#"forebay_connections 3"#,
            r#"forebay_connections_cut_off_total{reason="per_client"} 1"#,
            r#"forebay_build_info{version="1.2.3"} 1"#,
        ] {
            assert!(text.lines().any(|have| have == line), "missing {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_destination_that_is_gone_is_shown_as_long_as_something_is_kept_for_it() {
        let (metrics, name) = (Metrics::new("1"), Name::new("old").unwrap());
        metrics.set_gone(&name, 3, 0);
        let text = metrics.render();
        assert!(text.contains("forebay_orphaned_deliveries{destination=\"old\"} 3\n"), "{text}");
        assert!(text.contains("forebay_dead_letters{destination=\"old\"} 0\n"), "{text}");
        metrics.set_gone(&name, 0, 0);
        assert!(!metrics.render().contains("old"));
    }

    #[test]
    fn a_source_asked_for_twice_is_one_series() {
        let metrics = Metrics::new("1");
        let name = Name::new("acme").unwrap();
        metrics.source(&name).stored();
        metrics.source(&name).stored();
        assert!(metrics.render().contains("forebay_events_stored_total{source=\"acme\"} 2\n"));
    }

    #[test]
    fn a_counter_is_there_before_it_counts() {
        let metrics = Metrics::new("1");
        let _source = metrics.source(&Name::new("acme").unwrap());
        assert!(metrics.render().contains(r#"forebay_refusals_total{source="acme",reason="too_slow"} 0"#));
    }
}
