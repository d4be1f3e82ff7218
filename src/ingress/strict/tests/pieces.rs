//! It does not matter in which pieces a stream comes, nor how much room its reader has.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// A socket on which these pieces come; between two of them there is nothing to read.
pub struct Pieces(pub VecDeque<Vec<u8>>);

impl Pieces {
    /// Of `stream`, cut into pieces of `sizes`, which begin anew when they are used up.
    pub fn of(stream: &[u8], sizes: &[usize]) -> Self {
        let (mut rest, mut pieces) = (stream, VecDeque::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.extend([piece.to_vec(), Vec::new()]);
            rest = more;
        }
        Self(pieces)
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            None => Poll::Ready(Ok(())),
            Some(piece) if piece.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(mut piece) => {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// What is read through a guard until it ends, and how it ended.
fn through_a_guard(stream: &[u8], sizes: &[usize], room: usize) -> (Vec<u8>, Option<Fault>) {
    let mut guard = Guard::new(Pieces::of(stream, sizes), LIMITS);
    let (mut all, mut space) = (Vec::new(), vec![0; room]);
    let mut error = None;
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
            Poll::Ready(Ok(())) => all.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(broken)) => {
                assert_eq!(broken.kind(), io::ErrorKind::InvalidData);
                error = broken.into_inner().and_then(|fault| fault.downcast::<Fault>().ok());
            }
        }
    }
    let (_, fault) = guard.into_parts();
    assert!(fault.is_none() || error.is_none(), "answered twice");
    (all, fault.or(error.map(|fault| *fault)))
}

proptest! {
    #[test]
    fn pieces_change_nothing(
        stream in generated::mutated(),
        sizes in vec(1..50usize, 1..6),
        room in 1..300usize,
    ) {
        let expected = read(&stream, LIMITS);
        for (sizes, room) in [(&sizes[..], room), (&[usize::MAX], usize::from(u16::MAX)), (&[1], 8), (&sizes[..], 1)] {
            let (good, fault) = through_a_guard(&stream, sizes, room);
            prop_assert_eq!(fault, expected.fault);
            prop_assert_eq!(&good[..], &stream[..expected.good]);
        }
    }

    #[test]
    fn what_is_well_formed_passes_whole(stream in generated::stream()) {
        let verdict = read(&stream, LIMITS);
        prop_assert_eq!((verdict.fault, verdict.good), (None, stream.len()));
    }
}

#[test]
fn a_line_is_held_until_it_is_whole_and_then_forgotten() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut guard = Guard::new(Pieces::of(stream, &[20]), LIMITS);
    let mut space = [0; 64];
    let mut read = |guard: &mut Guard<Pieces>| {
        let mut buffer = ReadBuf::new(&mut space);
        let polled = Pin::new(guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        (polled.is_ready(), buffer.filled().to_vec())
    };
    assert_eq!(read(&mut guard), (true, stream[..16].to_vec()));
    assert_eq!(guard.held_bytes(), 4);
    assert_eq!(read(&mut guard), (false, Vec::new()));
    assert_eq!(read(&mut guard), (true, stream[16..].to_vec()));
    assert_eq!(guard.held_bytes(), 0);
}
