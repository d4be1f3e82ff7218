//! The words everything else is about: Event, Delivery, Attempt, and their ids.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use uuid::Uuid;

use crate::base::{Name, UnixMillis};

/// An event's id: a UUIDv7 (RFC 9562), printed as `evt_` and 32 hex digits. Later ids sort later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

/// A text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: an event is `evt_` and 32 hex digits, a delivery `dlv_`, 32 hex digits, `-` and a number")]
pub struct IdError;

impl EventId {
    /// A new id for an event received at `at`.
    #[must_use]
    pub fn new(at: UnixMillis) -> Self {
        let millis = u64::try_from(at.0).unwrap_or(0);
        let mut random = [0u8; 10];
        fastrand::fill(&mut random);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The time in the id: when the event was received, to the millisecond.
    #[must_use]
    pub fn made_at(&self) -> UnixMillis {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        UnixMillis(i64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The id with these 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id's 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0.simple())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix("evt_").and_then(parse_uuid).map(Self).ok_or(IdError)
    }
}

/// A delivery's id, the same over all its attempts: the event's, and which of its routes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event that is delivered.
    pub event: EventId,
    /// The place of the delivery among those of its event, from 0.
    pub index: u8,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}-{}", self.event.0.simple(), self.index)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeliveryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (uuid, index) = text.strip_prefix("dlv_").and_then(|rest| rest.split_once('-')).ok_or(IdError)?;
        let event = EventId(parse_uuid(uuid).ok_or(IdError)?);
        Ok(Self { event, index: index.parse().map_err(|_| IdError)? })
    }
}

/// Only the form this program prints: 32 lower-case hex digits.
fn parse_uuid(text: &str) -> Option<Uuid> {
    let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if plain { Uuid::try_parse(text).ok() } else { None }
}

/// One webhook as it came in. Immutable once it is made.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The source that took it.
    pub source: Name,
    /// The preset that verified it; `none` where the source says `verify: none`.
    pub provider: Name,
    /// What it is about in the provider's words, e.g. `push`.
    pub kind: Option<Box<str>>,
    /// The provider's own id for it.
    pub provider_event_id: Option<Box<str>>,
    /// The request's method.
    pub method: Method,
    /// The request's path, byte for byte as received.
    pub path: Box<str>,
    /// The request's query, byte for byte, without the `?`.
    pub query: Option<Box<str>>,
    /// What the source's `{param}` segments matched, in order.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The request's headers in their order, repeated ones included; `Forebay-*` is already gone.
    pub headers: Headers,
    /// The exact body.
    pub body: Bytes,
    /// When the request's head was complete.
    pub received_at: UnixMillis,
    /// Who sent it, as far as the network tells.
    pub client: Client,
    /// How it was verified, for `explain`: a scheme and which secret matched. Never a value.
    pub proof: Proof,
}

/// Header names and values in the order of the request.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Who sent a webhook: the far end of its connection, or, where that is a trusted proxy, whom it speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// Whether its connection was TLS.
    pub tls: bool,
    /// The `Host` (or `:authority`) it asked for.
    pub host: Option<Box<str>>,
}

/// What was checked of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The scheme that held: `hmac`, `token`, `none`.
    pub scheme: Box<str>,
    /// Which secret matched: the slot's name and its place while rotating, e.g. `secret[0]`. Empty without one.
    pub slot: Box<str>,
}

/// The head of a request, before anything is known about it.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path as received.
    pub path: Box<str>,
    /// The query as received, without the `?`.
    pub query: Option<Box<str>>,
    /// The headers as received.
    pub headers: HeaderMap,
    /// Who sends.
    pub client: Client,
    /// When the head was complete.
    pub received_at: UnixMillis,
}

impl Head {
    /// The only value of `name`, if it came exactly once and is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.next().is_some() { None } else { first.to_str().ok() }
    }
}

/// A whole request: its head and its exact body.
#[derive(Clone, Debug)]
pub struct Received {
    /// The head.
    pub head: Head,
    /// What the path's `{param}` segments matched, in order.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The exact bytes of the body.
    pub body: Bytes,
}

/// What makes two requests the same event, as a digest: source, key and what binds the key.
///
/// The journal hashes it again with a key of its own, so nobody outside can aim for a collision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupeKey(pub [u8; 32]);

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptReason {
    /// The first of the delivery.
    Initial,
    /// The one before failed.
    Retry,
    /// An operator asked for it.
    Replay,
    /// A duplicate came while the delivery was dead.
    Rearm,
}

impl AttemptReason {
    /// The word in the API and in `Forebay-Attempt-Reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Retry => "retry",
            Self::Replay => "replay",
            Self::Rearm => "rearm",
        }
    }
}

/// One try of a delivery, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first; strictly increasing over replays too.
    pub number: u32,
    /// Why it was made.
    pub reason: AttemptReason,
    /// When it began.
    pub started_at: UnixMillis,
    /// How long it took.
    pub took: Duration,
    /// The application's status, if there was one.
    pub status: Option<u16>,
    /// What went wrong below HTTP, in words.
    pub error: Option<Box<str>>,
    /// The first KiB of the application's answer.
    pub answer: Bytes,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Waits for its first or next attempt.
    Pending,
    /// Waits for its route, which the config no longer has. To the journal it is pending.
    Orphaned,
    /// The application took it.
    Delivered,
    /// Given up; kept until replayed or past retention.
    Dead,
    /// The application answered the sender itself, with a 4xx: nobody waits for it any more.
    Refused,
    /// It waited, or was dead, when its event was erased: nothing is left to be delivered.
    Purged,
}

impl DeliveryStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Orphaned, Self::Delivered, Self::Dead, Self::Refused, Self::Purged];

    /// The word in the API, the index and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Orphaned => "orphaned",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Refused => "refused",
            Self::Purged => "purged",
        }
    }
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// `retry.max_age` is over.
    TooOld,
    /// `retry.max_attempts` are made.
    TooManyAttempts,
    /// The application answered with one of `retry.give_up_on`.
    GaveUp,
    /// The stored record can no longer be read.
    Damaged,
}

impl DeadReason {
    /// The word in the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "max_age",
            Self::TooManyAttempts => "max_attempts",
            Self::GaveUp => "give_up_on",
            Self::Damaged => "damaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print_and_nothing_else() {
        let event = EventId::new(UnixMillis(1_700_000_000_000));
        assert_eq!(event.to_string().parse(), Ok(event));
        assert_eq!(event.made_at(), UnixMillis(1_700_000_000_000));
        let delivery = DeliveryId { event, index: 3 };
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        for text in ["", "evt_", "evt_../../etc", "0190", "evt_0190A0000000700080000000000000000", "dlv_x-1"] {
            assert_eq!(text.parse::<EventId>(), Err(IdError), "{text}");
            assert_eq!(text.parse::<DeliveryId>(), Err(IdError), "{text}");
        }
    }

    #[test]
    fn later_events_have_later_ids() {
        assert!(EventId::new(UnixMillis(1_000)) < EventId::new(UnixMillis(1_001)));
    }
}
