//! Segments: the files that the log is made of.
//!
//! `log/<number, 8 hex digits>.log` begins with 64 bytes: magic `FOREBAY1`, u32 format version, u32
//! segment number, 16-byte store id, i64 time of creation, u32 number of the oldest segment at that time, the 8-byte id of the
//! key that what is sealed in it is sealed with (zero: nothing is), 8 zero bytes, u32 CRC-32C of the 60 before.
//!
//! Format 3 is format 2 (which has no sealed records, and no key in the header) and sealed records; segments of both may stand
//! side by side. Format 1 was never released.
//!
//! Records follow, each at a multiple of 8 and padded with zeros to the next:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–3 | the store's marker: the first 4 bytes of its id |
//! | 4 | kind |
//! | 5 | form of the payload: 0 clear, 1 sealed (`parts`) |
//! | 6–7 | zero |
//! | 8–11 | length of the payload |
//! | 12–15 | CRC-32C of the payload |
//! | 16–19 | for an event or what is lost, the number of its first entry in the segment, else zero |
//! | 20–23 | CRC-32C of store id, segment number, offset and bytes 0–19 |
//! | 24… | payload |
//!
//! The header's checksum covers where it stands, so a record copied from elsewhere is not taken for
//! one; after damage, reading goes on at the next offset whose header holds.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::parts::Payload;
use crate::base::UnixMillis;
use crate::journal::Position;
use crate::journal::disk::{self, Disk, DiskFile};
use crate::journal::seal::KeyId;

/// The format that this program writes.
pub const FORMAT: u32 = 3;
/// The oldest format that it reads.
pub const FORMAT_OLDEST: u32 = 2;
/// The length of a segment's header.
pub const HEADER_BYTES: u32 = 64;
const MAGIC: &[u8; 8] = b"FOREBAY1";
const RECORD_HEADER: usize = 24;
const ALIGN: usize = 8;

/// What a segment's checksums are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentKey {
    /// The store's id.
    pub store: [u8; 16],
    /// The segment's number, from 1.
    pub number: u32,
}

/// The directory of segments.
pub const DIR: &str = "log";

/// The path of segment `number`.
pub fn path(number: u32) -> String {
    format!("{DIR}/{number:08x}.log")
}

/// The number in a segment's file name.
pub fn number_of(file: &str) -> Option<u32> {
    let digits = file.strip_suffix(".log")?;
    if digits.len() == 8 { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// The position of `offset` in segment `number`.
pub fn position(number: u32, offset: u32) -> Position {
    Position(u64::from(number) << 32 | u64::from(offset))
}

/// The segment number and offset of a position.
#[allow(clippy::cast_possible_truncation)] // both halves are exactly 32 bits
pub fn split(position: Position) -> (u32, u32) {
    ((position.0 >> 32) as u32, position.0 as u32)
}

/// How many bytes a record with a payload of `payload` bytes takes.
pub fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(ALIGN)
}

/// Makes segment `key.number` durable and empty, ready for appending; `oldest` is the oldest there is, and `sealed_by` what
/// seals in it.
///
/// # Errors
/// As the operating system says.
pub fn create(
    disk: &dyn Disk,
    key: SegmentKey,
    oldest: u32,
    now: UnixMillis,
    sealed_by: Option<KeyId>,
) -> io::Result<Arc<dyn DiskFile>> {
    let name = path(key.number);
    let file = disk.create(&name)?;
    let begun = begin(&*file, key, oldest, now, sealed_by).and_then(|()| disk.sync_dir(DIR));
    if let Err(error) = begun {
        disk.remove(&name)?; // it would be in the way of the next try
        return Err(error);
    }
    Ok(file)
}

fn begin(
    file: &dyn DiskFile,
    key: SegmentKey,
    oldest: u32,
    now: UnixMillis,
    sealed_by: Option<KeyId>,
) -> io::Result<()> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&key.number.to_le_bytes());
    header.extend_from_slice(&key.store);
    header.extend_from_slice(&now.0.to_le_bytes());
    header.extend_from_slice(&oldest.to_le_bytes());
    header.extend_from_slice(&sealed_by.map_or([0; 8], |key| key.0));
    header.resize(HEADER_BYTES as usize - 4, 0);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    file.append(&header)?;
    file.sync()
}

