//! Claims: which dedupe keys are held, by which event, until when.
//!
//! Recent ones are in memory, at most [`OPEN_MAX`]; then they are sealed into a partition on disk,
//! sorted by hash, behind a Bloom filter that stays in memory (10 bits a claim). A partition goes when
//! its last claim has expired. Events carry their claims in the log as well, so what was not yet sealed
//! is read back from there; a claim outlives its event because trimming seals first.
//!
//! `claims/<number, 8 hex digits>.clm`: magic `FBCLAIM1`, store id 16, sealed-through position u64, last
//! expiry i64, u32 count, u32 filter bytes, the filter, the claims (64 bytes each: hash 16, event 16,
//! position u64, until i64, fingerprint u64, first entry u32, entries u8, rearms u8, 2 zero), u32 CRC-32C
//! of all before.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use super::stored::StoredClaim;
use crate::base::UnixMillis;
use crate::event::EventId;
use crate::journal::Position;
use crate::journal::disk::{self, Disk, DiskFile};

/// Claims in memory before they are sealed: about 10 MiB.
pub const OPEN_MAX: usize = 1 << 17;
/// The directory of partitions.
pub const DIR: &str = "claims";
const MAGIC: &[u8; 8] = b"FBCLAIM1";
const ROW: usize = 64;
const FILTER_BITS_EACH: usize = 10;
const FILTER_PROBES: u64 = 6;

/// A claim and the event that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The event.
    pub event: EventId,
    /// Where its record is, or was: an event that moves takes its claim along.
    pub at: Position,
    /// Until when.
    pub until: UnixMillis,
    /// A digest of the event's body.
    pub fingerprint: u64,
    /// The event's first entry in its segment.
    pub first_entry: u32,
    /// How many entries it has there.
    pub entries: u8,
    /// Whether a duplicate rearms dead deliveries.
    pub rearms: bool,
}

impl Held {
    /// The claim of the event `id` whose record is at `at`.
    pub fn new(claim: &StoredClaim, id: EventId, at: Position, first_entry: u32, entries: usize) -> Self {
        Self {
            event: id,
            at,
            until: claim.until,
            fingerprint: claim.fingerprint,
            first_entry,
            entries: u8::try_from(entries).unwrap_or(u8::MAX),
            rearms: claim.rearms,
        }
    }
}

type Hash = [u8; 16];

/// All claims of a store.
pub struct Claims {
    store: [u8; 16],
    open: HashMap<Hash, Held>,
    sealed: Vec<Partition>,
    next_number: u32,
    /// Partitions that could not be read.
    damaged: Vec<u32>,
}

struct Partition {
    number: u32,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    count: u32,
    rows_at: u64,
    last_expiry: UnixMillis,
    filter: Filter,
}

