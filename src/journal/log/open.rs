//! Opening a journal: its lock, its identity, and reading the log back.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint;
use super::claims::{self, Claims, Held};
use super::crew::Workplace;
use super::damage::{Stretch, Survey};
use super::entry::{Lost, Segment};
use super::facts::EventFacts;
use super::parts::{self, Parts};
use super::record::{Home, KIND_EVENT, Record};
use super::reserve;
use super::routes::Known;
use super::segment::{self, FORMAT, FORMAT_OLDEST, Found, HEADER_BYTES, Header, RawRecord, Scan, SegmentKey};
use super::state::{Rearmed, State};
use super::stored::{self, EventOutline};
use super::survey::no_key;
use crate::base::UnixMillis;
use crate::journal::disk::{self, Disk, DiskFile};
use crate::journal::{KeyUse, Position};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is in use by another forebay{}; stop it first, or give this one another journal.dir",
        holder.map_or(String::new(), |pid| format!(" (process {pid})")))]
    Locked {
        /// The lock's path.
        path: PathBuf,
        /// The other process, if it can be told.
        holder: Option<u32>,
    },
    /// The directory belongs to somebody else.
    #[error("{path} belongs to another user (uid {owner}); give the directory to the user that runs forebay")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Written by another version.
    #[error(
        "{file} has format {found}, and this forebay reads {FORMAT_OLDEST} to {newest}; nothing was changed: run the version that wrote it"
    )]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that is read.
        newest: u32,
    },
    /// What is kept is sealed with keys that are not configured.
    #[error("{}", no_key(.0))]
    NoKey(Vec<KeyUse>),
    /// Not part of this journal.
    #[error("{file} belongs to another journal, or has been renamed; move it away, it was never part of this one")]
    Foreign {
        /// The file.
        file: String,
    },
    /// Segments without an identity.
    #[error(
        "journal.meta is missing or damaged although the journal has segments; restore it from a backup of the same directory"
    )]
    NoMeta,
    /// Too small to work.
    #[error("journal.max_size is {given} bytes; it needs at least {least}")]
    TooSmall {
        /// What was configured.
        given: u64,
        /// What is needed.
        least: u64,
    },
    /// Anything else.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        error: io::Error,
    },
}

pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |error| OpenError::Io { what, error }
}

/// What reading the log back came to.
pub struct Recovered {
    /// What is known now.
    pub state: State,
    /// The claims.
    pub claims: Claims,
    /// All claims before this are sealed.
    pub sealed_through: Position,
    /// The number for the next segment.
    pub next_segment: u32,
    /// Stretches of the log that were known to be damaged before, and segments and runs of claims that are missing.
    pub damaged: u64,
    /// Those that were not known: the writer is to take note of them.
    pub lost: Vec<Stretch>,
    /// How much of the log was read for what is known now.
    pub read_bytes: u64,
    /// The size of the checkpoint that it was read from; none if there was none, or no good one.
    pub checkpoint: Option<u64>,
}

