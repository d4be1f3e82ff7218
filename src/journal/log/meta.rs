//! `journal.meta`: what a journal is, once and for all.

use std::io;

use bytes::Bytes;

use super::codec::{Decoder, Encoder};
use super::open::{OpenError, failed};
use super::segment;
use crate::journal::disk::{self, Disk};

/// What a journal is, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its id: segments of other journals are told apart by it.
    pub store: [u8; 16],
    /// The key of its claims' hashes, so that nobody outside can aim for a collision.
    pub claim_key: [u8; 32],
}

const META: &str = "journal.meta";
const META_MAGIC: &[u8; 8] = b"FBMETA1\0";

impl Meta {
    /// Reads `journal.meta`, or makes it where the journal is new.
    ///
    /// # Errors
    /// [`OpenError::NoMeta`] if it cannot be read although there are segments, or [`OpenError::Io`].
    pub fn open(disk: &dyn Disk) -> Result<Self, OpenError> {
        let files = disk.list(".").map_err(failed("cannot list the journal's directory"))?;
        let has_segments = disk
            .list(segment::DIR)
            .map_err(failed("cannot list the journal's segments"))?
            .iter()
            .any(|(name, _)| segment::number_of(name).is_some());
        if !files.iter().any(|(name, _)| name == META) {
            return if has_segments { Err(OpenError::NoMeta) } else { Self::make(disk) };
        }
        match Self::peek(disk)? {
            Some(meta) => Ok(meta),
            None if has_segments => Err(OpenError::NoMeta),
            None => Self::make(disk),
        }
    }

    /// Reads `journal.meta`; none if it is not there, or is damaged.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn peek(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let file = match disk.open(META) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("cannot open journal.meta"))?,
        };
        let mut bytes = [0; 60];
        let got = file.read_at(&mut bytes, 0).map_err(failed("cannot read journal.meta"))?;
        Ok(Self::decode(&Bytes::copy_from_slice(bytes.get(..got).unwrap_or_default())))
    }

    fn make(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut meta = Self { store: [0; 16], claim_key: [0; 32] };
        disk.random(&mut meta.store).map_err(failed("no randomness"))?;
        disk.random(&mut meta.claim_key).map_err(failed("no randomness"))?;
        let mut out = Encoder::default();
        out.raw(META_MAGIC).raw(&meta.store).raw(&meta.claim_key);
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        disk::replace(disk, ".", META, &out.0).map_err(failed("cannot write journal.meta"))?;
        Ok(meta)
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let mut from = Decoder(bytes.clone());
        let magic = from.take(8).ok()?;
        let store = from.id().ok()?;
        let key = from.take(32).ok()?;
        let sum = from.u32().ok()?;
        let good = magic == META_MAGIC.as_slice() && sum == crc32c::crc32c(bytes.get(..56)?);
        Some(Self { store, claim_key: key.as_ref().try_into().ok()? }).filter(|_| good)
    }
}
