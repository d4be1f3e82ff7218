//! The preset language, as types: what one provider's YAML file says (docs/presets.md).
//!
//! A preset is data. `config` reads it from YAML into these types; [`super::Recipe`] compiles it,
//! together with a source's secrets, into something that verifies a request.

mod handshake;

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

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
            redact: Vec::new(),
            sample: None,
        }
    }
}

impl Preset {
    /// What is secret in a request: what the preset lists, and every header that carries a secret as it is.
    #[must_use]
    pub fn secret_places(&self) -> Vec<Place> {
        fn tokens(check: &Check, places: &mut Vec<Place>) {
            match check {
                Check::Token(token) => places.push(Place::Header(token.header.clone())),
                Check::Any(checks) | Check::All(checks) => checks.iter().for_each(|check| tokens(check, places)),
                Check::Hmac(_) | Check::Nothing => {}
            }
        }
        let mut places = self.redact.clone();
        tokens(&self.verify, &mut places);
        self.handshakes.iter().filter_map(Handshake::check).for_each(|check| tokens(check, &mut places));
        places
    }
}

/// A secret that a preset needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSlot {
    /// What the config calls it.
    pub name: String,
    /// Where a person finds it at the provider.
    pub hint: Option<String>,
}

/// What must hold.
#[derive(Clone, Debug)]
pub enum Check {
    /// A keyed hash over parts of the request.
    Hmac(HmacCheck),
    /// A secret sent as it is.
    Token(TokenCheck),
    /// One of these.
    Any(Vec<Check>),
    /// Each of these.
    All(Vec<Check>),
    /// Nothing: the source says `verify: none`.
    Nothing,
}

/// HMAC (RFC 2104) over the signed content.
#[derive(Clone, Debug)]
pub struct HmacCheck {
    /// The hash function.
    pub hash: Hash,
    /// Which secret is the key.
    pub secret: String,
    /// How the configured secret becomes the key.
    pub key: KeyDecoding,
    /// Where the signature is and how it is written.
    pub signature: Carrier,
    /// What is signed.
    pub content: Template,
    /// The signed time, if there is one.
    pub timestamp: Option<Timestamp>,
}

/// A secret compared with a header, in constant time.
#[derive(Clone, Debug)]
pub struct TokenCheck {
    /// Which secret it must equal.
    pub secret: String,
    /// The header that carries it.
    pub header: HeaderName,
    /// What stands before it, e.g. `Bearer `.
    pub prefix: Option<String>,
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1 (FIPS 180-4); as a HMAC still sound, used by older providers.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a secret's text becomes key bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDecoding {
    /// A prefix that is taken off first, where it is there, e.g. `whsec_`.
    pub strip: Option<String>,
    /// How the rest is written.
    pub encoding: KeyEncoding,
}

/// How key bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// The text's bytes are the key.
    Utf8,
    /// Base64, standard or URL alphabet, with or without padding.
    Base64,
    /// Hex, upper or lower case.
    Hex,
}

/// Where a signature stands in a request.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// The header.
    pub header: HeaderName,
    /// What stands before the signature, e.g. `sha256=`; matched exactly.
    pub prefix: Option<String>,
    /// The header's shape, where it is more than one signature.
    pub list: Option<ListShape>,
    /// How the signature's bytes are written.
    pub encoding: SignatureEncoding,
}

/// A header that is a list of key-value pairs: `t=1,v1=ab,v1=cd` or `v1,ab v1,cd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListShape {
    /// Between two items, e.g. `,`; spaces around an item are ignored.
    pub items: char,
    /// Between key and value, e.g. `=`.
    pub pair: char,
    /// The key whose values are signatures, e.g. `v1`; other keys are fields or ignored.
    pub key: String,
}

/// How a signature's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Hex, upper or lower case.
    Hex,
    /// Base64 with the standard alphabet and padding.
    Base64,
    /// Base64 with the URL alphabet, without padding.
    Base64Url,
}

/// A concatenation, e.g. `v0:{header:Acme-Time}:{body}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Literal(String),
    /// `{body}`: the exact body.
    Body,
    /// `{method}`.
    Method,
    /// `{path}`: as received.
    Path,
    /// `{query}`: as received, without the `?`.
    Query,
    /// `{header:X}`: a header's exact value; it must be there, once.
    Header(HeaderName),
    /// `{field:t}`: the value of a key in the signature's list; it must be there, once.
    Field(String),
}

/// A time that a provider signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Where it is: a [`Piece::Header`] or a [`Piece::Field`].
    pub from: Piece,
    /// How it is written.
    pub unit: TimeUnit,
    /// How far from now it may be, either way, the edge included.
    pub tolerance: Duration,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Unix seconds, 1 to 12 decimal digits.
    Seconds,
    /// Unix milliseconds, 1 to 15 decimal digits.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
}

/// Where one fact of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `header:X`: the header's only value.
    Header(HeaderName),
    /// `json:/a/b`: a string, number or boolean at a JSON pointer (RFC 6901) into the body.
    Json(String),
}

/// As the YAML says it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

/// The first place of these that has something, e.g. `header:A | json:/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstOf(pub Vec<Place>);

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
