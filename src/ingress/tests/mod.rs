//! The public side over real sockets, with a small handler behind it in place of the intake.

mod bounds;
mod doors;
mod drain;
mod http;
mod introduced;
mod limits;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tower::service_fn;

use super::*;
use crate::admit::{BodyLimits, Budget, Denied, read_body};
use crate::base::{ByteSize, ManualClock, Tasks, UnixMillis};
use crate::event::{EventId, Head};
use crate::intake::{Again, Buffered};
use crate::telemetry::Metrics;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The largest body that the test handler takes.
const BODY_LIMIT: usize = 1000;

/// A public side that runs on the test's runtime.
struct Running {
    /// Of the first listener, if it has one.
    address: SocketAddr,
    bound: Bound,
    tasks: Tasks,
    budget: Budget,
    /// The heads of the requests that came to the handler.
    heads: mpsc::Receiver<Head>,
    /// Lets a request to `/wait` go on.
    go: Arc<Notify>,
    metrics: Metrics,
}

impl Running {
    async fn start() -> Self {
        Self::with(|_settings| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::exempting(&["127.0.0.0/8".parse().unwrap()], change).await
    }

    /// The same, where these networks' connections are not counted by client.
    async fn exempting(networks: &[IpNet], change: impl FnOnce(&mut Settings)) -> Self {
        let listen = vec![Listen::plain(LOOPBACK)];
        let mut settings = Settings::listening(listen);
        change(&mut settings);
        let bound = bind(&settings, 1).unwrap();
        let address = bound.addresses()[0].tcp().unwrap_or(LOOPBACK);
        let (seen, heads) = mpsc::channel(1000);
        let (tasks, metrics, go) = (Tasks::new(), Metrics::new("test"), Arc::new(Notify::new()));
        let budget = Budget::new(ByteSize(1 << 20));
        let edge = Edge::exempting(networks, &settings, &tasks, Arc::new(ManualClock::at(NOW)), metrics.clone());
        let handler = handler(seen, Arc::clone(&go), &budget);
        for listeners in bound.listeners() {
            let served = serve(listeners, Arc::clone(&edge), handler.clone(), tasks.clone());
            tasks.spawn("serve", async { served.await.unwrap() });
        }
        Self { address, bound, tasks, budget, heads, go, metrics }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a connection of its own and gives everything that came back until it was closed.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // The answer may come before all is sent; what counts is the answer.
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let sent = async {
            let _ = write.write_all(request.as_ref()).await;
        };
        let (_, ended) = tokio::join!(sent, in_time(read.read_to_end(&mut answer)));
        ended.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// How many connections were ended for `reason`.
    fn cut_off(&self, reason: &str) -> u64 {
        let metric = format!("forebay_connections_cut_off_total{{reason=\"{reason}\"}} ");
        self.metrics.render().lines().find_map(|line| line.strip_prefix(&metric)?.parse().ok()).unwrap()
    }

    /// Waits until nothing of the budget is out.
    async fn until_budget_is_whole(&self) {
        while self.budget.used() != ByteSize(0) {
            tokio::task::yield_now().await;
        }
    }
}

/// `/hooks` answers with the body it was sent, `/wait` when it is told to, `/panic` panics, the rest is nowhere.
fn handler(seen: mpsc::Sender<Head>, go: Arc<Notify>, budget: &Budget) -> impl Handler {
    let share = budget.share();
    service_fn(move |Inbound { head, body, .. }: Inbound| {
        let (seen, go, share) = (seen.clone(), Arc::clone(&go), share.clone());
        async move {
            seen.send(head.clone()).await.unwrap();
            match &*head.path {
                "/hooks" => {}
                "/wait" => go.notified().await,
                "/panic" => panic!("on purpose"),
                "/forbidden" => return Err(Denied::Client.into()),
                _ => return Err(Refusal::NoRoute),
            }
            let timeout = Duration::from_secs(30);
            let limits = BodyLimits { limit: ByteSize(BODY_LIMIT as u64), timeout, min_rate: Some(ByteSize(1000)) };
            let (body, _lease) = read_body(body, &limits, share.take(0)?).await?;
            let content_type = HeaderValue::from_static("application/octet-stream");
            Ok(Receipt::Stored {
                id: EventId::new(NOW),
                again: Again::No,
                buffered: Buffered::No,
                status: 200,
                body,
                content_type,
            })
        }
    })
}

/// Fails the test instead of hanging. Longer than anything configured, also where tokio's time is paused.
async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(300), wait).await.expect("it should have happened by now")
}

/// One answer of a connection that stays open: its head, and as much body as its `content-length` says.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= header(head, "content-length").unwrap_or("0").parse().unwrap()
        {
            return text;
        }
        let read = in_time(stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
    }
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {answer:?}")).parse().unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}
