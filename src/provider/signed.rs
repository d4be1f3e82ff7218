//! A signature over the signed content.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::carrier::{Carrier, Fields, Read};
use super::check::Context;
use super::content::Content;
use super::ed25519::{SIGNATURE_LEN, SigningKey, VerifyingKey};
use super::handshake::PublicAnswer;
use super::keys::{self, Keys, Usable};
use super::mac::{KeyedHash, Mac};
use super::pointer::Pointers;
use super::reading::Reading;
use super::time::{self, SignedTime};
use super::{
    CompileError, Draft, KeyDecoding, Piece, Place, Recipe, Rejection, Scheme, SignError, SignedCheck, Template,
};
use crate::base::UnixMillis;

/// A signature's check, compiled.
#[derive(Debug)]
pub(super) struct Signed {
    carrier: Carrier,
    template: Template,
    content: Content,
    time: Option<SignedTime>,
    verifier: Verifier,
    /// What anybody can have signed with the same key.
    public: Vec<PublicAnswer>,
}

/// What verifies: a scheme, and its keys ready for use.
#[derive(Debug)]
enum Verifier {
    Hmac(Keys<KeyedHash>),
    Ed25519(Keys<VerifyingKey>, KeyDecoding),
}

/// A signature that holds: by which secret, and what was said beside the signature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds<'r, 's> {
    /// The slot and the place in it of the key.
    pub(super) label: &'r str,
    fields: Fields<'s>,
}

impl Signed {
    pub(super) fn new(
        check: &SignedCheck,
        context: &Context<'_>,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let Context { keyring, tolerance, public, .. } = *context;
        let len = match check.scheme {
            Scheme::Hmac(hash) => hash.mac_len(),
            Scheme::Ed25519 => SIGNATURE_LEN,
        };
        let mut carrier = Carrier::new(&check.signature, len, pointers)?;
        if check.content.covers(carrier.place()) {
            return Err(CompileError::SignsItself { place: carrier.place().clone() });
        }
        let from = check.timestamp.as_ref().map(|timestamp| &timestamp.from);
        let content = Content::new(&check.content, from, &mut carrier, pointers)?;
        let time = match &check.timestamp {
            Some(timestamp) => Some(SignedTime::new(timestamp, tolerance, &mut carrier, pointers)?),
            None => None,
        };
        if from.is_some_and(|from| !signs(&check.content, from)) {
            return Err(CompileError::UnsignedTimestamp);
        }
        let verifier = match check.scheme {
            Scheme::Hmac(hash) => {
                let prepare = |text: &[u8]| keys::shared_key(text, &check.key).map(|key| KeyedHash::new(hash, &key));
                Verifier::Hmac(Keys::new(keyring, &check.secret, prepare)?)
            }
            Scheme::Ed25519 => {
                let keys = Keys::new(keyring, &check.secret, |text| keys::public_key(text, &check.key))?;
                Verifier::Ed25519(keys, check.key.clone())
            }
        };
        let public = public.iter().filter(|answer| answer.is_signed_like(check)).cloned().collect();
        Ok(Self { carrier, template: check.content.clone(), content, time, verifier, public })
    }

    /// Checks the timestamp, then the signatures: each with every good key.
    pub(super) fn check<'r, 's>(&'r self, reading: &'s Reading<'_>, now: UnixMillis) -> Result<Holds<'r, 's>, Rejection>
    where
        'r: 's,
    {
        let read = self.carrier.read(reading)?;
        if let Some(time) = &self.time {
            time.check(reading, &read.fields, now)?;
        }
        let label = match &self.verifier {
            Verifier::Hmac(keys) => {
                let tags = keys.good(now)?.map(|key| self.mac(key, reading, &read.fields).map(|mac| (key, mac)));
                self.first(&read, tags, |mac, signature| signature.matches(mac).into())
            }
            Verifier::Ed25519(keys, _) => {
                let good = keys.good(now)?;
                let message = self.message(reading, &read.fields)?;
                let verifies = |key: &&VerifyingKey, signature: &Mac| key.verifies(&message, signature.as_bytes());
                self.first(&read, good.map(|key| Ok((key, &key.value))), verifies)
            }
        };
        let holds = Holds { label: label?, fields: read.fields };
        if self.is_public(reading, &holds)? { Err(Rejection::PublicAnswer) } else { Ok(holds) }
    }

    /// Whether a handshake's answer may have the signature of these very bytes in it.
    fn is_public<'s>(&'s self, reading: &'s Reading<'_>, holds: &Holds<'_, 's>) -> Result<bool, Rejection> {
        let Some(longest) = self.public.iter().map(PublicAnswer::max_bytes).max() else { return Ok(false) };
        let mut start = Vec::new(); // of the signed bytes, and one more than is needed
        self.content.feed(reading, &holds.fields, |bytes| {
            start.extend(bytes.iter().take((longest + 1).saturating_sub(start.len())));
        })?;
        Ok(self.public.iter().any(|answer| answer.may_be(&start)))
    }

