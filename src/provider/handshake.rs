//! Handshakes, compiled: which requests are one, and the answer.
//!
//! What an answer echoes comes from whoever sent the request. It is at most [`MAX_VALUE_BYTES`] long and has no
//! control characters, stands in text that no browser takes for a page (`ingress` adds `nosniff`), and in JSON it is
//! escaped. A request that has nothing of that kind where the answer needs it is not that handshake.
//!
//! An answer may hold a HMAC over what the sender chose, so answering is signing. A handshake that is proven by
//! `verify` or by a check of its own signs for the provider alone. One that is proven by nothing signs for anybody, often
//! with the key and the hash that sign events. It signs one [token](is_token68) then, with a fixed text around it, and
//! a check refuses a signature that is good if what it signs may be such an [answer](PublicAnswer): what anybody can have
//! signed and what counts as signed by the provider have no message in common.

use std::str;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::check::{Context, Test};
use super::keys::{self, Keys};
use super::mac::KeyedHash;
use super::pointer::{MAX_VALUE_BYTES, Pointers};
use super::reading::{Reading, Site, Times};
use super::{
    AnswerPiece, AnswerText, CompileError, ComputedHmac, Handshake, HandshakeBody, Hash, JsonAnswer, KeyDecoding,
    Place, Preset, ProvenBy, Rejection, Scheme, SignatureEncoding, SignedCheck,
};
use crate::base::{Name, UnixMillis};
use crate::event::Proof;

/// What a handshake is answered.
#[derive(Clone, Debug)]
pub struct HandshakeAnswer {
    /// Which handshake it was.
    pub name: Name,
    /// What was checked of it; none if nothing was.
    pub proof: Option<Proof>,
    /// The status, 200 to 299.
    pub status: u16,
    /// Headers besides the body's type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// The body's type.
    pub content_type: HeaderValue,
}

/// The handshakes of a recipe, compiled.
#[derive(Debug)]
pub(super) struct Handshakes {
    unsigned: Vec<Compiled>,
    signed: Vec<Compiled>,
}

/// A [`Handshake`], compiled.
#[derive(Debug)]
struct Compiled {
    name: Name,
    methods: Vec<Method>,
    conditions: Vec<(Site, Condition)>,
    check: Option<Test>,
    values: Values,
    compute: Vec<Hmac>,
    status: u16,
    headers: Vec<(HeaderName, Text)>,
    body: Text,
    content_type: HeaderValue,
}

#[derive(Debug)]
enum Condition {
    Equals(Box<str>),
    Present,
    Absent,
}

/// What values may be computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// All that may be echoed: whoever sent the request is known.
    Any,
    /// Tokens alone: see [`is_token68`].
    Tokens,
}

/// An [`AnswerText`] or [`JsonAnswer`], compiled.
#[derive(Debug)]
struct Text(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(Box<str>),
    Value(Site, Escape),
    Computed(usize),
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    /// As a JSON string has it, without the quotes.
    Json,
}

/// A [`ComputedHmac`], compiled.
#[derive(Debug)]
struct Hmac {
    keys: Keys<KeyedHash>,
    content: Text,
    encoding: SignatureEncoding,
}

impl Handshakes {
    /// Those that need an optional secret which is not there are left out: they are never answered unchecked.
    pub(super) fn new(preset: &Preset, context: &Context<'_>, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let lacks = |slot: &str| context.lacks(slot);
        let can_be = |handshake: &&Handshake| {
            handshake.check().is_none_or(|check| check.can_hold(&lacks))
                && !handshake.compute.iter().any(|(_, hmac)| lacks(&hmac.secret))
        };
        let mut handshakes = Self { unsigned: Vec::new(), signed: Vec::new() };
        for handshake in preset.handshakes.iter().filter(can_be) {
            let compiled = Compiled::new(handshake, &preset.methods, context, pointers)?;
            match handshake.proven_by {
                ProvenBy::Verify => handshakes.signed.push(compiled),
                ProvenBy::Own(_) | ProvenBy::Nothing => handshakes.unsigned.push(compiled),
            }
        }
        Ok(handshakes)
    }

