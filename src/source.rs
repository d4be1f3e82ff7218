//! A Source and its Routes: the stages of one endpoint, bound together.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::combinators::BoxBody;
use ipnet::IpNet;
use prometheus_client::metrics::counter::Counter;

use crate::admit::{self, BodyLimits, Budget, Denied, Lease, Share};
use crate::base::{ByteSize, Name, UnixMillis};
use crate::deliver::{Target, Targets};
use crate::event::{Head, Proof, Received};
use crate::journal::{Claim, Entry, NewDelivery, Room};
use crate::limit::{Limits, OverLimit};
use crate::provider::{
    CompileError, HandshakeAnswer, KeyRule, Keyring, Options, Preset, Recipe, Rejection, Respond, VerifiedEvent,
};
use crate::router::Params;
use crate::telemetry::{Metrics, SourceMetrics, VerificationOutcome};

pub use crate::limit::{Per, RateLimit};
pub use crate::provider::Tolerance;

/// When a sender is asked to come again while the journal has failed: somebody has to mend it.
const FAILED_RETRY_AFTER: Duration = Duration::from_secs(30);

/// One public endpoint: what is asked of a request to it, in the words of the story in `intake`.
pub struct Source {
    settings: SourceSettings,
    recipe: Recipe,
    clients: Arc<Limits>,
    quotas: Arc<Limits>,
    unverified: Arc<Limits>,
    body: BodyLimits,
    /// Where its first route leads.
    first_target: Option<Arc<Target>>,
    share: Share,
    metrics: Arc<SourceMetrics>,
    verified: Vec<(Box<str>, Counter)>,
    rejected: Counter,
}

/// What all sources share of how bodies are read.
#[derive(Clone, Debug)]
pub struct Bodies {
    /// For a whole body.
    pub timeout: Duration,
    /// Bytes a second that it must keep up.
    pub min_rate: Option<ByteSize>,
    /// Bytes of requests held at the same time.
    pub budget: Budget,
}

impl Source {
    /// Binds a source's settings to the stages that hold them.
    ///
    /// # Errors
    /// [`CompileError`] if a secret is missing or not written as the preset says.
    pub fn new(settings: SourceSettings, bodies: &Bodies, metrics: &Metrics) -> Result<Self, CompileError> {
        let recipe = Recipe::compile(&settings.preset, &settings.keyring, &settings.options())?;
        let (clients, quotas) =
            settings.rate_limits.iter().cloned().partition(|limit: &RateLimit| limit.per == Per::ClientIp);
        let metrics = metrics.source(&settings.name);
        let slots = settings
            .keyring
            .0
            .iter()
            .flat_map(|(name, keys)| (0..keys.len()).map(move |place| format!("{name}[{place}]").into_boxed_str()));
        let counter = |slot: &str| metrics.verifications(VerificationOutcome::Verified, slot);
        Ok(Self {
            clients: Arc::new(Limits::new(clients)),
            quotas: Arc::new(Limits::new(quotas)),
            unverified: Arc::new(Limits::new(Vec::new())),
            body: BodyLimits { limit: settings.body_limit, timeout: bodies.timeout, min_rate: bodies.min_rate },
            share: bodies.budget.share(),
            verified: slots.chain([Box::from("")]).map(|slot| (slot.clone(), counter(&slot))).collect(),
            rejected: metrics.verifications(VerificationOutcome::Rejected, ""),
            first_target: None,
            metrics,
            recipe,
            settings,
        })
    }

    /// The same with the destinations that its routes name.
    #[must_use]
    pub fn leading_to(self, targets: &Targets) -> Self {
        let first = self.settings.routes.first().and_then(|route| targets.get(&route.destination));
        Self { first_target: first.cloned(), ..self }
    }