/// Reads everything back, from the last checkpoint on if there is a good one; `now` is the journal's time. Opening is the same however often it is interrupted.
///
/// # Errors
/// [`OpenError`]: a file that is not ours or not readable is named, and nothing is changed.
pub fn recover(
    disk: &Arc<dyn Disk>,
    store: [u8; 16],
    now: UnixMillis,
    workplace: &Workplace,
) -> Result<Recovered, OpenError> {
    let epoch = u64::try_from(now.0).unwrap_or(0);
    let opened = Claims::open(Arc::clone(disk), store, now).map_err(failed("cannot read the claims"))?;
    let claims::Opened { mut claims, through: sealed_through, missing: mut damaged } = opened;
    claims.work_as(workplace);
    let disk = &**disk;
    disk.create_dir(segment::DIR).map_err(failed("cannot make the segments' directory"))?;
    let mut files: Vec<(u32, u64)> = disk
        .list(segment::DIR)
        .map_err(failed("cannot list the segments"))?
        .into_iter()
        .filter_map(|(name, bytes)| Some((segment::number_of(&name)?, bytes)))
        .collect();
    files.sort_unstable();
    let last = files.last().map_or(0, |(number, _)| *number);
    // A crash may have cut the opening before this one off, and have left segments behind it that nothing was written to.
    let written = files.iter().rfind(|(_, bytes)| *bytes > u64::from(HEADER_BYTES)).map_or(last, |(number, _)| *number);
    if last >= u32::MAX - 1 {
        return Err(OpenError::Foreign { file: segment::path(last) });
    }
    let oldest = oldest_kept(disk, store, &files)?;
    for (number, _) in files.extract_if(.., |(number, _)| *number < oldest) {
        tracing::warn!(segment = number, "removed: it was let go of before, and has come back");
        disk.remove(&segment::path(number)).map_err(failed("cannot remove a segment that was let go of"))?;
    }
    let known = Known::read(disk).map_err(failed("cannot read which routes there were"))?;
    let mut present: Vec<u32> = files.iter().map(|(number, _)| *number).collect();
    let mut reading = Reading {
        state: State::new(epoch, known.clone()),
        claims,
        sealed_through,
        known_through: Position::START,
        proven: checkpoint::reach(disk, store).max(sealed_through),
        trimmed: Vec::new(),
        stretches: Vec::new(),
        read_bytes: 0,
        now,
    };
    let loaded = checkpoint::load(disk, store, &files, || State::new(epoch, known)).unwrap_or_else(|unfit| {
        tracing::warn!(reason = %unfit, "the checkpoint is passed over; the whole log is read");
        None
    });
    let (mut let_go_before, mut checkpoint) = (oldest, None);
    if let Some(loaded) = loaded {
        (reading.state, reading.known_through) = (loaded.state, loaded.through);
        // Only if the runs are those that the checkpoint knew, or came after them, does it know what is in them.
        if sealed_through >= loaded.sealed.runs {
            reading.sealed_through = sealed_through.max(loaded.sealed.through);
        }
        let_go_before = oldest.max(loaded.oldest);
        checkpoint = Some(loaded.bytes);
        let (number, _) = segment::split(loaded.through);
        present.extend((!present.contains(&number)).then_some(number)); // it was begun, and had no record
        present.sort_unstable();
    }
    let (first, _) = segment::split(reading.known_through.min(reading.sealed_through));
    for (number, bytes) in files.into_iter().filter(|(number, _)| *number >= first) {
        reading.segment(disk, SegmentKey { store, number }, bytes, number >= written)?;
    }
    let gone = missing(let_go_before, &present, &reading.trimmed);
    damaged += gone.iter().map(|range| range.len() as u64).sum::<u64>() + u64::from(reading.ends_early());
    reading.state.missing = gone;
    for number in std::mem::take(&mut reading.trimmed) {
        if reading.state.segments.contains_key(&number) {
            disk.remove(&segment::path(number)).map_err(failed("cannot remove a trimmed segment"))?;
            reading.state.remove_segment(number);
        }
    }
    disk.sync_dir(segment::DIR).map_err(failed("cannot flush the segments' directory"))?;
    let (known, lost) = reading.lost();
    for stretch in &lost {
        let Some(end) = reading.state.segments.get(&stretch.segment).map(|segment| segment.end) else {
            continue; // let go of
        };
        if !stretch.is_still_there(disk, store, end.max(stretch.bytes.end)) {
            let what = format!("cannot read {}", segment::path(stretch.segment));
            let error = io::Error::other("what can be read of it changes from one try to the next; try again");
            return Err(OpenError::Io { what, error }); // what is there must not be passed over
        }
    }
    damaged += known;
    let Reading { state, mut claims, mut sealed_through, read_bytes, .. } = reading;
    checkpoint::clear(disk, checkpoint.is_some());
    let next_segment = next_number(&state, sealed_through);
    let through = segment::position(next_segment, HEADER_BYTES);
    claims.mend(through, now).map_err(failed("cannot seal the claims that were read again"))?;
    sealed_through = sealed_through.min(through);
    Ok(Recovered { state, claims, sealed_through, next_segment, damaged, lost, read_bytes, checkpoint })
}

