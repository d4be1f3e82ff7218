//! A run: claims on disk, sorted by hash, never changed once it is written.
//!
//! `claims/<first>-<last>.clm`, both 8 hex digits: the seals it holds. Numbers are little-endian.
//!
//! ```text
//! run    group*, fences, footer
//! group  up to 40 blocks, then their page
//! block  up to 64 claims of 64 bytes: hash 16, event 16, position u64, until i64, fingerprint u64, first entry u32,
//!        entries u8, rearms u8, 2 zero
//! page   for each block: its first hash 16, CRC-32C of the block u32, filter 80; then CRC-32C of all of these u32
//! fences for each group: its first hash 16
//! footer magic `FBCLAIM3`, store 16, first seal u32, last seal u32, sealed-through position u64, last expiry i64, claims u64,
//!        CRC-32C of the fences u32, CRC-32C of the footer so far u32
//! ```
//!
//! Opening reads fences and footer (16 bytes for 2,560 claims). Looking a hash up reads one page (4,004 bytes), and a block
//! (4,096 bytes) only if the block's filter has the hash's first half, which is wrong for about one hash in a hundred.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::super::codec::{Decoder, Malformed};
use super::filter::{self, FILTER};
use super::{DIR, Hash, Held, prefix};
use crate::base::UnixMillis;
use crate::event::EventId;
use crate::journal::Position;
use crate::journal::disk::{self, Disk, DiskFile};

pub const MAGIC: &[u8; 8] = b"FBCLAIM3";
pub const FOOTER: u64 = 64;
/// No store gets this far by itself: at one seal a second it takes a hundred years.
const SEAL_MAX: u32 = 0xF000_0000;
pub(super) const ROW: usize = 64;
const BLOCK_ROWS: usize = 64;
pub(super) const BLOCK: usize = BLOCK_ROWS * ROW;
pub(super) const GROUP_BLOCKS: usize = 40;
pub(super) const GROUP_ROWS: u64 = (GROUP_BLOCKS * BLOCK_ROWS) as u64;
const ENTRY: usize = 16 + 4 + FILTER;
/// The bytes of a full group's page.
pub const PAGE: usize = GROUP_BLOCKS * ENTRY + 4;
const GROUP: u64 = (GROUP_BLOCKS * BLOCK + PAGE) as u64;

/// The seals that a run holds, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seals {
    pub first: u32,
    pub last: u32,
}

impl Seals {
    /// Whether all of `other` are among these.
    pub fn contain(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub fn path(self) -> String {
        format!("{DIR}/{}", self.name())
    }

    pub fn name(self) -> String {
        format!("{:08x}-{:08x}.clm", self.first, self.last)
    }

    /// From the name of a file; none if no run is called that.
    pub fn of(name: &str) -> Option<Self> {
        let (first, last) = name.strip_suffix(".clm")?.split_once('-')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8);
        Some(Self { first: number(first)?, last: number(last)? })
            .filter(|seals| seals.first <= seals.last && seals.last < SEAL_MAX)
    }
}

/// A run that is open.
pub struct Run {
    pub seals: Seals,
    pub rows: u64,
    pub bytes: u64,
    /// All claims of records before this are in this run or an older one.
    pub through: Position,
    pub last_expiry: UnixMillis,
    file: Arc<dyn DiskFile>,
    fences: Vec<Hash>,
    damage_told: AtomicBool,
}

/// The pages of a run that are kept in memory once they have been read; empty where none are to be.
pub type Pages = Vec<OnceCell<Box<[u8]>>>;

/// What a run has of a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Who holds it.
    pub holder: Option<Held>,
    /// An event that holds another hash with the same first half.
    pub alike: Option<EventId>,
}

