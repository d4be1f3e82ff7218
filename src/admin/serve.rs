//! The listener of the private side: HTTP/1.1, few connections, each with an end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::pulse::Pulse;
use super::{State, router};
use crate::base::Tasks;
use crate::journal::Journal;

/// Connections at the same time. For one more, the one that has been silent longest has to go; where all have sent
/// a request it waits.
pub const CONNECTIONS: usize = 128;

/// For a request's head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's head, at most.
const HEAD_BYTES: usize = 32 << 10;

/// What a connection gets to finish its answer when the program stops.
const GRACE: Duration = Duration::from_secs(5);

/// After a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The private side's listener, bound.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The system's, if the address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping`; then takes no more connections and waits for the answers under way, 5 s at most.
    /// Connections are tasks of `tasks`.
    pub async fn run<J: Journal>(self, state: Arc<State<J>>, tasks: Tasks, stopping: CancellationToken) {
        let router = TowerToHyperService::new(router(state));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let silent = Silent::default();
        let graceful = GracefulShutdown::new();
        let ended = CancellationToken::new();

        while let Some(stream) = self.accept(&stopping).await {
            let Some(place) = place(&places, &silent, &stopping).await else { break };
            let (waiting, evicted) = silent.join();
            let router = router.clone();
            let pulse = Pulse::new();
            let beating = pulse.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                waiting.heard();
                request.extensions_mut().insert(beating.clone());
                let (answer, beating) = (router.call(request), beating.clone());
                async move {
                    let mut answer = answer.await?;
                    if beating.is_old() {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            let ended = ended.clone();
            tasks.spawn("admin connection", async move {
                tokio::select! { // whichever ends first ends the connection
                    _ = connection => {} // how it ended is the client's affair
                    () = pulse.stopped() => {}
                    () = ended.cancelled() => {}
                    () = evicted.cancelled() => {}
                }
                drop(place);
            });
        }
        drop(self.listener);
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await; // what is left is cut off
        ended.cancel();
    }

    /// The next connection; none when it is time to stop. All waits are cancel-safe.
    async fn accept(&self, stopping: &CancellationToken) -> Option<TcpStream> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A place for one more connection; none when it is time to stop.
async fn place(places: &Arc<Semaphore>, silent: &Silent, stopping: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    silent.evict_longest();
    tokio::select! { // both are cancel-safe
        biased;
        () = stopping.cancelled() => None,
        place = Arc::clone(places).acquire_owned() => place.ok(),
    }
}

/// The connections that have not sent a request yet, in the order in which they came.
#[derive(Clone, Debug, Default)]
struct Silent(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    came: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Silent {
    /// A connection comes. The token is cancelled when it has to go.
    fn join(&self) -> (Waiting, CancellationToken) {
        let token = CancellationToken::new();
        let mut line = self.lock();
        line.came += 1;
        let number = line.came;
        line.waiting.insert(number, token.clone());
        (Waiting { silent: self.clone(), number }, token)
    }

    fn evict_longest(&self) {
        if let Some((_, token)) = self.lock().waiting.pop_first() {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the line, which it leaves with its first request or at its end.
#[derive(Debug)]
struct Waiting {
    silent: Silent,
    number: u64,
}

impl Waiting {
    fn heard(&self) {
        self.silent.lock().waiting.remove(&self.number);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.heard();
    }
}
