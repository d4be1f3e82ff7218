//! HTTP/2 frames that ask for nothing, and how many of them a connection may send.
//!
//! A request and its body cost the sender something and have limits of their own. Frames that bring neither (PING,
//! SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, CONTINUATION, unknown ones; RFC 9113, section 6) cost it
//! next to nothing, and each makes us work. So they are paid from a credit, which requests, what is answered and the
//! time that passes fill again; a connection that spends more than that is closed. What the frames say is hyper's
//! affair: here only their headers are looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::telemetry::{CutOff, Metrics};

/// The most that a connection has, and what it begins with.
const CREDIT_MAX: u64 = 1_000;
/// For each second.
const CREDIT_A_SECOND: u64 = 100;
/// For each request: a client may well send a few frames about it.
const CREDIT_A_REQUEST: u64 = 10;
/// For so many bytes that are sent to the peer, one: it opens its windows as it reads.
const BYTES_A_CREDIT: u64 = 1 << 10;
/// What a request that is taken back costs: more than it brought, as the work for it is done.
const COST_OF_A_RESET: u64 = 20;

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// A socket that speaks HTTP/2 from its preface on.
pub(super) struct Frames<IO> {
    io: IO,
    reader: Reader,
    metrics: Metrics,
}

impl<IO> Frames<IO> {
    pub(super) fn new(io: IO, metrics: &Metrics) -> Self {
        Self { io, reader: Reader::new(Instant::now()), metrics: metrics.clone() }
    }
}

/// Where in the stream of frames we are, and the credit.
struct Reader {
    /// Of the preface or a payload.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_len: usize,
    credit: u64,
    filled_at: Instant,
    sent_bytes: u64,
}

/// More frames than the credit pays for.
#[derive(Debug, PartialEq, Eq)]
struct Flood;

impl Reader {
    fn new(now: Instant) -> Self {
        let header = [0; HEADER_BYTES];
        Self { skip: PREFACE_BYTES, header, header_len: 0, credit: CREDIT_MAX, filled_at: now, sent_bytes: 0 }
    }

    /// Goes on over `bytes`. `now` is asked only where the credit is at its end.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *first;
                self.header_len += 1;
            }
            bytes = rest;
            if self.header_len == HEADER_BYTES {
                self.header_len = 0;
                self.frame(&now)?;
            }
        }
    }

    fn frame(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS => {
                self.earn(CREDIT_A_REQUEST);
                Ok(())
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()), // a body, which has its own limits
            RST_STREAM => self.spend(COST_OF_A_RESET, now),
            _ => self.spend(1, now),
        }
    }

    fn spend(&mut self, cost: u64, now: impl Fn() -> Instant) -> Result<(), Flood> {
        if self.credit < cost {
            let now = now();
            let passed = now.saturating_duration_since(self.filled_at).as_millis();
            self.filled_at = now;
            self.earn(u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(CREDIT_A_SECOND) / 1000);
        }
        self.credit = self.credit.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn earn(&mut self, credit: u64) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT_MAX);
    }

    fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.earn(self.sent_bytes / BYTES_A_CREDIT);
        self.sent_bytes %= BYTES_A_CREDIT;
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Frames<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if self.reader.read(new, Instant::now).is_err() {
            self.metrics.connections().cut_off(CutOff::Frames);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too many frames without requests")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Frames<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.reader.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bytes))?;
        self.reader.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many times `bytes` can come at once, after the preface.
    fn at_once(bytes: &[u8]) -> usize {
        let now = Instant::now();
        let mut reader = Reader::new(now);
        reader.read(&[0; PREFACE_BYTES], || now).unwrap();
        (0..10_000).position(|_| reader.read(bytes, || now).is_err()).unwrap_or(10_000)
    }

    #[test]
    fn what_brings_nothing_is_counted_and_what_brings_something_is_not() {
        assert_eq!(at_once(&frame(PING, 0, &[0; 8])), 1_000);
        assert_eq!(at_once(&frame(DATA, 0, b"")), 1_000);
        assert_eq!(at_once(&frame(RST_STREAM, 0, &[0; 4])), 50);
        for kind in [2, 4, 8, 9, 16, 255] {
            assert_eq!(at_once(&frame(kind, 0, &[0; 4])), 1_000, "{kind}");
        }
        for good in [frame(DATA, 0, b"x"), frame(DATA, END_STREAM, b""), frame(HEADERS, 0, b"x")] {
            assert_eq!(at_once(&good), 10_000);
        }
        let request_and_updates = [frame(HEADERS, 4, b"x"), frame(8, 0, &[0; 4]).repeat(10)].concat();
        assert_eq!(at_once(&request_and_updates), 10_000, "a few frames about a request are nothing unusual");
        let request_taken_back = [frame(HEADERS, 4, b"x"), frame(RST_STREAM, 0, &[0; 4])].concat();
        assert_eq!(at_once(&request_taken_back), 99, "the first earns nothing, as the credit is full");
    }

    #[test]
    fn where_reads_begin_and_end_makes_no_difference() {
        let now = Instant::now();
        let bytes = [vec![9; PREFACE_BYTES], frame(DATA, 0, &[6; 300]), frame(PING, 0, &[6; 8]).repeat(1_001)].concat();
        for size in [1, 2, 8, 9, 10, 17, 1000] {
            let mut reader = Reader::new(now);
            let reads = bytes.chunks(size).map(|chunk| reader.read(chunk, || now));
            assert_eq!(reads.filter(Result::is_err).count(), 1, "{size}");
        }
    }

    #[test]
    fn time_and_answers_fill_the_credit_again() {
        let start = Instant::now();
        let ping = frame(PING, 0, &[0; 8]);
        let after = |seconds, sent: usize, pings: usize| {
            let mut reader = Reader::new(start);
            reader.read(&[vec![0; PREFACE_BYTES], ping.repeat(1_000)].concat(), || start).unwrap();
            (0..sent).for_each(|_| reader.sent(256));
            reader.read(&ping.repeat(pings), || start + Duration::from_secs(seconds))
        };
        assert_eq!((after(0, 0, 1), after(0, 3, 1)), (Err(Flood), Err(Flood)));
        assert_eq!((after(2, 0, 200), after(2, 0, 201)), (Ok(()), Err(Flood)));
        assert_eq!((after(0, 43, 10), after(0, 43, 11)), (Ok(()), Err(Flood)), "a KiB each");
        assert_eq!((after(3600, 0, 1_000), after(3600, 0, 1_001)), (Ok(()), Err(Flood)), "no more than full");
    }
}
