//! A preset and a source's secrets, compiled: what verifies a request, and what signs one.

use std::str;

use http::{HeaderName, HeaderValue, Method};

use super::check::Test;
use super::dedupe::{Dedupe, dedupe};
use super::facts::{Choice, Facts, Found};
use super::handshake::{HandshakeAnswer, Handshakes};
use super::request::Request;
use super::{CompileError, KeyRule, Keyring, Preset, Rejection, SignError, Tolerance};
use crate::base::{Name, UnixMillis};
use crate::event::{Event, EventId, Headers, Proof, Received};

/// A preset and a source's secrets, compiled. Nothing of a preset is parsed after this.
#[derive(Debug)]
pub struct Recipe {
    test: Test,
    facts: Facts,
    handshakes: Handshakes,
}

/// What a source says beside its secrets.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far a signed timestamp may be from now.
    pub tolerance: Tolerance,
    /// What makes two requests the same event; [`super::EventFacts::key_rule`] is the preset's own.
    pub dedupe: KeyRule,
}

/// An event whose request was verified. Nothing but verification makes one.
#[derive(Debug)]
pub struct VerifiedEvent {
    event: Event,
    dedupe: Option<Dedupe>,
    handshake: Option<Box<HandshakeAnswer>>,
}

impl VerifiedEvent {
    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// What makes another request the same event; none if nothing does.
    #[must_use]
    pub fn dedupe(&self) -> Option<&Dedupe> {
        self.dedupe.as_ref()
    }

    /// The answer, where it is no event but a handshake that was signed like one.
    #[must_use]
    pub fn handshake(&self) -> Option<&HandshakeAnswer> {
        self.handshake.as_deref()
    }

    /// Both, for whoever keeps them apart.
    #[must_use]
    pub fn into_parts(self) -> (Event, Option<Dedupe>) {
        (self.event, self.dedupe)
    }
}

#[cfg(test)]
impl VerifiedEvent {
    /// An event that a test takes for verified.
    pub fn assumed(event: Event) -> Self {
        Self { event, dedupe: None, handshake: None }
    }
}

impl Recipe {
    /// Compiles `preset` with the secrets it needs.
    ///
    /// # Errors
    /// [`CompileError`] if a secret is missing, empty or not written as the preset says, or if the preset
    /// contradicts itself.
    pub fn compile(preset: &Preset, keyring: &Keyring, options: &Options) -> Result<Self, CompileError> {
        let test = Test::new(&preset.verify, keyring, options.tolerance)?;
        let facts = Facts::new(&preset.event, &options.dedupe)?;
        let handshakes = Handshakes::new(preset, keyring, options.tolerance)?;
        Ok(Self { test, facts, handshakes })
    }

    /// Whether a handshake may come with `method` that is not signed like an event.
    #[must_use]
    pub fn takes_handshake(&self, method: &Method) -> bool {
        self.handshakes.take(method)
    }

    /// The answer to `received` if it is a handshake that is not signed like an event.
    ///
    /// # Errors
    /// The [`Rejection`] of the handshake's own check.
    pub fn unsigned_handshake(
        &self,
        received: &Received,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        self.handshakes.unsigned(&Request::from(received), now)
    }

    /// Proves that `received` is genuine, and makes an event of it.
    ///
    /// # Errors
    /// The [`Rejection`]. It has nothing of the request in it.
    pub fn verify(
        &self,
        source: &Name,
        provider: &Name,
        received: Received,
        now: UnixMillis,
    ) -> Result<VerifiedEvent, Rejection> {
        let (proof, read) = self.examine(source, &Request::from(&received), now)?;
        let Received { head, params, body } = received;
        let event = Event {
            id: EventId::new(head.received_at),
            source: source.clone(),
            provider: provider.clone(),
            kind: read.kind,
            provider_event_id: read.id,
            method: head.method,
            path: head.path,
            query: head.query,
            params,
            headers: kept(&head.headers),
            body,
            received_at: head.received_at,
            client: head.client,
            proof,
        };
        Ok(VerifiedEvent { event, dedupe: read.dedupe, handshake: read.handshake })
    }

    /// The headers that make `request` genuine at `now`, as the provider would send them: signed with each
    /// slot's first secret, in the first of several ways, with the time of `now` whatever `request` says.
    ///
    /// # Errors
    /// [`SignError`] if `request` lacks a header that is signed, or has one that cannot be.
    pub fn sign(&self, request: &Request<'_>, now: UnixMillis) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        self.test.sign(request, now)
    }

    fn examine(&self, source: &Name, request: &Request<'_>, now: UnixMillis) -> Result<(Proof, Read), Rejection> {
        let held = self.test.check(request, now)?;
        let found = self.facts.find(request);
        let proof = held.proof();
        let read = Read {
            handshake: self.handshakes.signed(request, &proof, now)?.map(Box::new),
            id: value(&self.facts.id, &found),
            kind: value(&self.facts.kind, &found),
            dedupe: dedupe(&self.facts.dedupe, source, request, &found, &held)?,
        };
        Ok((proof, read))
    }
}

/// What a genuine request says of its event.
struct Read {
    id: Option<Box<str>>,
    kind: Option<Box<str>>,
    dedupe: Option<Dedupe>,
    handshake: Option<Box<HandshakeAnswer>>,
}

fn value(choice: &Choice, found: &Found<'_>) -> Option<Box<str>> {
    choice.of(found).map(|(_, value)| value.into())
}

/// All headers in their order, except those that only this program may set.
fn kept(headers: &http::HeaderMap) -> Headers {
    let ours = |name: &HeaderName| name.as_str().starts_with("forebay-") || name.as_str().starts_with("forebay_");
    headers.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}