/// A journal that is open begins no segment of this number or a later one, which at one a second it would after a hundred years.
/// Opened again it begins one more each time, so that what waits can be delivered.
pub const NUMBER_MAX: u32 = 0xF000_0000;

/// The oldest segment there was when the newest good one was begun: those before it had been let go of.
fn oldest_kept(disk: &dyn Disk, store: [u8; 16], files: &[(u32, u64)]) -> Result<u32, OpenError> {
    for (number, _) in files.iter().rev() {
        let path = segment::path(*number);
        let file = disk.open(&path).map_err(failed(format!("cannot open {path}")))?;
        let header = segment::read_header(&*file, SegmentKey { store, number: *number });
        if let Header::Good { oldest, .. } = header.map_err(failed(format!("cannot read {path}")))? {
            return Ok(oldest);
        }
    }
    Ok(0)
}

/// Segments are numbered without gaps, so one that is neither there nor let go of has been taken away.
fn missing(oldest: u32, present: &[u32], trimmed: &[u32]) -> Vec<Range<u32>> {
    let known: BTreeSet<u32> = present.iter().chain(trimmed).copied().collect();
    let (mut gone, mut expected) = (Vec::new(), oldest.max(1));
    let last = present.last().copied().unwrap_or(0);
    for number in known.range(expected..).take_while(|number| **number <= last) {
        if *number > expected {
            let (from, to) = (expected, number - 1);
            tracing::error!(from, to, "segments are missing: what was in them is lost");
            gone.push(expected..*number);
        }
        expected = number + 1;
    }
    gone
}

/// The number for the next segment: after every record there is, and where the claims were sealed after that.
fn next_number(state: &State, sealed_through: Position) -> u32 {
    let kept = state.segments.keys().next_back().map_or(1, |last| last + 1);
    let (sealed, offset) = segment::split(sealed_through);
    kept.max(if offset > HEADER_BYTES { sealed + 1 } else { sealed })
}

struct Reading {
    state: State,
    claims: Claims,
    sealed_through: Position,
    /// The state knows what stands before this: only claims are read there.
    known_through: Position,
    /// The log was durable up to here: claims and checkpoints are written only behind that.
    proven: Position,
    trimmed: Vec<u32>,
    /// What could not be read.
    stretches: Vec<Stretch>,
    read_bytes: u64,
    now: UnixMillis,
}

