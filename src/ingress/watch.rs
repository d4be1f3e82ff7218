//! What a connection is doing, and how long it may go on with it.
//!
//! hyper's own header time-out also runs while a connection is idle, so it cannot tell a slow head from a quiet
//! keep-alive. Here the bytes that come while no request is under way begin a head.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::places::Seat;
use crate::telemetry::CutOff;

/// How long an asked connection may take to leave when nothing is under way on it.
pub(super) const LEAVING: Duration = Duration::from_secs(1);

/// One connection's state, shared by its socket, its requests and the task that drives it.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    seat: Arc<Seat>,
    state: Mutex<State>,
}

/// How long a connection may be without a complete request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a head to its end.
    pub(super) head: Duration,
    /// Without a byte of the next request.
    pub(super) idle: Duration,
    /// For an answer that does not get on.
    pub(super) write: Duration,
}

#[derive(Debug)]
struct State {
    requests: usize,
    /// Those of them whose bodies are here.
    whole: usize,
    /// Since when, and what, while there are no requests.
    waiting: Waiting,
    since: Instant,
    leaving_since: Option<Instant>,
    unread: bool,
    /// Answers that are on their way: when they last got on.
    answers: BTreeMap<u64, Instant>,
    answered: u64,
    /// Whether bytes of an answer are yet to be written.
    writes: bool,
    /// Whether somebody says when they are: HTTP/1, where [`Watch::has_written`] is called.
    tells: bool,
    /// Whether an answer was given that is yet to be written.
    unsent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Head,
    Idle,
}

impl Watch {
    /// A connection whose first head has been due since `began`.
    pub(super) fn new(patience: Patience, began: Instant, seat: Arc<Seat>) -> Arc<Self> {
        let state = State {
            requests: 0,
            whole: 0,
            waiting: Waiting::Head,
            since: began,
            leaving_since: None,
            unread: false,
            answers: BTreeMap::new(),
            answered: 0,
            writes: false,
            tells: false,
            unsent: false,
        };
        Arc::new(Self { patience, seat, state: Mutex::new(state) })
    }