    /// Whether an unsigned one may come with `method`.
    pub(super) fn take(&self, method: &Method) -> bool {
        self.unsigned.iter().any(|handshake| handshake.methods.contains(method))
    }

    /// The answer to an unsigned one; none if the request is none.
    ///
    /// # Errors
    /// The [`Rejection`] of its own check.
    pub(super) fn unsigned(
        &self,
        reading: &Reading<'_>,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        answer(&self.unsigned, reading, None, now)
    }

    /// The answer to a signed one; none if the request, which `proof` shows to be genuine, is none.
    ///
    /// # Errors
    /// [`Rejection::NoGoodSecret`] if the answer needs a secret of which none is good now.
    pub(super) fn signed(
        &self,
        reading: &Reading<'_>,
        proof: &Proof,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        answer(&self.signed, reading, Some(proof), now)
    }
}

/// The answer to the first of `handshakes` that it is.
fn answer(
    handshakes: &[Compiled],
    reading: &Reading<'_>,
    proof: Option<&Proof>,
    now: UnixMillis,
) -> Result<Option<HandshakeAnswer>, Rejection> {
    for handshake in handshakes.iter().filter(|handshake| handshake.is(reading)) {
        let proof = match &handshake.check {
            Some(check) => Some(check.check(reading, now)?.proof()),
            None => proof.cloned(),
        };
        if let Some(answer) = handshake.answer(reading, proof, now)? {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

impl Compiled {
    fn new(
        handshake: &Handshake,
        methods: &[Method],
        context: &Context<'_>,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let check = match &handshake.proven_by {
            ProvenBy::Own(check) => Some(Test::new_inside(check, context, pointers)?),
            ProvenBy::Verify | ProvenBy::Nothing => None,
        };
        let mut conditions = Vec::new();
        for (place, wanted) in &handshake.when.equals {
            conditions.push((Site::new(place, pointers)?, Condition::Equals(wanted.as_str().into())));
        }
        for place in &handshake.when.present {
            conditions.push((Site::new(place, pointers)?, Condition::Present));
        }
        for place in &handshake.when.absent {
            conditions.push((Site::new(place, pointers)?, Condition::Absent));
        }
        conditions.sort_by_key(|(site, _)| matches!(site.place(), Place::Json(_) | Place::Form(_))); // a body is read only if the head fits

        let names: Vec<&str> = handshake.compute.iter().map(|(name, _)| name.as_str()).collect();
        let compute = handshake.compute.iter().map(|(_, hmac)| Hmac::new(hmac, context, pointers));
        let compute = compute.collect::<Result<_, _>>()?;
        let mut headers = Vec::new();
        for (name, text) in &handshake.respond.headers {
            headers.push((name.clone(), Text::new(text, &names, pointers)?));
        }
        let (body, content_type) = match &handshake.respond.body {
            HandshakeBody::Text(text, content_type) => (Text::new(text, &names, pointers)?, content_type.clone()),
            HandshakeBody::Json(json) => {
                (Text::json(json, &names, pointers)?, HeaderValue::from_static("application/json"))
            }
        };
        Ok(Self {
            name: handshake.name.clone(),
            methods: handshake.method.as_ref().map_or_else(|| methods.to_vec(), |method| vec![method.clone()]),
            conditions,
            check,
            values: if matches!(handshake.proven_by, ProvenBy::Nothing) { Values::Tokens } else { Values::Any },
            compute,
            status: handshake.respond.status,
            headers,
            body,
            content_type,
        })
    }

    fn is(&self, reading: &Reading<'_>) -> bool {
        let holds = |(site, condition): &(Site, Condition)| match condition {
            Condition::Equals(wanted) => value(reading, site) == Some(wanted),
            Condition::Present => value(reading, site).is_some(),
            Condition::Absent => reading.value(site) == Times::Never,
        };
        self.methods.contains(reading.request.method) && self.conditions.iter().all(holds)
    }

    /// None if the request does not have what the answer needs.
    fn answer(
        &self,
        reading: &Reading<'_>,
        proof: Option<Proof>,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        let mut computed = Vec::with_capacity(self.compute.len());
        for hmac in &self.compute {
            let Some(value) = hmac.value(reading, self.values, proof.as_ref(), now)? else { return Ok(None) };
            computed.push(value);
        }
        let header = |(name, text): &(HeaderName, Text)| {
            let value = text.fill(reading, &computed).filter(|value| value.is_ascii())?; // RFC 9110, section 5.5
            let value = HeaderValue::try_from(value).ok()?;
            Some((name.clone(), value))
        };
        let headers: Option<Vec<_>> = self.headers.iter().map(header).collect();
        let (Some(headers), Some(body)) = (headers, self.body.fill(reading, &computed)) else { return Ok(None) };
        Ok(Some(HandshakeAnswer {
            name: self.name.clone(),
            proof,
            status: self.status,
            headers,
            body: body.into(),
            content_type: self.content_type.clone(),
        }))
    }
}

impl Hmac {
    fn new(hmac: &ComputedHmac, context: &Context<'_>, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let prepare = |text: &[u8]| keys::shared_key(text, &hmac.key).map(|key| KeyedHash::new(hmac.hash, &key));
        Ok(Self {
            keys: Keys::new(context.keyring, &hmac.secret, prepare)?,
            content: Text::new(&hmac.content, &[], pointers)?,
            encoding: hmac.encoding,
        })
    }

    /// While a secret rotates the provider expects the one that it signed with itself.
    fn value(
        &self,
        reading: &Reading<'_>,
        values: Values,
        proof: Option<&Proof>,
        now: UnixMillis,
    ) -> Result<Option<String>, Rejection> {
        if values == Values::Tokens && !self.content.values(reading).all(|value| is_token68(value.as_bytes())) {
            return Ok(None);
        }
        let Some(content) = self.content.fill(reading, &[]) else { return Ok(None) };
        let proved = |label: &str| proof.is_some_and(|proof| proof.slot.split('+').any(|slot| slot == label));
        let key = match self.keys.good(now)?.find(|key| proved(&key.label)) {
            Some(key) => Some(key),
            None => self.keys.good(now)?.next(),
        };
        Ok(key.map(|key| {
            let mut hash = key.value.clone();
            hash.update(content.as_bytes());
            self.encoding.writer().encode(hash.finish().as_bytes())
        }))
    }
}

impl Text {
    fn new(text: &AnswerText, computed: &[&str], pointers: &mut Pointers) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        add(text, Escape::None, computed, pointers, &mut parts)?;
        Ok(Self(parts))
    }

    fn json(json: &JsonAnswer, computed: &[&str], pointers: &mut Pointers) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        add_json(json, computed, pointers, &mut parts)?;
        Ok(Self(parts))
    }

    /// None if one of the values is missing or not fit to be echoed.
    fn fill(&self, reading: &Reading<'_>, computed: &[String]) -> Option<String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Computed(index) => filled.push_str(computed.get(*index)?),
                Part::Value(site, escape) => {
                    let value = value(reading, site).filter(|value| !value.contains(char::is_control))?;
                    match escape {
                        Escape::None => filled.push_str(value),
                        Escape::Json => filled.push_str(&escaped(value)),
                    }
                }
            }
        }
        Some(filled)
    }

    /// The values of the request in it, as far as they are there.
    fn values<'f>(&'f self, reading: &'f Reading<'_>) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter_map(|part| if let Part::Value(site, _) = part { value(reading, site) } else { None })
    }
}

