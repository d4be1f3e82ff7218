//! The journal's records: what each kind holds, byte by byte.
//!
//! Numbers are little-endian; *bytes* is a u32 length and the bytes; *maybe* is a flag byte (0 or 1)
//! and the value if 1; times are i64 Unix milliseconds; a *home* is where a delivery's event record
//! keeps its state: u32 segment, u32 entry.
//!
//! | kind | holds |
//! | --- | --- |
//! | 1 Event | maybe moved-from (position u64, first entry u32); maybe claim (16-byte hash, until, fingerprint u64, rearms u8); u8 count of deliveries (destination bytes, maybe path bytes, status u8, attempts u32, attempts-before u32, since, maybe not-before, reason u8); maybe what the sender was told (status u16, maybe type bytes, body bytes); id 16; source, provider bytes; maybe type; maybe provider's id; method, path bytes; maybe query; u16 count of params (two bytes each); received-at; client address bytes (4 or 16); tls u8; maybe host; proof scheme, slot bytes; u16 count of headers (name, value bytes); body bytes |
//! | 2 Started | delivery (16 + u8), home, event's position u64, number u32, at |
//! | 3 Settled | delivery, home, verdict u8 (1 delivered, 2 retry, 3 dead, 4 refused), retry-at or settled-at, dead reason u8, maybe attempt (number u32, reason u8, started-at, took-ms u64, maybe status u16, maybe error, answer bytes) |
//! | 4 Rearmed | delivery, home, event's position u64, why u8 (1 replay, 2 duplicate), attempts u32, at |
//! | 5 Duplicate | event id 16, conflict u8, at |
//! | 6 Trimmed | segment u32 |
//! | 7 Same body | event id 16, id 16 of an earlier event with the same signed bytes |
//! | 8 Lost | a stretch of a segment that cannot be read, and the deliveries whose events were there: see [`super::lost`] |

use std::time::Duration;

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use super::lost::Loss;
use super::stored::{EventRecord, decode_event, encode_event};
use crate::base::UnixMillis;
use crate::event::{Attempt, AttemptReason, DeadReason, DeliveryId, EventId};
use crate::journal::{Position, Rearm, Settled, Verdict};

/// Where a delivery's state is kept: the entry of its event's record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// The segment's number.
    pub segment: u32,
    /// The entry's number in it.
    pub entry: u32,
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
    /// A stretch cannot be read.
    Lost(Box<Loss>),
}

/// The number of [`Record::Event`], which readers may pick out.
pub const KIND_EVENT: u8 = 1;
const KIND_STARTED: u8 = 2;
const KIND_SETTLED: u8 = 3;
/// The number of [`Record::Rearmed`].
pub const KIND_REARMED: u8 = 4;
const KIND_DUPLICATE: u8 = 5;
const KIND_TRIMMED: u8 = 6;
const KIND_SAME_BODY: u8 = 7;
/// The number of [`Record::Lost`].
pub const KIND_LOST: u8 = 8;

impl Record {
    /// The record's kind and payload.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let mut out = Encoder::default();
        let kind = match self {
            Self::Event(record) => {
                encode_event(&mut out, record);
                KIND_EVENT
            }
            Self::Started { delivery, home, event_at, number, at } => {
                encode_target(&mut out, *delivery, *home).u64(event_at.0).u32(*number).i64(at.0);
                KIND_STARTED
            }
            Self::Settled { settled, home, at } => {
                encode_settled(&mut out, settled, *home, *at);
                KIND_SETTLED
            }
            Self::Rearmed { delivery, home, event_at, why, attempts, at } => {
                encode_target(&mut out, *delivery, *home).u64(event_at.0);
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
                loss.encode(&mut out);
                KIND_LOST
            }
        };
        (kind, out.0)
    }

    /// Reads a payload of `kind`.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, Malformed> {
        if kind == KIND_LOST {
            return Loss::decode(payload).map(|loss| Self::Lost(Box::new(loss)));
        }
        let mut from = Decoder(payload);
        Ok(match kind {
            KIND_EVENT => Self::Event(Box::new(decode_event(&mut from)?)),
            KIND_STARTED => {
                let (delivery, home) = decode_target(&mut from)?;
                let event_at = Position(from.u64()?);
                Self::Started { delivery, home, event_at, number: from.u32()?, at: UnixMillis(from.i64()?) }
            }
            KIND_SETTLED => decode_settled(&mut from)?,
            KIND_REARMED => {
                let (delivery, home) = decode_target(&mut from)?;
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

fn encode_settled(out: &mut Encoder, settled: &Settled, home: Home, at: UnixMillis) {
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
    out.maybe(attempt.error.as_deref().map(str::as_bytes)).bytes(&attempt.answer);
}

fn decode_settled(from: &mut Decoder) -> Result<Record, Malformed> {
    let (delivery, home) = decode_target(from)?;
    let (code, time, why) = (from.u8()?, UnixMillis(from.i64()?), from.u8()?);
    let verdict = match code {
        1 => Verdict::Delivered,
        2 => Verdict::RetryAt(time),
        3 => Verdict::Dead(dead_from(why)?),
        4 => Verdict::Refused,
        _ => return Err(Malformed),
    };
    let attempt = from.maybe(|from| {
        Ok(Attempt {
            number: from.u32()?,
            reason: reason_from(from.u8()?)?,
            started_at: UnixMillis(from.i64()?),
            took: Duration::from_millis(from.u64()?),
            status: from.maybe(Decoder::u16)?,
            error: from.maybe(Decoder::text)?,
            answer: from.bytes()?,
        })
    })?;
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
