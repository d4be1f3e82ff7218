//! One connection: handshake, choice of protocol, requests, and its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt};

use super::answer::{Caller, SendBody, answers};
use super::frames::Frames;
use super::outgoing::{Answer, Outgoing};
use super::places::Seat;
use super::resting::{Resumed, next_bytes};
use super::tls::H2;
use super::watch::{Patience, Watch, Watched};
use super::{Edge, Handler, Limits};
use crate::base::Tasks;
use crate::telemetry::{CutOff, Metrics};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between looks at a connection that has sent a part of the preface; hardly anybody ever does.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// Enough for a sender's parallel webhooks; with the windows it bounds what one connection can pin.
const STREAMS: u32 = 64;
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Streams that a peer may make us reset, each by a fault of its own, before its connection goes.
const RESETS: usize = 100;
/// How often an HTTP/2 peer is asked whether it lives, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest read of a body; more bytes come in more pieces.
const READ_BUFFER: usize = 64 << 10;
/// What hyper can do with at least.
const READ_BUFFER_MIN: usize = 8 << 10;

/// After an answer to a body that was not read, how long and how much of it is still taken in: closing with
/// bytes unread resets the connection, and the sender would never see the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// How connections of one worker speak HTTP.
#[derive(Clone)]
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TaskExecutor>,
}

impl Protocols {
    pub(super) fn new(limits: &Limits, tasks: &Tasks) -> Self {
        let head_bytes = limits.header_bytes.as_usize().max(READ_BUFFER_MIN);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(None) // `Watch` times heads: hyper's also runs while a connection is idle
            .max_header_size(head_bytes)
            .max_buf_size(head_bytes.max(READ_BUFFER));
        if limits.headers != HEADERS_DEFAULT {
            http1.max_headers(limits.headers); // costs an allocation a request
        }
        let mut http2 = http2::Builder::new(TaskExecutor(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_local_error_reset_streams(RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Self { http1, http2 }
    }
}

/// hyper's own limit of header lines, which needs no allocation.
const HEADERS_DEFAULT: usize = 100;

/// Runs HTTP/2 streams as tasks of the program.
#[derive(Clone)]
struct TaskExecutor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for TaskExecutor {
    fn execute(&self, stream: F) {
        self.0.spawn("http2 stream", stream);
    }
}

/// What a connection needs to know of its worker.
#[derive(Clone)]
pub(super) struct Worker<H> {
    pub(super) edge: Arc<Edge>,
    pub(super) handler: H,
    pub(super) protocols: Arc<Protocols>,
    pub(super) tasks: Tasks,
}

impl<H: Handler> Worker<H> {
    /// Serves one connection until it ends, or the tasks stop and what is under way on it is answered.
    ///
    /// Each stage is boxed: a future is as large as its largest stage, and most connections are idle HTTP/1.
    pub(super) async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        seat: Arc<Seat>,
    ) {
        let _ = stream.set_nodelay(true); // at worst answers come later
        match tls {
            None => Box::pin(self.plain(stream, peer, seat)).await,
            Some(config) => Box::pin(self.secure(stream, peer, config, seat)).await,
        }
    }

    async fn plain(self, stream: TcpStream, peer: SocketAddr, seat: Arc<Seat>) {
        let stopping = self.tasks.stopping();
        let protocol = timeout(self.edge.limits.header_timeout, Box::pin(sniff(&stream)));
        match stopping.run_until_cancelled(protocol).await {
            Some(Ok(Some(protocol))) => {
                let caller = self.caller(peer, Security::Plain, seat);
                let stream = self.outgoing(stream);
                self.speak(protocol, stream, caller).await;
            }
            Some(Err(_elapsed)) => self.edge.metrics.connections().cut_off(CutOff::Head),
            Some(Ok(None)) | None => {}
        }
    }

    async fn secure(self, stream: TcpStream, peer: SocketAddr, config: Arc<ServerConfig>, seat: Arc<Seat>) {
        let stopping = self.tasks.stopping();
        let handshake = Box::pin(TlsAcceptor::from(config).accept(self.outgoing(stream)));
        let handshake = timeout(self.edge.limits.handshake_timeout, handshake);
        match stopping.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                let caller = self.caller(peer, Security::Tls, seat);
                self.speak(protocol, stream, caller).await;
            }
            Some(Err(_elapsed)) => self.edge.metrics.connections().cut_off(CutOff::Handshake),
            Some(Ok(Err(_))) | None => {}
        }
    }

