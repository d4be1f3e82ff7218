//! What is on its way to a peer that may never read it.
//!
//! [`Outgoing`] is the socket: a write that gets on by not a byte in `write_timeout` ends it. HTTP/2 has a second place
//! where an answer can stay behind, its own flow control: a peer that gives no window leaves the socket free and the
//! answer in memory. [`Answer`] therefore tells the connection's [`Watch`] of each piece that has left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::answer::SendBody;
use super::watch::{Unread, Watch};
use crate::telemetry::{CutOff, Metrics};

/// What counts as getting on with an HTTP/2 answer; the rate that a reader has to keep up is this each `write_timeout`.
const PIECE: usize = 16 << 10;

/// A socket whose peer has to read.
pub(super) struct Outgoing<IO> {
    io: IO,
    patience: Duration,
    metrics: Metrics,
    /// Runs while a write waits.
    waits: Option<Pin<Box<Sleep>>>,
    given_up: bool,
}

impl<IO> Outgoing<IO> {
    pub(super) fn new(io: IO, patience: Duration, metrics: &Metrics) -> Self {
        Self { io, patience, metrics: metrics.clone(), waits: None, given_up: false }
    }

    /// A write came to `written`; if to nothing, how long can that go on?
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.waits.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        self.waits = None;
        self.given_up = true;
        self.metrics.connections().cut_off(CutOff::Unread);
        Poll::Ready(Err(unread()))
    }
}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")
}

impl<IO: AsyncRead + Unpin> AsyncRead for Outgoing<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Outgoing<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.given_up {
            return Poll::Ready(Err(unread()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.given_up {
            return Poll::Ready(Err(unread()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// A TCP socket holds nothing back, so that a flush says nothing of its peer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An answer's body. Told to a [`Watch`], it goes out in pieces, each of which the peer has to take in time.
pub(super) struct Answer<B> {
    body: B,
    /// Of the body's last frame, what has not been asked for.
    rest: Bytes,
    unread: Option<Arc<Unread>>,
}

impl<B> Answer<B> {
    /// One that the socket alone times: HTTP/1 has no other place for it.
    pub(super) fn untold(body: B) -> Self {
        Self { body, rest: Bytes::new(), unread: None }
    }

    pub(super) fn told(body: B, watch: &Arc<Watch>) -> Self {
        Self { body, rest: Bytes::new(), unread: Some(Arc::new(watch.answer())) }
    }
}

impl<B: SendBody> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(unread) = self.unread.clone() else { return Pin::new(&mut self.body).poll_frame(cx) };
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let bytes = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Piece { bytes, unread })))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A piece of an answer; dropped when it has left.
struct Piece {
    bytes: Bytes,
    unread: Arc<Unread>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unread.gets_on();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_get_on_is_given_up_and_one_that_does_is_not() {
        let (ours, mut theirs) = duplex(4);
        let mut ours = Outgoing::new(ours, PATIENCE, &Metrics::new("test"));
        let reads_slowly = async {
            for _ in 0..4 {
                tokio::time::sleep(PATIENCE - Duration::from_millis(1)).await;
                theirs.read_u8().await.unwrap();
            }
            Instant::now()
        };
        let writes = async {
            let error = ours.write_all(b"0123456789").await.unwrap_err();
            (error.kind(), Instant::now(), ours.write_all(b"x").await.is_err())
        };
        let (last_read, (kind, given_up, and_again)) = tokio::join!(reads_slowly, writes);
        assert_eq!((kind, given_up - last_read, and_again), (io::ErrorKind::TimedOut, PATIENCE, true));
    }
}
