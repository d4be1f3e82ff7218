//! An HTTP/1 connection between two requests, without the room that a request takes.
//!
//! hyper keeps a buffer for each direction, 8 KiB both, as long as it has the connection. So once all of an answer has
//! left and nothing of the next request is here, the connection is taken from it, and given to a new one with the first
//! bytes that come. Thousands of idle connections then cost little more than their sockets.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;

/// Most heads fit, and then cost no read more than they would have.
const FIRST_READ: usize = 4 << 10;

/// A socket some of whose bytes were read before, and that tells a [`Watch`] whether all of an answer has left.
pub(super) struct Resumed<IO> {
    before: Bytes,
    pub(super) io: IO,
    watch: Arc<Watch>,
}

impl<IO> Resumed<IO> {
    pub(super) fn new(before: Bytes, io: IO, watch: &Arc<Watch>) -> Self {
        watch.will_tell();
        Self { before, io, watch: Arc::clone(watch) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Resumed<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let length = self.before.len().min(buffer.remaining());
        buffer.put_slice(self.before.get(..length).unwrap_or_default());
        self.before.advance(length);
        if self.before.is_empty() {
            self.before = Bytes::new(); // its memory, too
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Resumed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watch.writes();
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.writes();
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.watch.has_written(); // hyper flushes once it has nothing left to write
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The next bytes that come; none at the end. Takes room for them only once they are there.
pub(super) async fn next_bytes(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    poll_fn(|cx| {
        let mut room = [0; FIRST_READ];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}
