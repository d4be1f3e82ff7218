//! HMAC over the signed content.

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::carrier::{Carrier, Fields};
use super::content::Content;
use super::keys::{self, Keys, Usable};
use super::mac::{KeyedHash, Mac};
use super::request::{Request, Times};
use super::time::{self, SignedTime};
use super::{CompileError, HmacCheck, Keyring, Rejection, SignError, Tolerance};
use crate::base::UnixMillis;

/// A HMAC check, compiled.
#[derive(Debug)]
pub(super) struct Signed {
    carrier: Carrier,
    content: Content,
    time: Option<SignedTime>,
    keys: Keys<KeyedHash>,
}

/// A signature that holds: by which secret, and what the signature header said besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds<'r, 'q> {
    pub(super) key: &'r Usable<KeyedHash>,
    fields: Fields<'q>,
}

impl Signed {
    pub(super) fn new(check: &HmacCheck, keyring: &Keyring, tolerance: Tolerance) -> Result<Self, CompileError> {
        let mut carrier = Carrier::new(&check.signature, check.hash)?;
        let from = check.timestamp.as_ref().map(|timestamp| &timestamp.from);
        let content = Content::new(&check.content, from, &mut carrier)?;
        let time = match &check.timestamp {
            Some(timestamp) => Some(SignedTime::new(timestamp, tolerance, &mut carrier)?),
            None => None,
        };
        if from.is_some_and(|from| !check.content.0.contains(from)) {
            return Err(CompileError::UnsignedTimestamp);
        }
        let prepare = |text: &[u8]| keys::decode(text, &check.key).map(|key| KeyedHash::new(check.hash, &key));
        let keys = Keys::new(keyring, &check.secret, prepare)?;
        Ok(Self { carrier, content, time, keys })
    }

    /// Checks the timestamp, then the signatures: each against the MAC under every good secret.
    pub(super) fn check<'r, 'q>(&'r self, request: &Request<'q>, now: UnixMillis) -> Result<Holds<'r, 'q>, Rejection> {
        let read = self.carrier.read(request)?;
        if let Some(time) = &self.time {
            time.check(request, &read.fields, now)?;
        }
        let mut verdict = Rejection::MalformedSignature;
        for key in self.keys.good(now)? {
            let mac = self.mac(key, request, &read.fields)?;
            for signature in read.signatures().filter_map(|text| self.carrier.decode(text)) {
                if signature.matches(&mac).into() {
                    return Ok(Holds { key, fields: read.fields });
                }
                verdict = Rejection::NoMatch;
            }
        }
        Err(verdict)
    }

    fn mac(&self, key: &Usable<KeyedHash>, request: &Request<'_>, fields: &Fields<'_>) -> Result<Mac, Rejection> {
        let mut hash = key.value.clone();
        self.content.feed(request, fields, |bytes| hash.update(bytes))?;
        Ok(hash.finish())
    }

    /// The SHA-256 of the signed bytes.
    pub(super) fn digest(&self, request: &Request<'_>, held: &Holds<'_, '_>) -> Result<[u8; 32], Rejection> {
        let mut hash = Sha256::new();
        self.content.feed(request, &held.fields, |bytes| hash.update(bytes))?;
        Ok(hash.finalize().into())
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// The headers that make `request` signed at `now`, with the first secret.
    pub(super) fn sign(
        &self,
        request: &Request<'_>,
        now: UnixMillis,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        let text = self.time.as_ref().map(|time| time.write(now));
        let time = self.time.as_ref().zip(text.as_deref());

        let mut made: Vec<_> = time.iter().filter_map(|(time, text)| time.header(text)).collect();
        let mut headers: HeaderMap = request.headers.clone();
        for (name, value) in &made {
            headers.insert(name.clone(), value.clone());
        }
        let request = Request { headers: &headers, ..*request };

        let field = time.and_then(|(time, text)| match time.from {
            time::From::Field(index) => Some((index, text)),
            time::From::Header(_) => None,
        });
        let mut fields = Fields::default();
        if let Some((index, text)) = field {
            fields.put(index, text);
        }
        self.can_be_signed(&request, &fields)?;
        let mac = self.mac(self.keys.first(), &request, &fields).map_err(|_| SignError::Value)?;
        made.push((self.carrier.header.clone(), self.carrier.write(&mac, field)?));
        Ok(made)
    }

    fn can_be_signed(&self, request: &Request<'_>, fields: &Fields<'_>) -> Result<(), SignError> {
        if let Some(name) = self.content.headers().find(|name| !matches!(request.header(name), Times::Once(_))) {
            return Err(SignError::Header(name.clone()));
        }
        match self.content.fields().find(|index| fields.one(*index).is_err()) {
            Some(index) => Err(SignError::Field(self.carrier.field_name(index).to_owned())),
            None => Ok(()),
        }
    }
}
