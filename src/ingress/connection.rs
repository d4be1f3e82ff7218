//! One connection: handshake, choice of protocol, requests, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt};

use super::answer::{Caller, SendBody, answers};
use super::bind::Manner;
use super::drive::{End, Rest, Step, Stepped, drive};
use super::edge::Rules;
use super::frames::Frames;
use super::outgoing::{Answer, Outgoing};
use super::places::Seat;
use super::proxy_protocol::{self, HeaderError};
use super::resting::{Resumed, next_bytes};
use super::stream::Stream;
use super::strict::{Guard, HeadLimits};
use super::tls::H2;
use super::watch::{LEAVING, Patience, Watch, Watched};
use super::{Edge, Handler, Limits, ProxyProtocol};
use crate::base::Tasks;
use crate::telemetry::{CutOff, Reason, Word};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    head: HeadLimits,
}

impl Protocols {
    pub(super) fn new(limits: &Limits, tasks: &Tasks) -> Self {
        let head_bytes = limits.header_bytes.as_usize().max(READ_BUFFER_MIN);
        let head = HeadLimits { bytes: head_bytes, lines: limits.headers.min(HEADERS_MAX) };
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .half_close(true) // who has sent all it has to say still gets its answers
            .header_read_timeout(None) // `Watch` times heads: hyper's also runs while a connection is idle
            .max_header_size(head_bytes)
            .max_buf_size(head_bytes.max(READ_BUFFER));
        if head.lines != HEADERS_DEFAULT {
            http1.max_headers(head.lines); // costs an allocation a request
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
        Self { http1, http2, head }
    }
}

/// hyper's own limit of header lines, which needs no allocation.
const HEADERS_DEFAULT: usize = 100;
/// More than that many headers no map of them takes.
const HEADERS_MAX: usize = 10_000;

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
    /// Those of the connection.
    pub(super) rules: Arc<Rules>,
    pub(super) tasks: Tasks,
}

impl<H: Handler> Worker<H> {
    /// Serves one connection until it ends, or the tasks stop and what is under way on it is answered.
    ///
    /// Each stage is boxed: a future is as large as its largest stage, and most connections are idle HTTP/1.
    pub(super) async fn connection(self, mut stream: Stream, peer: SocketAddr, manner: Arc<Manner>, seat: Arc<Seat>) {
        stream.send_at_once();
        let mut peer = peer;
        if manner.proxy_protocol == ProxyProtocol::Required {
            let introduced = Box::pin(self.introduced(&mut stream, peer)).await;
            let Some(introduced) = introduced else { return };
            peer = introduced;
            if let Some(client) = self.edge.counts_as(peer.ip())
                && seat.is_of(client).is_err()
            {
                return self.edge.turn_away(peer.ip());
            }
        }
        match manner.tls.clone() {
            None => Box::pin(self.plain(stream, peer, seat)).await,
            Some(config) => Box::pin(self.secure(stream, peer, config, seat)).await,
        }
    }

    /// Whom the PROXY header says the connection is from; none if it is to be closed, which is counted.
    async fn introduced(&self, stream: &mut Stream, peer: SocketAddr) -> Option<SocketAddr> {
        let trusted = &self.rules.trusted_proxies;
        let ip = peer.ip().to_canonical();
        let source = if trusted.is_empty() || trusted.iter().any(|network| network.contains(&ip)) {
            let header = timeout(self.rules.limits.handshake_timeout, proxy_protocol::read(stream));
            self.unless_leaving(header).await?.unwrap_or(Err(HeaderError::TooSlow))
        } else {
            Err(HeaderError::Stranger)
        };
        match source {
            Ok(source) => Some(source.unwrap_or(peer)),
            Err(error) => {
                self.edge.metrics.unknown_source().refused(Reason::ProxyHeader);
                if self.edge.refusal_log.admits(Reason::ProxyHeader) {
                    tracing::info!(reason = Reason::ProxyHeader.as_str(), %error, client = %ip, "connection refused");
                }
                None
            }
        }
    }

    async fn plain(self, mut stream: Stream, peer: SocketAddr, seat: Arc<Seat>) {
        let began = Instant::now(); // the head may have begun within the bytes that tell the protocol
        let protocol = timeout(self.rules.limits.header_timeout, Box::pin(sniff(&mut stream)));
        match self.unless_leaving(protocol).await {
            Some(Ok(Some(protocol))) => {
                let caller = self.caller(peer, Security::Plain, began, seat);
                let stream = self.outgoing(stream);
                self.speak(protocol, stream, caller).await;
            }
            Some(Err(_elapsed)) => self.edge.metrics.connections().cut_off(CutOff::Head),
            Some(Ok(None)) | None => {}
        }
    }

