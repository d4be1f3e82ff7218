//! The preset language, as types: what one provider's YAML file says (docs/presets.md).
//!
//! A preset is data. `config` reads it from YAML into these types; [`super::Recipe`] compiles it,
//! together with a source's secrets, into something that verifies a request.

mod handshake;

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::{Check, FirstOf, Place};
use crate::base::Name;

pub use handshake::{
    AnswerPiece, AnswerText, ComputedHmac, Handshake, HandshakeBody, HandshakeRespond, JsonAnswer, ProvenBy, When,
};

/// What one provider's file says.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Its name: the file's name, kebab-case.
    pub name: Name,
    /// The provider's name as people write it.
    pub title: String,
    /// Where the provider documents its webhooks.
    pub docs: String,
    /// Other names it is found under.
    pub aliases: Vec<Name>,
    /// The secrets it needs, by name. One called `secret` for most.
    pub secrets: Vec<SecretSlot>,
    /// The methods it sends with.
    pub methods: Vec<Method>,
    /// What must hold for a request to be genuine.
    pub verify: Check,
    /// The provider's checks of the endpoint, the first that matches counts.
    pub handshakes: Vec<Handshake>,
    /// Where an event's facts are.
    pub event: EventFacts,
    /// What the provider wants to hear, and by when.
    pub answer: AnswerFacts,
    /// How the provider retries.
    pub retries: RetryFacts,
    /// The networks that the provider says it sends from; none if it says nothing, or advises against it.
    pub ips: Vec<IpNet>,
    /// What else is secret in a request, besides the configured secrets.
    pub redact: Vec<Place>,
    /// A request as the provider would send it, for `forebay send`.
    pub sample: Option<Sample>,
}

impl Preset {
    /// The preset of a source that says `verify: none`: everything passes, and nothing tells one event from another.
    ///
    /// # Panics
    /// Never: `none` is a name.
    #[must_use]
    pub fn none() -> Self {
        Self {
            name: Name::new("none").expect("`none` is a name"),
            title: "No verification".into(),
            docs: String::new(),
            aliases: Vec::new(),
            secrets: Vec::new(),
            methods: vec![Method::POST],
            verify: Check::Nothing,
            handshakes: Vec::new(),
            event: EventFacts { dedupe: Some(KeyRule::Off), ..EventFacts::default() },
            answer: AnswerFacts::default(),
            retries: RetryFacts { after_429: true, ..RetryFacts::default() },
            ips: Vec::new(),
            redact: Vec::new(),
            sample: None,
        }
    }
}

impl Preset {
    /// What is secret in a request: what the preset lists, and every place that carries a secret as it is.
    #[must_use]
    pub fn secret_places(&self) -> Vec<Place> {
        let carried = self.checks().flat_map(Check::leaves).filter_map(|check| match check {
            Check::Token(token) => Some(token.from.clone()),
            Check::Basic(_) => Some(Place::Header(AUTHORIZATION)),
            _ => None,
        });
        self.redact.iter().cloned().chain(carried).collect()
    }

    /// What is checked of a request: `verify`, and the handshakes' own checks.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        std::iter::once(&self.verify).chain(self.handshakes.iter().filter_map(Handshake::check))
    }

    /// The secrets that something uses, some of them more than once.
    pub fn used_slots(&self) -> impl Iterator<Item = &str> {
        let computed = self.handshakes.iter().flat_map(|handshake| &handshake.compute);
        let checked = self.checks().flat_map(Check::leaves).flat_map(Check::slots);
        checked.chain(computed.map(|(_, hmac)| hmac.secret.as_str()))
    }

    /// The slot that a source's `secret: X` fills: the only one that is required; where none is, the first.
    #[must_use]
    pub fn main_slot(&self) -> Option<&SecretSlot> {
        let mut required = self.secrets.iter().filter(|slot| !slot.optional);
        match (required.next(), required.next()) {
            (None, _) => self.secrets.first(),
            (Some(only), None) => Some(only),
            (Some(_), Some(_)) => None,
        }
    }
}

/// A secret that a preset needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSlot {
    /// What the config calls it.
    pub name: String,
    /// Where a person finds it at the provider.
    pub hint: Option<String>,
    /// Whether a source may leave it out: the checks that need it then do not count among those of an `any`.
    pub optional: bool,
}

/// Where an event's facts are.
#[derive(Clone, Debug, Default)]
pub struct EventFacts {
    /// The provider's id for the event.
    pub id: Option<FirstOf>,
    /// What the event is about.
    pub kind: Option<FirstOf>,
    /// What makes two requests the same event; the id where it is not said.
    pub dedupe: Option<KeyRule>,
}

impl EventFacts {
    /// What makes two requests the same event where the source does not say: `dedupe`, else the id,
    /// else the signed bytes.
    #[must_use]
    pub fn key_rule(&self) -> KeyRule {
        match (&self.dedupe, &self.id) {
            (Some(rule), _) => rule.clone(),
            (None, Some(id)) => KeyRule::Parts(vec![id.clone()]),
            (None, None) => KeyRule::Signed,
        }
    }
}

/// What makes two requests of one source the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// All of these together. Where one is missing, [`KeyRule::Signed`] applies.
    Parts(Vec<FirstOf>),
    /// The digest of the signed bytes.
    Signed,
    /// The digest of the body alone, which must be signed: for a provider that signs a retry's time anew and has no id.
    Body,
    /// Nothing does.
    Off,
}

/// What the provider wants to hear.
#[derive(Clone, Debug, Default)]
pub struct AnswerFacts {
    /// How long the provider waits for an answer.
    pub within: Option<Duration>,
    /// The answer to a stored event, where the usual one does not suit.
    pub respond: Option<Respond>,
    /// The statuses that it takes for success; none is every 2xx.
    pub success: Vec<u16>,
    /// The statuses by which it ends the subscription.
    pub ends_on: Vec<u16>,
}

impl AnswerFacts {
    /// Whether `status` tells the provider that its event has been taken.
    #[must_use]
    pub fn is_success(&self, status: u16) -> bool {
        if self.success.is_empty() { (200..=299).contains(&status) } else { self.success.contains(&status) }
    }
}

/// The answer to a stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The status, 200 to 299.
    pub status: u16,
    /// The body; `{"id":"evt_…"}` where nothing is said.
    pub body: Option<String>,
    /// The body's type.
    pub content_type: HeaderValue,
}

/// How the provider retries.
#[derive(Clone, Debug, Default)]
pub struct RetryFacts {
    /// For how long after the first try the same event may come again, redelivery by hand included.
    pub horizon: Option<Duration>,
    /// Whether the provider sends again after a 429.
    pub after_429: bool,
    /// Anything a reader should know, in a sentence.
    pub note: Option<String>,
}

/// A request as the provider would send it. `{id}` in it becomes a fresh id.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Headers beside the signature's own.
    pub headers: Vec<(HeaderName, String)>,
    /// The body.
    pub body: String,
}
