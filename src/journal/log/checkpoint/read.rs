//! Reads a checkpoint back, if it is one of this log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::super::codec::{Decoder, Malformed};
use super::super::entry::{Entry, Lost, Segment, Standing};
use super::super::record::{Home, reason_from};
use super::super::segment::{self, HEADER_BYTES, Header, SegmentKey};
use super::super::shares::Classes;
use super::super::state::{Active, State};
use super::super::stored::Progress;
use super::{FILE, HEAD_BYTES, MAGIC, Sealed, section_sum, tail_sum};
use crate::base::{Name, UnixMillis};
use crate::event::{DeliveryId, EventId};
use crate::journal::Position;
use crate::journal::disk::{Disk, DiskFile};

/// What a checkpoint says of the log before its position.
pub struct Loaded {
    /// What is known.
    pub state: State,
    /// Of all records before this.
    pub through: Position,
    /// The oldest segment there was then: those before it had been let go of.
    pub oldest: u32,
    /// How far claims are sealed.
    pub sealed: Sealed,
    /// The file's size.
    pub bytes: u64,
}

/// Why a checkpoint is passed over.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A checksum does not hold, or it ends early or late.
    #[error("it is damaged")]
    Damaged,
    /// It is another journal's.
    #[error("it is of another journal")]
    Foreign,
    /// The log does not come so far, or has another past.
    #[error("it is not of this log: {0}")]
    Elsewhere(&'static str),
}