impl Claims {
    /// Reads the partitions of `store`. Returns the claims and the position from which the log has
    /// those that are in none.
    ///
    /// A damaged partition is left out and reported, and all claims that the log still has are to be read again:
    /// only those that had outlived their events are lost, which can let a duplicate through and never loses an event.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(disk: &dyn Disk, store: [u8; 16]) -> io::Result<(Self, Position)> {
        disk.create_dir(DIR)?;
        let mut claims = Self { store, open: HashMap::new(), sealed: Vec::new(), next_number: 1, damaged: Vec::new() };
        let mut through = Position::START;
        let mut files = disk.list(DIR)?;
        files.sort();
        for (name, bytes) in files {
            let digits = name.strip_suffix(".clm").filter(|digits| digits.len() == 8);
            let Some(number) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else { continue };
            claims.next_number = claims.next_number.max(number + 1);
            match Partition::open(disk, number, bytes, store)? {
                Some((partition, sealed_through)) => {
                    through = through.max(sealed_through);
                    claims.sealed.push(partition);
                }
                None => {
                    claims.damaged.push(number);
                    tracing::error!(
                        partition = number,
                        "claims: a damaged partition is left out; those of its claims whose events are still kept are read again"
                    );
                }
            }
        }
        let through = if claims.damaged.is_empty() { through } else { Position::START };
        Ok((claims, through))
    }

    /// Who holds `hash` at `now`.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn holder(&self, hash: &Hash, now: UnixMillis) -> io::Result<Option<Held>> {
        let in_force = |held: &Held| held.until > now;
        if let Some(held) = self.open.get(hash) {
            return Ok(Some(*held).filter(in_force));
        }
        for partition in self.sealed.iter().rev().filter(|partition| partition.last_expiry > now) {
            if partition.filter.may_have(hash)
                && let Some(held) = partition.find(hash)?
            {
                return Ok(Some(held).filter(in_force));
            }
        }
        Ok(None)
    }

    /// Gives `hash` to `held`, whoever held it.
    pub fn give(&mut self, hash: Hash, held: Held) {
        self.open.insert(hash, held);
    }

    /// Takes back what [`Claims::give`] gave in a batch that was not written.
    pub fn take_back(&mut self, hash: &Hash) {
        self.open.remove(hash);
    }

    /// Whether it is time to [`Claims::seal`].
    pub fn is_full(&self) -> bool {
        self.open.len() >= OPEN_MAX
    }

    /// Once everything before `through` has been read again: seals it, and sets damaged partitions aside.
    ///
    /// # Errors
    /// As the operating system says; it is tried again at the next opening.
    pub fn mend(&mut self, disk: &dyn Disk, through: Position, now: UnixMillis) -> io::Result<()> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        self.seal(disk, through, now)?;
        for number in std::mem::take(&mut self.damaged) {
            disk.rename(&path(number), &format!("{}.damaged", path(number)))?;
        }
        disk.sync_dir(DIR)
    }

    /// Writes the open claims to a partition, durably, and drops the partitions that have expired.
    /// All claims of records before `through` are then on disk.
    ///
    /// # Errors
    /// As the operating system says; the claims then stay in memory.
    pub fn seal(&mut self, disk: &dyn Disk, through: Position, now: UnixMillis) -> io::Result<()> {
        let mut rows: Vec<_> = self.open.iter().filter(|(_, held)| held.until > now).collect();
        rows.sort_unstable_by_key(|(hash, _)| **hash);
        let number = self.next_number;
        let bytes = encode(self.store, through, &rows);
        disk::replace(disk, DIR, &format!("{number:08x}.clm"), &bytes)?;
        self.next_number += 1;
        if let Some((partition, _)) = Partition::open(disk, number, bytes.len() as u64, self.store)? {
            self.sealed.push(partition);
        }
        self.open = HashMap::new();
        let (expired, kept): (Vec<_>, Vec<_>) = self.sealed.drain(..).partition(|partition| {
            partition.last_expiry <= now && partition.number != number // the newest says how far sealing came
        });
        self.sealed = kept;
        for partition in expired {
            disk.remove(&path(partition.number))?;
        }
        Ok(())
    }

    /// The size of the partitions.
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|partition| partition.bytes).sum()
    }
}

fn path(number: u32) -> String {
    format!("{DIR}/{number:08x}.clm")
}

fn encode(store: [u8; 16], through: Position, rows: &[(&Hash, &Held)]) -> Vec<u8> {
    let mut filter = Filter::sized_for(rows.len());
    for (hash, _) in rows {
        filter.add(hash);
    }
    let last = rows.iter().map(|(_, held)| held.until.0).max().unwrap_or(0);
    let mut out = Encoder::default();
    out.raw(MAGIC).raw(&store).u64(through.0).i64(last);
    out.u32(u32::try_from(rows.len()).unwrap_or(u32::MAX)).bytes(&filter.0);
    for (hash, held) in rows {
        out.raw(*hash).raw(held.event.as_bytes()).u64(held.at.0).i64(held.until.0).u64(held.fingerprint);
        out.u32(held.first_entry).u8(held.entries).u8(u8::from(held.rearms)).u16(0);
    }
    let sum = crc32c::crc32c(&out.0);
    out.u32(sum);
    out.0
}

impl Partition {
    /// None if it is damaged or another store's.
    fn open(disk: &dyn Disk, number: u32, bytes: u64, store: [u8; 16]) -> io::Result<Option<(Self, Position)>> {
        let file = disk.open(&path(number))?;
        let mut whole = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let got = file.read_at(&mut whole, 0)?;
        whole.truncate(got);
        Ok(Self::parse(file, number, &Bytes::from(whole), store).ok())
    }

    fn parse(
        file: Arc<dyn DiskFile>,
        number: u32,
        whole: &Bytes,
        store: [u8; 16],
    ) -> Result<(Self, Position), Malformed> {
        let mut sum = Decoder(whole.slice(whole.len().checked_sub(4).ok_or(Malformed)?..));
        let said = whole.slice(..whole.len() - 4);
        if sum.u32()? != crc32c::crc32c(&said) {
            return Err(Malformed);
        }
        let mut from = Decoder(said);
        if from.take(8)? != MAGIC.as_slice() || from.id()? != store {
            return Err(Malformed);
        }
        let (through, last_expiry) = (Position(from.u64()?), UnixMillis(from.i64()?));
        let count = from.u32()?;
        let filter = Filter(from.bytes()?.to_vec());
        if from.0.len() != count as usize * ROW || !filter.0.len().is_power_of_two() {
            return Err(Malformed);
        }
        let rows_at = (whole.len() - 4 - from.0.len()) as u64;
        Ok((Self { number, file, bytes: whole.len() as u64, count, rows_at, last_expiry, filter }, through))
    }

