//! Reading a body: its exact bytes, or why not.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use tokio::time::{Instant, timeout_at};

use super::{Denied, Lease};
use crate::base::ByteSize;

/// How long a body may come as slowly as it likes.
pub const GRACE: Duration = Duration::from_secs(5);

/// What a body must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Its largest size.
    pub limit: ByteSize,
    /// The longest it may take.
    pub timeout: Duration,
    /// Bytes a second it must keep up, on the whole, after its first [`GRACE`]; none is no minimum.
    pub min_rate: Option<ByteSize>,
}

impl BodyLimits {
    /// How long after the start the next byte may come, when `received` are here.
    fn patience(&self, received: u64) -> Duration {
        let Some(ByteSize(rate)) = self.min_rate else { return self.timeout };
        let earned = Duration::from_millis(received.saturating_mul(1000) / rate.max(1));
        self.timeout.min(GRACE.saturating_add(earned))
    }
}

/// Reads `body` whole and gives its exact bytes, with the lease, which has grown by as many.
///
/// A declared length is checked, and taken from the budget, before anything is read; without one the budget
/// pays as bytes come. A body that comes in one piece is not copied. Trailers are dropped.
///
/// # Errors
/// - [`Denied::TooLarge`]: declared larger than the limit, or one byte over it has come.
/// - [`Denied::Busy`]: the budget has not that many bytes left.
/// - [`Denied::TooSlow`]: over the time, or under the minimum rate.
/// - [`Denied::Broken`]: the sender went away.
/// - [`Denied::Malformed`]: it broke the framing; whoever reads the socket said so by `InvalidData`.
///
/// # Cancellation
/// Dropped: what was read is gone and the budget has its bytes back.
pub async fn read_body(
    mut body: BoxBody<Bytes, hyper::Error>,
    limits: &BodyLimits,
    mut lease: Lease,
) -> Result<(Bytes, Lease), Denied> {
    let too_large = Denied::TooLarge { limit_bytes: limits.limit.0 };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limits.limit.0) {
        return Err(too_large);
    }
    let mut paid = declared.unwrap_or(0);
    lease.grow(paid)?;
    let mut gathered = Gathered::expecting(declared);
    let start = Instant::now();
    while let Some(piece) = next_piece(&mut body, start + limits.patience(gathered.len())).await? {
        let total = gathered.len().saturating_add(piece.len() as u64);
        if total > limits.limit.0 {
            return Err(too_large);
        }
        let more = total.saturating_sub(paid);
        if more > 0 {
            lease.grow(more)?;
            paid = total;
        }
        gathered.push(piece);
    }
    Ok((gathered.whole(), lease))
}

/// The next piece with bytes in it; none at the end.
async fn next_piece(body: &mut BoxBody<Bytes, hyper::Error>, until: Instant) -> Result<Option<Bytes>, Denied> {
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_elapsed) => return Err(Denied::TooSlow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(if is_malformed(&error) { Denied::Malformed } else { Denied::Broken }),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
            Ok(_) | Err(_) => {} // empty, or trailers: nobody signs them, so nobody gets them
        }
    }
}

/// Whether it was the sender's bytes that were wrong, and not that they ended.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

/// The pieces of a body so far: one as it came, more in one buffer.
struct Gathered {
    first: Bytes,
    all: BytesMut,
    expected: usize,
}

impl Gathered {
    fn expecting(declared: Option<u64>) -> Self {
        let expected = declared.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        Self { first: Bytes::new(), all: BytesMut::new(), expected }
    }

    fn len(&self) -> u64 {
        (self.first.len() + self.all.len()) as u64
    }

    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if !self.first.is_empty() {
            self.all.reserve(self.expected.max(self.first.len() + piece.len()));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{Stream, StreamExt, stream};
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::super::{Budget, Share};
    use super::*;

    const LIMITS: BodyLimits =
        BodyLimits { limit: ByteSize(100), timeout: Duration::from_secs(30), min_rate: Some(ByteSize(10)) };

    fn whole(bytes: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
        Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
    }

    fn framed(frames: impl Stream<Item = Frame<Bytes>> + Send + Sync + 'static) -> BoxBody<Bytes, hyper::Error> {
        BodyExt::boxed(StreamBody::new(frames.map(Ok)))
    }

    fn pieces(sizes: &[usize]) -> BoxBody<Bytes, hyper::Error> {
        let frames: Vec<_> = sizes.iter().map(|size| Frame::data(Bytes::from(vec![b'x'; *size]))).collect();
        framed(stream::iter(frames))
    }

    /// A body of `bytes` a second, for ever.
    fn dripping(bytes: usize) -> BoxBody<Bytes, hyper::Error> {
        framed(Drip { sleep: Box::pin(tokio::time::sleep(Duration::from_secs(1))), bytes })
    }

    struct Drip {
        sleep: std::pin::Pin<Box<tokio::time::Sleep>>,
        bytes: usize,
    }

    impl Stream for Drip {
        type Item = Frame<Bytes>;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::ready!(self.sleep.as_mut().poll(cx));
            let next = self.sleep.deadline() + Duration::from_secs(1);
            self.sleep.as_mut().reset(next);
            std::task::Poll::Ready(Some(Frame::data(Bytes::from(vec![b'x'; self.bytes]))))
        }
    }

