//! The journal's records: what each kind holds, byte by byte.
//!
//! Numbers are little-endian; *bytes* is a u32 length and the bytes; *maybe* is a flag byte (0 or 1)
//! and the value if 1; times are i64 Unix milliseconds; a *home* is where a delivery's event record
//! keeps its state: u32 segment, u32 entry. What stands in *slants* is what a sender or an application wrote, sealed where there
//! is a key (`parts`).
//!
//! | kind | holds |
//! | --- | --- |
//! | 1 Event | flags u8 (1 moved, 2 erased); moved-from if they say so (position u64, first entry u32); maybe claim (16-byte hash, until, fingerprint u64, rearms u8); u8 count of deliveries (destination bytes, maybe path bytes, status u8, attempts u32, attempts-before u32, since, maybe not-before, reason u8); *maybe what the sender was told (status u16, maybe type bytes, maybe body bytes)*; id 16; source, provider bytes; *maybe type; maybe provider's id; method, path bytes; maybe query; u16 count of params (two bytes each)*; received-at; *client address bytes (4 or 16); tls u8; maybe host; proof scheme, slot bytes; u16 count of headers (name, value bytes); body bytes*. Of one that is erased, after the deliveries: id 16; source, provider, method bytes; received-at; zeros |
//! | 2 Started | delivery (16 + u8), home, event's position u64, number u32, at |
//! | 3 Settled | delivery, home, verdict u8 (1 delivered, 2 retry, 3 dead, 4 refused), retry-at or settled-at, dead reason u8, maybe attempt (number u32, reason u8, started-at, took-ms u64, maybe status u16, *maybe error, answer bytes*) |
//! | 4 Rearmed | delivery, home, event's position u64, why u8 (1 replay, 2 duplicate), attempts u32, at |
//! | 5 Duplicate | event id 16, conflict u8, at |
//! | 6 Trimmed | segment u32 |
//! | 7 Same body | event id 16, id 16 of an earlier event with the same signed bytes |
//! | 8 Lost | a stretch of a segment that cannot be read, and the deliveries whose events were there: see [`super::lost`] |
//! | 9 Erased | event id 16, home of its first delivery, u8 count of deliveries, at |
//!
//! The first byte of an event's payload is flags: 1 for the moved-from that follows, 2 for an event that was erased. The latter's record is as
//! long as it was; after what the sender was told (nothing) it has: id 16; source, provider, method bytes; received-at; zeros to the end.
//! An attempt of it has neither an error nor an answer, and zeros in their place at the end.

use std::time::Duration;

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use super::lost::Loss;
use super::parts::{Parts, Payload, Unreadable, Writing};
use super::segment::RawRecord;
use super::stored::{EventRecord, decode_event, encode_event};
use crate::base::UnixMillis;
use crate::event::{Attempt, AttemptReason, DeadReason, DeliveryId, EventId};
use crate::journal::seal::{CannotSeal, Keyring, Sealer};
use crate::journal::{Position, Rearm, Settled, Verdict};

/// Where a delivery's state is kept: the entry of its event's record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// The segment's number.
    pub segment: u32,
    /// The entry's number in it.
    pub entry: u32,
}

impl Home {
    /// This and those after it, as many as `count` in all, each with its number from 0.
    pub fn and_following(self, count: u8) -> impl Iterator<Item = (u8, Self)> {
        (0..count).map(move |index| (index, Self { entry: self.entry.saturating_add(u32::from(index)), ..self }))
    }
}

/// One record.
#[derive(Debug)]
pub enum Record {
    /// An event, its claim and its deliveries.
    Event(Box<EventRecord>),
    /// An attempt is about to run.
    Started { delivery: DeliveryId, home: Home, event_at: Position, number: u32, at: UnixMillis },
    /// An attempt ended.
    Settled { settled: Settled, home: Home, at: UnixMillis },
    /// A delivery is pending again.
    Rearmed { delivery: DeliveryId, home: Home, event_at: Position, why: Rearm, attempts: u32, at: UnixMillis },
    /// A duplicate came.
    Duplicate { original: EventId, conflict: bool, at: UnixMillis },
    /// A segment is no longer needed.
    Trimmed { segment: u32 },
    /// An event has the signed bytes of an earlier one, under another id.
    SameBody { event: EventId, like: EventId },
    /// An event is erased; its deliveries that waited or were dead have ended. `home` is its first delivery's.
    Erased { event: EventId, home: Home, deliveries: u8, at: UnixMillis },
    /// A stretch cannot be read.
    Lost(Box<Loss>),
}

