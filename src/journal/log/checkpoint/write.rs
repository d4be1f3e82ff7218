//! Takes a checkpoint and writes it, a little at a time.

use std::io;
use std::sync::Arc;

use super::super::codec::Encoder;
use super::super::entry::Segment;
use super::super::record::reason_code;
use super::super::segment::{self, HEADER_BYTES};
use super::super::state::{Active, State};
use super::super::stored::Progress;
use super::{FILE, MAGIC, Sealed, section_sum, tail_sum};
use crate::base::Name;
use crate::event::DeliveryId;
use crate::journal::Position;
use crate::journal::disk::{Disk, DiskFile};

/// Deliveries under way in one section.
const SECTION_DELIVERIES: usize = 4096;
/// What is written at once.
const WRITE_BYTES: usize = 256 << 10;
/// What is written is flushed this often, so that the log's own flushes never wait for more than this.
const FLUSH_BYTES: u64 = 8 << 20;

/// What the state knew at one position.
pub struct Snapshot {
    /// Which.
    pub through: Position,
    sealed: Sealed,
    routes: Vec<(Name, Name)>,
    segments: Vec<(u32, Arc<Segment>)>,
    active: Vec<(DeliveryId, Active)>,
    /// The segment that `through` is in.
    file: Arc<dyn DiskFile>,
}

impl Snapshot {
    /// What `state` knows, which is of all records before `through` and of none after.
    pub fn of(state: &State, through: Position, sealed: Sealed, file: Arc<dyn DiskFile>) -> Self {
        let not_empty = |(_, segment): &(&u32, &Arc<Segment>)| segment.end > HEADER_BYTES;
        let segments = state.segments.iter().filter(not_empty);
        // Of those that were only handed out there is nothing to remember.
        let tried = state.active.iter().filter(|(id, active)| !active.progress.is_fresh(**id));
        Self {
            through,
            sealed,
            routes: state.routes.names().map(|(source, to)| (source.clone(), to.clone())).collect(),
            segments: segments.map(|(number, segment)| (*number, Arc::clone(segment))).collect(),
            active: tried.map(|(id, active)| (*id, *active)).collect(),
            file,
        }
    }

    /// About how large it will be.
    pub fn estimated_bytes(&self) -> u64 {
        let segments: usize = self
            .segments
            .iter()
            .map(|(_, segment)| 64 + 5 * segment.entries.len() + 8 * segment.tried_more.len())
            .sum();
        (segments + 72 * self.active.len() + 64 * self.routes.len()) as u64
    }
}

/// Writes `snapshot`, durably and all or nothing. Its size.
///
/// # Errors
/// As the operating system says; the one before is then still there.
pub fn write(disk: &dyn Disk, store: [u8; 16], snapshot: &Snapshot) -> io::Result<u64> {
    let fresh = format!("{FILE}.new");
    let written = begin(disk, &fresh).and_then(|file| {
        let bytes = fill(file, store, snapshot)?;
        disk.rename(&fresh, FILE)?;
        disk.sync_dir(".")?;
        Ok(bytes)
    });
    if written.is_err() {
        let _ = disk.remove(&fresh); // it may not be there; what stays is removed before the next
    }
    written
}

fn begin(disk: &dyn Disk, fresh: &str) -> io::Result<Arc<dyn DiskFile>> {
    match disk.create(fresh) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(fresh)?; // left by a crash
            disk.create(fresh)
        }
        other => other,
    }
}

fn fill(file: Arc<dyn DiskFile>, store: [u8; 16], snapshot: &Snapshot) -> io::Result<u64> {
    let Snapshot { through, sealed, routes, segments, active, file: log } = snapshot;
    let tail = tail_sum(&**log, segment::split(*through).1)?;
    let tail = tail.ok_or_else(|| io::Error::other("the log is shorter than it should be"))?;
    let sections = active.chunks(SECTION_DELIVERIES);
    let mut head = Encoder::default();
    head.raw(MAGIC).raw(&store).u64(through.0).u64(sealed.through.0).u64(sealed.runs.0).u32(tail);
    head.u32(count(segments.len())).u32(count(sections.len()));
    let sum = crc32c::crc32c(&head.0);
    head.u32(sum);

    let mut out = Sink { file, buffer: head.0, head: sum, next: 0, written: 0, flushed: 0 };
    let mut held = Encoder::default();
    held.u32(count(routes.len()));
    for (source, destination) in routes {
        held.bytes(source.as_str().as_bytes()).bytes(destination.as_str().as_bytes());
    }
    out.section(&mut held)?;
    for (number, segment) in segments {
        encode_segment(held.u32(*number), segment);
        out.section(&mut held)?;
    }
    for active in sections {
        held.u32(count(active.len()));
        active.iter().for_each(|(id, active)| encode_active(&mut held, *id, active));
        out.section(&mut held)?;
    }
    out.finish()
}

fn encode_segment(out: &mut Encoder, segment: &Segment) {
    // All fields by name: what is added to them has to be written, or found out when it is read.
    let Segment {
        end,
        entries,
        classes,
        events,
        event_bytes,
        newest,
        newest_dead,
        made_at,
        has_rearm,
        lost,
        tried_more,
        pending: _,
        dead: _,
        pending_by_route: _,
        sealed_by: _,
    } = segment;
    out.u32(*end).i64(made_at.0).i64(newest.0).i64(newest_dead.0);
    out.u32(*events).u64(*event_bytes).u8(u8::from(*has_rearm)).u32(count(entries.len()));
    for entry in entries {
        out.u32(entry.bits());
    }
    out.raw(classes.as_bytes()).u32(count(lost.len()));
    for (bytes, why) in lost {
        out.u32(bytes.start).u32(bytes.end).u8(why.code());
    }
    out.u32(count(tried_more.len()));
    for (entry, attempts) in tried_more {
        out.u32(*entry).u32(*attempts);
    }
}

fn encode_active(out: &mut Encoder, id: DeliveryId, active: &Active) {
    let Active { home, event_at, progress } = active;
    let Progress { attempts, attempts_before, since, not_before, reason } = progress;
    out.raw(id.event.as_bytes()).u8(id.index).u32(home.segment).u32(home.entry).u64(event_at.0);
    out.u32(*attempts).u32(*attempts_before).i64(since.0);
    match not_before {
        None => out.u8(0),
        Some(at) => out.u8(1).i64(at.0),
    };
    out.u8(reason_code(*reason));
}

/// Counts here are of things in memory: none reaches 4 billion.
fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Where it goes.
struct Sink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    head: u32,
    next: u32,
    written: u64,
    flushed: u64,
}

impl Sink {
    /// Adds what is `held`, and empties it.
    fn section(&mut self, held: &mut Encoder) -> io::Result<()> {
        let sum = section_sum(self.head, self.next, &held.0);
        self.next += 1;
        self.buffer.extend_from_slice(&count(held.0.len()).to_le_bytes());
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(&held.0);
        held.0.clear();
        if self.buffer.len() >= WRITE_BYTES { self.pour() } else { Ok(()) }
    }

    fn pour(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.flushed >= FLUSH_BYTES {
            self.file.sync()?;
            self.flushed = self.written;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.pour()?;
        self.file.sync()?;
        Ok(self.written)
    }
}
