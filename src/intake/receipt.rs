//! What a sender is told when it went well.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::event::EventId;
use crate::provider::HandshakeAnswer;
use crate::source::Source;

/// What a sender is told when it went well.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// The event is durable (or was before, for a duplicate).
    Stored {
        /// The event's id; the original's for a duplicate.
        id: EventId,
        /// Whether an earlier request had brought it.
        again: Again,
        /// Whether the application should have answered, and could not.
        buffered: Buffered,
        /// The status.
        status: u16,
        /// The body.
        body: Bytes,
        /// The body's type.
        content_type: HeaderValue,
    },
    /// The application's own answer, in proxy mode.
    Relayed {
        /// The event's id; the original's for a duplicate.
        id: EventId,
        /// Whether an earlier request had brought it.
        again: Again,
        /// The application's status.
        status: u16,
        /// The application's headers that go on to the sender.
        headers: HeaderMap,
        /// The application's body.
        body: Bytes,
    },
    /// A provider's check of the endpoint: answered, and nothing was kept.
    Handshake(HandshakeAnswer),
}

impl Receipt {
    /// The same, told to whoever sends the event again.
    pub(super) fn again(self) -> Self {
        match self {
            Self::Stored { id, again: _, buffered, status, body, content_type } => {
                Self::Stored { id, again: Again::Yes, buffered, status, body, content_type }
            }
            Self::Relayed { id, again: _, status, headers, body } => {
                Self::Relayed { id, again: Again::Yes, status, headers, body }
            }
            Self::Handshake(answer) => Self::Handshake(answer), // not an event's
        }
    }
}

/// Whether a request is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is the first.
    No,
    /// An earlier request had brought its event.
    Yes,
}

/// Whether an event is kept because the application could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffered {
    /// It is kept as every event is.
    No,
    /// It is.
    Yes,
}

/// The source's own answer to an event that is kept.
pub(super) fn acknowledged(source: &Source, id: EventId, again: Again, buffered: Buffered) -> Receipt {
    let respond = &source.settings().respond;
    let body = match &respond.body {
        Some(body) => Bytes::copy_from_slice(body.as_bytes()),
        None => Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
    };
    let content_type = respond.content_type.clone();
    Receipt::Stored { id, again, buffered, status: respond.status, body, content_type }
}
