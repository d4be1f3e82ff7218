//! HTTP's basic authentication (RFC 7617): a name and a password in the header `Authorization`.

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use subtle::Choice;
use zeroize::Zeroizing;

use super::keys::{Keys, Usable};
use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{BadSecret, BasicCheck, CompileError, Draft, Keyring, Place, Rejection, SignError};
use crate::base::{Secret, UnixMillis};

/// A basic check, compiled.
#[derive(Debug)]
pub(super) struct Basic {
    site: Site,
    /// Any name if none.
    names: Option<Keys<Secret>>,
    passwords: Keys<Secret>,
}

impl Basic {
    pub(super) fn new(check: &BasicCheck, keyring: &Keyring, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let name = |text: &[u8]| if text.contains(&b':') { Err(BadSecret::Colon) } else { Ok(Secret::new(text)) };
        Ok(Self {
            site: Site::new(&Place::Header(AUTHORIZATION), pointers)?,
            names: check.username.as_ref().map(|slot| Keys::new(keyring, slot, name)).transpose()?,
            passwords: Keys::new(keyring, &check.password, |text| Ok(Secret::new(text)))?,
        })
    }

    /// Compares name and password with every good secret, both always, in constant time for secrets of one length.
    pub(super) fn check(&self, reading: &Reading<'_>, now: UnixMillis) -> Result<&Usable<Secret>, Rejection> {
        let value = match reading.value(&self.site) {
            Times::Never => return Err(Rejection::MissingSignature),
            Times::Often => return Err(Rejection::RepeatedSignature),
            Times::Once(value) => value,
        };
        let pair = credentials(value).ok_or(Rejection::MalformedSignature)?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(Rejection::MalformedSignature)?;
        let (name, password) = pair.split_at(colon);
        let password = password.get(1..).unwrap_or_default();
        let named = match &self.names {
            None => Choice::from(1),
            Some(names) => names.good(now)?.fold(Choice::from(0), |named, key| named | matches(key, name)),
        };
        let mut found = None;
        for key in self.passwords.good(now)? {
            if bool::from(named & matches(key, password)) && found.is_none() {
                found = Some(key);
            }
        }
        found.ok_or(Rejection::NoMatch)
    }

    pub(super) fn sign(&self, draft: &mut Draft) -> Result<(), SignError> {
        // Where any name will do, one that tells a reader of the request whose it is.
        let name = self.names.as_ref().map_or(&b"forebay"[..], |names| names.first().value.expose());
        let pair = Zeroizing::new([name, b":", self.passwords.first().value.expose()].concat());
        draft.put(self.site.place(), format!("Basic {}", BASE64.encode(&pair)).as_bytes())
    }
}

fn matches(key: &Usable<Secret>, text: &[u8]) -> Choice {
    Choice::from(u8::from(key.value.matches(text)))
}

/// What `Basic …` says, decoded. The word may be in either case (RFC 9110, section 11.1); the base64 has one form.
fn credentials(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (word, rest) = value.split_at_checked("Basic ".len())?;
    if !word.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let digits = rest.iter().take_while(|byte| **byte != b'=').count();
    let padded_inside = rest.get(digits..)?.iter().any(|byte| *byte != b'=');
    if padded_inside { None } else { BASE64.decode(rest).ok().map(Zeroizing::new) }
}
