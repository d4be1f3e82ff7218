//! What all connections of the public side share: its rules, which a reload replaces, its places and what it counts.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::connection::Protocols;
use super::places::Places;
use super::{Limits, Settings};
use crate::base::{Clock, Rate, Tasks};
use crate::limit::{ClientKey, Limiter};
use crate::router::Router;
use crate::telemetry::{CutOff, Metrics, Reason, Word};

/// This machine itself: whatever stands in front of the gateway here speaks for many.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// What all workers of the public side share.
pub struct Edge {
    rules: ArcSwap<Rules>,
    tasks: Tasks,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) refusal_log: Sample<Reason>,
    cut_off_log: Sample<CutOff>,
    /// Whose connections are not counted by client, beside those of trusted proxies.
    exempt: Vec<IpNet>,
    pub(super) places: Arc<Places>,
}

/// What the settings say. A connection keeps to the rules it began with in what they say of connections, a request in
/// what they say of requests.
pub(super) struct Rules {
    pub(super) limits: Limits,
    pub(super) health_path: Option<String>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) secret_paths: Vec<Router<()>>,
    pub(super) protocols: Protocols,
}

impl Rules {
    fn of(settings: &Settings, tasks: &Tasks) -> Self {
        let Settings { limits, health_path, trusted_proxies, secret_paths, .. } = settings.clone();
        // A table each: the same path on two hosts would clash in one, and the host makes no difference here.
        let table = |path| Router::new([(None, path, ())]).ok();
        let secret_paths = secret_paths.into_iter().filter_map(table).collect();
        let protocols = Protocols::new(&limits, tasks);
        Self { limits, health_path, trusted_proxies, secret_paths, protocols }
    }
}

impl Edge {
    /// As `settings` say, with no connections yet; what they do besides runs in `tasks`. Make one, and give it to every
    /// [`serve`](super::serve()).
    #[must_use]
    pub fn new(settings: &Settings, tasks: &Tasks, clock: Arc<dyn Clock>, metrics: Metrics) -> Arc<Self> {
        Self::exempting(&LOOPBACK, settings, tasks, clock, metrics)
    }

    /// The same with these networks, beside the trusted proxies, in place of loopback.
    pub(super) fn exempting(
        networks: &[IpNet],
        settings: &Settings,
        tasks: &Tasks,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let rules = Rules::of(settings, tasks);
        let places = Places::new(rules.limits.connections, rules.limits.per_client, metrics.clone());
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            tasks: tasks.clone(),
            clock,
            metrics,
            refusal_log: Sample::new(),
            cut_off_log: Sample::new(),
            exempt: networks.to_vec(),
            places,
        })
    }

    /// Goes by `settings` from now on: connections that begin, and requests. Where it listens is
    /// [`Bound`](super::Bound)'s.
    pub fn change(&self, settings: &Settings) {
        let rules = Rules::of(settings, &self.tasks);
        self.places.resize(rules.limits.connections, rules.limits.per_client);
        self.rules.store(Arc::new(rules));
    }

    /// The rules that hold now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Whose connections a new one from `peer` counts among; nobody's, if they come from this machine or from a proxy
    /// that speaks for many.
    pub(super) fn counts_as(&self, peer: IpAddr) -> Option<ClientKey> {
        let (peer, rules) = (peer.to_canonical(), self.rules.load());
        let mut exempt = self.exempt.iter().chain(&rules.trusted_proxies);
        if exempt.any(|network| network.contains(&peer)) { None } else { Some(ClientKey::of(peer)) }
    }

    /// A client has more connections than its share: the one at `peer` goes.
    pub(super) fn turn_away(&self, peer: IpAddr) {
        self.metrics.connections().cut_off(CutOff::PerClient);
        if self.cut_off_log.admits(CutOff::PerClient) {
            let limit = self.rules.load().limits.per_client;
            tracing::info!(client = %peer, limit, "a client has too many connections; the next one is closed");
        }
    }
}

/// Which of the events with a word are logged: of a flood a sample. The counters count them all.
pub(super) struct Sample<W>(Vec<Limiter>, PhantomData<W>);

impl<W: Word> Sample<W> {
    /// A second, for each word.
    const LINES: u32 = 100;

    fn new() -> Self {
        let rate = Rate { count: Self::LINES, per: Duration::from_secs(1) };
        Self(W::ALL.iter().map(|_| Limiter::new(rate, Self::LINES)).collect(), PhantomData)
    }

    pub(super) fn admits(&self, word: W) -> bool {
        self.0.get(word.place()).is_some_and(|limiter| limiter.try_take().is_ok())
    }
}
