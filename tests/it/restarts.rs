//! SIGTERM under load, again and again: nothing acknowledged is lost, and no answer is torn.
//!
//! `FOREBAY_RESTARTS` says how often (`tests/restarts.sh`); a few times in the everyday run.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::gateway::{github_to, head};
use crate::support::{FakeApp, Gateway, reserve, sign};

const SENDERS: usize = 8;

/// Who opens the public side's socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Socket {
    /// The gateway, on an address: nobody listens between two gateways.
    Own,
    /// Whoever starts it: it stays open.
    Inherited,
}

/// What became of requests, but for those that were answered.
#[derive(Debug, Default)]
struct Ends {
    answered: usize,
    /// No connection: nobody listened.
    refused: usize,
    /// A connection in use was closed before anything of the answer came, as any idle one may be.
    closed: usize,
    /// A new one was reset before anything of the answer came: it came between the last look into the queue and the
    /// end of the socket.
    reset_new: usize,
    /// What must not happen, in words.
    wrong: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_nothing_and_tears_no_answer() {
    restarted_under_load(Socket::Own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_behind_an_inherited_socket_refuses_nobody() {
    restarted_under_load(Socket::Inherited).await;
}

async fn restarted_under_load(kind: Socket) {
    let restarts: usize = std::env::var("FOREBAY_RESTARTS").map_or(3, |text| text.parse().expect("a number"));
    let app = FakeApp::start().await;
    let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, listen) = match kind {
        Socket::Own => {
            let address = reserve();
            (address, address.to_string())
        }
        Socket::Inherited => (inherited.local_addr().unwrap(), "\"fd:web\"".to_owned()),
    };
    let dir = tempfile::tempdir().unwrap();
    let config = head(dir.path()).replace("listen: 127.0.0.1:0 }\nadmin", &format!("listen: {listen} }}\nadmin"));
    std::fs::write(dir.path().join("forebay.yaml"), config + &github_to(&app.url())).unwrap();
    let start = async |dir: TempDir| match kind {
        Socket::Own => Gateway::start_in(dir).await,
        Socket::Inherited => Gateway::start_with_socket(inherited.try_clone().unwrap(), dir).await,
    };

    let load =
        Load { address, kind, acknowledged: Arc::default(), ends: Arc::default(), up: watch::Sender::new(Up::Yes) };
    let mut gateway = start(dir).await;
    let restarting = async {
        for round in 0..restarts {
            // At another moment of the load each round: after so many acknowledgements, not after a time.
            load.until_acknowledged(50 + round * 37 % 400).await;
            load.up.send_replace(Up::Restarting);
            gateway.signal("TERM").await;
            gateway.says("stopped; everything under way was finished").await; // and not cut short by the grace period
            let (code, dir) = gateway.ended().await;
            assert_eq!(code, 0);
            gateway = start(dir).await;
            load.up.send_replace(Up::Yes);
        }
        load.until_acknowledged(50).await;
        load.up.send_replace(Up::Over);
        gateway
    };
    let (gateway, _) = tokio::join!(restarting, join_all((0..SENDERS).map(|sender| load.send(sender))));

    let acknowledged = load.acknowledged.lock().unwrap().clone();
    let delivered = |seen: &[crate::support::Seen]| {
        let got: BTreeSet<_> = seen.iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
        got.is_superset(&acknowledged)
    };
    app.until("everything that was acknowledged", delivered).await;
    drop(gateway);
    let Ends { answered, refused, closed, reset_new, wrong } = std::mem::take(&mut *load.ends.lock().unwrap());
    println!(
        "{restarts} restarts, {kind:?} socket: {answered} answered, 0 lost; {refused} refused, {closed} closed while idle, \
         {reset_new} new ones reset, each without a byte of an answer"
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    match kind {
        Socket::Own => assert!(refused > 0, "no sender ever met a restart: this run proves nothing"),
        Socket::Inherited => assert_eq!((refused, reset_new), (0, 0)),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Up {
    Yes,
    Restarting,
    Over,
}

struct Load {
    address: SocketAddr,
    kind: Socket,
    /// Events by their ids.
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    ends: Arc<Mutex<Ends>>,
    up: watch::Sender<Up>,
}

/// How a request ended.
enum End {
    /// Kept as this event; perhaps this was the connection's last answer.
    Kept(String, bool),
    Refused,
    Closed,
    Reset,
    Wrong(String),
}

impl Load {
    async fn until_acknowledged(&self, more: usize) {
        let before = self.acknowledged.lock().unwrap().len();
        while self.acknowledged.lock().unwrap().len() < before + more {
            assert!(self.ends.lock().unwrap().wrong.is_empty(), "{:#?}", self.ends.lock().unwrap().wrong);
            tokio::task::yield_now().await;
        }
    }

    /// Posts one webhook after the other until it is over: half of the senders on connections that they keep, the
    /// others on a new one each time.
    async fn send(&self, sender: usize) {
        let mut kept = None;
        for number in 0.. {
            if *self.up.borrow() == Up::Over {
                return;
            }
            let body = format!("{{\"number\":\"{sender}-{number}\"}}").into_bytes();
            let (mut stream, new) = match kept.take() {
                Some(stream) => (stream, false),
                None => match TcpStream::connect(self.address).await {
                    Ok(stream) => (stream, true),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        self.count(End::Refused, true);
                        let mut up = self.up.subscribe();
                        let _ = up.wait_for(|up| *up != Up::Restarting).await;
                        continue;
                    }
                    Err(error) => {
                        self.count(End::Reset, true);
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                        continue;
                    }
                },
            };
            let end = exchange(&mut stream, &format!("{sender}-{number}"), &body).await;
            if matches!(end, End::Kept(_, false)) && sender.is_multiple_of(2) {
                kept = Some(stream);
            }
            self.count(end, new);
        }
    }

    fn count(&self, end: End, new: bool) {
        let mut ends = self.ends.lock().unwrap();
        match end {
            End::Kept(event, _) => {
                ends.answered += 1;
                self.acknowledged.lock().unwrap().insert(event);
            }
            End::Refused => ends.refused += 1,
            End::Closed if !new => ends.closed += 1,
            End::Reset if new && self.kind == Socket::Own => ends.reset_new += 1,
            End::Closed => ends.wrong.push("a new connection was closed without an answer".to_owned()),
            End::Reset => ends.wrong.push(format!("reset, new: {new}")),
            End::Wrong(what) => ends.wrong.push(what),
        }
    }
}

async fn exchange(stream: &mut TcpStream, id: &str, body: &[u8]) -> End {
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: h\r\nX-GitHub-Delivery: {id}\r\nX-GitHub-Event: push\r\n\
         X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        sign(body),
        body.len()
    );
    // An error of the write is told again by the read, after what had come before it.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) if answer.is_empty() => return End::Closed,
            Err(error) if answer.is_empty() && is_cut(error.kind()) => return End::Reset,
            Ok(0) | Err(_) => return End::Wrong(format!("torn: {:?}", String::from_utf8_lossy(&answer))),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if rest.len() < field("content-length:").unwrap_or("0").parse().unwrap() {
            continue;
        }
        return match field("forebay-event-id:") {
            Some(event) if head.starts_with("http/1.1 200") => {
                End::Kept(event.to_owned(), field("connection:") == Some("close"))
            }
            _ => End::Wrong(format!("not kept: {text}")),
        };
    }
}

fn is_cut(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
