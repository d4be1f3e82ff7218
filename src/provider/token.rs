//! A secret sent as it is.

use super::items::Items;
use super::keys::{Keys, Usable};
use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{CompileError, Draft, Keyring, Place, Rejection, SignError};
use crate::base::{Secret, UnixMillis};

/// A token check, compiled.
#[derive(Debug)]
pub(super) struct Token {
    place: Place,
    from: From,
    prefix: Box<str>,
    keys: Keys<Secret>,
}

/// Where it stands.
#[derive(Debug)]
enum From {
    At(Site),
    Each(Items),
}

impl Token {
    pub(super) fn new(
        check: &super::TokenCheck,
        keyring: &Keyring,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let items = if let Place::Json(pointer) = &check.from { Items::new(pointer)? } else { None };
        Ok(Self {
            place: check.from.clone(),
            from: items
                .map_or_else(|| Site::new(&check.from, pointers).map(From::At), |items| Ok(From::Each(items)))?,
            prefix: check.prefix.as_deref().unwrap_or_default().into(),
            keys: Keys::new(keyring, &check.secret, |text| Ok(Secret::new(text)))?,
        })
    }

    /// Compares what is there with every good secret, in constant time for secrets of one length.
    pub(super) fn check(&self, reading: &Reading<'_>, now: UnixMillis) -> Result<&Usable<Secret>, Rejection> {
        match &self.from {
            From::At(site) => match reading.value(site) {
                Times::Never => Err(Rejection::MissingSignature),
                Times::Often => Err(Rejection::RepeatedSignature),
                Times::Once(value) => self.matching(value, now),
            },
            From::Each(items) => {
                let mut verdict = Err(Rejection::MissingSignature);
                let mut first = true;
                items.each(reading.request.body, &mut |value| {
                    let found = match value {
                        Some(value) => self.matching(value.as_bytes(), now),
                        None => Err(Rejection::MissingSignature),
                    };
                    if first || (verdict.is_ok() && found.is_err()) {
                        verdict = found;
                    }
                    first = false;
                });
                verdict
            }
        }
    }

    fn matching(&self, value: &[u8], now: UnixMillis) -> Result<&Usable<Secret>, Rejection> {
        let (prefix, token) = value.split_at_checked(self.prefix.len()).ok_or(Rejection::MalformedSignature)?;
        // The name of an authentication scheme is not case-sensitive (RFC 9110, section 11.1); any other prefix is exact.
        let is_scheme = matches!(&self.place, Place::Header(name) if *name == http::header::AUTHORIZATION);
        let same = if is_scheme {
            prefix.eq_ignore_ascii_case(self.prefix.as_bytes())
        } else {
            prefix == self.prefix.as_bytes()
        };
        if !same {
            return Err(Rejection::MalformedSignature);
        }
        let mut good = self.keys.good(now)?;
        good.find(|key| key.value.matches(token)).ok_or(Rejection::NoMatch)
    }

    pub(super) fn sign(&self, draft: &mut Draft) -> Result<(), SignError> {
        draft.put(&self.place, &[self.prefix.as_bytes(), self.keys.first().value.expose()].concat())
    }
}
