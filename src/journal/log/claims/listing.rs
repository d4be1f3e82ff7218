//! Which runs there must be, so that one that was taken away is noticed.
//!
//! `claims/runs`, replaced whenever a run has been written: magic `FBRUNS1\0`, store 16, for each run its first and last seal u32
//! and its last expiry i64, CRC-32C of all before u32. Numbers are little-endian.
//!
//! A run is listed once it is durable and before anything that it was made of is removed. One whose claims have all expired
//! may be gone, and is not listed again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::super::codec::{Decoder, Encoder, Malformed};
use super::DIR;
use super::run::{Run, Seals};
use crate::base::UnixMillis;
use crate::journal::disk::{self, Disk};

pub const FILE: &str = "runs";
const MAGIC: &[u8; 8] = b"FBRUNS1\0";

/// A run that there must be until its claims have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub seals: Seals,
    pub last_expiry: UnixMillis,
}

impl Listed {
    pub fn of(run: &Run) -> Self {
        Self { seals: run.seals, last_expiry: run.last_expiry }
    }
}

/// The list, in memory as on disk. Seals and merges change it from threads of their own.
pub struct Listing {
    disk: Arc<dyn Disk>,
    store: [u8; 16],
    /// None while it is not known which there must be: nothing is written then.
    runs: Mutex<Option<Vec<Listed>>>,
}

impl Listing {
    /// Reads it; none if there is none that can be read.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn read(disk: &dyn Disk, store: [u8; 16]) -> io::Result<Option<Vec<Listed>>> {
        let files = disk.list(DIR)?;
        let Some((_, length)) = files.iter().find(|(name, _)| name == FILE) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(*length).unwrap_or(0)];
        let count = disk::read_around(&*disk.open(&format!("{DIR}/{FILE}"))?, &mut bytes, 0)?;
        bytes.truncate(count);
        Ok(decode(Bytes::from(bytes), store).ok())
    }

    pub fn new(disk: Arc<dyn Disk>, store: [u8; 16], runs: Option<Vec<Listed>>) -> Self {
        Self { disk, store, runs: Mutex::new(runs) }
    }

    /// Lists `run` instead of all that its seals contain, durably, and leaves out what has expired at `now`.
    ///
    /// # Errors
    /// As the operating system says; the list is then as it was.
    pub fn replace(&self, seals: Seals, run: Option<&Run>, now: UnixMillis) -> io::Result<()> {
        self.change(now, |runs| {
            let mut runs = runs?;
            runs.retain(|listed| !seals.contain(listed.seals));
            runs.extend(run.map(Listed::of));
            Some(runs)
        })
    }

    /// Lists `runs` and nothing else, durably.
    ///
    /// # Errors
    /// As the operating system says; the list is then as it was.
    pub fn set(&self, runs: Vec<Listed>, now: UnixMillis) -> io::Result<()> {
        self.change(now, |_| Some(runs))
    }

    fn change(
        &self,
        now: UnixMillis,
        change: impl FnOnce(Option<Vec<Listed>>) -> Option<Vec<Listed>>,
    ) -> io::Result<()> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner); // changed in one step, below
        let Some(mut changed) = change(runs.clone()) else { return Ok(()) };
        changed.retain(|listed| listed.last_expiry > now);
        disk::replace(&*self.disk, DIR, FILE, &encode(&changed, self.store))?;
        *runs = Some(changed);
        Ok(())
    }
}

/// The file's bytes.
pub fn encode(runs: &[Listed], store: [u8; 16]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.raw(MAGIC).raw(&store);
    for Listed { seals, last_expiry } in runs {
        out.u32(seals.first).u32(seals.last).i64(last_expiry.0);
    }
    let sum = crc32c::crc32c(&out.0);
    out.u32(sum);
    out.0
}

fn decode(bytes: Bytes, store: [u8; 16]) -> Result<Vec<Listed>, Malformed> {
    let (said, sum) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
    let (rest, good) = (said.len().saturating_sub(24), u32::from_le_bytes(*sum) == crc32c::crc32c(said));
    let mut from = Decoder(bytes.clone());
    if !good || !rest.is_multiple_of(16) || from.take(8)? != MAGIC.as_slice() || from.id()? != store {
        return Err(Malformed);
    }
    let listed = |_| {
        let seals = Seals { first: from.u32()?, last: from.u32()? };
        Ok(Listed { seals, last_expiry: UnixMillis(from.i64()?) })
    };
    (0..rest / 16).map(listed).collect()
}