/// What a segment's header says.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// It is ours.
    Good {
        /// When it was made.
        made_at: UnixMillis,
        /// The oldest segment there was then: those before it had been let go of.
        oldest: u32,
        /// The key that what is sealed in it is sealed with.
        sealed_by: Option<KeyId>,
    },
    /// It ends before its header does, or the header was never written whole (a crash while it was made), or is damaged.
    Torn,
    /// It was written by a program with another format.
    OtherFormat(u32),
    /// It belongs to another store, or is another segment under this name.
    Foreign,
}

/// Reads the header of a segment.
///
/// # Errors
/// As the operating system says.
pub fn read_header(file: &dyn DiskFile, key: SegmentKey) -> io::Result<Header> {
    let mut bytes = [0u8; HEADER_BYTES as usize];
    if disk::read_around(file, &mut bytes, 0)? < bytes.len() {
        return Ok(Header::Torn);
    }
    let (said, sum) = bytes.split_at(HEADER_BYTES as usize - 4);
    if sum != crc32c::crc32c(said).to_le_bytes() || !said.starts_with(MAGIC) {
        return Ok(Header::Torn);
    }
    let format = u32_at(said, 8);
    if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
        return Ok(Header::OtherFormat(format));
    }
    if u32_at(said, 12) != key.number || said.get(16..32) != Some(&key.store) {
        return Ok(Header::Foreign);
    }
    let made = said.get(32..40).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
    let key = said.get(44..52).and_then(|bytes| bytes.try_into().ok()).map(KeyId);
    let sealed_by = key.filter(|key| key.0 != [0; 8]);
    Ok(Header::Good { made_at: UnixMillis(made), oldest: u32_at(said, 40), sealed_by })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Adds a record at `offset` of segment `key` to `out`.
pub fn frame(out: &mut Vec<u8>, key: SegmentKey, offset: u32, kind: u8, entry: u32, payload: &Payload) {
    let Payload { form, bytes: payload } = payload;
    let start = out.len();
    out.extend_from_slice(key.store.get(..4).unwrap_or_default());
    out.extend_from_slice(&[kind, *form, 0, 0]);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    out.extend_from_slice(&entry.to_le_bytes());
    let sum = header_sum(key, offset, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(start + record_bytes(payload.len()), 0);
}

fn header_sum(key: SegmentKey, offset: u32, said: &[u8]) -> u32 {
    let mut sum = crc32c::crc32c(&key.store);
    sum = crc32c::crc32c_append(sum, &key.number.to_le_bytes());
    sum = crc32c::crc32c_append(sum, &offset.to_le_bytes());
    crc32c::crc32c_append(sum, said)
}

/// A record whose checksums hold.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Where it begins.
    pub offset: u32,
    /// Where the next one begins.
    pub end: u32,
    /// Its kind.
    pub kind: u8,
    /// The form of its payload.
    pub form: u8,
    /// The number of its first entry, for an event.
    pub entry: u32,
    /// Its payload.
    pub payload: Bytes,
}

/// What a scan comes upon.
#[derive(Clone, Debug)]
pub enum Found {
    /// A good record.
    Record(RawRecord),
    /// Bytes that are no record: damage, or at the end of the log a torn write.
    Damage {
        /// The first offset.
        from: u32,
        /// The first offset after.
        to: u32,
        /// The record, where its header holds; its payload is not to be believed.
        suspect: Option<RawRecord>,
    },
}

/// Reads a segment's records in order.
pub struct Scan {
    file: Arc<dyn DiskFile>,
    key: SegmentKey,
    at: u32,
    after: u32,
    end: u32,
    buffer: Bytes,
    buffer_at: u32,
    read_ahead: usize,
}

