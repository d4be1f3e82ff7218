//! Writes a run: a group of it in memory, the rest on its way to the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::codec::Encoder;
use super::filter::{self, FILTER};
use super::run::{BLOCK, Footer, GROUP_BLOCKS, GROUP_ROWS, MAGIC, Run, Seals, damaged};
use super::{DIR, Hash, Held};
use crate::base::UnixMillis;
use crate::journal::Position;
use crate::journal::disk::{Disk, DiskFile};

/// What is written is flushed this often, so that the log's own flushes never wait for more than this.
const FLUSH_BYTES: u64 = 8 << 20;

/// Writes a run, durably, of `rows` in the order of their hashes. None, and no file, if there are none.
///
/// # Errors
/// As the operating system says, and [`io::ErrorKind::Interrupted`] once `stop` is set: there is no new run then, and what
/// had been written of it is removed, at the next opening at the latest.
pub fn write(
    disk: &dyn Disk,
    (store, seals, through): ([u8; 16], Seals, Position),
    rows: impl Iterator<Item = io::Result<(Hash, Held)>>,
    stop: &AtomicBool,
) -> io::Result<Option<Run>> {
    let path = seals.path();
    let fresh = format!("{path}.new");
    let written = (|| {
        let file = match disk.create(&fresh) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&fresh)?; // of an earlier try
                disk.create(&fresh)?
            }
            other => other?,
        };
        let mut builder = Builder::new(file);
        for row in rows {
            let (hash, held) = row?;
            builder.push(&hash, &held)?;
            if builder.rows.is_multiple_of(GROUP_ROWS) && stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        let (rows, bytes) = (builder.rows, builder.finish((store, seals, through))?);
        if rows == 0 {
            disk.remove(&fresh)?;
            return Ok(None);
        }
        disk.rename(&fresh, &path)?;
        disk.sync_dir(DIR)?;
        Ok(Some(bytes))
    })();
    match written {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => {
            let opened = Run::open(disk, seals, bytes, store)?;
            opened.map(Some).ok_or_else(|| damaged("what was just written"))
        }
        Err(error) => {
            let _ = disk.remove(&fresh); // it may not be there; what stays is removed at the next opening
            Err(error)
        }
    }
}

/// A run as it grows: a group of it in memory.
struct Builder {
    file: Arc<dyn DiskFile>,
    blocks: Encoder,
    page: Encoder,
    /// Where the block that is being filled begins, its first hash, and its filter.
    block_at: usize,
    first: Hash,
    filter: [u8; FILTER],
    fences: Encoder,
    rows: u64,
    length: u64,
    flushed: u64,
    last_expiry: UnixMillis,
}

impl Builder {
    fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            blocks: Encoder::default(),
            page: Encoder::default(),
            block_at: 0,
            first: [0; 16],
            filter: [0; FILTER],
            fences: Encoder::default(),
            rows: 0,
            length: 0,
            flushed: 0,
            last_expiry: UnixMillis(0),
        }
    }

    fn push(&mut self, hash: &Hash, held: &Held) -> io::Result<()> {
        if self.blocks.0.len() == self.block_at {
            self.first = *hash;
        }
        if self.blocks.0.is_empty() {
            self.fences.raw(hash);
        }
        encode(&mut self.blocks, hash, held);
        for (byte, bit) in filter::bits(hash) {
            if let Some(byte) = self.filter.get_mut(byte) {
                *byte |= bit;
            }
        }
        self.rows += 1;
        self.last_expiry = self.last_expiry.max(held.until);
        if self.blocks.0.len() - self.block_at == BLOCK {
            self.end_block();
        }
        if self.blocks.0.len() == GROUP_BLOCKS * BLOCK { self.end_group() } else { Ok(()) }
    }

    fn end_block(&mut self) {
        let sum = crc32c::crc32c(self.blocks.0.get(self.block_at..).unwrap_or_default());
        self.page.raw(&self.first).u32(sum).raw(&self.filter);
        self.filter = [0; FILTER];
        self.block_at = self.blocks.0.len();
    }

    fn end_group(&mut self) -> io::Result<()> {
        let sum = crc32c::crc32c(&self.page.0);
        self.blocks.raw(&self.page.0).u32(sum);
        self.page.0.clear();
        self.block_at = 0;
        let group = std::mem::take(&mut self.blocks.0);
        self.append(&group)?;
        self.blocks.0 = group;
        self.blocks.0.clear();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)?;
        self.length += bytes.len() as u64;
        if self.length - self.flushed >= FLUSH_BYTES {
            self.file.sync()?;
            self.flushed = self.length;
        }
        Ok(())
    }

    /// Writes the rest. The whole length.
    fn finish(mut self, (store, seals, through): ([u8; 16], Seals, Position)) -> io::Result<u64> {
        if self.blocks.0.len() > self.block_at {
            self.end_block();
        }
        if !self.blocks.0.is_empty() {
            self.end_group()?;
        }
        let fences_crc = crc32c::crc32c(&self.fences.0);
        let footer = Footer { through, last_expiry: self.last_expiry, rows: self.rows, fences_crc };
        let mut rest = std::mem::take(&mut self.fences.0);
        rest.extend_from_slice(&footer.encode(store, seals));
        self.append(&rest)?;
        self.file.sync()?;
        Ok(self.length)
    }
}

fn encode(out: &mut Encoder, hash: &Hash, held: &Held) {
    out.raw(hash).raw(held.event.as_bytes()).u64(held.at.0).i64(held.until.0).u64(held.fingerprint);
    out.u32(held.first_entry).u8(held.entries).u8(u8::from(held.rearms)).u16(0);
}

impl Footer {
    fn encode(&self, store: [u8; 16], seals: Seals) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(MAGIC).raw(&store).u32(seals.first).u32(seals.last);
        out.u64(self.through.0).i64(self.last_expiry.0).u64(self.rows).u32(self.fences_crc);
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        out.0
    }
}
