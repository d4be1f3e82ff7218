//! The preset language's handshakes: a provider's checks of the endpoint, which the gateway answers itself.

use http::{HeaderName, HeaderValue, Method};

use super::super::{Hash, KeyDecoding, SignatureEncoding};
use super::{Check, Place};
use crate::base::Name;

/// One kind of handshake, and its answer.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// What logs call it; no other of the preset has it.
    pub name: Name,
    /// What must hold before it is answered.
    pub proven_by: ProvenBy,
    /// The method it comes with; the preset's own methods if none.
    pub method: Option<Method>,
    /// Which requests are it.
    pub when: When,
    /// Values for the answer, by name.
    pub compute: Vec<(String, ComputedHmac)>,
    /// The answer.
    pub respond: HandshakeRespond,
}

impl Handshake {
    /// The check of its own, if it has one.
    #[must_use]
    pub fn check(&self) -> Option<&Check> {
        match &self.proven_by {
            ProvenBy::Own(check) => Some(check),
            ProvenBy::Verify | ProvenBy::Nothing => None,
        }
    }
}

/// What must hold before a handshake is answered.
#[derive(Clone, Debug)]
pub enum ProvenBy {
    /// The preset's `verify`, as for an event.
    Verify,
    /// A check of its own; a request that fails it is refused like any other that is not genuine.
    Own(Box<Check>),
    /// Nothing: anybody gets the answer.
    Nothing,
}

/// Which requests are a handshake: those for which all of this holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// What stands at a place is exactly this.
    pub equals: Vec<(Place, String)>,
    /// Something stands there.
    pub present: Vec<Place>,
    /// Nothing stands there.
    pub absent: Vec<Place>,
}

impl When {
    /// Whether it says nothing, and so holds for every request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.equals.is_empty() && self.present.is_empty() && self.absent.is_empty()
    }
}

/// A HMAC (RFC 2104) that stands in the answer: it shows the provider that we know the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputedHmac {
    /// The hash function.
    pub hash: Hash,
    /// Which secret is the key. While it rotates: the one that the request was verified with, else the first.
    pub secret: String,
    /// How the configured secret becomes the key.
    pub key: KeyDecoding,
    /// What it is computed over; no [`AnswerPiece::Computed`] in it.
    pub content: AnswerText,
    /// How it is written.
    pub encoding: SignatureEncoding,
}

/// The answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeRespond {
    /// The status, 200 to 299.
    pub status: u16,
    /// Headers besides the body's type.
    pub headers: Vec<(HeaderName, AnswerText)>,
    /// The body.
    pub body: HandshakeBody,
}

/// The body of an answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeBody {
    /// A text and its type.
    Text(AnswerText, HeaderValue),
    /// JSON, its values escaped.
    Json(JsonAnswer),
}

/// A JSON value with places for values in its strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonAnswer {
    /// A number, `true`, `false` or `null`, as JSON writes it.
    Literal(String),
    /// A string.
    Text(AnswerText),
    /// An array.
    List(Vec<JsonAnswer>),
    /// An object, in this order.
    Object(Vec<(String, JsonAnswer)>),
}

/// A text with places for values, e.g. `sha256={compute:answer}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerText(pub Vec<AnswerPiece>);

/// One piece of an [`AnswerText`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece {
    /// Text as it stands.
    Literal(String),
    /// What stands at a place of the request.
    Value(Place),
    /// A value of [`Handshake::compute`].
    Computed(String),
}