    /// The label of the first of `keys` with which one of the signatures holds.
    fn first<'r, T: 'r, V>(
        &self,
        read: &Read<'_>,
        keys: impl Iterator<Item = Result<(&'r Usable<T>, V), Rejection>>,
        holds: impl Fn(&V, &Mac) -> bool,
    ) -> Result<&'r str, Rejection> {
        let mut verdict = Rejection::MalformedSignature;
        for key in keys {
            let (key, value) = key?;
            for signature in read.signatures().filter_map(|text| self.carrier.decode(text)) {
                if holds(&value, &signature) {
                    return Ok(&key.label);
                }
                verdict = Rejection::NoMatch;
            }
        }
        Err(verdict)
    }

    fn mac<'s>(
        &'s self,
        key: &Usable<KeyedHash>,
        reading: &'s Reading<'_>,
        fields: &Fields<'s>,
    ) -> Result<Mac, Rejection> {
        let mut hash = key.value.clone();
        self.content.feed(reading, fields, |bytes| hash.update(bytes))?;
        Ok(hash.finish())
    }

    /// The signed bytes in one piece, for a scheme that goes over them more than once.
    fn message<'s>(&'s self, reading: &'s Reading<'_>, fields: &Fields<'s>) -> Result<Cow<'s, [u8]>, Rejection> {
        if self.content.is_body() {
            return Ok(Cow::Borrowed(reading.request.body));
        }
        let mut message = Vec::with_capacity(reading.request.body.len() + 256);
        self.content.feed(reading, fields, |bytes| message.extend_from_slice(bytes))?;
        Ok(Cow::Owned(message))
    }

    /// The SHA-256 of the signed bytes.
    pub(super) fn digest<'s>(&'s self, reading: &'s Reading<'_>, holds: &Holds<'_, 's>) -> Result<[u8; 32], Rejection> {
        let mut hash = Sha256::new();
        self.content.feed(reading, &holds.fields, |bytes| hash.update(bytes))?;
        Ok(hash.finalize().into())
    }

    pub(super) fn covers(&self, place: &Place) -> bool {
        self.template.covers(place)
    }

    /// Whether the body and nothing else is signed.
    pub(super) fn is_body(&self) -> bool {
        self.content.is_body()
    }

    /// What is told of it.
    pub(super) fn scheme(&self) -> &'static str {
        match self.verifier {
            Verifier::Hmac(_) => "hmac",
            Verifier::Ed25519(..) => "ed25519",
        }
    }

    /// Whether a private key signs, which is not among the secrets.
    pub(super) fn has_private_key(&self) -> bool {
        matches!(self.verifier, Verifier::Ed25519(..))
    }

    /// Signs `draft` at `now`: with the first secret, or, where that is a public key, with `private`.
    pub(super) fn sign(
        &self,
        recipe: &Recipe,
        draft: &mut Draft,
        now: UnixMillis,
        private: Option<&SigningKey>,
    ) -> Result<(), SignError> {
        let text = self.time.as_ref().map(|time| time.write(now)).unwrap_or_default();
        let mut field = None;
        match self.time.as_ref().map(|time| &time.from) {
            Some(time::From::At(site)) => draft.put(site.place(), text.as_bytes())?,
            Some(time::From::Field(index)) => field = Some((*index, text.as_str())),
            None => {}
        }
        let mut fields = Fields::default();
        if let Some((index, text)) = field {
            fields.put(index, text);
        }
        let reading = recipe.reading(draft.request());
        self.can_be_signed(&reading, &fields)?;
        let signature = match &self.verifier {
            Verifier::Hmac(keys) => self.mac(keys.first(), &reading, &fields).map_err(|_| SignError::Value)?,
            Verifier::Ed25519(keys, decoding) => {
                let private = private.ok_or(SignError::NoSigningKey)?;
                if keys.first().value.as_bytes() != private.public_key() {
                    return Err(SignError::OtherKey { public: private.public_text(decoding) });
                }
                let message = self.message(&reading, &fields).map_err(|_| SignError::Value)?;
                Mac::new(&private.sign(&message)).ok_or(SignError::Value)?
            }
        };
        let value = self.carrier.write(&signature, field);
        drop(reading);
        draft.put(self.carrier.place(), value.as_bytes())
    }

    fn can_be_signed(&self, reading: &Reading<'_>, fields: &Fields<'_>) -> Result<(), SignError> {
        if let Some(place) = self.content.lacks(reading) {
            return Err(SignError::Missing(place.clone()));
        }
        match self.content.fields().find(|index| fields.one(*index).is_err()) {
            Some(index) => Err(SignError::Field(self.carrier.field_name(index).to_owned())),
            None => Ok(()),
        }
    }
}

/// Whether `content` signs the time at `from`.
fn signs(content: &Template, from: &Piece) -> bool {
    match from {
        Piece::At(place) => content.covers(place),
        piece => content.0.contains(piece),
    }
}
