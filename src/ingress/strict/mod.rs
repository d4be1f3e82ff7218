//! What a request may look like: decided here, before anything else sees it.
//!
//! The HTTP library takes messages that two programs could read in two ways. For HTTP/1 a [`Guard`] therefore stands
//! between the socket and the library: a [`Parser`](parser::Parser) of our own reads every byte first and lets none
//! through of a line that is not beyond doubt. What it takes is a subset of what the library takes, so the library
//! never has to refuse anything itself. HTTP/2 frames its messages in binary, and its library refuses malformed ones
//! (RFC 9113, section 8.1.1); what it leaves is [`check_http2`]'s.
//!
//! `ascii` knows characters and line ends, `head` one line of a head, `chunks` the chunked coding, `parser` how they
//! follow each other.

mod ascii;
mod chunks;
mod guard;
mod head;
mod http2;
mod parser;
#[cfg(test)]
mod tests;

pub(super) use guard::Guard;
pub(super) use head::is_host;
pub(super) use http2::check as check_http2;
pub(super) use parser::HeadLimits;

/// Why a request is refused before anything is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The head is longer than is allowed.
    #[error("a head that is too long")]
    HeadTooLarge,
    /// More header lines than are allowed.
    #[error("too many headers")]
    HeadersTooMany,
    /// A target that is longer than is allowed.
    #[error("a target that is too long")]
    TargetTooLong,
    /// A line that does not end in CRLF, or has control characters or bytes beyond ASCII in it.
    #[error("a malformed line")]
    Line,
    /// A first line that is no method, target and version.
    #[error("a malformed request line")]
    RequestLine,
    /// A version other than HTTP/1.1 and HTTP/1.0.
    #[error("another version of HTTP")]
    Version,
    /// A target that is neither a path nor a URL, or has characters that have no place in one.
    #[error("a malformed target")]
    Target,
    /// A header line without a name, or with a space around it.
    #[error("a malformed header line")]
    Field,
    /// More than one length, an odd one, or none where there must be one.
    #[error("an unclear body length")]
    Framing,
    /// No `Host`, several, an odd one, or one that the target contradicts.
    #[error("no clear Host")]
    Host,
    /// `CONNECT`, `TRACE` or an `Upgrade`.
    #[error("a tunnel or upgrade")]
    Tunnel,
    /// An `Expect` other than `100-continue`.
    #[error("an odd Expect")]
    Expectation,
    /// A chunk whose size, extension or end is not as it must be.
    #[error("a malformed chunk")]
    Chunk,
}
