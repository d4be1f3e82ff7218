//! Handshakes, compiled: which requests are one, and the answer.
//!
//! What an answer echoes comes from whoever sent the request. It is at most [`MAX_VALUE_BYTES`] long and has no
//! control characters, stands in text that no browser takes for a page (`ingress` adds `nosniff`), and in JSON it is
//! escaped. A request that has nothing of that kind where the answer needs it is not that handshake.
//!
//! An answer may hold a HMAC over what the sender chose, so answering is signing. A handshake that is proven by
//! `verify` or by a check of its own signs for the provider alone. One that is proven by nothing signs for anybody:
//! there the values are [plain](is_plain), so that nobody gets the MAC of a JSON object, a form or a page.

use std::cell::OnceCell;
use std::str;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::check::Test;
use super::keys::{self, Keys};
use super::mac::KeyedHash;
use super::pointer::{MAX_VALUE_BYTES, Pointers};
use super::request::{Request, Times};
use super::{
    AnswerPiece, AnswerText, CompileError, ComputedHmac, Handshake, HandshakeBody, JsonAnswer, Keyring, Place, Preset,
    ProvenBy, Rejection, SignatureEncoding, Tolerance,
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
    unsigned: Group,
    signed: Group,
}

/// Handshakes that are looked for together, the first that matches counts.
#[derive(Debug, Default)]
struct Group {
    pointers: Pointers,
    handshakes: Vec<Compiled>,
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

/// A [`Place`], compiled: JSON by its number among the pointers.
#[derive(Debug)]
enum Site {
    Header(HeaderName),
    Json(usize),
}

/// What values may be computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// All that may be echoed: whoever sent the request is known.
    Any,
    /// Plain ones: see [`is_plain`].
    Plain,
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

/// One request, and what the pointers lead to in its body once somebody asks.
struct Found<'a> {
    request: &'a Request<'a>,
    pointers: &'a Pointers,
    json: OnceCell<Vec<Option<Box<str>>>>,
}

impl Handshakes {
    pub(super) fn new(preset: &Preset, keyring: &Keyring, tolerance: Tolerance) -> Result<Self, CompileError> {
        let mut handshakes = Self { unsigned: Group::default(), signed: Group::default() };
        for handshake in &preset.handshakes {
            let group = match handshake.proven_by {
                ProvenBy::Verify => &mut handshakes.signed,
                ProvenBy::Own(_) | ProvenBy::Nothing => &mut handshakes.unsigned,
            };
            let compiled = Compiled::new(handshake, &preset.methods, keyring, tolerance, &mut group.pointers)?;
            group.handshakes.push(compiled);
        }
        Ok(handshakes)
    }

    /// Whether an unsigned one may come with `method`.
    pub(super) fn take(&self, method: &Method) -> bool {
        self.unsigned.handshakes.iter().any(|handshake| handshake.methods.contains(method))
    }

    /// The answer to an unsigned one; none if `request` is none.
    ///
    /// # Errors
    /// The [`Rejection`] of its own check.
    pub(super) fn unsigned(
        &self,
        request: &Request<'_>,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        self.unsigned.answer(request, None, now)
    }

    /// The answer to a signed one; none if `request`, which `proof` shows to be genuine, is none.
    ///
    /// # Errors
    /// [`Rejection::NoGoodSecret`] if the answer needs a secret of which none is good now.
    pub(super) fn signed(
        &self,
        request: &Request<'_>,
        proof: &Proof,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        self.signed.answer(request, Some(proof), now)
    }
}

impl Group {
    fn answer(
        &self,
        request: &Request<'_>,
        proof: Option<&Proof>,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        let found = Found { request, pointers: &self.pointers, json: OnceCell::new() };
        for handshake in self.handshakes.iter().filter(|handshake| handshake.is(&found)) {
            let proof = match &handshake.check {
                Some(check) => Some(check.check(request, now)?.proof()),
                None => proof.cloned(),
            };
            if let Some(answer) = handshake.answer(&found, proof, now)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }
}

impl Compiled {
    fn new(
        handshake: &Handshake,
        methods: &[Method],
        keyring: &Keyring,
        tolerance: Tolerance,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let check = match &handshake.proven_by {
            ProvenBy::Own(check) => Some(Test::new_inside(check, keyring, tolerance)?),
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
        conditions.sort_by_key(|(site, _)| matches!(site, Site::Json(_))); // a body is read only if the head fits

        let names: Vec<&str> = handshake.compute.iter().map(|(name, _)| name.as_str()).collect();
        let compute = handshake.compute.iter().map(|(_, hmac)| Hmac::new(hmac, keyring, pointers));
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
            values: if matches!(handshake.proven_by, ProvenBy::Nothing) { Values::Plain } else { Values::Any },
            compute,
            status: handshake.respond.status,
            headers,
            body,
            content_type,
        })
    }