    fn find(&self, hash: &Hash) -> io::Result<Option<Held>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut row = [0u8; ROW];
            self.file.read_at(&mut row, self.rows_at + u64::from(middle) * ROW as u64)?;
            let (found, rest) = row.split_at(16);
            match found.cmp(hash) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(decode_held(rest).ok()),
            }
        }
        Ok(None)
    }
}

fn decode_held(row: &[u8]) -> Result<Held, Malformed> {
    let mut from = Decoder(Bytes::copy_from_slice(row));
    Ok(Held {
        event: EventId::from_bytes(from.id()?),
        at: Position(from.u64()?),
        until: UnixMillis(from.i64()?),
        fingerprint: from.u64()?,
        first_entry: from.u32()?,
        entries: from.u8()?,
        rearms: from.u8()? == 1,
    })
}

/// A Bloom filter (Bloom, CACM 13/7, 1970); its hashes are the claim's own bytes, which are random already.
struct Filter(Vec<u8>);

impl Filter {
    fn sized_for(count: usize) -> Self {
        Self(vec![0; (count * FILTER_BITS_EACH / 8).max(8).next_power_of_two()])
    }

    /// The byte and bit of each probe (Kirsch and Mitzenmacher, 2006: two hashes make all).
    fn probes(&self, hash: &Hash) -> impl Iterator<Item = (usize, u8)> + use<> {
        let whole = u128::from_le_bytes(*hash);
        #[allow(clippy::cast_possible_truncation)] // the two halves
        let (first, second) = (whole as u64, (whole >> 64) as u64 | 1);
        let mask = self.0.len() as u64 * 8 - 1;
        (0..FILTER_PROBES).map(move |probe| {
            let bit = first.wrapping_add(second.wrapping_mul(probe)) & mask;
            (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
        })
    }

    fn add(&mut self, hash: &Hash) {
        for (byte, bit) in self.probes(hash) {
            if let Some(byte) = self.0.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    fn may_have(&self, hash: &Hash) -> bool {
        self.probes(hash).all(|(byte, bit)| self.0.get(byte).is_some_and(|byte| byte & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;

    fn hash(number: u64) -> Hash {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        bytes[8..].copy_from_slice(&number.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).to_le_bytes());
        bytes
    }

    fn held(number: u64, until: i64) -> Held {
        Held {
            event: EventId::from_bytes(hash(number + 1_000_000)),
            at: Position(number),
            until: UnixMillis(until),
            fingerprint: number,
            first_entry: 7,
            entries: 2,
            rearms: true,
        }
    }

    #[test]
    fn sealed_claims_are_found_again_after_reopening_until_they_expire() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let (mut claims, through) = Claims::open(&disk, [1; 16]).unwrap();
        assert_eq!(through, Position::START);
        for number in 0..2_000 {
            claims.give(hash(number), held(number, 100));
        }
        claims.seal(&disk, Position(77), UnixMillis(1)).unwrap();

        let (claims, through) = Claims::open(&disk, [1; 16]).unwrap();
        assert_eq!(through, Position(77));
        for number in 0..2_000 {
            assert_eq!(claims.holder(&hash(number), UnixMillis(99)).unwrap(), Some(held(number, 100)));
            assert_eq!(claims.holder(&hash(number), UnixMillis(100)).unwrap(), None, "the window is over");
        }
        let strangers = (2_000..4_000).filter(|n| claims.holder(&hash(*n), UnixMillis(1)).unwrap().is_some());
        assert_eq!(strangers.count(), 0);
    }

    #[test]
    fn a_newer_claim_on_a_key_counts_and_expired_partitions_go() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let (mut claims, _) = Claims::open(&disk, [1; 16]).unwrap();
        claims.give(hash(1), held(1, 10));
        claims.seal(&disk, Position(1), UnixMillis(0)).unwrap();
        claims.give(hash(1), held(2, 50));
        claims.seal(&disk, Position(2), UnixMillis(20)).unwrap();
        assert_eq!(claims.holder(&hash(1), UnixMillis(20)).unwrap(), Some(held(2, 50)));
        assert_eq!(disk.list(DIR).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_partition_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let (mut claims, _) = Claims::open(&disk, [1; 16]).unwrap();
        claims.give(hash(1), held(1, 10));
        claims.seal(&disk, Position(1), UnixMillis(0)).unwrap();
        let file = dir.path().join(path(1));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (claims, through) = Claims::open(&disk, [1; 16]).unwrap();
        assert_eq!((claims.holder(&hash(1), UnixMillis(0)).unwrap(), through), (None, Position::START));
    }
}
