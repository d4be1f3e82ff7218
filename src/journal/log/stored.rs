//! An event's record, byte by byte: its claim, its deliveries, its facts, and what its sender was told.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::codec::{Decoder, Encoder, Malformed};
use super::parts::{Parts, Payload, Writing};
use super::record::{KIND_EVENT, reason_code, reason_from};
use crate::base::{Name, UnixMillis};
use crate::event::{AttemptReason, Client, DeliveryId, DeliveryStatus, Event, EventId, Headers, Proof};
use crate::journal::seal::{CannotSeal, Sealer};
use crate::journal::{Position, Relayed};

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// Where its record was before, and its first entry there, if this is a copy of a straggler.
    pub moved_from: Option<(Position, u32)>,
    /// Its claim.
    pub claim: Option<StoredClaim>,
    /// Its deliveries, by index.
    pub deliveries: Vec<StoredDelivery>,
    /// What the application answered, where the sender was told just that.
    pub relayed: Option<Relayed>,
    /// The event.
    pub event: Event,
    /// Whether it was erased: nothing of what its sender wrote is left then, see [`EventRecord::erase`].
    pub erased: bool,
}

impl EventRecord {
    /// Takes out what the sender wrote and what it was told. What the journal goes by stays: id, source, claim, deliveries. What
    /// is encoded then is never longer than it was.
    pub fn erase(&mut self) {
        self.erased = true;
        self.relayed = None;
        self.deliveries.iter_mut().for_each(|delivery| delivery.path = None);
        let Event { id, source, provider, method, received_at, .. } = &self.event;
        self.event = remains(*id, source.clone(), provider.clone(), method.clone(), *received_at);
    }
}

/// An event of which nothing else is left.
fn remains(id: EventId, source: Name, provider: Name, method: Method, received_at: UnixMillis) -> Event {
    Event {
        id,
        source,
        provider,
        kind: None,
        provider_event_id: None,
        method,
        path: Box::from(""),
        query: None,
        params: Vec::new(),
        received_at,
        client: Client { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), tls: false, host: None },
        proof: Proof { scheme: Box::from(""), slot: Box::from("") },
        headers: Headers::new(),
        body: Bytes::new(),
    }
}

/// What the journal goes by: an event without what its sender and the application wrote. Never sealed.
#[derive(Clone, Debug)]
pub struct EventOutline {
    /// The event's id.
    pub id: EventId,
    /// The source that took it.
    pub source: Name,
    /// When it was received.
    pub received_at: UnixMillis,
    /// As [`EventRecord::moved_from`].
    pub moved_from: Option<(Position, u32)>,
    /// Its claim.
    pub claim: Option<StoredClaim>,
    /// Its deliveries, by index.
    pub deliveries: Vec<StoredDelivery>,
    /// As [`EventRecord::erased`].
    pub erased: bool,
}

impl EventRecord {
    /// What the journal goes by.
    pub fn outline(&self) -> EventOutline {
        EventOutline {
            id: self.event.id,
            source: self.event.source.clone(),
            received_at: self.event.received_at,
            moved_from: self.moved_from,
            claim: self.claim,
            deliveries: self.deliveries.clone(),
            erased: self.erased,
        }
    }
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

    /// Whether it is that of a delivery that was never tried, nor asked for again.
    pub fn is_fresh(&self, id: DeliveryId) -> bool {
        self.attempts == 0 && self.since == id.event.made_at()
    }
}

/// The payload of an event's record, what its sender and the application wrote sealed by `sealer`.
///
/// # Errors
/// [`CannotSeal`].
pub fn encode_event(record: &EventRecord, sealer: Option<&Sealer>) -> Result<Payload, CannotSeal> {
    let mut out = Writing::new(sealer);
    encode_front(out.open(), record);
    let event = &record.event;
    if record.erased {
        encode_remains(out.open(), event);
        return out.finish(KIND_EVENT);
    }
    match &record.relayed {
        None => out.private().u8(0),
        Some(told) => {
            let content_type = told.content_type.as_ref().map(HeaderValue::as_bytes);
            out.private().u8(1).u16(told.status).maybe(content_type).maybe(told.body.as_deref())
        }
    };
    out.open().raw(event.id.as_bytes());
    out.open().bytes(event.source.as_str().as_bytes()).bytes(event.provider.as_str().as_bytes());
    encode_request(out.private(), event);
    out.open().i64(event.received_at.0);
    encode_rest(out.private(), event);
    out.finish(KIND_EVENT)
}

