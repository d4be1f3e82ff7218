//! The journal's records: what each kind holds, byte by byte.
//!
//! Numbers are little-endian; *bytes* is a u32 length and the bytes; *maybe* is a flag byte (0 or 1)
//! and the value if 1; times are i64 Unix milliseconds; a *home* is where a delivery's event record
//! keeps its state: u32 segment, u32 entry.
//!
//! | kind | holds |
//! | --- | --- |
//! | 1 Event | maybe moved-from (position u64, first entry u32); maybe claim (16-byte hash, until, fingerprint u64, rearms u8); u8 count of deliveries (destination bytes, maybe path bytes, status u8, attempts u32, attempts-before u32, since, maybe not-before, reason u8); id 16; source, provider bytes; maybe type; maybe provider's id; method, path bytes; maybe query; u16 count of params (two bytes each); received-at; client address bytes (4 or 16); tls u8; maybe host; proof scheme, slot bytes; u16 count of headers (name, value bytes); body bytes |
//! | 2 Started | delivery (16 + u8), home, event's position u64, number u32, at |
//! | 3 Settled | delivery, home, verdict u8 (1 delivered, 2 retry, 3 dead), retry-at or settled-at, dead reason u8, maybe attempt (number u32, reason u8, started-at, took-ms u64, maybe status u16, maybe error, answer bytes) |
//! | 4 Rearmed | delivery, home, event's position u64, why u8 (1 replay, 2 duplicate), attempts u32, at |
//! | 5 Duplicate | event id 16, conflict u8, at |
//! | 6 Trimmed | segment u32 |

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::codec::{Decoder, Encoder, Malformed};
use crate::base::{Name, UnixMillis};
use crate::event::{
    Attempt, AttemptReason, Client, DeadReason, DeliveryId, DeliveryStatus, Event, EventId, Headers, Proof,
};
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
}

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// Where its record was before, and its first entry there, if this is a copy of a straggler.
    pub moved_from: Option<(Position, u32)>,
    /// Its claim.
    pub claim: Option<StoredClaim>,
    /// Its deliveries, by index.
    pub deliveries: Vec<StoredDelivery>,
    /// The event.
    pub event: Event,
}

/// A claim as it is kept with its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredClaim {
    /// The keyed hash of the dedupe key.
    pub hash: [u8; 16],
    /// Until when it holds.
    pub until: UnixMillis,
    /// A digest of the body.
    pub fingerprint: u64,
    /// Whether a duplicate rearms dead deliveries.
    pub rearms: bool,
}

/// A delivery as it is kept with its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Where it goes.
    pub destination: Name,
    /// The route's path.
    pub path: Option<Box<str>>,
    /// Where it stood when the record was written.
    pub status: DeliveryStatus,
    /// How far it had come.
    pub progress: Progress,
}

/// How far a pending delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Attempts started so far.
    pub attempts: u32,
    /// Those of earlier cycles.
    pub attempts_before: u32,
    /// When the present cycle began.
    pub since: UnixMillis,
    /// When the next attempt is due.
    pub not_before: Option<UnixMillis>,
    /// Why the next attempt is made.
    pub reason: AttemptReason,
}

impl Progress {
    /// Of a delivery that was never tried.
    pub fn fresh(received_at: UnixMillis) -> Self {
        Self { attempts: 0, attempts_before: 0, since: received_at, not_before: None, reason: AttemptReason::Initial }
    }
}

/// The number of [`Record::Event`], which readers may pick out.
pub const KIND_EVENT: u8 = 1;
const KIND_STARTED: u8 = 2;
const KIND_SETTLED: u8 = 3;
/// The number of [`Record::Rearmed`].
pub const KIND_REARMED: u8 = 4;
const KIND_DUPLICATE: u8 = 5;
const KIND_TRIMMED: u8 = 6;

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
        };
        (kind, out.0)
    }

    /// Reads a payload of `kind`.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, Malformed> {
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

/// The payload of a fresh event, made before the writer sees it.
pub fn encode_event(out: &mut Encoder, record: &EventRecord) {
    match record.moved_from {
        None => out.u8(0),
        Some((from, entry)) => out.u8(1).u64(from.0).u32(entry),
    };
    match &record.claim {
        None => out.u8(0),
        Some(claim) => out.u8(1).raw(&claim.hash).i64(claim.until.0).u64(claim.fingerprint).u8(u8::from(claim.rearms)),
    };
    out.u8(u8::try_from(record.deliveries.len()).unwrap_or(u8::MAX));
    for delivery in record.deliveries.iter().take(usize::from(u8::MAX)) {
        out.bytes(delivery.destination.as_str().as_bytes()).maybe(delivery.path.as_deref().map(str::as_bytes));
        out.u8(status_code(delivery.status));
        let progress = &delivery.progress;
        out.u32(progress.attempts).u32(progress.attempts_before).i64(progress.since.0);
        match progress.not_before {
            None => out.u8(0),
            Some(at) => out.u8(1).i64(at.0),
        };
        out.u8(reason_code(progress.reason));
    }
    encode_facts(out, &record.event);
}