impl Reading {
    /// Reads one segment back.
    fn segment(&mut self, disk: &dyn Disk, key: SegmentKey, bytes: u64, last: bool) -> Result<(), OpenError> {
        let path = segment::path(key.number);
        let file = disk.open(&path).map_err(failed(format!("cannot open {path}")))?;
        let (made_at, sealed_by) =
            match segment::read_header(&*file, key).map_err(failed(format!("cannot read {path}")))? {
                Header::Good { made_at, sealed_by, .. } => (made_at, sealed_by),
                Header::OtherFormat(found) => return Err(OpenError::Format { file: path, found, newest: FORMAT }),
                Header::Foreign => return Err(OpenError::Foreign { file: path }),
                Header::Torn if last && bytes <= u64::from(HEADER_BYTES) => {
                    disk.remove(&path).map_err(failed(format!("cannot remove {path}")))?; // died while making it
                    return Ok(());
                }
                Header::Torn => {
                    tracing::error!(
                        segment = key.number,
                        "the segment's header is damaged; reading its records all the same"
                    );
                    (UnixMillis(0), None) // a record says with which key it is sealed, too
                }
            };
        let end = u32::try_from(bytes).unwrap_or(u32::MAX);
        if end <= HEADER_BYTES && last {
            disk.remove(&path).map_err(failed(format!("cannot remove {path}")))?; // nothing was ever written to it
            return Ok(());
        }
        let file = if last { Self::made_sure(disk, file, key.number, bytes)? } else { file };
        let fresh = || Arc::new(Segment::begun(end, made_at, sealed_by));
        let segment = self.state.segments.entry(key.number).or_insert_with(fresh);
        Arc::make_mut(segment).end = end;
        let entries = u32::try_from(segment.entries.len()).unwrap_or(u32::MAX);
        let (first, offset) = segment::split(self.known_through.min(self.sealed_through));
        let from = if key.number == first { offset } else { 0 };
        let (known, offset) = segment::split(self.known_through);
        let new_from = match key.number.cmp(&known) {
            Ordering::Less => end,
            Ordering::Equal => offset,
            Ordering::Greater => 0,
        };
        self.read_bytes += u64::from(end.saturating_sub(new_from));
        let mut scan = Scan::new(Arc::clone(&file), key, from, end, 4 << 20);
        let mut survey = Survey::after(key.number, entries);
        while let Some(found) = scan.next().map_err(failed(format!("cannot read {path}")))? {
            match found {
                Found::Record(raw) => {
                    if raw.offset >= new_from {
                        survey.record(&raw);
                    }
                    self.record(key, raw)?;
                }
                Found::Damage { from, to, suspect } if from >= new_from => survey.damage(from..to, suspect),
                Found::Damage { .. } => {} // found by whoever reads there for more than claims
            }
        }
        if let Some(segment) = self.state.segments.get_mut(&key.number) {
            Arc::make_mut(segment).close();
        }
        let mut found = survey.end(0);
        let may_be_torn = |from| {
            let unproven = last && segment::position(key.number, from) >= self.proven;
            unproven && disk::can_read(&*file, u64::from(from)..u64::from(end)) // a bad sector is no torn write
        };
        let torn = found.last_mut().filter(|stretch| stretch.bytes.end == end && may_be_torn(stretch.bytes.start));
        if let Some(torn) = torn {
            let Range { start: from, end: to } = torn.bytes.clone();
            tracing::warn!(
                segment = key.number,
                from,
                to,
                "the last write was torn by a crash: nothing in it was acknowledged (unless the disk has damaged it since)"
            );
            torn.why = Lost::Torn;
            torn.entries.end = torn.entries.start;
            if let Some(segment) = self.state.segments.get_mut(&key.number) {
                Arc::make_mut(segment).end = from;
            }
        }
        self.stretches.append(&mut found);
        Ok(())
    }

    /// Whether the log ends before what was durable of it.
    fn ends_early(&self) -> bool {
        let end = self.state.segments.iter().next_back();
        let end = end.map_or(Position::START, |(number, segment)| segment::position(*number, segment.end));
        let (segment, offset) = segment::split(self.proven);
        let early = offset > HEADER_BYTES && end < self.proven; // one without a record is removed
        if early {
            tracing::error!(
                segment,
                offset,
                "the log ends before this place, up to which it was on the disk: what stood there is lost"
            );
        }
        early
    }

