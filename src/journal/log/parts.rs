//! A record's payload in two parts: what the journal goes by, and what a sender or an application wrote.
//!
//! Clear (form 0), as all of format 2, the two are one stream, in the order in which they are written. Sealed (form 1):
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–7 | the key's id |
//! | 8–19 | the nonce |
//! | 20–23 | length of what is open |
//! | 24… | what is open, then what is sealed, then its tag of 16 bytes |
//!
//! What is sealed is bound to what is open beside it, to the record's kind, and by its key to the journal.

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use super::segment::RawRecord;
use crate::journal::seal::{Altered, CannotSeal, KeyId, Keyring, NONCE_BYTES, Sealer, TAG_BYTES};

/// A payload in one stream.
pub const CLEAR: u8 = 0;
/// A payload whose second part is sealed.
pub const SEALED: u8 = 1;
const FRONT: usize = 8 + NONCE_BYTES + 4;
/// How much longer a payload is for being sealed.
pub const SEALED_EXTRA: usize = FRONT + TAG_BYTES;

/// A payload, and its form.
#[derive(Clone, Debug)]
pub struct Payload {
    pub form: u8,
    pub bytes: Vec<u8>,
}

/// A payload as it is written.
pub struct Writing<'s> {
    open: Encoder,
    private: Option<(&'s Sealer, Encoder)>,
}

impl<'s> Writing<'s> {
    /// Sealed by `sealer`, or clear.
    pub fn new(sealer: Option<&'s Sealer>) -> Self {
        Self { open: Encoder::default(), private: sealer.map(|sealer| (sealer, Encoder::default())) }
    }

    /// For what the journal goes by.
    pub fn open(&mut self) -> &mut Encoder {
        &mut self.open
    }

    /// For what a sender or an application wrote.
    pub fn private(&mut self) -> &mut Encoder {
        match &mut self.private {
            Some((_, private)) => private,
            None => &mut self.open,
        }
    }

    /// The payload of a record of `kind`. Clear where there is nothing to seal.
    ///
    /// # Errors
    /// [`CannotSeal`].
    pub fn finish(self, kind: u8) -> Result<Payload, CannotSeal> {
        let open = self.open.0;
        let Some((sealer, private)) = self.private.filter(|(_, private)| !private.0.is_empty()) else {
            return Ok(Payload { form: CLEAR, bytes: open });
        };
        let mut private = private.0;
        let (nonce, tag) = sealer.seal(&beside(kind, &open), &mut private)?;
        let mut out = Encoder(Vec::with_capacity(SEALED_EXTRA + open.len() + private.len()));
        out.raw(&sealer.id().0).raw(&nonce).bytes(&open).raw(&private).raw(&tag);
        Ok(Payload { form: SEALED, bytes: out.0 })
    }
}

/// What is sealed in a record of `kind` is bound to this.
fn beside(kind: u8, open: &[u8]) -> Vec<u8> {
    let mut beside = Vec::with_capacity(4 + open.len());
    beside.extend_from_slice(b"log");
    beside.push(kind);
    beside.extend_from_slice(open);
    beside
}

/// Why a record whose checksums hold cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It makes no sense to this version.
    Malformed,
    /// It was changed on purpose: the checksums hold, the seal does not.
    Altered,
    /// It is sealed with a key that is not there.
    NoKey(KeyId),
}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Altered> for Unreadable {
    fn from(_: Altered) -> Self {
        Self::Altered
    }
}

/// A payload as it is read.
pub struct Parts {
    /// What the journal goes by.
    pub open: Decoder,
    private: Private,
}

enum Private {
    Inline,
    Opened(Decoder),
    Withheld,
}

impl Parts {
    /// All of a record, opened with `keys`.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn whole(raw: &RawRecord, keys: &Keyring) -> Result<Self, Unreadable> {
        if raw.form == CLEAR {
            return Ok(Self { open: Decoder(raw.payload.clone()), private: Private::Inline });
        }
        let Sealed { key, nonce, open, sealed } = Sealed::of(raw)?;
        let sealer = keys.find(key).ok_or(Unreadable::NoKey(key))?;
        let mut bytes = Vec::from(sealed);
        let length = sealer.open(&beside(raw.kind, &open), nonce, &mut bytes)?.len();
        bytes.truncate(length);
        Ok(Self { open: Decoder(open), private: Private::Opened(Decoder(Bytes::from(bytes))) })
    }

    /// What can be read of a record without any key.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn outline(raw: &RawRecord) -> Result<Self, Malformed> {
        if raw.form == CLEAR {
            return Ok(Self { open: Decoder(raw.payload.clone()), private: Private::Inline });
        }
        Ok(Self { open: Decoder(Sealed::of(raw)?.open), private: Private::Withheld })
    }

    /// What a sender or an application wrote; none where it is sealed and not opened.
    pub fn private(&mut self) -> Option<&mut Decoder> {
        match &mut self.private {
            Private::Inline => Some(&mut self.open),
            Private::Opened(private) => Some(private),
            Private::Withheld => None,
        }
    }
}

/// The key that a record is sealed with; none if it is clear, or makes no sense.
pub fn key_of(raw: &RawRecord) -> Option<KeyId> {
    if raw.form == CLEAR { None } else { Sealed::of(raw).ok().map(|sealed| sealed.key) }
}

struct Sealed {
    key: KeyId,
    nonce: [u8; NONCE_BYTES],
    open: Bytes,
    sealed: Bytes,
}

impl Sealed {
    fn of(raw: &RawRecord) -> Result<Self, Malformed> {
        if raw.form != SEALED {
            return Err(Malformed);
        }
        let mut from = Decoder(raw.payload.clone());
        let array = |bytes: Bytes| bytes.as_ref().try_into().map_err(|_| Malformed);
        let key = KeyId(from.u64()?.to_le_bytes());
        let nonce = array(from.take(NONCE_BYTES)?)?;
        Ok(Self { key, nonce, open: from.bytes()?, sealed: from.0 })
    }
}
