//! A preset and a source's secrets, compiled: what verifies a request, and what signs one.

use std::str;

use http::{HeaderName, Method};

use super::check::{Context, Test};
use super::dedupe::{Dedupe, dedupe};
use super::facts::{Choice, Facts};
use super::handshake::{self, HandshakeAnswer, Handshakes};
use super::pointer::Pointers;
use super::reading::Reading;
use super::{
    Check, CompileError, Draft, KeyRule, Keyring, Preset, Rejection, Request, SignError, SigningKey, Tolerance,
};
use crate::base::{Name, UnixMillis};
use crate::event::{Event, EventId, Headers, Proof, Received};

/// A preset and a source's secrets, compiled. Nothing of a preset is parsed after this.
#[derive(Debug)]
pub struct Recipe {
    test: Test,
    facts: Facts,
    handshakes: Handshakes,
    pointers: Pointers,
    public_url: Option<Box<str>>,
}

/// What a source says beside its secrets.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far a signed timestamp may be from now.
    pub tolerance: Tolerance,
    /// What makes two requests the same event; [`super::EventFacts::key_rule`] is the preset's own.
    pub dedupe: KeyRule,
    /// What stands before path and query in the URL that the provider sends to, `https://host`.
    pub public_url: Option<Box<str>>,
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
    /// [`CompileError`] if a secret or the public URL is missing, a secret is empty or not written as the preset says,
    /// or if the preset contradicts itself.
    pub fn compile(preset: &Preset, keyring: &Keyring, options: &Options) -> Result<Self, CompileError> {
        let mut pointers = Pointers::default();
        let public = handshake::public_answers(&preset.handshakes)?;
        let context = Context { slots: &preset.secrets, keyring, tolerance: options.tolerance, public: &public };
        let test = Test::new(&preset.verify, &context, &mut pointers)?;
        let facts = Facts::new(&preset.event, &options.dedupe, &mut pointers)?;
        let handshakes = Handshakes::new(preset, &context, &mut pointers)?;
        if options.dedupe == KeyRule::Body && !preset.verify.proves_body() {
            return Err(CompileError::UnsignedBody);
        }
        if preset.checks().any(Check::needs_url) && options.public_url.is_none() {
            return Err(CompileError::MissingPublicUrl);
        }
        Ok(Self { test, facts, handshakes, pointers, public_url: options.public_url.clone() })
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
        self.handshakes.unsigned(&self.reading(Request::from(received)), now)
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
        let (proof, read) = self.examine(source, Request::from(&received), now)?;
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

    /// Makes `draft` genuine at `now`, as the provider would: signed with each slot's first secret, in the first of
    /// several ways, with the time of `now` whatever `draft` says. A scheme whose secret is a public key takes
    /// `private`, and comes first among several ways if it is given.
    ///
    /// # Errors
    /// [`SignError`] if `draft` lacks a value that is signed, has one that cannot be or no room for the signature, or
    /// `private` is needed and not given or another one.
    pub fn sign(&self, draft: &mut Draft, now: UnixMillis, private: Option<&SigningKey>) -> Result<(), SignError> {
        self.test.sign(self, draft, now, private)
    }

    pub(super) fn reading<'q>(&'q self, request: Request<'q>) -> Reading<'q> {
        Reading::new(request, self.public_url.as_deref(), &self.pointers)
    }

    fn examine(&self, source: &Name, request: Request<'_>, now: UnixMillis) -> Result<(Proof, Read), Rejection> {
        let reading = self.reading(request);
        let held = self.test.check(&reading, now)?;
        let proof = held.proof();
        let read = Read {
            handshake: self.handshakes.signed(&reading, &proof, now)?.map(Box::new),
            id: value(&self.facts.id, &reading),
            kind: value(&self.facts.kind, &reading),
            dedupe: dedupe(&self.facts.dedupe, source, &reading, &held)?,
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

fn value(choice: &Choice, reading: &Reading<'_>) -> Option<Box<str>> {
    choice.of(reading).map(|(_, value)| value.into())
}

/// All headers in their order, except those that only this program may set.
fn kept(headers: &http::HeaderMap) -> Headers {
    let ours = |name: &HeaderName| name.as_str().starts_with("forebay-") || name.as_str().starts_with("forebay_");
    headers.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}