impl From<Malformed> for Unfit {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// Reads the checkpoint of `store`, whose segments are `files` (number and length, in order), into a state that is `fresh`. None
/// if there is none.
///
/// # Errors
/// [`Unfit`]: the whole log has to be read.
pub fn load(
    disk: &dyn Disk,
    store: [u8; 16],
    files: &[(u32, u64)],
    fresh: impl FnOnce() -> State,
) -> Result<Option<Loaded>, Unfit> {
    let Some((_, bytes)) = disk.list(".")?.into_iter().find(|(name, _)| name == FILE) else { return Ok(None) };
    let mut source = Source::open(disk.open(FILE)?, bytes)?;
    if source.head.store != store {
        return Err(Unfit::Foreign);
    }
    let Head { through, sealed, tail, segments, actives, .. } = source.head;
    reaches(disk, store, files, through, tail)?;
    let routes = decode_routes(&mut Decoder(source.section()?))?;
    let mut found = BTreeMap::new();
    for _ in 0..segments {
        let (number, segment) = decode_segment(&mut Decoder(source.section()?))?;
        found.insert(number, segment);
    }
    let mut active = Vec::new();
    for _ in 0..actives {
        let mut from = Decoder(source.section()?);
        for _ in 0..from.u32()? {
            active.push(decode_active(&mut from)?);
        }
    }
    if source.at != bytes {
        return Err(Unfit::Damaged);
    }
    let (number, _) = segment::split(through);
    let oldest = found.keys().next().copied().unwrap_or(number);
    fits(disk, store, files, &mut found, number)?;
    let mut state = fresh();
    adopt(&mut state, &routes, found)?;
    state.active = active.into_iter().filter(|(_, active)| state.entry(active.home).is_some()).collect();
    Ok(Some(Loaded { state, through, oldest, sealed, bytes }))
}

/// How far a checkpoint says that the log was durable, whether it is of use or not; the start if there is none that can be believed.
pub fn reach(disk: &dyn Disk, store: [u8; 16]) -> Position {
    let head = disk.open(FILE).map_err(Unfit::from).and_then(|file| Source::open(file, 0));
    head.ok().filter(|source| source.head.store == store).map_or(Position::START, |source| source.head.through)
}

/// Whether the log comes as far as `through`, and what stands before that has the checksum `tail`.
fn reaches(disk: &dyn Disk, store: [u8; 16], files: &[(u32, u64)], through: Position, tail: u32) -> Result<(), Unfit> {
    let (number, offset) = segment::split(through);
    if !files.iter().any(|(present, _)| *present == number) {
        // One without a record is removed when a journal is opened.
        return if offset <= HEADER_BYTES { Ok(()) } else { Err(Unfit::Elsewhere("the log does not come so far")) };
    }
    let file = disk.open(&segment::path(number))?;
    if !matches!(segment::read_header(&*file, SegmentKey { store, number })?, Header::Good { .. }) {
        return Err(Unfit::Elsewhere("the segment that it ends in has no good header"));
    }
    match tail_sum(&*file, offset)? {
        Some(sum) if sum == tail => Ok(()),
        Some(_) => Err(Unfit::Elsewhere("other records stand before its end")),
        None => Err(Unfit::Elsewhere("the log does not come so far")),
    }
}

/// Whether the segments that are there are those of the checkpoint, which ends in the one of that `number`. What is said of
/// segments that are not there any more is taken out.
fn fits(
    disk: &dyn Disk,
    store: [u8; 16],
    files: &[(u32, u64)],
    said: &mut BTreeMap<u32, Segment>,
    number: u32,
) -> Result<(), Unfit> {
    for (present, bytes) in files.iter().filter(|(present, _)| *present <= number) {
        let Some(segment) = said.get_mut(present) else {
            if *present == number {
                continue; // it had no record yet
            }
            return Err(Unfit::Elsewhere("there is a segment that it does not know of"));
        };
        let length = u32::try_from(*bytes).unwrap_or(u32::MAX);
        // Readers go no further than a write that a crash tore, which stays behind their end.
        let torn = segment.lost.iter().filter(|(_, why)| *why == Lost::Torn).map(|(torn, _)| torn.end).max();
        if length != torn.unwrap_or(0).max(segment.end) && *present < number {
            return Err(Unfit::Elsewhere("a segment has another length"));
        }
        let file = disk.open(&segment::path(*present))?;
        match segment::read_header(&*file, SegmentKey { store, number: *present })? {
            Header::Good { made_at, sealed_by, .. } if made_at == segment.made_at => segment.sealed_by = sealed_by,
            Header::Good { .. } => return Err(Unfit::Elsewhere("a segment was made at another time")),
            Header::Torn | Header::OtherFormat(_) | Header::Foreign => {
                return Err(Unfit::Elsewhere("a segment has no good header"));
            }
        }
    }
    said.retain(|said, _| files.binary_search_by_key(said, |(present, _)| *present).is_ok());
    Ok(())
}

/// Makes what is said of the segments the state's, and counts what waits in them. Routes that no segment has any more get no place.
fn adopt(state: &mut State, routes: &[(Name, Name)], mut segments: BTreeMap<u32, Segment>) -> Result<(), Unfit> {
    let mut places = vec![None; routes.len()];
    let entries = || segments.values().flat_map(|segment| &segment.entries);
    for entry in entries() {
        *places.get_mut(usize::from(entry.route())).ok_or(Unfit::Damaged)? = Some(0);
    }
    for (place, (source, destination)) in places.iter_mut().zip(routes) {
        if place.is_some() {
            *place = Some(state.route(source, destination).ok_or(Unfit::Damaged)?);
        }
    }
    let moves = (0u16..).zip(&places).any(|(number, place)| place.is_some_and(|place| place != number));
    if moves {
        for entry in segments.values_mut().flat_map(|segment| &mut segment.entries) {
            let route = places.get(usize::from(entry.route())).copied().flatten().unwrap_or(0);
            *entry = entry.with_route(route);
        }
    }
    for (number, mut segment) in segments {
        let mut waits = vec![0; routes.len()]; // by route
        let mut next = 0;
        while next < segment.entries.len() {
            let (event, bytes) = segment.classes.event(next);
            let (mut unsettled, mut of) = (false, None);
            next = event.end.max(next + 1);
            for entry in segment.entries.get(event).unwrap_or_default() {
                let standing = entry.standing();
                unsettled |= standing.is_unsettled();
                let Some(route) = state.routes.get_mut(entry.route()) else { return Err(Unfit::Damaged) };
                of.get_or_insert_with(|| Arc::clone(&route.unsettled));
                match standing {
                    Standing::Pending => {
                        (segment.pending, route.pending) = (segment.pending + 1, route.pending + 1);
                        if let Some(waits) = waits.get_mut(usize::from(entry.route())) {
                            *waits += 1;
                        }
                    }
                    Standing::Dead => (segment.dead, route.dead) = (segment.dead + 1, route.dead + 1),
                    Standing::Delivered | Standing::Refused | Standing::Moved | Standing::Erased => {}
                }
            }
            if let Some(of) = of.filter(|_| unsettled) {
                state.sources.add(&of, bytes);
            }
        }
        segment.pending_by_route = (0u16..).zip(waits).filter(|(_, waits)| *waits > 0).collect();
        state.segments.insert(number, Arc::new(segment));
    }
    Ok(())
}

fn decode_routes(from: &mut Decoder) -> Result<Vec<(Name, Name)>, Unfit> {
    let name = |from: &mut Decoder| Name::new(&from.text()?).map_err(|_| Malformed);
    let count = from.u32()?;
    Ok((0..count).map(|_| Ok((name(from)?, name(from)?))).collect::<Result<_, Malformed>>()?)
}

fn decode_segment(from: &mut Decoder) -> Result<(u32, Segment), Unfit> {
    let number = from.u32()?;
    let (end, made_at) = (from.u32()?, UnixMillis(from.i64()?));
    let (newest, newest_dead) = (UnixMillis(from.i64()?), UnixMillis(from.i64()?));
    let (events, event_bytes, has_rearm) = (from.u32()?, from.u64()?, from.u8()? == 1);
    let count = from.u32()? as usize;
    let entries = from.take(count.checked_mul(4).ok_or(Unfit::Damaged)?)?;
    let entry = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let entries = entries.chunks_exact(4).map(|bytes| Entry::from_bits(entry(bytes))).collect();
    let classes = Classes::from_bytes(&from.take(count)?);
    let lost = (0..from.u32()?)
        .map(|_| Ok((from.u32()?..from.u32()?, Lost::from_code(from.u8()?).ok_or(Malformed)?)))
        .collect::<Result<_, Malformed>>()?;
    let tried_more = (0..from.u32()?).map(|_| Ok((from.u32()?, from.u32()?))).collect::<Result<_, Malformed>>()?;
    let said = Segment { entries, classes, events, event_bytes, newest, newest_dead, has_rearm, ..Segment::default() };
    Ok((number, Segment { end, made_at, lost, tried_more, ..said }))
}

fn decode_active(from: &mut Decoder) -> Result<(DeliveryId, Active), Unfit> {
    let id = DeliveryId { event: EventId::from_bytes(from.id()?), index: from.u8()? };
    let home = Home { segment: from.u32()?, entry: from.u32()? };
    let event_at = Position(from.u64()?);
    let progress = Progress {
        attempts: from.u32()?,
        attempts_before: from.u32()?,
        since: UnixMillis(from.i64()?),
        not_before: from.maybe(|from| from.i64().map(UnixMillis))?,
        reason: reason_from(from.u8()?)?,
    };
    Ok((id, Active { home, event_at, progress }))
}

/// What the head of a checkpoint says.
struct Head {
    store: [u8; 16],
    through: Position,
    sealed: Sealed,
    tail: u32,
    segments: u32,
    actives: u32,
    sum: u32,
}

/// A checkpoint that is being read.
struct Source {
    file: Arc<dyn DiskFile>,
    head: Head,
    at: u64,
    end: u64,
    next: u32,
}

impl Source {
    fn open(file: Arc<dyn DiskFile>, end: u64) -> Result<Self, Unfit> {
        let bytes = read(&*file, 0, HEAD_BYTES)?;
        let said = bytes.slice(..HEAD_BYTES - 4);
        let mut from = Decoder(bytes);
        if from.take(8)? != MAGIC.as_slice() {
            return Err(Unfit::Damaged);
        }
        let store = from.id()?;
        let through = Position(from.u64()?);
        let sealed = Sealed { through: Position(from.u64()?), runs: Position(from.u64()?) };
        let (tail, segments, actives, sum) = (from.u32()?, from.u32()?, from.u32()?, from.u32()?);
        if sum != crc32c::crc32c(&said) {
            return Err(Unfit::Damaged);
        }
        let head = Head { store, through, sealed, tail, segments, actives, sum };
        Ok(Self { file, head, at: HEAD_BYTES as u64, end, next: 0 })
    }

    /// What the next section holds.
    fn section(&mut self) -> Result<Bytes, Unfit> {
        let mut front = Decoder(read(&*self.file, self.at, 8)?);
        let (length, sum) = (front.u32()?, front.u32()?);
        let at = self.at + 8;
        if at + u64::from(length) > self.end {
            return Err(Unfit::Damaged);
        }
        let held = read(&*self.file, at, length as usize)?;
        if sum != section_sum(self.head.sum, self.next, &held) {
            return Err(Unfit::Damaged);
        }
        self.next += 1;
        self.at = at + u64::from(length);
        Ok(held)
    }
}

fn read(file: &dyn DiskFile, at: u64, count: usize) -> Result<Bytes, Unfit> {
    let mut bytes = BytesMut::zeroed(count);
    if file.read_at(&mut bytes, at)? < count { Err(Unfit::Damaged) } else { Ok(bytes.freeze()) }
}
