//! An application: it notes what it gets and answers as it is told.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A request that the application got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }
}

type Behaviour = Box<dyn Fn(&Seen) -> Option<Response<Full<Bytes>>> + Send + Sync>;

struct Inner {
    address: SocketAddr,
    seen: watch::Sender<Vec<Seen>>,
    behaviour: Mutex<Arc<Behaviour>>,
    /// Whether it keeps its answers to itself.
    holds: watch::Sender<bool>,
    server: Mutex<Option<AbortHandle>>,
}

/// The application. Dropped, it is gone.
pub struct FakeApp(Arc<Inner>);

impl Drop for FakeApp {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"noted")));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

impl FakeApp {
    /// An application that answers 200.
    pub async fn start() -> Self {
        let app = Self::down();
        app.up().await;
        app
    }

    /// An application that is not there yet; its address is taken, so that nobody else comes to listen on it.
    pub fn down() -> Self {
        let address = reserve();
        let behaviour: Behaviour = Box::new(|_| Some(status(200)));
        Self(Arc::new(Inner {
            address,
            seen: watch::Sender::new(Vec::new()),
            behaviour: Mutex::new(Arc::new(behaviour)),
            holds: watch::Sender::new(false),
            server: Mutex::new(None),
        }))
    }

    /// What it answers from now on; none is no answer at all, ever.
    pub fn behave(&self, behaviour: impl Fn(&Seen) -> Option<Response<Full<Bytes>>> + Send + Sync + 'static) {
        *self.0.behaviour.lock().unwrap() = Arc::new(Box::new(behaviour));
    }

    /// From now on it notes what it gets and says nothing, until it is told to go on.
    pub fn hold(&self) {
        self.0.holds.send_replace(true);
    }

    /// Gives the answers that it held back.
    pub fn go_on(&self) {
        self.0.holds.send_replace(false);
    }

    /// Comes up on its address.
    pub async fn up(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.0.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let inner = Arc::clone(&self.0);
        let server = tokio::spawn(accept(listener, inner)).abort_handle();
        *self.0.server.lock().unwrap() = Some(server);
    }

    /// Goes away: connections are refused from now on.
    pub fn stop(&self) {
        if let Some(server) = self.0.server.lock().unwrap().take() {
            server.abort();
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.borrow().clone()
    }

    /// Waits until it has got requests that satisfy `enough`.
    pub async fn until(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.0.seen.subscribe();
        let wait = seen.wait_for(|seen| enough(seen));
        match tokio::time::timeout(super::gateway::PATIENCE, wait).await {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!(
                "the application never got {what}; it got {} requests for {} events",
                self.seen().len(),
                self.event_ids().len()
            ),
        }
    }

    pub fn event_ids(&self) -> BTreeSet<String> {
        self.seen().iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect()
    }
}

/// An address that nobody listens on, and that the system gives to nobody else while the process lives:
/// a bound socket that never listens refuses connections.
pub fn reserve() -> SocketAddr {
    static KEPT: Mutex<Vec<socket2::Socket>> = Mutex::new(Vec::new());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    KEPT.lock().unwrap().push(socket);
    address
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new(); // aborted with the server
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let inner = Arc::clone(&inner);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&inner)));
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, inner: Arc<Inner>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(status(400)) };
    let seen = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body: body.to_bytes() };
    let behaviour = Arc::clone(&inner.behaviour.lock().unwrap());
    let answer = behaviour(&seen);
    inner.seen.send_modify(|all| all.push(seen));
    let _ = inner.holds.subscribe().wait_for(|holds| !holds).await; // the application is there as long as its answers are
    match answer {
        Some(answer) => Ok(answer),
        None => std::future::pending().await,
    }
}