/// The flags of an event's payload.
const MOVED: u8 = 1;
const ERASED: u8 = 2;

fn encode_front(out: &mut Encoder, record: &EventRecord) {
    let erased = if record.erased { ERASED } else { 0 };
    match record.moved_from {
        None => out.u8(erased),
        Some((from, entry)) => out.u8(MOVED | erased).u64(from.0).u32(entry),
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
}

fn encode_remains(out: &mut Encoder, event: &Event) {
    out.raw(event.id.as_bytes());
    out.bytes(event.source.as_str().as_bytes()).bytes(event.provider.as_str().as_bytes());
    out.bytes(event.method.as_str().as_bytes()).i64(event.received_at.0);
}

fn encode_request(out: &mut Encoder, event: &Event) {
    let text = |value: &Option<Box<str>>| value.as_ref().map(|value| value.as_bytes().to_vec());
    out.maybe(text(&event.kind).as_deref()).maybe(text(&event.provider_event_id).as_deref());
    out.bytes(event.method.as_str().as_bytes()).bytes(event.path.as_bytes()).maybe(text(&event.query).as_deref());
    out.u16(u16::try_from(event.params.len()).unwrap_or(u16::MAX));
    for (name, value) in event.params.iter().take(usize::from(u16::MAX)) {
        out.bytes(name.as_bytes()).bytes(value.as_bytes());
    }
}

fn encode_rest(out: &mut Encoder, event: &Event) {
    match event.client.ip {
        IpAddr::V4(ip) => out.bytes(&ip.octets()),
        IpAddr::V6(ip) => out.bytes(&ip.octets()),
    };
    out.u8(u8::from(event.client.tls)).maybe(event.client.host.as_deref().map(str::as_bytes));
    out.bytes(event.proof.scheme.as_bytes()).bytes(event.proof.slot.as_bytes());
    out.u16(u16::try_from(event.headers.len()).unwrap_or(u16::MAX));
    for (name, value) in event.headers.iter().take(usize::from(u16::MAX)) {
        out.bytes(name.as_str().as_bytes()).bytes(value.as_bytes());
    }
    out.bytes(&event.body);
}

/// Reads an event's payload.
///
/// # Errors
/// [`Malformed`] if it is not one, or is sealed and was not opened.
pub fn decode_event(from: &mut Parts) -> Result<EventRecord, Malformed> {
    let Front { moved_from, claim, deliveries, erased } = decode_front(&mut from.open)?;
    if erased {
        let event = decode_remains(&mut from.open)?;
        return Ok(EventRecord { moved_from, claim, deliveries, relayed: None, event, erased });
    }
    let relayed = decode_relayed(from.private().ok_or(Malformed)?)?;
    let id = EventId::from_bytes(from.open.id()?);
    let (source, provider) = (decode_name(&mut from.open)?, decode_name(&mut from.open)?);
    let Request { kind, provider_event_id, method, path, query, params } =
        decode_request(from.private().ok_or(Malformed)?)?;
    let received_at = UnixMillis(from.open.i64()?);
    let private = from.private().ok_or(Malformed)?;
    let event = Event {
        id,
        source,
        provider,
        kind,
        provider_event_id,
        method,
        path,
        query,
        params,
        received_at,
        client: Client {
            ip: decode_ip(&private.bytes()?)?,
            tls: private.u8()? == 1,
            host: private.maybe(Decoder::text)?,
        },
        proof: Proof { scheme: private.text()?, slot: private.text()? },
        headers: decode_headers(private)?,
        body: private.bytes()?,
    };
    Ok(EventRecord { moved_from, claim, deliveries, relayed, event, erased })
}

/// Reads what the journal goes by, opened or not.
///
/// # Errors
/// [`Malformed`] if the payload is not an event's.
pub fn decode_outline(from: &mut Parts) -> Result<EventOutline, Malformed> {
    let Front { moved_from, claim, deliveries, erased } = decode_front(&mut from.open)?;
    if erased {
        let Event { id, source, received_at, .. } = decode_remains(&mut from.open)?;
        return Ok(EventOutline { id, source, received_at, moved_from, claim, deliveries, erased });
    }
    from.private().map(decode_relayed).transpose()?;
    let id = EventId::from_bytes(from.open.id()?);
    let (source, _provider) = (decode_name(&mut from.open)?, decode_name(&mut from.open)?);
    from.private().map(decode_request).transpose()?;
    let received_at = UnixMillis(from.open.i64()?);
    Ok(EventOutline { id, source, received_at, moved_from, claim, deliveries, erased })
}

/// What stands before the event's facts.
struct Front {
    moved_from: Option<(Position, u32)>,
    claim: Option<StoredClaim>,
    deliveries: Vec<StoredDelivery>,
    erased: bool,
}

fn decode_front(from: &mut Decoder) -> Result<Front, Malformed> {
    let flags = from.u8()?;
    if flags & !(MOVED | ERASED) != 0 {
        return Err(Malformed);
    }
    let moved_from = (flags & MOVED != 0).then(|| Ok((Position(from.u64()?), from.u32()?))).transpose()?;
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
    Ok(Front { moved_from, claim, deliveries, erased: flags & ERASED != 0 })
}

fn decode_relayed(from: &mut Decoder) -> Result<Option<Relayed>, Malformed> {
    from.maybe(|from| {
        Ok(Relayed { status: from.u16()?, content_type: from.maybe(decode_value)?, body: from.maybe(Decoder::bytes)? })
    })
}

/// What an event's sender asked for, in short.
struct Request {
    kind: Option<Box<str>>,
    provider_event_id: Option<Box<str>>,
    method: Method,
    path: Box<str>,
    query: Option<Box<str>>,
    params: Vec<(Box<str>, Box<str>)>,
}

fn decode_request(from: &mut Decoder) -> Result<Request, Malformed> {
    Ok(Request {
        kind: from.maybe(Decoder::text)?,
        provider_event_id: from.maybe(Decoder::text)?,
        method: Method::from_bytes(&from.bytes()?).map_err(|_| Malformed)?,
        path: from.text()?,
        query: from.maybe(Decoder::text)?,
        params: {
            let count = from.u16()?;
            (0..count).map(|_| Ok((from.text()?, from.text()?))).collect::<Result<_, _>>()?
        },
    })
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

fn decode_remains(from: &mut Decoder) -> Result<Event, Malformed> {
    let (id, source, provider) = (EventId::from_bytes(from.id()?), decode_name(from)?, decode_name(from)?);
    let method = Method::from_bytes(&from.bytes()?).map_err(|_| Malformed)?;
    Ok(remains(id, source, provider, method, UnixMillis(from.i64()?)))
}

fn decode_headers(from: &mut Decoder) -> Result<Headers, Malformed> {
    let count = from.u16()?;
    (0..count)
        .map(|_| {
            let name = HeaderName::from_bytes(&from.bytes()?).map_err(|_| Malformed)?;
            Ok((name, decode_value(from)?))
        })
        .collect()
}

fn decode_value(from: &mut Decoder) -> Result<HeaderValue, Malformed> {
    HeaderValue::from_maybe_shared(from.bytes()?).map_err(|_| Malformed)
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

fn status_code(status: DeliveryStatus) -> u8 {
    match status {
        DeliveryStatus::Pending | DeliveryStatus::Orphaned => 0, // orphaned follows from the config, and is never written
        DeliveryStatus::Delivered => 1,
        DeliveryStatus::Dead => 2,
        DeliveryStatus::Refused => 3,
        DeliveryStatus::Purged => 4, // follows from the record of the erasure, and is never written
    }
}

fn status_from(code: u8) -> Result<DeliveryStatus, Malformed> {
    match code {
        0 => Ok(DeliveryStatus::Pending),
        1 => Ok(DeliveryStatus::Delivered),
        2 => Ok(DeliveryStatus::Dead),
        3 => Ok(DeliveryStatus::Refused),
        _ => Err(Malformed),
    }
}