/// The number of [`Record::Event`], which readers may pick out.
pub const KIND_EVENT: u8 = 1;
const KIND_STARTED: u8 = 2;
/// The number of [`Record::Settled`].
pub const KIND_SETTLED: u8 = 3;
/// The number of [`Record::Rearmed`].
pub const KIND_REARMED: u8 = 4;
const KIND_DUPLICATE: u8 = 5;
const KIND_TRIMMED: u8 = 6;
const KIND_SAME_BODY: u8 = 7;
/// The number of [`Record::Lost`].
pub const KIND_LOST: u8 = 8;
const KIND_ERASED: u8 = 9;

impl Record {
    /// The record's kind and payload, sealed by `sealer` where there is anything to seal.
    ///
    /// # Errors
    /// [`CannotSeal`].
    pub fn encode(&self, sealer: Option<&Sealer>) -> Result<(u8, Payload), CannotSeal> {
        let mut writing = Writing::new(sealer);
        let out = writing.open();
        let kind = match self {
            Self::Event(record) => return Ok((KIND_EVENT, encode_event(record, sealer)?)),
            Self::Started { delivery, home, event_at, number, at } => {
                encode_target(out, *delivery, *home).u64(event_at.0).u32(*number).i64(at.0);
                KIND_STARTED
            }
            Self::Settled { settled, home, at } => {
                encode_settled(&mut writing, settled, *home, *at);
                KIND_SETTLED
            }
            Self::Rearmed { delivery, home, event_at, why, attempts, at } => {
                encode_target(out, *delivery, *home).u64(event_at.0);
                out.u8(if *why == Rearm::Replay { 1 } else { 2 }).u32(*attempts).i64(at.0);
                KIND_REARMED
            }
            Self::Duplicate { original, conflict, at } => {
                out.raw(original.as_bytes()).u8(u8::from(*conflict)).i64(at.0);
                KIND_DUPLICATE
            }
            Self::Trimmed { segment } => {
                out.u32(*segment);
                KIND_TRIMMED
            }
            Self::SameBody { event, like } => {
                out.raw(event.as_bytes()).raw(like.as_bytes());
                KIND_SAME_BODY
            }
            Self::Lost(loss) => {
                loss.encode(out);
                KIND_LOST
            }
            Self::Erased { event, home, deliveries, at } => {
                out.raw(event.as_bytes()).u32(home.segment).u32(home.entry).u8(*deliveries).i64(at.0);
                KIND_ERASED
            }
        };
        Ok((kind, writing.finish(kind)?))
    }

    /// Reads a record whole, what is sealed opened with `keys`.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn decode(raw: &RawRecord, keys: &Keyring) -> Result<Self, Unreadable> {
        Ok(Self::read(raw.kind, Parts::whole(raw, keys)?)?)
    }

    /// Reads what the journal goes by, which needs no key: an attempt comes without its error and answer. Not for events.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one, or is an event that is sealed.
    pub fn decode_outline(raw: &RawRecord) -> Result<Self, Malformed> {
        Self::read(raw.kind, Parts::outline(raw)?)
    }

    fn read(kind: u8, mut reading: Parts) -> Result<Self, Malformed> {
        if kind == KIND_EVENT {
            return Ok(Self::Event(Box::new(decode_event(&mut reading)?)));
        }
        let from = &mut reading.open;
        Ok(match kind {
            KIND_LOST => Self::Lost(Box::new(Loss::decode(from)?)),
            KIND_STARTED => {
                let (delivery, home) = decode_target(from)?;
                let event_at = Position(from.u64()?);
                Self::Started { delivery, home, event_at, number: from.u32()?, at: UnixMillis(from.i64()?) }
            }
            KIND_SETTLED => decode_settled(&mut reading)?,
            KIND_REARMED => {
                let (delivery, home) = decode_target(from)?;
                let event_at = Position(from.u64()?);
                let why = if from.u8()? == 1 { Rearm::Replay } else { Rearm::Duplicate };
                Self::Rearmed { delivery, home, event_at, why, attempts: from.u32()?, at: UnixMillis(from.i64()?) }
            }
            KIND_DUPLICATE => Self::Duplicate {
                original: EventId::from_bytes(from.id()?),
                conflict: from.u8()? == 1,
                at: UnixMillis(from.i64()?),
            },
            KIND_TRIMMED => Self::Trimmed { segment: from.u32()? },
            KIND_SAME_BODY => {
                Self::SameBody { event: EventId::from_bytes(from.id()?), like: EventId::from_bytes(from.id()?) }
            }
            KIND_ERASED => Self::Erased {
                event: EventId::from_bytes(from.id()?),
                home: Home { segment: from.u32()?, entry: from.u32()? },
                deliveries: from.u8()?,
                at: UnixMillis(from.i64()?),
            },
            _ => return Err(Malformed),
        })
    }
}