impl Run {
    /// Its bytes, also once it is gone from its directory.
    pub fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.file)
    }

    /// Opens the run of `seals`; none if it is damaged, another store's, or one of other seals. What damage there is further in shows
    /// when it is read.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(disk: &dyn Disk, seals: Seals, bytes: u64, store: [u8; 16]) -> io::Result<Option<Self>> {
        let file = disk.open(&seals.path())?;
        let Some(footer_at) = bytes.checked_sub(FOOTER) else { return Ok(None) };
        let footer = read(&*file, footer_at, usize::try_from(FOOTER).unwrap_or(0))?;
        let Ok(footer) = Footer::decode(Bytes::from(footer), store, seals) else { return Ok(None) };
        let groups = footer.rows.div_ceil(GROUP_ROWS);
        let fences_at = data_bytes(footer.rows);
        if footer.rows > bytes || fences_at + groups * 16 != footer_at {
            return Ok(None);
        }
        let fences = read(&*file, fences_at, usize::try_from(groups * 16).unwrap_or(0))?;
        if crc32c::crc32c(&fences) != footer.fences_crc {
            return Ok(None);
        }
        let Footer { through, last_expiry, rows, .. } = footer;
        let fences = fences.as_chunks::<16>().0.to_vec();
        Ok(Some(Self { seals, rows, bytes, through, last_expiry, file, fences, damage_told: AtomicBool::new(false) }))
    }

    /// Groups in it: as many pages.
    pub fn groups(&self) -> usize {
        self.fences.len()
    }

    /// What it has of `hash` that is in force at `now`.
    ///
    /// # Errors
    /// As the operating system says. A block that fails its checksum has nothing, and is told of in the log.
    pub fn find(&self, hash: &Hash, now: UnixMillis, pages: &Pages) -> io::Result<Found> {
        match self.search(hash, now, pages) {
            Err(error) if is_damage(&error) => {
                self.tell_damage(&error);
                Ok(Found::default())
            }
            other => other,
        }
    }

    fn search(&self, hash: &Hash, now: UnixMillis, pages: &Pages) -> io::Result<Found> {
        let mut found = Found::default();
        let groups = self.fences.partition_point(|fence| fence <= hash);
        // Claims with the same first half may begin in the block where `hash` would stand, or with the one after it.
        let mut next = (groups, 0, self.fences.get(groups).copied());
        if let Some(group) = groups.checked_sub(1) {
            let page = self.page(group, pages)?;
            let blocks = page.blocks();
            let block = blocks.partition_point(|entry| entry.first_chunk::<16>().is_some_and(|first| first <= hash));
            if let Some(block) = block.checked_sub(1)
                && blocks
                    .get(block)
                    .is_some_and(|entry| entry.last_chunk().is_some_and(|filter| filter::may_have(filter, hash)))
            {
                self.look_in(group, block, &page, hash, now, &mut found)?;
            }
            if let Some(entry) = blocks.get(block) {
                next = (group, block, entry.first_chunk::<16>().copied());
            }
        }
        let (group, block, first) = next;
        if found.alike.is_none() && first.is_some_and(|first| prefix(&first) == prefix(hash)) {
            self.look_in(group, block, &self.page(group, pages)?, hash, now, &mut found)?;
        }
        Ok(found)
    }

    fn look_in(
        &self,
        group: usize,
        block: usize,
        page: &Page<'_>,
        hash: &Hash,
        now: UnixMillis,
        found: &mut Found,
    ) -> io::Result<()> {
        let bytes = self.block(group, block, page)?;
        let rows = bytes.as_chunks::<ROW>().0;
        for row in rows.iter().filter(|row| row.first_chunk::<8>() == hash.first_chunk::<8>()) {
            let (other, held) = decode(row).map_err(|Malformed| damaged("a claim"))?;
            if held.until <= now {
            } else if other == *hash {
                found.holder = Some(held);
            } else {
                found.alike = Some(held.event);
            }
        }
        Ok(())
    }

    fn rows_in(&self, group: usize) -> usize {
        let before = group as u64 * GROUP_ROWS;
        usize::try_from(self.rows.saturating_sub(before).min(GROUP_ROWS)).unwrap_or(0)
    }

    fn page<'p>(&self, group: usize, kept: &'p Pages) -> io::Result<Page<'p>> {
        if let Some(page) = kept.get(group).and_then(OnceCell::get) {
            return Ok(Page::Kept(page));
        }
        let rows = self.rows_in(group);
        let at = group as u64 * GROUP + (rows * ROW) as u64;
        let bytes = read(&*self.file, at, rows.div_ceil(BLOCK_ROWS) * ENTRY + 4)?;
        let (said, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("a page"))?;
        if u32::from_le_bytes(*sum) != crc32c::crc32c(said) {
            return Err(damaged("a page"));
        }
        Ok(match kept.get(group) {
            Some(place) => Page::Kept(place.get_or_init(|| bytes.into_boxed_slice())),
            None => Page::Read(bytes),
        })
    }

    fn block(&self, group: usize, block: usize, page: &Page<'_>) -> io::Result<Vec<u8>> {
        let before = block * BLOCK_ROWS;
        let rows = self.rows_in(group).saturating_sub(before).min(BLOCK_ROWS);
        let bytes = read(&*self.file, group as u64 * GROUP + (before * ROW) as u64, rows * ROW)?;
        let sum = page.blocks().get(block).and_then(|entry| entry.get(16..20)).and_then(|sum| sum.try_into().ok());
        if sum.map(u32::from_le_bytes) != Some(crc32c::crc32c(&bytes)) {
            return Err(damaged("a block"));
        }
        Ok(bytes)
    }

    /// Whether damage was found in it.
    pub fn is_damaged(&self) -> bool {
        self.damage_told.load(Ordering::Relaxed)
    }

    fn tell_damage(&self, error: &io::Error) {
        if !self.damage_told.swap(true, Ordering::Relaxed) {
            let run = self.seals.path();
            tracing::error!(run, %error, "claims: damage in a run; duplicates of the events in it may pass as new");
        }
    }
}