fn encode_facts(out: &mut Encoder, event: &Event) {
    let text = |value: &Option<Box<str>>| value.as_ref().map(|value| value.as_bytes().to_vec());
    out.raw(event.id.as_bytes());
    out.bytes(event.source.as_str().as_bytes()).bytes(event.provider.as_str().as_bytes());
    out.maybe(text(&event.kind).as_deref()).maybe(text(&event.provider_event_id).as_deref());
    out.bytes(event.method.as_str().as_bytes()).bytes(event.path.as_bytes()).maybe(text(&event.query).as_deref());
    out.u16(u16::try_from(event.params.len()).unwrap_or(u16::MAX));
    for (name, value) in event.params.iter().take(usize::from(u16::MAX)) {
        out.bytes(name.as_bytes()).bytes(value.as_bytes());
    }
    out.i64(event.received_at.0);
    match event.client.ip {
        IpAddr::V4(ip) => out.bytes(&ip.octets()),
        IpAddr::V6(ip) => out.bytes(&ip.octets()),
    };
    out.u8(u8::from(event.client.tls)).maybe(text(&event.client.host).as_deref());
    out.bytes(event.proof.scheme.as_bytes()).bytes(event.proof.slot.as_bytes());
    out.u16(u16::try_from(event.headers.len()).unwrap_or(u16::MAX));
    for (name, value) in event.headers.iter().take(usize::from(u16::MAX)) {
        out.bytes(name.as_str().as_bytes()).bytes(value.as_bytes());
    }
    out.bytes(&event.body);
}

fn decode_event(from: &mut Decoder) -> Result<EventRecord, Malformed> {
    let (moved_from, claim, deliveries) = decode_front(from)?;
    Ok(EventRecord { moved_from, claim, deliveries, event: decode_facts(from)? })
}

/// An event's id and deliveries, without the rest of it.
///
/// # Errors
/// [`Malformed`] if the payload is not an event's.
pub fn decode_deliveries(payload: Bytes) -> Result<(EventId, Vec<StoredDelivery>), Malformed> {
    let mut from = Decoder(payload);
    let (_, _, deliveries) = decode_front(&mut from)?;
    Ok((EventId::from_bytes(from.id()?), deliveries))
}

type Front = (Option<(Position, u32)>, Option<StoredClaim>, Vec<StoredDelivery>);

fn decode_front(from: &mut Decoder) -> Result<Front, Malformed> {
    let moved_from = from.maybe(|from| Ok((Position(from.u64()?), from.u32()?)))?;
    let claim = from.maybe(|from| {
        Ok(StoredClaim {
            hash: from.id()?,
            until: UnixMillis(from.i64()?),
            fingerprint: from.u64()?,
            rearms: from.u8()? == 1,
        })
    })?;
    let count = from.u8()?;
    let deliveries = (0..count).map(|_| decode_delivery(from)).collect::<Result<_, _>>()?;
    Ok((moved_from, claim, deliveries))
}

fn decode_delivery(from: &mut Decoder) -> Result<StoredDelivery, Malformed> {
    Ok(StoredDelivery {
        destination: decode_name(from)?,
        path: from.maybe(Decoder::text)?,
        status: status_from(from.u8()?)?,
        progress: Progress {
            attempts: from.u32()?,
            attempts_before: from.u32()?,
            since: UnixMillis(from.i64()?),
            not_before: from.maybe(|from| from.i64().map(UnixMillis))?,
            reason: reason_from(from.u8()?)?,
        },
    })
}

fn decode_facts(from: &mut Decoder) -> Result<Event, Malformed> {
    Ok(Event {
        id: EventId::from_bytes(from.id()?),
        source: decode_name(from)?,
        provider: decode_name(from)?,
        kind: from.maybe(Decoder::text)?,
        provider_event_id: from.maybe(Decoder::text)?,
        method: Method::from_bytes(&from.bytes()?).map_err(|_| Malformed)?,
        path: from.text()?,
        query: from.maybe(Decoder::text)?,
        params: {
            let count = from.u16()?;
            (0..count).map(|_| Ok((from.text()?, from.text()?))).collect::<Result<_, _>>()?
        },
        received_at: UnixMillis(from.i64()?),
        client: Client { ip: decode_ip(&from.bytes()?)?, tls: from.u8()? == 1, host: from.maybe(Decoder::text)? },
        proof: Proof { scheme: from.text()?, slot: from.text()? },
        headers: decode_headers(from)?,
        body: from.bytes()?,
    })
}

fn decode_headers(from: &mut Decoder) -> Result<Headers, Malformed> {
    let count = from.u16()?;
    (0..count)
        .map(|_| {
            let name = HeaderName::from_bytes(&from.bytes()?).map_err(|_| Malformed)?;
            let value = HeaderValue::from_maybe_shared(from.bytes()?).map_err(|_| Malformed)?;
            Ok((name, value))
        })
        .collect()
}

fn decode_name(from: &mut Decoder) -> Result<Name, Malformed> {
    Name::new(&from.text()?).map_err(|_| Malformed)
}

fn decode_ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Malformed)
}

fn encode_settled(out: &mut Encoder, settled: &Settled, home: Home, at: UnixMillis) {
    encode_target(out, settled.delivery, home);
    match settled.verdict {
        Verdict::Delivered => out.u8(1).i64(at.0).u8(0),
        Verdict::RetryAt(when) => out.u8(2).i64(when.0).u8(0),
        Verdict::Dead(why) => out.u8(3).i64(at.0).u8(dead_code(why)),
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

fn status_code(status: DeliveryStatus) -> u8 {
    match status {
        DeliveryStatus::Pending => 0,
        DeliveryStatus::Delivered => 1,
        DeliveryStatus::Dead => 2,
    }
}

fn status_from(code: u8) -> Result<DeliveryStatus, Malformed> {
    match code {
        0 => Ok(DeliveryStatus::Pending),
        1 => Ok(DeliveryStatus::Delivered),
        2 => Ok(DeliveryStatus::Dead),
        _ => Err(Malformed),
    }
}

fn reason_code(reason: AttemptReason) -> u8 {
    match reason {
        AttemptReason::Initial => 0,
        AttemptReason::Retry => 1,
        AttemptReason::Replay => 2,
        AttemptReason::Rearm => 3,
    }
}

fn reason_from(code: u8) -> Result<AttemptReason, Malformed> {
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