impl Scan {
    /// Reads the records that begin at `after` or later, up to `end`, `read_ahead` bytes at a time. Just after where one
    /// begins is as good as where it ends.
    pub fn new(file: Arc<dyn DiskFile>, key: SegmentKey, after: u32, end: u32, read_ahead: usize) -> Self {
        let after = after.max(HEADER_BYTES);
        let at = after - after % ALIGN as u32;
        Self { file, key, at, after, end, buffer: Bytes::new(), buffer_at: 0, read_ahead }
    }

    /// The next record or stretch of damage; none at the end. A page of the file that cannot be read is damage as well.
    ///
    /// # Errors
    /// As the operating system says, but for pages that cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        while self.at < self.end {
            let from = self.at;
            let (to, suspect) = match self.record_at(from)? {
                Parsed::Good(record) => {
                    self.at = record.end;
                    if record.offset < self.after {
                        continue;
                    }
                    return Ok(Some(Found::Record(record)));
                }
                Parsed::BadPayload(record) => (record.end, Some(record)),
                Parsed::NoHeader => (self.resynchronise(from)?, None),
            };
            self.at = to;
            return Ok(Some(Found::Damage { from, to, suspect }));
        }
        Ok(None)
    }

    fn resynchronise(&mut self, from: u32) -> io::Result<u32> {
        let mut at = from.saturating_add(ALIGN as u32).next_multiple_of(ALIGN as u32);
        while at < self.end {
            let marker = self.key.store;
            let bytes = self.bytes(at, RECORD_HEADER)?;
            if bytes.get(..4) == marker.get(..4) && !matches!(self.record_at(at)?, Parsed::NoHeader) {
                return Ok(at);
            }
            at += ALIGN as u32;
        }
        Ok(self.end)
    }

    fn record_at(&mut self, at: u32) -> io::Result<Parsed> {
        let header = self.bytes(at, RECORD_HEADER)?;
        let (Some(said), Some(sum)) = (header.get(..20), header.get(20..24)) else {
            return Ok(Parsed::NoHeader);
        };
        if said.get(..4) != self.key.store.get(..4) || sum != header_sum(self.key, at, said).to_le_bytes() {
            return Ok(Parsed::NoHeader);
        }
        let length = u32_at(said, 8) as usize;
        let Some(end) = u32::try_from(record_bytes(length)).ok().and_then(|size| at.checked_add(size)) else {
            return Ok(Parsed::NoHeader);
        };
        if end > self.end {
            return Ok(Parsed::NoHeader); // its tail was never written
        }
        let (kind, form) = (said.get(4).copied().unwrap_or(0), said.get(5).copied().unwrap_or(0));
        let (sum, entry) = (u32_at(said, 12), u32_at(said, 16));
        let payload = self.bytes(at + RECORD_HEADER as u32, length)?;
        let holds = payload.len() == length && crc32c::crc32c(&payload) == sum;
        let record = RawRecord { offset: at, end, kind, form, entry, payload };
        Ok(if holds { Parsed::Good(record) } else { Parsed::BadPayload(record) })
    }

    /// `count` bytes at `at`; fewer only at the end of the file.
    fn bytes(&mut self, at: u32, count: usize) -> io::Result<Bytes> {
        let held = at.checked_sub(self.buffer_at).map(|skip| skip as usize);
        if let Some(bytes) = held.and_then(|skip| slice(&self.buffer, skip, count)) {
            return Ok(bytes);
        }
        let want = count.max(self.read_ahead).min((self.end.saturating_sub(at)) as usize).max(count);
        let mut fresh = BytesMut::zeroed(want);
        let got = disk::read_around(&*self.file, &mut fresh, u64::from(at))?;
        fresh.truncate(got);
        self.buffer = fresh.freeze();
        self.buffer_at = at;
        Ok(self.buffer.slice(..count.min(self.buffer.len())))
    }
}

fn slice(bytes: &Bytes, skip: usize, count: usize) -> Option<Bytes> {
    let end = skip.checked_add(count)?;
    if end <= bytes.len() { Some(bytes.slice(skip..end)) } else { None }
}

enum Parsed {
    Good(RawRecord),
    BadPayload(RawRecord),
    NoHeader,
}

