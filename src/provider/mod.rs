//! Who sent it, and what it is: presets compiled into recipes that verify.
//!
//! A [`Preset`] is data: what one provider's file says (docs/presets.md). With a source's [`Keyring`] it
//! compiles into a [`Recipe`]. Per request a recipe does five things, each in a file of its own:
//!
//! - read the signature (`carrier`) and the signed time (`time`),
//! - verify the signature over the signed content (`signed` with `content` and `mac` or `ed25519`), or compare what is
//!   sent as it is (`token`, `basic`); `check` joins them,
//! - read the event's id, type and key (`facts`),
//! - answer a provider's check of the endpoint (`handshake`),
//! - make the dedupe key, knowing what the signature covered (`dedupe`).
//!
//! All of them look at the request through a `Reading`, which finds a value at a [`Place`] and takes query, form and
//! JSON (`pointer`) apart once, when the first asks. [`Draft`] is the way back: a request that is being signed.

mod basic;
mod carrier;
mod check;
mod content;
mod dedupe;
mod draft;
mod ed25519;
mod error;
mod facts;
mod handshake;
mod items;
mod keys;
mod mac;
mod place;
mod pointer;
mod preset;
mod reading;
mod recipe;
mod request;
mod scheme;
mod signed;
#[cfg(test)]
mod tests;
mod time;
mod token;

use std::time::Duration;

pub use dedupe::Dedupe;
pub use draft::Draft;
pub use ed25519::{SigningKey, SigningKeyError};
pub use error::{BadSecret, CompileError, Rejection, SignError};
pub use handshake::HandshakeAnswer;
pub use keys::bad_secret;
pub use place::{FirstOf, Piece, Place, Template};
pub use preset::{
    AnswerFacts, AnswerPiece, AnswerText, ComputedHmac, EventFacts, Handshake, HandshakeBody, HandshakeRespond,
    JsonAnswer, KeyRule, Preset, ProvenBy, Respond, RetryFacts, Sample, SecretSlot, When,
};
pub use recipe::{Options, Recipe, VerifiedEvent};
pub use request::Request;
pub use scheme::{
    BasicCheck, Carrier, Check, Hash, KeyDecoding, KeyEncoding, ListShape, Scheme, SignatureEncoding, SignedCheck,
    TimeUnit, Timestamp, TokenCheck,
};

use crate::base::{Secret, UnixMillis};

/// The secrets of one source: for each of its preset's slots, those that are good now, the first signs.
#[derive(Clone, Debug, Default)]
pub struct Keyring(pub Vec<(String, Vec<Key>)>);

/// One secret of a slot.
#[derive(Clone, Debug)]
pub struct Key {
    /// The configured text.
    pub secret: Secret,
    /// After this it is no longer good.
    pub not_after: Option<UnixMillis>,
}

/// How far a signed timestamp may be from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// What the preset says.
    Preset,
    /// This far, either way, the edge included.
    Within(Duration),
    /// Any distance: spelled out as `tolerance: off`. The timestamp must still be there and well-formed.
    Off,
}