/// A page: kept in memory, or read for once.
enum Page<'p> {
    Kept(&'p [u8]),
    Read(Vec<u8>),
}

impl Page<'_> {
    fn blocks(&self) -> &[[u8; ENTRY]] {
        match self {
            Self::Kept(bytes) => bytes.as_chunks::<ENTRY>().0,
            Self::Read(bytes) => bytes.as_chunks::<ENTRY>().0,
        }
    }
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of claims fails its checksum"))
}

fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn read(file: &dyn DiskFile, at: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    if disk::read_around(file, &mut bytes, at)? < count {
        return Err(damaged("the end")); // cut short
    }
    Ok(bytes)
}

/// The length of all groups of a run with so many claims.
fn data_bytes(rows: u64) -> u64 {
    let rest = rows % GROUP_ROWS;
    let blocks = rest.div_ceil(BLOCK_ROWS as u64);
    let page = if blocks == 0 { 0 } else { blocks * ENTRY as u64 + 4 };
    rows / GROUP_ROWS * GROUP + rest * ROW as u64 + page
}

/// The end of a run.
pub(super) struct Footer {
    pub through: Position,
    pub last_expiry: UnixMillis,
    pub rows: u64,
    pub fences_crc: u32,
}

impl Footer {
    fn decode(bytes: Bytes, store: [u8; 16], seals: Seals) -> Result<Self, Malformed> {
        let sum = crc32c::crc32c(bytes.get(..bytes.len().saturating_sub(4)).unwrap_or_default());
        let mut from = Decoder(bytes);
        if from.take(8)? != MAGIC.as_slice() || from.id()? != store {
            return Err(Malformed);
        }
        if (Seals { first: from.u32()?, last: from.u32()? }) != seals {
            return Err(Malformed);
        }
        let (through, last_expiry) = (Position(from.u64()?), UnixMillis(from.i64()?));
        let footer = Self { through, last_expiry, rows: from.u64()?, fences_crc: from.u32()? };
        if from.u32()? == sum { Ok(footer) } else { Err(Malformed) }
    }
}

fn decode(row: &[u8; ROW]) -> Result<(Hash, Held), Malformed> {
    let mut from = Decoder(Bytes::copy_from_slice(row));
    let hash = from.id()?;
    let held = Held {
        event: EventId::from_bytes(from.id()?),
        at: Position(from.u64()?),
        until: UnixMillis(from.i64()?),
        fingerprint: from.u64()?,
        first_entry: from.u32()?,
        entries: from.u8()?,
        rearms: from.u8()? == 1,
    };
    Ok((hash, held))
}

/// Reads a run from its start, a group at a time. A damaged stretch is told of in the log and left out.
pub struct Cursor {
    run: Arc<Run>,
    group: usize,
    rows: std::vec::IntoIter<(Hash, Held)>,
}

impl Cursor {
    pub fn new(run: Arc<Run>) -> Self {
        Self { run, group: 0, rows: Vec::new().into_iter() }
    }

    /// The next claim.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn next(&mut self) -> io::Result<Option<(Hash, Held)>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            if self.group == self.run.groups() {
                return Ok(None);
            }
            self.rows = self.group()?.into_iter();
            self.group += 1;
        }
    }

    fn group(&self) -> io::Result<Vec<(Hash, Held)>> {
        let none = Pages::new();
        let page = match self.run.page(self.group, &none) {
            Err(error) if is_damage(&error) => {
                self.run.tell_damage(&error);
                return Ok(Vec::new());
            }
            other => other?,
        };
        let mut rows = Vec::with_capacity(self.run.rows_in(self.group));
        for block in 0..page.blocks().len() {
            match self.run.block(self.group, block, &page) {
                Ok(bytes) => rows.extend(bytes.as_chunks::<ROW>().0.iter().filter_map(|row| decode(row).ok())),
                Err(error) if is_damage(&error) => self.run.tell_damage(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }
}