    /// A lease on a budget of its own, nothing taken yet.
    fn plenty() -> Lease {
        Budget::new(ByteSize(1 << 20)).share().take(0).unwrap()
    }

    fn nothing_of(share: &Share) -> Lease {
        share.take(0).unwrap()
    }

    #[tokio::test]
    async fn the_exact_bytes_come_out_and_one_piece_is_not_copied() {
        let bytes = Bytes::from_static(b"a\r\n\0\xff\xfe b");
        let (read, lease) = read_body(whole(bytes.clone()), &LIMITS, plenty()).await.unwrap();
        assert_eq!(read, bytes);
        assert_eq!(read.as_ptr(), bytes.as_ptr());
        drop(lease);

        let parts = ["a", "", "b\r", "\ncd"].map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
        let (read, _lease) = read_body(framed(stream::iter(parts)), &LIMITS, plenty()).await.unwrap();
        assert_eq!(read, "ab\r\ncd");
        let (read, _lease) = read_body(pieces(&[]), &LIMITS, plenty()).await.unwrap();
        assert_eq!(read, "");
    }

    #[tokio::test]
    async fn the_limit_itself_is_accepted_and_one_byte_more_is_not() {
        let too_large = Denied::TooLarge { limit_bytes: 100 };
        assert!(read_body(whole(vec![0; 100]), &LIMITS, plenty()).await.is_ok());
        assert_eq!(read_body(whole(vec![0; 101]), &LIMITS, plenty()).await.unwrap_err(), too_large);
        assert!(read_body(pieces(&[60, 40]), &LIMITS, plenty()).await.is_ok());
        assert_eq!(read_body(pieces(&[60, 41]), &LIMITS, plenty()).await.unwrap_err(), too_large);
    }

    #[tokio::test]
    async fn a_length_declared_too_large_is_refused_without_a_read() {
        struct Declared(u64);
        impl Body for Declared {
            type Data = Bytes;
            type Error = hyper::Error;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
                panic!("the body was read");
            }
            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(self.0)
            }
        }
        for declared in [101, 9 << 60] {
            let read = read_body(Declared(declared).boxed(), &LIMITS, plenty()).await;
            assert_eq!(read.unwrap_err(), Denied::TooLarge { limit_bytes: 100 });
        }
        let read = read_body(Declared(100).boxed(), &LIMITS, nothing_of(&Budget::new(ByteSize(99)).share())).await;
        assert_eq!(read.unwrap_err(), Denied::Busy);
    }

    #[tokio::test]
    async fn the_budget_pays_for_pieces_as_they_come_and_is_paid_back() {
        let budget = Budget::new(ByteSize(90));
        let share = budget.share();
        assert_eq!(read_body(pieces(&[50, 41]), &LIMITS, nothing_of(&share)).await.unwrap_err(), Denied::Busy);
        assert_eq!(budget.used(), ByteSize(0));
        let (_bytes, lease) = read_body(pieces(&[50, 40]), &LIMITS, nothing_of(&share)).await.unwrap();
        assert_eq!(budget.used(), ByteSize(90));
        assert_eq!(read_body(whole("x"), &LIMITS, nothing_of(&share)).await.unwrap_err(), Denied::Busy);
        drop(lease);
        assert!(read_body(whole("x"), &LIMITS, nothing_of(&share)).await.is_ok());
    }

    #[tokio::test]
    async fn trailers_are_dropped() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-signature", http::HeaderValue::from_static("sha256=0"));
        let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
        let (read, _lease) = read_body(framed(stream::iter(frames)), &LIMITS, plenty()).await.unwrap();
        assert_eq!(read, "body");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_given_up_after_the_grace() {
        let budget = Budget::new(ByteSize(100));
        let share = budget.share();
        let start = Instant::now();
        let read = read_body(framed(stream::pending()), &LIMITS, nothing_of(&share)).await;
        assert_eq!(read.unwrap_err(), Denied::TooSlow);
        assert_eq!(start.elapsed(), GRACE);
        assert_eq!(budget.used(), ByteSize(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_keep_up_the_minimum_rate_after_the_grace() {
        let limits = BodyLimits { limit: ByteSize(10_000), ..LIMITS };
        let took = async |bytes: usize| {
            let start = Instant::now();
            assert_eq!(read_body(dripping(bytes), &limits, plenty()).await.unwrap_err(), Denied::TooSlow);
            start.elapsed()
        };
        assert_eq!(took(10).await, Duration::from_secs(30), "fast enough, but never done");
        assert_eq!(took(5).await, Duration::from_millis(9_500), "5 s, and 9 x 5 bytes at 10 a second");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_only_the_time_counts() {
        let limits = BodyLimits { min_rate: None, ..LIMITS };
        let start = Instant::now();
        assert_eq!(read_body(dripping(1), &limits, plenty()).await.unwrap_err(), Denied::TooSlow);
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}
