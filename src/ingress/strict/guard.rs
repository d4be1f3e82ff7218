//! The parser, between a socket and the HTTP library.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Fault;
use super::parser::{HeadLimits, Parser};

/// A socket of which only bytes beyond doubt can be read; HTTP/1 only. Writing is left alone.
///
/// Bytes are read right into the reader's buffer and looked at there. The beginning of a line that is not complete is
/// taken out again and held until the rest has come: at most one line, and no memory on a connection that has none.
///
/// After a fault nothing more is read. In a head, the reader meets the end of the stream, as if its sender had gone
/// away: it answers the requests before and ends, and [`Guard::into_parts`] says what to tell the sender. In a body, it
/// meets an error of the kind `InvalidData`, and the request that has the body is answered.
#[derive(Debug)]
pub(in crate::ingress) struct Guard<IO> {
    io: IO,
    parser: Parser,
    /// Bytes to be handed out, and behind them the beginning of a line.
    held: Vec<u8>,
    /// How many of the held bytes can be handed out.
    ready: usize,
    fault: Option<Fault>,
    /// Whether the reader has met the fault.
    met: bool,
}

impl<IO> Guard<IO> {
    /// Guards `io`, on which a request is to come next.
    pub(in crate::ingress) fn new(io: IO, limits: HeadLimits) -> Self {
        Self { io, parser: Parser::new(limits), held: Vec::new(), ready: 0, fault: None, met: false }
    }

    /// The socket, and the fault that nobody has answered for yet: one in a head that was due to be read.
    pub(in crate::ingress) fn into_parts(self) -> (IO, Option<Fault>) {
        let unanswered = self.fault.filter(|_| self.met && !self.parser.is_in_body());
        (self.io, unanswered)
    }

    /// Whether a part of a line is here whose rest is yet to come.
    pub(in crate::ingress) fn is_in_line(&self) -> bool {
        !self.held.is_empty()
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity().min(self.held.len())
    }

    /// What the reader meets at a fault.
    fn meet(&mut self, fault: Fault) -> io::Result<()> {
        let first = !self.met;
        self.met = true;
        self.held = Vec::new();
        if first && self.parser.is_in_body() { Err(io::Error::new(io::ErrorKind::InvalidData, fault)) } else { Ok(()) }
    }

    /// Hands out as much as `buffer` takes of what is ready.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ready.min(buffer.remaining());
        buffer.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.drain(..count);
        self.ready -= count;
        if self.held.is_empty() {
            self.held = Vec::new(); // few heads come in pieces: the next one hardly will
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guard<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        loop {
            if guard.ready > 0 {
                guard.hand_out(buffer);
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = guard.fault {
                return Poll::Ready(guard.meet(fault));
            }
            let start = buffer.filled().len();
            ready!(Pin::new(&mut guard.io).poll_read(cx, buffer))?;
            let new = buffer.filled().get(start..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(())); // the end, or a buffer without room
            }
            if guard.held.is_empty() {
                let fed = guard.parser.feed(new);
                guard.fault = fed.fault;
                if fed.fault.is_none() {
                    guard.held.extend_from_slice(new.get(fed.good..).unwrap_or_default());
                }
                buffer.set_filled(start + fed.good);
                if fed.good > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                guard.held.extend_from_slice(new);
                buffer.set_filled(start);
                let fed = guard.parser.feed(&guard.held);
                (guard.fault, guard.ready) = (fed.fault, fed.good);
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guard<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