    /// The same after a config that had it, too: it goes on with its share of the budget, and what was spent of rate
    /// limits that have stayed the same stays spent.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let (clients, quotas) = if self.settings.rate_limits == before.settings.rate_limits {
            (Arc::clone(&before.clients), Arc::clone(&before.quotas))
        } else {
            (self.clients, self.quotas)
        };
        Self { clients, quotas, share: before.share.clone(), ..self }
    }

    /// Where its first route leads: in proxy mode, who answers.
    #[must_use]
    pub fn first_target(&self) -> Option<&Arc<Target>> {
        self.first_target.as_ref()
    }

    /// The same under a budget for what fails verification, which all sources share.
    #[must_use]
    pub fn with_unverified(self, unverified: Arc<Limits>) -> Self {
        Self { unverified, ..self }
    }

    /// What the config says of it.
    #[must_use]
    pub fn settings(&self) -> &SourceSettings {
        &self.settings
    }

    /// What is counted of it.
    #[must_use]
    pub fn metrics(&self) -> &SourceMetrics {
        &self.metrics
    }

    /// Whether it takes `method`, for events or for a handshake.
    #[must_use]
    pub fn takes(&self, method: &Method) -> bool {
        self.takes_events(method) || self.recipe.takes_handshake(method)
    }

    /// Whether it takes `method` for events.
    #[must_use]
    pub fn takes_events(&self, method: &Method) -> bool {
        self.settings.methods.contains(method)
    }

    /// Everything that can be said before a body is read.
    ///
    /// # Errors
    /// [`Denied`]; what comes after the client's own limit, a 415, has spent one of that, and nothing else ever has.
    pub fn admit(&self, head: &Head, room: &Room) -> Result<(), Denied> {
        match room {
            Room::Open => {}
            Room::Full { retry_after, .. } | Room::OverShare { retry_after } | Room::Stalled { retry_after } => {
                return Err(Denied::NoRoom { retry_after: *retry_after });
            }
            Room::Failed(_) => return Err(Denied::NoRoom { retry_after: FAILED_RETRY_AFTER }),
        }
        admit::check_client(head.client.ip, &self.settings.allow_ips)?;
        let ip = head.client.ip;
        self.within(self.unverified.look_client(ip).and_then(|()| self.clients.spend_client(ip)))?;
        admit::check_encoding(&head.headers)
    }

    /// Reads the body under its limits. The lease keeps the request's bytes in the budget of those in flight.
    ///
    /// # Errors
    /// [`Denied`] if it is too large, too slow, broken, or there is no budget for it.
    pub async fn read(
        &self,
        head: Head,
        params: Params,
        body: BoxBody<Bytes, hyper::Error>,
    ) -> Result<(Received, Lease), Denied> {
        let lease = self.share.take(admit::beside_the_body(&head))?;
        let (body, lease) = admit::read_body(body, &self.body, lease).await?;
        Ok((Received { head, params, body }, lease))
    }

    /// The answer to a request that is a handshake of the kind that no event's signature covers; it goes no further.
    ///
    /// # Errors
    /// [`Unproven`] by the handshake's own check.
    pub fn unsigned_handshake(
        &self,
        received: &Received,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Unproven> {
        let answer = self.prove(received.head.client.ip, || self.recipe.unsigned_handshake(received, now))?;
        if let Some(answer) = &answer {
            answer.proof.iter().for_each(|proof| self.count_verified(proof));
            self.log_handshake(answer);
        }
        Ok(answer)
    }

    /// The answer to a verified request that is a handshake and no event; it goes no further.
    #[must_use]
    pub fn signed_handshake(&self, event: &VerifiedEvent) -> Option<HandshakeAnswer> {
        let answer = event.handshake()?;
        self.log_handshake(answer);
        Some(answer.clone())
    }

    fn log_handshake(&self, answer: &HandshakeAnswer) {
        tracing::debug!(source = %self.settings.name, handshake = %answer.name, "handshake answered");
    }

    fn count_verified(&self, proof: &Proof) {
        if let Some((_, counter)) = self.verified.iter().find(|(slot, _)| *slot == proof.slot) {
            counter.inc();
        }
    }

    /// Proves that a request is genuine. One that is not spends its client's budget for that, and nothing else.
    ///
    /// # Errors
    /// [`Unproven`].
    pub fn verify(&self, received: Received, now: UnixMillis) -> Result<VerifiedEvent, Unproven> {
        let settings = &self.settings;
        let client = received.head.client.ip;
        let verify = || self.recipe.verify(&settings.name, &settings.preset.name, received, now);
        let event = self.prove(client, verify)?;
        self.count_verified(&event.event().proof);
        Ok(event)
    }

    /// Makes a check that costs the client one of its budget for forgeries where it fails.
    ///
    /// The budget is asked again right before the check: any number of requests may have passed `admit` before the first
    /// of their bodies was complete. What is under way holds none of it, so that a genuine sender may send as much at a
    /// time as it likes. Checks that run at the same instant, one a thread at most, may all have found the last one
    /// there; whoever cannot pay for its failure is then told what it would have been told a moment later.
    fn prove<T>(&self, client: IpAddr, check: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Unproven> {
        self.within(self.unverified.look_client(client))?;
        check().or_else(|rejection| {
            self.rejected.inc();
            self.within(self.unverified.spend_client(client))?;
            Err(Unproven::Rejected(rejection))
        })
    }

    /// Counts a limit that refuses.
    fn within(&self, limits: Result<(), OverLimit>) -> Result<(), OverLimit> {
        limits.inspect_err(|over| self.metrics.rate_limited(over.per))
    }

    /// Spends one of each of the source's quotas, if it has any. Only verified requests do.
    ///
    /// # Errors
    /// [`OverLimit`] if one is spent; nothing was spent of the others.
    pub fn spend_quota(&self, event: &VerifiedEvent) -> Result<(), OverLimit> {
        self.within(self.quotas.spend_event(event.event()))
    }

    /// The claim of an event on its key; none if nothing makes another request the same event.
    #[must_use]
    pub fn claim(&self, event: &VerifiedEvent) -> Option<Claim> {
        let dedupe = &self.settings.dedupe;
        event.dedupe().map(|found| Claim {
            key: found.key,
            fingerprint: found.fingerprint,
            same_body: found.same_body,
            window: dedupe.window,
            rearms: dedupe.on_dead == OnDead::Requeue,
        })
    }

    /// What is to be kept of an event: itself, its claim, and a delivery for each route.
    #[must_use]
    pub fn entry(&self, event: VerifiedEvent, claim: Option<Claim>, lease: Lease) -> Entry {
        let delivery = |route: &Route| NewDelivery {
            destination: route.destination.clone(),
            path: route.path.as_deref().map(Box::from),
        };
        let deliveries = self.settings.routes.iter().map(delivery).collect();
        Entry { claim, deliveries, event, attempt: None, relayed: None, lease: Some(lease) }
    }
}

/// Why a request is not taken for genuine.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// The check says so.
    #[error(transparent)]
    Rejected(Rejection),
    /// Its client has failed too many, so that this one was not looked at, or is one more.
    #[error(transparent)]
    TooMany(#[from] OverLimit),
}

/// What the config says of one source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name.
    pub name: Name,
    /// The path it listens on, `/…`, perhaps with `{param}` and a last `{*rest}`.
    pub path: String,
    /// The host it is for; any if none. `*.example.com` is every name one level or more below.
    pub host: Option<String>,
    /// The methods it takes.
    pub methods: Vec<Method>,
    /// The provider that sends; one whose check is `Nothing` for `verify: none`.
    pub preset: Arc<Preset>,
    /// Its secrets.
    pub keyring: Keyring,
    /// How far a signed timestamp may be from now.
    pub tolerance: Tolerance,
    /// Who answers.
    pub mode: Mode,
    /// What stands before path and query in the URL that its provider sends to, `https://host`; for those that sign it.
    pub public_url: Option<Box<str>>,
    /// From the complete head to our answer, at most.
    pub deadline: Duration,
    /// The largest body.
    pub body_limit: ByteSize,
    /// Who may send; everybody if empty.
    pub allow_ips: Vec<IpNet>,
    /// How often.
    pub rate_limits: Vec<RateLimit>,
    /// When two requests are one event.
    pub dedupe: DedupeSettings,
    /// What the sender of a stored event is told.
    pub respond: Respond,
    /// Where its events go.
    pub routes: Vec<Route>,
}

/// Who answers a source's verified requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The gateway, once the event is durable.
    Store,
    /// The application behind the first route, while it can; the gateway otherwise. There is at least one route.
    Proxy,
}

impl SourceSettings {
    /// What its recipe is compiled with beside its secrets.
    #[must_use]
    pub fn options(&self) -> Options {
        Options { tolerance: self.tolerance, dedupe: self.dedupe.key.clone(), public_url: self.public_url.clone() }
    }
}

/// When two requests are one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupeSettings {
    /// By what.
    pub key: KeyRule,
    /// For how long.
    pub window: Duration,
    /// What a duplicate does to a dead delivery of its original.
    pub on_dead: OnDead,
}

/// What a duplicate does to a dead delivery of its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDead {
    /// Tries it again: a provider's "redeliver" button reuses the id.
    Requeue,
    /// Nothing.
    Drop,
}

/// An entry of `to:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination's name.
    pub destination: Name,
    /// The path that replaces the one of the destination's URL.
    pub path: Option<String>,
}