fn add(
    text: &AnswerText,
    escape: Escape,
    computed: &[&str],
    pointers: &mut Pointers,
    parts: &mut Vec<Part>,
) -> Result<(), CompileError> {
    for piece in &text.0 {
        parts.push(match (piece, escape) {
            (AnswerPiece::Literal(text), Escape::None) => Part::Literal(text.as_str().into()),
            (AnswerPiece::Literal(text), Escape::Json) => Part::Literal(escaped(text).into()),
            (AnswerPiece::Value(place), escape) => Part::Value(Site::new(place, pointers)?, escape),
            (AnswerPiece::Computed(name), _) => {
                let unknown = || CompileError::UnknownComputed { name: name.clone() };
                Part::Computed(computed.iter().position(|known| known == name).ok_or_else(unknown)?)
            }
        });
    }
    Ok(())
}

fn add_json(
    json: &JsonAnswer,
    computed: &[&str],
    pointers: &mut Pointers,
    parts: &mut Vec<Part>,
) -> Result<(), CompileError> {
    let literal = |text: &str| Part::Literal(text.into());
    match json {
        JsonAnswer::Literal(text) => parts.push(literal(text)),
        JsonAnswer::Text(text) => {
            parts.push(literal("\""));
            add(text, Escape::Json, computed, pointers, parts)?;
            parts.push(literal("\""));
        }
        JsonAnswer::List(items) => {
            for (index, item) in items.iter().enumerate() {
                parts.push(literal(if index == 0 { "[" } else { "," }));
                add_json(item, computed, pointers, parts)?;
            }
            parts.push(literal(if items.is_empty() { "[]" } else { "]" }));
        }
        JsonAnswer::Object(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                parts.push(literal(if index == 0 { "{\"" } else { ",\"" }));
                parts.push(Part::Literal(escaped(key).into()));
                parts.push(literal("\":"));
                add_json(value, computed, pointers, parts)?;
            }
            parts.push(literal(if entries.is_empty() { "{}" } else { "}" }));
        }
    }
    Ok(())
}