    fn is(&self, found: &Found<'_>) -> bool {
        let holds = |(site, condition): &(Site, Condition)| match condition {
            Condition::Equals(wanted) => found.value(site) == Some(wanted),
            Condition::Present => found.value(site).is_some(),
            Condition::Absent => found.is_absent(site),
        };
        self.methods.contains(found.request.method) && self.conditions.iter().all(holds)
    }

    /// None if the request does not have what the answer needs.
    fn answer(
        &self,
        found: &Found<'_>,
        proof: Option<Proof>,
        now: UnixMillis,
    ) -> Result<Option<HandshakeAnswer>, Rejection> {
        let mut computed = Vec::with_capacity(self.compute.len());
        for hmac in &self.compute {
            let Some(value) = hmac.value(found, self.values, proof.as_ref(), now)? else { return Ok(None) };
            computed.push(value);
        }
        let header = |(name, text): &(HeaderName, Text)| {
            let value = HeaderValue::try_from(text.fill(found, &computed)?).ok()?;
            Some((name.clone(), value))
        };
        let headers: Option<Vec<_>> = self.headers.iter().map(header).collect();
        let (Some(headers), Some(body)) = (headers, self.body.fill(found, &computed)) else { return Ok(None) };
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
    fn new(hmac: &ComputedHmac, keyring: &Keyring, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let prepare = |text: &[u8]| keys::decode(text, &hmac.key).map(|key| KeyedHash::new(hmac.hash, &key));
        Ok(Self {
            keys: Keys::new(keyring, &hmac.secret, prepare)?,
            content: Text::new(&hmac.content, &[], pointers)?,
            encoding: hmac.encoding,
        })
    }

    /// While a secret rotates the provider expects the one that it signed with itself.
    fn value(
        &self,
        found: &Found<'_>,
        values: Values,
        proof: Option<&Proof>,
        now: UnixMillis,
    ) -> Result<Option<String>, Rejection> {
        if values == Values::Plain && !self.content.values(found).all(is_plain) {
            return Ok(None);
        }
        let Some(content) = self.content.fill(found, &[]) else { return Ok(None) };
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

/// Whether `value` is made of the characters that URLs leave as they are (RFC 3986, section 2.3), as tokens and ids
/// are: no JSON object, list or string, no form that has a value, and no markup.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
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
    fn fill(&self, found: &Found<'_>, computed: &[String]) -> Option<String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Computed(index) => filled.push_str(computed.get(*index)?),
                Part::Value(site, escape) => {
                    let value = found.value(site).filter(|value| !value.contains(char::is_control))?;
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
    fn values<'f>(&'f self, found: &'f Found<'_>) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter_map(|part| if let Part::Value(site, _) = part { found.value(site) } else { None })
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

impl Site {
    fn new(place: &Place, pointers: &mut Pointers) -> Result<Self, CompileError> {
        Ok(match place {
            Place::Header(name) => Self::Header(name.clone()),
            Place::Json(pointer) => Self::Json(pointers.add(pointer)?),
        })
    }
}

impl Found<'_> {
    /// What stands at `site`: 1 to [`MAX_VALUE_BYTES`] bytes of UTF-8.
    fn value(&self, site: &Site) -> Option<&str> {
        let value = match site {
            Site::Json(index) => {
                self.json.get_or_init(|| self.pointers.find(self.request.body)).get(*index)?.as_deref()?
            }
            Site::Header(name) => match self.request.header(name) {
                Times::Once(value) => str::from_utf8(value.as_bytes()).ok()?,
                Times::Never | Times::Often => return None,
            },
        };
        if (1..=MAX_VALUE_BYTES).contains(&value.len()) { Some(value) } else { None }
    }

    /// Whether nothing came there: a header that is empty or came twice did come.
    fn is_absent(&self, site: &Site) -> bool {
        match site {
            Site::Header(name) => matches!(self.request.header(name), Times::Never),
            Site::Json(_) => self.value(site).is_none(),
        }
    }
}