fn encode_target(out: &mut Encoder, delivery: DeliveryId, home: Home) -> &mut Encoder {
    out.raw(delivery.event.as_bytes()).u8(delivery.index).u32(home.segment).u32(home.entry)
}

fn decode_target(from: &mut Decoder) -> Result<(DeliveryId, Home), Malformed> {
    let delivery = DeliveryId { event: EventId::from_bytes(from.id()?), index: from.u8()? };
    Ok((delivery, Home { segment: from.u32()?, entry: from.u32()? }))
}

fn encode_settled(writing: &mut Writing<'_>, settled: &Settled, home: Home, at: UnixMillis) {
    let out = writing.open();
    encode_target(out, settled.delivery, home);
    match settled.verdict {
        Verdict::Delivered => out.u8(1).i64(at.0).u8(0),
        Verdict::RetryAt(when) => out.u8(2).i64(when.0).u8(0),
        Verdict::Dead(why) => out.u8(3).i64(at.0).u8(dead_code(why)),
        Verdict::Refused => out.u8(4).i64(at.0).u8(0),
    };
    let Some(attempt) = &settled.attempt else {
        out.u8(0);
        return;
    };
    out.u8(1).u32(attempt.number).u8(reason_code(attempt.reason)).i64(attempt.started_at.0);
    out.u64(u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX));
    match attempt.status {
        None => out.u8(0),
        Some(status) => out.u8(1).u16(status),
    };
    writing.private().maybe(attempt.error.as_deref().map(str::as_bytes)).bytes(&attempt.answer);
}

fn decode_settled(reading: &mut Parts) -> Result<Record, Malformed> {
    let from = &mut reading.open;
    let (delivery, home) = decode_target(from)?;
    let (code, time, why) = (from.u8()?, UnixMillis(from.i64()?), from.u8()?);
    let verdict = match code {
        1 => Verdict::Delivered,
        2 => Verdict::RetryAt(time),
        3 => Verdict::Dead(dead_from(why)?),
        4 => Verdict::Refused,
        _ => return Err(Malformed),
    };
    let mut attempt = from.maybe(|from| {
        Ok(Attempt {
            number: from.u32()?,
            reason: reason_from(from.u8()?)?,
            started_at: UnixMillis(from.i64()?),
            took: Duration::from_millis(from.u64()?),
            status: from.maybe(Decoder::u16)?,
            error: None,
            answer: Bytes::new(),
        })
    })?;
    if let Some((attempt, private)) = attempt.as_mut().zip(reading.private()) {
        attempt.error = private.maybe(Decoder::text)?;
        attempt.answer = private.bytes()?;
    }
    Ok(Record::Settled { settled: Settled { delivery, attempt, verdict }, home, at: time })
}

pub fn reason_code(reason: AttemptReason) -> u8 {
    match reason {
        AttemptReason::Initial => 0,
        AttemptReason::Retry => 1,
        AttemptReason::Replay => 2,
        AttemptReason::Rearm => 3,
    }
}

pub fn reason_from(code: u8) -> Result<AttemptReason, Malformed> {
    match code {
        0 => Ok(AttemptReason::Initial),
        1 => Ok(AttemptReason::Retry),
        2 => Ok(AttemptReason::Replay),
        3 => Ok(AttemptReason::Rearm),
        _ => Err(Malformed),
    }
}

fn dead_code(why: DeadReason) -> u8 {
    match why {
        DeadReason::TooOld => 1,
        DeadReason::TooManyAttempts => 2,
        DeadReason::GaveUp => 3,
        DeadReason::Damaged => 4,
    }
}

fn dead_from(code: u8) -> Result<DeadReason, Malformed> {
    match code {
        1 => Ok(DeadReason::TooOld),
        2 => Ok(DeadReason::TooManyAttempts),
        3 => Ok(DeadReason::GaveUp),
        4 => Ok(DeadReason::Damaged),
        _ => Err(Malformed),
    }
}