    fn outgoing(&self, stream: TcpStream) -> Outgoing<TcpStream> {
        Outgoing::new(stream, self.edge.limits.write_timeout, &self.edge.metrics)
    }

    fn speak<IO>(self, protocol: Protocol, io: IO, caller: Caller<H>) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match protocol {
            Protocol::Http1 => Box::pin(self.http1(io, caller)),
            Protocol::Http2 => Box::pin(self.http2(io, caller)),
        }
    }

    fn caller(&self, peer: SocketAddr, security: Security, seat: Arc<Seat>) -> Caller<H> {
        let Limits { header_timeout, idle_timeout, write_timeout, .. } = self.edge.limits;
        let patience = Patience { head: header_timeout, idle: idle_timeout, write: write_timeout };
        Caller {
            edge: Arc::clone(&self.edge),
            handler: self.handler.clone(),
            watch: Watch::new(patience, seat),
            peer,
            tls: security == Security::Tls,
        }
    }

    async fn http1(self, io: impl AsyncRead + AsyncWrite + Send + Unpin, caller: Caller<H>) {
        let watch = Arc::clone(&caller.watch);
        let answers = answers(caller);
        let mut io = Watched { io, watch: Arc::clone(&watch) };
        let mut read = Bytes::new();
        let broken = loop {
            let service = HyperService { answers: answers.clone(), watch: Arc::clone(&watch) };
            let resumed = TokioIo::new(Resumed::new(read, io, &watch));
            let mut connection = self.protocols.http1.serve_connection(resumed, service);
            let step = |cx: &mut Context<'_>, step| match step {
                Step::Go => connection.poll_without_shutdown(cx).map(|result| result.is_err()),
                Step::Leave => {
                    Pin::new(&mut connection).graceful_shutdown();
                    Poll::Pending
                }
            };
            let end = drive(step, Rest::Allowed, &watch, &self.tasks, &self.edge.metrics).await;
            let parts = connection.into_parts();
            (io, read) = (parts.io.into_inner().io, parts.read_buf);
            match end {
                End::TimedOut => return,
                End::Done { broken } => break broken,
                End::Rests if !read.is_empty() => watch.bytes_came(), // a part of the next request, with the last one
                End::Rests => {
                    let mut next = pin!(next_bytes(&mut io));
                    let mut came = Bytes::new();
                    let step = |cx: &mut Context<'_>, step| match step {
                        Step::Go => next.as_mut().poll(cx).map(|bytes| bytes.map(|bytes| came = bytes).is_err()),
                        Step::Leave => Poll::Ready(false),
                    };
                    match drive(step, Rest::Taken, &watch, &self.tasks, &self.edge.metrics).await {
                        End::TimedOut => return,
                        End::Done { broken } if broken || came.is_empty() => break broken,
                        End::Done { .. } | End::Rests => read = came,
                    }
                }
            }
        };
        close(&mut io.io, broken || watch.has_unread()).await;
    }

    async fn http2(self, io: impl AsyncRead + AsyncWrite + Send + Unpin, caller: Caller<H>) {
        let watch = Arc::clone(&caller.watch);
        let service = HyperService { answers: answers(caller), watch: Arc::clone(&watch) };
        let io = TokioIo::new(Frames::new(io, &self.edge.metrics));
        let mut connection = pin!(self.protocols.http2.serve_connection(io, service));
        let _ = drive(
            |cx, step| match step {
                Step::Go => connection.as_mut().poll(cx).map(|result| result.is_err()),
                Step::Leave => {
                    connection.as_mut().graceful_shutdown();
                    Poll::Pending
                }
            },
            Rest::Taken, // HTTP/2 keeps a state of its own
            &watch,
            &self.tasks,
            &self.edge.metrics,
        )
        .await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    Tls,
}

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

