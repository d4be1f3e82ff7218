//! Who sent it, and what it is: presets compiled into recipes that verify.
//!
//! A [`Preset`] is data: what one provider's file says (docs/presets.md). With a source's [`Keyring`] it
//! compiles into a [`Recipe`]. Per request a recipe does five things, each in a file of its own:
//!
//! - read the signature header (`carrier`) and the signed time (`time`),
//! - feed the signed content into the keyed hash (`content`, `mac`) or compare a token (`check` joins both),
//! - read the event's id, type and key (`facts`, `pointer`),
//! - answer a provider's check of the endpoint (`handshake`),
//! - make the dedupe key, knowing what the signature covered (`dedupe`).

mod carrier;
mod check;
mod content;
mod dedupe;
mod error;
mod facts;
mod handshake;
mod hmac;
mod keys;
mod mac;
mod pointer;
mod preset;
mod recipe;
mod request;
#[cfg(test)]
mod tests;
mod time;
mod token;

use std::time::Duration;

pub use dedupe::Dedupe;
pub use error::{CompileError, Rejection, SignError};
pub use handshake::HandshakeAnswer;
pub use preset::{
    AnswerFacts, AnswerPiece, AnswerText, Carrier, Check, ComputedHmac, EventFacts, FirstOf, Handshake, HandshakeBody,
    HandshakeRespond, Hash, HmacCheck, JsonAnswer, KeyDecoding, KeyEncoding, KeyRule, ListShape, Piece, Place, Preset,
    ProvenBy, Respond, RetryFacts, Sample, SecretSlot, SignatureEncoding, Template, TimeUnit, Timestamp, TokenCheck,
    When,
};
pub use recipe::{Options, Recipe, VerifiedEvent};
pub use request::Request;

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
