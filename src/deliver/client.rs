//! The HTTP client of one destination.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::{Destination, Link, RetryAfter};
use crate::base::Chain;

/// How much of an answer is read before its connection is given up; the status counts all the same.
const ANSWER_MAX: usize = 64 << 10;
/// How much of an answer is kept.
const ANSWER_KEPT: usize = 1 << 10;
/// The longest answer that is relayed.
const WHOLE_MAX: usize = 1 << 20;
/// How long an idle connection to an application is kept.
const IDLE: Duration = Duration::from_secs(60);
/// The largest head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// The HTTP client of one destination, with its own pool. Cheap to clone.
///
/// HTTP/1.1, and HTTP/2 where a TLS server offers it. Redirects are not followed.
#[derive(Clone)]
pub struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    timeout: Duration,
    keep: Keep,
}

/// What is kept of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its first KiB, for whoever looks at the attempt.
    Start,
    /// All of it, for the sender, if it is no longer than 1 MiB.
    Whole,
}

/// How connections to one destination are made.
pub type Connector = BoxCloneSyncService<Uri, Link, BoxError>;

/// An open connection that nothing was sent over yet.
pub type Connection = TokioIo<Link>;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct ClientError(#[from] rustls::Error);

/// A final answer, read to its end or to 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// When the application asks to be tried again.
    pub retry_after: Option<RetryAfter>,
    /// The first KiB of the body.
    pub answer: Bytes,
    /// All of it, if that was asked for and it is not too long.
    pub whole: Option<Whole>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// No answer, or not a whole one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.as_str())]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What exactly, in words. Never anything of the request.
    pub detail: String,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, unreachable, no such name, TLS.
    Connect,
    /// The time was over.
    Timeout,
    /// The connection broke or the answer was malformed: the application may or may not have taken it.
    Broken,
    /// Forebay itself failed at it, which is a bug.
    Panicked,
}

impl FailureKind {
    /// The word for the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect",
            Self::Timeout => "timed out",
            Self::Broken => "connection broken",
            Self::Panicked => "failed inside forebay",
        }
    }
}

impl Client {
    /// A client for `destination`.
    ///
    /// # Errors
    /// [`ClientError`] if there is no TLS to be had.
    pub fn new(destination: &Destination) -> Result<Self, ClientError> {
        Ok(Self::over(destination, connector(destination)?))
    }

    /// A client for `destination` that is reached over connections made by `connector`.
    #[must_use]
    pub fn over(destination: &Destination, connector: Connector) -> Self {
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(destination.concurrency)
            .http1_max_buf_size(HEAD_MAX)
            .build(connector);
        Self { pool, timeout: destination.timeout, keep: Keep::Start }
    }

    /// The same client, which keeps `keep` of its answers.
    #[must_use]
    pub fn keeping(&self, keep: Keep) -> Self {
        Self { keep, ..self.clone() }
    }
}

/// How every connection to `destination` is made.
fn connector(destination: &Destination) -> Result<Connector, ClientError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(IDLE));
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    let connector = connector.map_response(Link::new);
    Ok(Connector::new(Timeout::new(connector, destination.connect_timeout))) // TLS included
}

/// Connects to `destination` as an attempt would, TLS included, and sends nothing.
///
/// # Errors
/// Why no connection came about within `connect_timeout`.
pub async fn connect(destination: &Destination) -> Result<Connection, Failure> {
    let failed = |detail: String| Failure { kind: FailureKind::Connect, detail };
    let connector = connector(destination).map_err(|error| failed(error.to_string()))?;
    let made = connector.oneshot(destination.url.clone()).await;
    made.map(TokioIo::new).map_err(|error| failed(Chain(&*error).to_string()))
}

/// One attempt a call. It is over when the answer is read, or the destination's time-out has passed.
impl Service<Request<Full<Bytes>>> for Client {
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Reply, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(())) // the caller keeps to the destination's concurrency
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let (answer, timeout, keep) = (self.pool.request(request), self.timeout, self.keep);
        async move {
            let until = Instant::now() + timeout;
            let late = |_elapsed| {
                let detail = format!("no complete answer within {}", crate::base::format_duration(timeout));
                Failure { kind: FailureKind::Timeout, detail }
            };
            let response = timeout_at(until, answer).await.map_err(late)?.map_err(|error| failure(&error))?;
            read(response, keep, until, late).await
        }
        .boxed()
    }
}

/// Reads an answer. One that breaks off behind its first 64 KiB has been given all the same.
async fn read(
    response: Response<Incoming>,
    keep: Keep,
    until: Instant,
    late: impl Fn(Elapsed) -> Failure,
) -> Result<Reply, Failure> {
    let (parts, mut body) = response.into_parts();
    let retry_after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(RetryAfter::parse);
    let (enough, kept_max) = match keep {
        Keep::Start => (ANSWER_MAX, ANSWER_KEPT),
        Keep::Whole => (WHOLE_MAX + 1, WHOLE_MAX),
    };
    let (mut kept, mut seen, mut is_whole) = (BytesMut::new(), 0, false);
    while seen < enough {
        let frame = match timeout_at(until, body.frame()).await.map_err(&late) {
            Ok(None) => {
                is_whole = true;
                break;
            }
            Ok(Some(Ok(frame))) => Ok(frame),
            Ok(Some(Err(error))) => Err(Failure { kind: FailureKind::Broken, detail: Chain(&error).to_string() }),
            Err(failure) => Err(failure),
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) if seen >= ANSWER_MAX => break,
            Err(failure) => return Err(failure),
        };
        if let Some(bytes) = frame.data_ref() {
            let room = kept_max - kept.len();
            kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            seen += bytes.len();
        }
    }
    let body = kept.freeze();
    let answer = Bytes::copy_from_slice(body.get(..ANSWER_KEPT.min(body.len())).unwrap_or_default());
    let whole = (keep == Keep::Whole && is_whole).then_some(Whole { headers: parts.headers, body });
    Ok(Reply { status: parts.status.as_u16(), retry_after, answer, whole })
}

fn failure(error: &legacy::Error) -> Failure {
    let kind = if error.is_connect() { FailureKind::Connect } else { FailureKind::Broken };
    Failure { kind, detail: error.source().map_or_else(|| error.to_string(), |cause| Chain(cause).to_string()) }
}