    async fn secure(self, stream: Stream, peer: SocketAddr, config: Arc<ServerConfig>, seat: Arc<Seat>) {
        let handshake = Box::pin(TlsAcceptor::from(config).accept(self.outgoing(stream)));
        let handshake = timeout(self.rules.limits.handshake_timeout, handshake);
        match self.unless_leaving(handshake).await {
            Some(Ok(Ok(stream))) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                let caller = self.caller(peer, Security::Tls, Instant::now(), seat);
                self.speak(protocol, stream, caller).await;
            }
            Some(Err(_elapsed)) => self.edge.metrics.connections().cut_off(CutOff::Handshake),
            Some(Ok(Err(_))) | None => {}
        }
    }

    /// What comes before the first request; once the tasks stop, there is a moment left for it. None if that was too
    /// short.
    async fn unless_leaving<T>(&self, stage: impl Future<Output = T>) -> Option<T> {
        let stopping = self.tasks.stopping();
        let left = async {
            stopping.cancelled().await;
            sleep(LEAVING).await;
        };
        tokio::select! { // neither is polled again
            done = stage => Some(done),
            () = left => None,
        }
    }

    fn outgoing(&self, stream: Stream) -> Outgoing<Stream> {
        Outgoing::new(stream, self.rules.limits.write_timeout, &self.edge.metrics)
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

    fn caller(&self, peer: SocketAddr, security: Security, began: Instant, seat: Arc<Seat>) -> Caller<H> {
        let Limits { header_timeout, idle_timeout, write_timeout, .. } = self.rules.limits;
        let patience = Patience { head: header_timeout, idle: idle_timeout, write: write_timeout };
        Caller {
            edge: Arc::clone(&self.edge),
            handler: self.handler.clone(),
            watch: Watch::new(patience, began, seat),
            peer,
            tls: security == Security::Tls,
        }
    }

    async fn http1(self, io: impl AsyncRead + AsyncWrite + Send + Unpin, caller: Caller<H>) {
        let watch = Arc::clone(&caller.watch);
        let answers = answers(caller.clone());
        let mut io = Guard::new(Watched { io, watch: Arc::clone(&watch) }, self.rules.protocols.head);
        let mut read = Bytes::new();
        let broken = loop {
            let service = HyperService { answers: answers.clone(), watch: Arc::clone(&watch) };
            let resumed = TokioIo::new(Resumed::new(read, io, &watch));
            let mut connection = self.rules.protocols.http1.serve_connection(resumed, service);
            let step = |cx: &mut Context<'_>, step| match step {
                Step::Go => connection.poll_without_shutdown(cx).into(),
                Step::Leave if watch.in_head() => Stepped::Goes, // hyper would cut it off; its answer will say it
                Step::Leave => {
                    Pin::new(&mut connection).graceful_shutdown();
                    Stepped::Leaves
                }
            };
            let end = drive(step, Rest::Allowed, &watch, &self.tasks, &self.edge.metrics).await;
            let parts = connection.into_parts();
            (io, read) = (parts.io.into_inner().io, parts.read_buf);
            if read.is_empty() {
                read = Bytes::new(); // lets go of its room
            }
            match end {
                End::TimedOut => return,
                End::Done { broken } => break broken,
                End::Rests if !read.is_empty() || io.is_in_line() => watch.head_has_begun(),
                End::Rests => {
                    let mut next = pin!(next_bytes(&mut io));
                    let mut came = Bytes::new();
                    let step = |cx: &mut Context<'_>, step| match step {
                        Step::Go => next.as_mut().poll(cx).map_ok(|bytes| came = bytes).into(),
                        Step::Leave if watch.in_head() => Stepped::Goes, // the guard has a part of its first line
                        Step::Leave => Stepped::Done { broken: false },
                    };
                    match drive(step, Rest::Taken, &watch, &self.tasks, &self.edge.metrics).await {
                        End::TimedOut => return,
                        End::Done { broken } if broken || came.is_empty() => break broken,
                        End::Done { .. } | End::Rests => read = came,
                    }
                }
            }
        };
        let (Watched { mut io, .. }, fault) = io.into_parts();
        if let Some(fault) = fault {
            let answer = caller.refuse(fault);
            let _ = timeout(LINGER, io.write_all(&answer)).await; // whoever does not take it loses it
        }
        // Whoever is asked to leave may be sending its next request just now: it sees an end, and no reset.
        let may_come = fault.is_some() || broken || watch.has_unread() || watch.is_leaving();
        close(&mut io, if may_come { Tail::MayCome } else { Tail::None }).await;
    }

    async fn http2(self, io: impl AsyncRead + AsyncWrite + Send + Unpin, caller: Caller<H>) {
        let watch = Arc::clone(&caller.watch);
        let service = HyperService { answers: answers(caller), watch: Arc::clone(&watch) };
        let io = TokioIo::new(Frames::new(io, &self.edge.metrics));
        let mut connection = pin!(self.rules.protocols.http2.serve_connection(io, service));
        let step = |cx: &mut Context<'_>, step| match step {
            Step::Go => connection.as_mut().poll(cx).into(),
            Step::Leave => {
                connection.as_mut().graceful_shutdown();
                Stepped::Leaves
            }
        };
        let rest = Rest::Taken; // HTTP/2 keeps a state of its own
        let _ = drive(step, rest, &watch, &self.tasks, &self.edge.metrics).await;
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

/// What a plain connection speaks, by its first bytes, which stay in it; none if it ends before them.
async fn sniff(stream: &mut Stream) -> Option<Protocol> {
    let mut first = [0; PREFACE.len()];
    let mut seen = 0;
    let mut protocol = Protocol::Http2;
    while let Some(room) = first.get_mut(seen..).filter(|room| !room.is_empty()) {
        match stream.read(room).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => seen += read,
        }
        if !PREFACE.starts_with(first.get(..seen)?) {
            protocol = Protocol::Http1;
            break;
        }
    }
    stream.put_back(first.get(..seen)?);
    Some(protocol)
}

/// What may still come on a connection that is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    None,
    MayCome,
}

/// Ends a connection so that the last answer arrives, whatever the sender is still sending.
async fn close(io: &mut (impl AsyncRead + AsyncWrite + Unpin), tail: Tail) {
    let farewell = async {
        io.shutdown().await?;
        let mut sink = Vec::with_capacity(READ_BUFFER_MIN);
        let mut taken = 0;
        while tail == Tail::MayCome && taken < LINGER_BYTES {
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
            let mut answer = answers.oneshot(request).await?;
            if !is_http2 && watch.is_leaving() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let answer = answer.map(|body| if is_http2 { Answer::told(body, &watch) } else { Answer::untold(body) });
            drop(under_way); // once the answer is known of: until it has left the connection is not silent
            Ok(answer)
        })
    }
}
