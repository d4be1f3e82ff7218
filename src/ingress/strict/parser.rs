//! Message after message: where each of them begins, and the first byte that cannot be accepted.

use super::Fault;
use super::ascii::{End, line_end};
use super::chunks::Chunks;
use super::head::{Body, Head, METHOD_MAX, TARGET_MAX, field};

/// How much of a head is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) struct HeadLimits {
    /// Bytes from the request line to the empty line, both with their ends. Trailers have as many again.
    pub(in crate::ingress) bytes: usize,
    /// Header lines. Trailers have as many again.
    pub(in crate::ingress) lines: usize,
}

/// The longest request line that can be a good one.
const REQUEST_LINE_MAX: usize = METHOD_MAX + TARGET_MAX + b"  HTTP/1.1".len();
/// CRLF, after each line, and once more after the last one.
const CRLF: usize = 2;

/// Reads a connection's bytes as they come, in whatever pieces. It allocates only for a target that is a whole URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parser {
    limits: HeadLimits,
    place: Place,
    /// How much of the line that is not complete yet has been looked at.
    scanned: usize,
    /// Bytes and lines of the head, or of the trailers, that are complete.
    bytes: usize,
    lines: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Before a request line, perhaps after an empty line, which some senders put behind a body.
    Between,
    Fields(Head),
    Length(u64),
    Chunks(Chunks),
    Trailers,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fed {
    /// So many of them can be let through. The rest is the beginning of a line, to be brought again with what
    /// comes next; or it begins with the fault.
    pub(super) good: usize,
    pub(super) fault: Option<Fault>,
}

impl Parser {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, place: Place::Between, scanned: 0, bytes: 0, lines: 0 }
    }

    /// Whether what comes next belongs to a body: who sent it has had its request heard, and gets its answer.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.place, Place::Length(_) | Place::Chunks(_) | Place::Trailers)
    }

    /// Whether a message has ended and nothing of the next one is here.
    #[cfg(test)]
    pub(super) fn is_between(&self) -> bool {
        self.place == Place::Between && self.scanned == 0
    }

    /// Goes on by `bytes`: what was left of the last ones, and more.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut good = 0;
        while let Some(rest) = bytes.get(good..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(0) => break,
                Ok(taken) => good += taken,
                Err((taken, fault)) => return Fed { good: good + taken, fault: Some(fault) },
            }
        }
        Fed { good, fault: None }
    }

    /// Takes a piece of body, or a line; nothing if the line is not complete.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Fault)> {
        match &mut self.place {
            Place::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(bytes.len()).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.place = Place::Between;
                }
                Ok(taken)
            }
            Place::Chunks(chunks) => {
                let (taken, result) = chunks.feed(bytes);
                if *chunks == Chunks::Done {
                    self.place = Place::Trailers;
                }
                result.map(|()| taken).map_err(|fault| (taken, fault))
            }
            Place::Between | Place::Fields(_) | Place::Trailers => self.line(bytes).map_err(|fault| (0, fault)),
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        // Behind every line but the last there is still the last to come.
        let room = self.limits.bytes.saturating_sub(self.bytes + 2 * CRLF);
        let (longest, too_long) = match self.place {
            Place::Between => (room.min(REQUEST_LINE_MAX), Fault::TargetTooLong),
            Place::Trailers => (room.saturating_sub(1), Fault::HeadTooLarge), // the library takes less than its limit
            _ => (room, Fault::HeadTooLarge),
        };
        let length = match line_end(bytes, self.scanned, longest, too_long)? {
            End::At(length) => length,
            End::Later { scanned } => {
                self.scanned = scanned;
                return Ok(0);
            }
        };
        self.scanned = 0;
        let line = bytes.get(..length).unwrap_or_default();
        self.bytes += length + CRLF;
        self.take(line)?;
        Ok(length + CRLF)
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Fault> {
        match &mut self.place {
            Place::Between if line.is_empty() && self.bytes == CRLF => {}
            Place::Between => self.place = Place::Fields(Head::begin(line)?),
            Place::Fields(head) if line.is_empty() => {
                let body = head.end()?;
                (self.bytes, self.lines) = (0, 0);
                self.place = match body {
                    Body::Chunked => Place::Chunks(Chunks::START),
                    Body::Length(0) => Place::Between,
                    Body::Length(length) => Place::Length(length),
                };
            }
            Place::Trailers if line.is_empty() => {
                (self.bytes, self.lines) = (0, 0);
                self.place = Place::Between;
            }
            Place::Fields(head) => {
                self.lines += 1;
                if self.lines > self.limits.lines {
                    return Err(Fault::HeadersTooMany);
                }
                head.field(line)?;
            }
            Place::Trailers => {
                self.lines += 1;
                if self.lines > self.limits.lines {
                    return Err(Fault::HeadersTooMany);
                }
                field(line)?; // whatever it says, nobody hears it
            }
            Place::Length(_) | Place::Chunks(_) => {}
        }
        Ok(())
    }
}
