//! What makes two requests the same event.
//!
//! A dedupe key is the SHA-256 of these, each with its length in front (8 bytes, big endian) so that no two
//! lists of them are alike: the source's name; the kind of key; for each part its place (`header:x-id`) and its value;
//! and, except for the kind `parts`, the SHA-256 of the signed bytes. Claims outlive an upgrade, so this must not change.
//!
//! The kinds: `parts`, where the signature covers every part; `body`, where the body is the key, whose SHA-256 then stands
//! for that of the signed bytes; `bound`, where the signature does not cover a part, so that nobody can take a genuine
//! event's unsigned id and suppress it by sending an old signed body under that id; and `signed`, where there is no part
//! to go by.

use sha2::{Digest, Sha256};

use super::check::Held;
use super::facts::{Choice, Rule};
use super::reading::Reading;
use super::{Place, Rejection};
use crate::base::Name;
use crate::event::DedupeKey;

/// The key of one event, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// The key.
    pub key: DedupeKey,
    /// The first 8 bytes of the body's SHA-256: another one under the same key is a conflict.
    pub fingerprint: u64,
    /// Where the key is bound to the signed bytes: what it has in common with the keys of all other requests of the source
    /// with the same signed bytes, whatever id they came under.
    pub same_body: Option<DedupeKey>,
    /// For `explain`: e.g. `header:x-id bound to the signed bytes`. Never a value.
    pub rule: Box<str>,
}

const BOUND: &str = "bound to the signed bytes";
const SIGNED: &str = "the signed bytes";
const BODY: &str = "the body";

/// The key of the request, whose check is `held`; none if `rule` is off.
pub(super) fn dedupe<'s>(
    rule: &'s Rule,
    source: &Name,
    reading: &'s Reading<'_>,
    held: &Held<'s, 's>,
) -> Result<Option<Dedupe>, Rejection> {
    let parts = match rule {
        Rule::Off => return Ok(None),
        Rule::Signed | Rule::Body => None,
        Rule::Parts(parts) => parts.iter().map(|part: &Choice| part.of(reading)).collect::<Option<Vec<_>>>(),
    };
    let parts = parts.unwrap_or_default();
    let body: [u8; 32] = Sha256::digest(reading.request.body).into();
    let text = || parts.iter().map(|(place, _)| place.to_string()).collect::<Vec<_>>().join(" + ");

    let signed = || Ok(Hashed::new(source, "signed").bind(held.digest(reading, body)?).finish());
    let (key, same_body, rule) = if matches!(rule, Rule::Body) {
        (Hashed::new(source, "body").bind(body).finish(), None, BODY.to_owned())
    } else if parts.is_empty() {
        (signed()?, None, SIGNED.to_owned())
    } else if parts.iter().all(|(place, _)| held.covers(place)) {
        (Hashed::new(source, "parts").parts(&parts).finish(), None, text())
    } else {
        let key = Hashed::new(source, "bound").parts(&parts).bind(held.digest(reading, body)?);
        (key.finish(), Some(signed()?), format!("{} {BOUND}", text()))
    };
    let [a, b, c, d, e, f, g, h, ..] = body;
    let fingerprint = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    Ok(Some(Dedupe { key, fingerprint, same_body, rule: rule.into() }))
}

/// The digest that a key is, as it grows.
struct Hashed(Sha256);

impl Hashed {
    fn new(source: &Name, kind: &str) -> Self {
        Self(Sha256::new()).and(source.as_str().as_bytes()).and(kind.as_bytes())
    }

    fn parts(self, parts: &[(&Place, &str)]) -> Self {
        let both =
            |hash: Self, (place, value): &(&Place, &str)| hash.and(place.to_string().as_bytes()).and(value.as_bytes());
        parts.iter().fold(self, both)
    }

    fn bind(self, digest: [u8; 32]) -> Self {
        self.and(&digest)
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn finish(self) -> DedupeKey {
        DedupeKey(self.0.finalize().into())
    }
}