/// Reads the one record at `offset`, whatever stands around it; none if there is none.
///
/// # Errors
/// As the operating system says.
pub fn read_one(file: Arc<dyn DiskFile>, key: SegmentKey, offset: u32, end: u32) -> io::Result<Option<RawRecord>> {
    let mut scan = Scan::new(file, key, offset, end, 16 << 10);
    Ok(match scan.record_at(offset)? {
        Parsed::Good(record) => Some(record),
        Parsed::BadPayload(_) | Parsed::NoHeader => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;

    const KEY: SegmentKey = SegmentKey { store: *b"0123456789abcdef", number: 3 };

    fn segment(payloads: &[&[u8]]) -> (tempfile::TempDir, RealDisk, Vec<u32>, u32) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        disk.create_dir(DIR).unwrap();
        let file = create(&disk, KEY, 2, UnixMillis(1), None).unwrap();
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for payload in payloads {
            let offset = HEADER_BYTES + u32::try_from(bytes.len()).unwrap();
            offsets.push(offset);
            frame(&mut bytes, KEY, offset, 9, 0, &Payload { form: 0, bytes: payload.to_vec() });
        }
        file.append(&bytes).unwrap();
        let end = HEADER_BYTES + u32::try_from(bytes.len()).unwrap();
        (dir, disk, offsets, end)
    }

    fn good_offsets(disk: &RealDisk, key: SegmentKey, end: u32) -> Vec<u32> {
        let mut scan = Scan::new(disk.open(&path(KEY.number)).unwrap(), key, 0, end, 64);
        let mut good = Vec::new();
        while let Some(found) = scan.next().unwrap() {
            if let Found::Record(record) = found {
                good.push(record.offset);
            }
        }
        good
    }

    #[test]
    fn every_flipped_byte_costs_the_one_record_it_is_in() {
        let (dir, disk, offsets, end) = segment(&[b"first", b"second, longer", b"", b"third"]);
        let file = dir.path().join(path(KEY.number));
        let whole = std::fs::read(&file).unwrap();
        for at in HEADER_BYTES as usize..end as usize {
            let mut broken = whole.clone();
            broken[at] ^= 0x40;
            std::fs::write(&file, &broken).unwrap();
            let good = good_offsets(&disk, KEY, end);
            let lost: Vec<_> = offsets.iter().filter(|offset| !good.contains(offset)).collect();
            let hit = offsets.iter().rev().find(|offset| **offset as usize <= at).unwrap();
            assert!(lost.is_empty() || lost == [hit], "flip at {at} lost {lost:?}"); // padding may be flipped for free
            assert!(good.iter().all(|offset| offsets.contains(offset)), "flip at {at} invented a record");
        }
    }

    #[test]
    fn every_truncation_keeps_the_whole_records_before_it() {
        let (dir, disk, offsets, end) = segment(&[b"first", b"second, longer", b"third"]);
        let file = dir.path().join(path(KEY.number));
        let whole = std::fs::read(&file).unwrap();
        for length in HEADER_BYTES..end {
            std::fs::write(&file, &whole[..length as usize]).unwrap();
            let expected: Vec<_> = offsets
                .iter()
                .zip(offsets.iter().skip(1).chain([&end]))
                .filter(|(_, next)| **next <= length)
                .map(|(offset, _)| *offset)
                .collect();
            assert_eq!(good_offsets(&disk, KEY, length), expected, "cut at {length}");
        }
    }

    #[test]
    fn a_segment_of_another_store_or_number_has_no_records() {
        let (_dir, disk, _, end) = segment(&[b"first"]);
        assert!(good_offsets(&disk, SegmentKey { store: *b"another store id", number: 3 }, end).is_empty());
        assert!(good_offsets(&disk, SegmentKey { number: 4, ..KEY }, end).is_empty());
        let file = disk.open(&path(3)).unwrap();
        assert_eq!(
            read_header(&*file, KEY).unwrap(),
            Header::Good { made_at: UnixMillis(1), oldest: 2, sealed_by: None }
        );
        assert_eq!(read_header(&*file, SegmentKey { number: 4, ..KEY }).unwrap(), Header::Foreign);
    }
}