/// What a plain connection speaks, by its first bytes; none if it ends before them.
async fn sniff(stream: &TcpStream) -> Option<Protocol> {
    let mut first = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(PREFACE_BYTES) if first == *PREFACE => return Some(Protocol::Http2),
            Ok(n) if !PREFACE.starts_with(first.get(..n).unwrap_or(&first)) => return Some(Protocol::Http1),
            Ok(_part) => sleep(PREFACE_PAUSE).await, // a peek leaves the bytes, so it cannot wait for more
        }
    }
}

const PREFACE_BYTES: usize = PREFACE.len();

/// A step of a connection.
#[derive(Clone, Copy)]
enum Step {
    /// Do what there is to do.
    Go,
    /// Finish what is under way, and take no more.
    Leave,
}

enum End {
    Done {
        broken: bool,
    },
    /// There is nothing to do until more bytes come.
    Rests,
    TimedOut,
}

/// Whether a connection with nothing to do is stepped on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Allowed,
    Taken,
}

/// Steps a connection until it is done, has waited too long, or has left because the tasks stop.
async fn drive(
    mut step: impl FnMut(&mut Context<'_>, Step) -> Poll<bool>,
    rest: Rest,
    watch: &Watch,
    tasks: &Tasks,
    metrics: &Metrics,
) -> End {
    let stopping = tasks.stopping();
    let mut stopped = pin!(stopping.cancelled());
    let mut alarm = pin!(sleep_until(watch.deadline().unwrap_or_else(Instant::now)));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(broken) = step(cx, Step::Go) {
                return Poll::Ready(End::Done { broken });
            }
            if !watch.is_leaving() && stopped.as_mut().poll(cx).is_ready() {
                watch.leave();
                if let Poll::Ready(broken) = step(cx, Step::Leave) {
                    return Poll::Ready(End::Done { broken });
                }
                continue;
            }
            if rest == Rest::Allowed && watch.rests() {
                return Poll::Ready(End::Rests);
            }
            let Some(deadline) = watch.deadline() else { return Poll::Pending };
            // Moved only when it must ring earlier, or has rung too early: a busy connection seldom touches it.
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline > Instant::now() {
                alarm.as_mut().reset(deadline);
                continue;
            }
            let missing = watch.missing();
            if missing == CutOff::Idle && watch.deserves_notice() {
                metrics.connections().cut_off(missing);
                watch.leave();
                if let Poll::Ready(broken) = step(cx, Step::Leave) {
                    return Poll::Ready(End::Done { broken });
                }
                continue;
            }
            if missing != CutOff::Idle {
                metrics.connections().cut_off(missing); // an idle one was counted when it had notice
            }
            return Poll::Ready(End::TimedOut);
        }
    })
    .await
}

/// Ends a connection so that the last answer arrives, whatever the sender is still sending.
async fn close(io: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes_may_come: bool) {
    let farewell = async {
        io.shutdown().await?;
        let mut sink = Vec::with_capacity(READ_BUFFER_MIN);
        let mut taken = 0;
        while bytes_may_come && taken < LINGER_BYTES {
            sink.clear();
            match io.read_buf(&mut sink).await? {
                0 => break,
                bytes => taken += bytes,
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, farewell).await; // gone one way or the other
}

/// A tower service as hyper wants it, each request boxed: an idle connection then holds no room for one.
struct HyperService<S> {
    answers: S,
    watch: Arc<Watch>,
}

/// Nothing in it is ever pinned; a handler that is not `Unpin` is cloned out before it is called.
impl<S> Unpin for HyperService<S> {}

impl<S, B> hyper::service::Service<Request<Incoming>> for HyperService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: SendBody,
{
    type Response = Response<Answer<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let under_way = Arc::new(self.watch.request());
        request.extensions_mut().insert(Arc::downgrade(&under_way));
        let (answers, watch) = (self.answers.clone(), Arc::clone(&self.watch));
        let is_http2 = request.version() == Version::HTTP_2;
        Box::pin(async move {
            let answer = answers.oneshot(request).await?;
            drop(under_way);
            Ok(answer.map(|body| if is_http2 { Answer::told(body, &watch) } else { Answer::untold(body) }))
        })
    }
}