    /// What a crash left in the page cache is about to count: duplicates of it will be acknowledged. So it is written anew; where
    /// that fails, for want of room perhaps, it is written over where it stands. Flushing alone may say that all is well, and
    /// write nothing.
    fn made_sure(
        disk: &dyn Disk,
        file: Arc<dyn DiskFile>,
        number: u32,
        bytes: u64,
    ) -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = segment::path(number);
        let name = path.strip_prefix(segment::DIR).and_then(|path| path.strip_prefix('/')).unwrap_or(&path);
        if let Err(error) = reserve::rewrite(disk, segment::DIR, name, bytes) {
            tracing::warn!(segment = number, %error, "the newest segment could not be written anew; it is written over where it stands");
            reserve::write_over(disk, &path).map_err(failed(format!("cannot write over {path}")))?;
            return Ok(file);
        }
        disk.open(&path).map_err(failed(format!("cannot open {path}")))
    }

    /// Once everything has been read: how many stretches were known to be damaged, and those that were not known.
    fn lost(&mut self) -> (u64, Vec<Stretch>) {
        let mut lost = std::mem::take(&mut self.stretches);
        lost.retain_mut(|stretch| {
            let known = self.state.lost_in(stretch.segment, &stretch.bytes);
            if known.is_none() && stretch.open && stretch.why == Lost::Damaged {
                self.state.reach(stretch.segment, stretch.entries.start.saturating_add(stretch.count));
            }
            let entries = self.state.segments.get(&stretch.segment).map_or(0, |segment| segment.entries.len());
            if known.is_none() && stretch.open && stretch.why == Lost::Damaged {
                stretch.entries.end = stretch.entries.end.max(u32::try_from(entries).unwrap_or(u32::MAX));
            }
            known.is_none()
        });
        lost.iter().for_each(|stretch| self.state.believe(stretch));
        let known = self.state.segments.values().flat_map(|segment| &segment.lost);
        (known.filter(|(_, why)| *why == Lost::Damaged).count() as u64, lost)
    }

    fn record(&mut self, key: SegmentKey, raw: RawRecord) -> Result<(), OpenError> {
        let at = segment::position(key.number, raw.offset);
        if let (Some(key), Some(segment)) = (parts::key_of(&raw), self.state.segments.get_mut(&key.number))
            && segment.sealed_by.is_none()
        {
            Arc::make_mut(segment).sealed_by = Some(key);
        }
        if raw.kind == KIND_EVENT
            && let Ok(event) = Parts::outline(&raw).and_then(|mut from| stored::decode_outline(&mut from))
        {
            return self.event(at, &raw, event);
        }
        let Ok(record) = Record::decode_outline(&raw) else {
            tracing::error!(
                segment = key.number,
                offset = raw.offset,
                kind = raw.kind,
                "a record that this version cannot read is passed over"
            );
            return Ok(());
        };
        let is_new = at >= self.known_through;
        match record {
            Record::Event(_) => {} // what makes no sense as an outline makes none whole
            Record::Trimmed { segment } => self.trimmed.push(segment),
            _ if !is_new => {}
            Record::Started { delivery, home, event_at, number, .. } => {
                self.reach(home);
                self.state.started(delivery, home, event_at, number);
            }
            Record::Settled { settled, home, at: when } => {
                let number = settled.attempt.as_ref().map(|attempt| attempt.number);
                self.reach(home);
                self.state.settled(settled.delivery, home, number, settled.verdict, when);
            }
            Record::Rearmed { delivery, home, event_at, why, attempts, at: when } => {
                let rearmed = Rearmed { id: delivery, home, event_at, why, attempts, at: when };
                self.reach(home);
                self.state.rearmed(&rearmed, at, false);
            }
            Record::Erased { event, home, deliveries, .. } => self.state.erased(event, home, deliveries),
            Record::Duplicate { .. } | Record::SameBody { .. } => {}
            Record::Lost(loss) => {
                let bytes = u32::try_from(segment::record_bytes(raw.payload.len())).unwrap_or(u32::MAX);
                self.state.add_loss(at, raw.entry, &loss, bytes, false);
            }
        }
        Ok(())
    }

    fn event(&mut self, at: Position, raw: &RawRecord, event: EventOutline) -> Result<(), OpenError> {
        if let Some(claim) = event.claim.filter(|_| at >= self.sealed_through) {
            let held = Held::new(&claim, event.id, at, raw.entry, event.deliveries.len());
            self.claims.give(claim.hash, held);
        }
        if at >= self.known_through {
            self.state.add_event(at, raw.entry, &EventFacts::of(event, raw.payload.len()), false);
        }
        if self.claims.is_full() {
            let through = segment::position(segment::split(at).0, raw.end);
            self.claims.seal(through, self.now).map_err(failed("cannot seal claims"))?;
            self.sealed_through = through;
        }
        Ok(())
    }

    /// Something came of the delivery at `home`: there was one, even if the event's record cannot be read.
    fn reach(&mut self, home: Home) {
        self.state.reach(home.segment, home.entry.saturating_add(1));
    }
}
