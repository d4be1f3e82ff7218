//! A secret sent as it is, in a header.

use http::{HeaderName, HeaderValue};

use super::keys::{Keys, Usable};
use super::request::{Request, Times};
use super::{CompileError, Keyring, Rejection, SignError};
use crate::base::{Secret, UnixMillis};

/// A token check, compiled.
#[derive(Debug)]
pub(super) struct Token {
    header: HeaderName,
    prefix: Box<str>,
    keys: Keys<Secret>,
}

impl Token {
    pub(super) fn new(check: &super::TokenCheck, keyring: &Keyring) -> Result<Self, CompileError> {
        Ok(Self {
            header: check.header.clone(),
            prefix: check.prefix.as_deref().unwrap_or_default().into(),
            keys: Keys::new(keyring, &check.secret, |text| Ok(Secret::new(text)))?,
        })
    }

    /// Compares the header with every good secret, in constant time for secrets of one length.
    pub(super) fn check(&self, request: &Request<'_>, now: UnixMillis) -> Result<&Usable<Secret>, Rejection> {
        let value = match request.header(&self.header) {
            Times::Never => return Err(Rejection::MissingSignature),
            Times::Often => return Err(Rejection::RepeatedSignature),
            Times::Once(value) => value.as_bytes(),
        };
        let token = value.strip_prefix(self.prefix.as_bytes()).ok_or(Rejection::MalformedSignature)?;
        let mut good = self.keys.good(now)?;
        good.find(|key| key.value.matches(token)).ok_or(Rejection::NoMatch)
    }

    pub(super) fn sign(&self) -> Result<(HeaderName, HeaderValue), SignError> {
        let value = [self.prefix.as_bytes(), self.keys.first().value.expose()].concat();
        let mut value = HeaderValue::try_from(value).map_err(|_| SignError::Secret)?;
        value.set_sensitive(true);
        Ok((self.header.clone(), value))
    }
}