/// `text` as a JSON string has it, without the quotes.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// What stands at `site`: 1 to [`MAX_VALUE_BYTES`] bytes of UTF-8.
fn value<'r>(reading: &'r Reading<'_>, site: &Site) -> Option<&'r str> {
    match reading.value(site) {
        Times::Once(value) if (1..=MAX_VALUE_BYTES).contains(&value.len()) => str::from_utf8(value).ok(),
        _ => None,
    }
}

/// What a handshake signs for anybody: one [token](is_token68), and a fixed text before and after it.
#[derive(Clone, Debug)]
pub(super) struct PublicAnswer {
    hash: Hash,
    secret: String,
    key: KeyDecoding,
    before: String,
    after: String,
}

/// What the handshakes of a preset sign for anybody.
pub(super) fn public_answers(handshakes: &[Handshake]) -> Result<Vec<PublicAnswer>, CompileError> {
    let open = handshakes.iter().filter(|handshake| matches!(handshake.proven_by, ProvenBy::Nothing));
    open.flat_map(|handshake| &handshake.compute).map(|(_, hmac)| PublicAnswer::new(hmac)).collect()
}

impl PublicAnswer {
    fn new(hmac: &ComputedHmac) -> Result<Self, CompileError> {
        use AnswerPiece::{Literal, Value};
        let (before, after) = match hmac.content.0.as_slice() {
            [Value(_)] => ("", ""),
            [Literal(before), Value(_)] => (before.as_str(), ""),
            [Value(_), Literal(after)] => ("", after.as_str()),
            [Literal(before), Value(_), Literal(after)] => (before.as_str(), after.as_str()),
            _ => return Err(CompileError::NotOneValue),
        };
        Ok(Self {
            hash: hmac.hash,
            secret: hmac.secret.clone(),
            key: hmac.key.clone(),
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }

    /// Whether `check` takes the same signatures.
    pub(super) fn is_signed_like(&self, check: &SignedCheck) -> bool {
        check.scheme == Scheme::Hmac(self.hash) && check.secret == self.secret && check.key == self.key
    }

    /// The longest message it may be.
    pub(super) fn max_bytes(&self) -> usize {
        self.before.len() + MAX_VALUE_BYTES + self.after.len()
    }

    /// Whether it may be `message`.
    pub(super) fn may_be(&self, message: &[u8]) -> bool {
        let token = message.strip_prefix(self.before.as_bytes());
        let token = token.and_then(|rest| rest.strip_suffix(self.after.as_bytes()));
        token.is_some_and(|token| token.len() <= MAX_VALUE_BYTES && is_token68(token))
    }
}

/// Whether `value` is a `token68` (RFC 9110, section 11.2), as ids, hex and base64 are: letters, digits and `-._~+/`, and
/// `=` at the end. No JSON object, list or string is one, no form that has a value, and no markup.
fn is_token68(value: &[u8]) -> bool {
    let end = value.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let (token, _) = value.split_at(end);
    !token.is_empty() && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}