    /// A request's head is complete; it is under way until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.with(|state| state.requests += 1);
        UnderWay { watch: Arc::clone(self), whole: AtomicBool::new(false) }
    }

    /// An answer is on its way; it has left when the guard is dropped.
    pub(super) fn answer(self: &Arc<Self>) -> Unread {
        let number = self.with(|state| {
            state.answered += 1;
            state.answers.insert(state.answered, Instant::now());
            state.answered
        });
        Unread { watch: Arc::clone(self), number }
    }

    /// A request was answered without its body being read: bytes of it may still come.
    pub(super) fn left_unread(&self) {
        self.with(|state| state.unread = true);
    }

    /// Whether a body was left unread.
    pub(super) fn has_unread(&self) -> bool {
        self.with(|state| state.unread)
    }

    /// The connection was asked to leave.
    pub(super) fn leave(&self) {
        self.with(|state| {
            state.leaving_since.get_or_insert_with(Instant::now);
        });
    }

    /// Whether a connection that has waited too long should be asked to leave, rather than cut off: it is idle,
    /// and was not asked yet.
    pub(super) fn deserves_notice(&self) -> bool {
        self.with(|state| state.waiting == Waiting::Idle && state.leaving_since.is_none())
    }

    /// Whether the connection was asked to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.with(|state| state.leaving_since.is_some())
    }

    /// Whether a head is under way, the first of a connection included: who sends it was not told that it is too late.
    pub(super) fn in_head(&self) -> bool {
        self.with(|state| state.requests == 0 && state.waiting == Waiting::Head)
    }

    /// When the connection has waited too long: for a request, never while one is under way, or for its peer to read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.with(|state| {
            let unread = self.unread_until(state);
            if state.requests > 0 {
                return unread;
            }
            let own = match state.waiting {
                Waiting::Head => state.since + self.patience.head,
                Waiting::Idle => state.since + self.patience.idle,
            };
            let left = state.leaving_since.map(|since| since.max(state.since) + LEAVING);
            [Some(own), left, unread].into_iter().flatten().min()
        })
    }

    /// What a connection has waited too long for, once its deadline is over.
    pub(super) fn missing(&self) -> CutOff {
        self.with(|state| match state.waiting {
            _ if self.unread_until(state).is_some_and(|until| until <= Instant::now()) => CutOff::Unread,
            Waiting::Head => CutOff::Head,
            Waiting::Idle => CutOff::Idle,
        })
    }

    /// There are bytes to write.
    pub(super) fn writes(&self) {
        self.with(|state| state.writes = true);
    }

    /// All bytes are written.
    pub(super) fn has_written(&self) {
        self.with(|state| {
            (state.writes, state.unsent) = (false, false);
            self.fall_silent(state);
        });
    }

    /// From now on somebody says when all bytes are written.
    pub(super) fn will_tell(&self) {
        self.with(|state| state.tells = true);
    }

    /// A connection is silent once all answers to its complete requests have left: cut off before, it would lose one.
    fn fall_silent(&self, state: &State) {
        if state.whole == 0 && !state.unsent && state.answers.is_empty() {
            self.seat.silent();
        }
    }

    /// When the connection may rest: a request was answered, all of the answer has left, and nothing of another one came
    /// since.
    pub(super) fn rests_at(&self) -> Option<Instant> {
        self.with(|state| {
            let nothing_to_do = state.requests == 0 && state.waiting == Waiting::Idle && !state.writes;
            let rests = nothing_to_do && state.leaving_since.is_none() && !state.unread;
            rests.then(|| state.since + self.seat.keeps_room())
        })
    }

    fn unread_until(&self, state: &State) -> Option<Instant> {
        state.answers.values().min().map(|since| *since + self.patience.write)
    }

    /// Bytes of the next head came along with the last request: it has had its time since that was answered.
    pub(super) fn head_has_begun(&self) {
        self.with(|state| state.waiting = Waiting::Head);
    }

    /// Bytes of a request came.
    fn bytes_came(&self) {
        self.with(|state| {
            if state.requests == 0 && state.waiting == Waiting::Idle {
                state.waiting = Waiting::Head;
                state.since = Instant::now();
            }
        });
    }

    fn request_whole(&self) {
        self.with(|state| {
            state.whole += 1;
            self.seat.heard();
        });
    }

    fn request_ended(&self, was_whole: bool) {
        self.with(|state| {
            state.requests = state.requests.saturating_sub(1);
            if state.requests == 0 {
                state.waiting = Waiting::Idle;
                state.since = Instant::now();
            }
            state.whole = state.whole.saturating_sub(usize::from(was_whole));
            state.unsent |= was_whole && state.tells;
            self.fall_silent(state);
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that is under way; a drop ends it.
#[derive(Debug)]
pub(super) struct UnderWay {
    watch: Arc<Watch>,
    whole: AtomicBool,
}

impl UnderWay {
    /// All of its body is here.
    pub(super) fn is_whole(&self) {
        if !self.whole.swap(true, Ordering::Relaxed) {
            self.watch.request_whole();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.watch.request_ended(*self.whole.get_mut());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Reached,
    Unknown,
}

/// A request's body, which says when all of it is here.
pub(super) struct Arriving<B> {
    body: B,
    /// Gone once the request is answered.
    request: Weak<UnderWay>,
}

impl<B: Body> Arriving<B> {
    pub(super) fn new(body: B, request: Weak<UnderWay>) -> Self {
        let arriving = Self { body, request };
        arriving.came_to(End::Unknown);
        arriving
    }

    /// Chunks say only by their end that there are no more of them; a length says so with the last byte.
    fn came_to(&self, end: End) {
        if (end == End::Reached || self.body.is_end_stream())
            && let Some(request) = self.request.upgrade()
        {
            request.is_whole();
        }
    }
}

impl<B: Body + Unpin> Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.came_to(if frame.is_none() { End::Reached } else { End::Unknown });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that its peer has not read whole; a drop ends it.
#[derive(Debug)]
pub(super) struct Unread {
    watch: Arc<Watch>,
    number: u64,
}

impl Unread {
    /// A piece of it has left.
    pub(super) fn gets_on(&self) {
        self.watch.with(|state| state.answers.insert(self.number, Instant::now()));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.watch.with(|state| {
            state.answers.remove(&self.number);
            self.watch.fall_silent(state);
        });
    }
}

/// A socket that tells a [`Watch`] when a head begins. HTTP/1 only: HTTP/2 also reads between requests.
#[derive(Debug)]
pub(super) struct Watched<IO> {
    pub(super) io: IO,
    pub(super) watch: Arc<Watch>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::advance;

    use super::*;
    use crate::ingress::places::tests::{lone_place, lone_seat};

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(30), write: Duration::from_secs(7) };

    #[tokio::test(start_paused = true)]
    async fn a_head_and_an_idle_time_have_each_their_own_patience() {
        let start = Instant::now();
        let watch = Watch::new(PATIENCE, Instant::now(), lone_seat());
        assert_eq!(watch.deadline(), Some(start + PATIENCE.head), "the first head is due from the start");
        advance(Duration::from_secs(3)).await;
        watch.bytes_came();
        assert_eq!(watch.deadline(), Some(start + PATIENCE.head), "a byte wins no time");
        let request = watch.request();
        assert_eq!(watch.deadline(), None);
        advance(Duration::from_secs(100)).await;
        drop(request);
        let idle = Instant::now();
        assert_eq!(watch.deadline(), Some(idle + PATIENCE.idle));
        advance(Duration::from_secs(20)).await;
        watch.bytes_came();
        assert_eq!(watch.deadline(), Some(idle + Duration::from_secs(20) + PATIENCE.head));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_asked_to_leave_has_a_second_after_its_last_request() {
        let watch = Watch::new(PATIENCE, Instant::now(), lone_seat());
        let request = watch.request();
        watch.leave();
        assert_eq!(watch.deadline(), None, "what is under way is finished first");
        advance(Duration::from_secs(100)).await;
        drop(request);
        assert_eq!(watch.deadline(), Some(Instant::now() + LEAVING));
        assert!(!watch.deserves_notice(), "it had notice");
    }

    #[tokio::test]
    async fn a_connection_is_silent_once_its_answers_have_left() {
        let place = lone_place();
        let seat = place.seat();
        let watch = Watch::new(PATIENCE, Instant::now(), Arc::clone(&seat));
        assert!(seat.is_silent(), "no request is here");
        watch.will_tell(); // HTTP/1
        let request = watch.request();
        assert!(seat.is_silent(), "its body may never come");
        request.is_whole();
        watch.has_written(); // what was there before
        drop(request);
        assert!(!seat.is_silent(), "its answer is on the way");
        watch.writes();
        watch.has_written();
        assert!(seat.is_silent());

        let place = lone_place();
        let seat = place.seat();
        let watch = Watch::new(PATIENCE, Instant::now(), Arc::clone(&seat));
        let request = watch.request(); // HTTP/2
        request.is_whole();
        let answer = watch.answer();
        drop(request);
        assert!(!seat.is_silent());
        drop(answer);
        assert!(seat.is_silent());
    }

    #[tokio::test]
    async fn a_body_says_when_all_of_it_is_here() {
        use bytes::Bytes;
        use http_body_util::{BodyExt, Full, StreamBody};

        let watch = Watch::new(PATIENCE, Instant::now(), lone_seat());
        let whole = || watch.with(|state| state.whole);
        let pieces =
            || StreamBody::new(futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("ab")))]));
        let request = Arc::new(watch.request());
        let mut chunked = Arriving::new(pieces(), Arc::downgrade(&request));
        let _ = chunked.frame().await.unwrap();
        assert_eq!(whole(), 0, "there may be more");
        assert!(chunked.frame().await.is_none());
        assert_eq!(whole(), 1);
        let second = Arc::new(watch.request());
        let mut with_length = Arriving::new(Full::new(Bytes::from("ab")), Arc::downgrade(&second));
        assert_eq!(whole(), 1);
        let _ = with_length.frame().await.unwrap();
        assert_eq!(whole(), 2, "its length says that this was all");
        drop((request, second));
        assert_eq!(whole(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_to_get_on_whatever_else_is_under_way() {
        let watch = Watch::new(PATIENCE, Instant::now(), lone_seat());
        let _request = watch.request();
        let (first, second) = (watch.answer(), watch.answer());
        let start = Instant::now();
        assert_eq!(watch.deadline(), Some(start + PATIENCE.write));
        advance(Duration::from_secs(4)).await;
        first.gets_on();
        assert_eq!(watch.deadline(), Some(start + PATIENCE.write), "each by itself");
        drop(second);
        assert_eq!(watch.deadline(), Some(start + Duration::from_secs(4) + PATIENCE.write));
        advance(PATIENCE.write).await;
        assert_eq!(watch.missing(), CutOff::Unread);
        drop(first);
        assert_eq!(watch.deadline(), None);
    }
}
