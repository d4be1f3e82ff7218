//! The applications: at the other end of pipes in memory, and of changing mood.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay::deliver::{Connector, Link};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tower::service_fn;

use crate::sim::Sim;
use crate::world::Reach;

/// What an application is like for a while.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Fair,
    Down,
    Sick,
    Stormy,
}

/// The mood of each application, by the number of its destination.
pub struct Moods {
    random: fastrand::Rng,
    now: Vec<(u64, Mood)>,
    pub healed: bool,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Taken,
    Late(u64),
    Status(u16),
    RetryAfter(u16, u64),
    Hangs,
    Resets,
    CutShort,
}

impl Moods {
    pub fn new(random: fastrand::Rng, applications: usize) -> Self {
        Self { random, now: vec![(0, Mood::Fair); applications], healed: false }
    }

    fn mood(&mut self, application: usize, at: u64) -> Mood {
        if self.healed {
            return Mood::Fair;
        }
        let (until, mood) = &mut self.now[application];
        if at >= *until {
            *until = at + self.random.u64(500..20_000);
            *mood =
                [Mood::Fair, Mood::Fair, Mood::Down, Mood::Sick, Mood::Stormy, Mood::Stormy][self.random.usize(..6)];
        }
        *mood
    }

    fn answer(&mut self, application: usize, at: u64) -> Answer {
        let mood = self.mood(application, at);
        let dice = self.random.u8(..12);
        if self.healed {
            return Answer::Taken;
        }
        match (mood, dice) {
            (Mood::Sick, 0..10) => Answer::Status(500 + u16::from(dice % 4)),
            (Mood::Fair, 2..) | (_, 10..) => Answer::Taken,
            (_, 0) => Answer::Late(self.random.u64(1..4_500)),
            (_, 1) => Answer::CutShort,
            (_, 2) => Answer::Status([404, 410, 410][self.random.usize(..3)]),
            (_, 3) => Answer::Hangs,
            (_, 4) => Answer::Resets,
            (_, 5) => Answer::RetryAfter([429, 503][self.random.usize(..2)], self.random.u64(1..50)),
            _ => Answer::Status(500),
        }
    }
}

/// A pipe to an application.
struct Pipe(DuplexStream);

/// Connections to the application of destination number `application`.
pub fn connector(sim: &Arc<Sim>, application: usize) -> Connector {
    let sim = Arc::clone(sim);
    Connector::new(service_fn(move |_: Uri| {
        let sim = Arc::clone(&sim);
        async move {
            let down = matches!(sim.moods().mood(application, sim.now()), Mood::Down);
            if down {
                sim.world.reach(Reach::AppRefuses);
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
            let (near, far) = tokio::io::duplex(16 << 10);
            tokio::spawn(serve(sim, application, far));
            Ok(Link::new(TokioIo::new(Pipe(near))))
        }
    }))
}

/// Answers the requests of one connection.
async fn serve(sim: Arc<Sim>, application: usize, mut stream: DuplexStream) {
    while let Some((head, body)) = read(&mut stream).await {
        if sim.disk.is_dead() {
            return;
        }
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let Some(request) = sim.oracle().arrives(&sim, application, header, &body) else { return };
        // Connections that were given up are closed by now, this one perhaps as well.
        if tokio::time::timeout(Duration::from_millis(1), stream.read_u8()).await.is_ok() {
            return sim.oracle().done(&sim, request, None, None);
        }
        sim.oracle().counts(&sim, application);
        let answer = sim.moods().answer(application, sim.now());
        let (reach, status) = match answer {
            Answer::Taken | Answer::Late(_) => (Reach::Delivered, 200),
            Answer::Status(410) => (Reach::AppGone, 410),
            Answer::Status(status) => (Reach::App5xx, status),
            Answer::RetryAfter(status, _) => (Reach::AppRetryAfter, status),
            Answer::Hangs => (Reach::AppHangs, 0),
            Answer::Resets => (Reach::AppResets, 0),
            Answer::CutShort => (Reach::AppCutsShort, 0),
        };
        if let Answer::Late(millis) = answer {
            // Whoever gives up meanwhile closes the connection: the request is no longer under way then.
            let _ = tokio::time::timeout(Duration::from_millis(millis), stream.read_u8()).await;
        }
        sim.world.reach(reach);
        sim.world.note(format_args!("{application}: {request} {answer:?}"));
        let more = match answer {
            Answer::RetryAfter(_, seconds) => format!("retry-after: {seconds}\r\n"),
            _ => String::new(),
        };
        let whole = format!("HTTP/1.1 {status} Said\r\n{more}content-length: 2\r\n\r\nok");
        match answer {
            Answer::Hangs => {
                let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_u8()).await;
                return sim.oracle().done(&sim, request, None, None);
            }
            Answer::Resets => return sim.oracle().done(&sim, request, None, None),
            Answer::CutShort => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of").await;
                return sim.oracle().done(&sim, request, None, None);
            }
            Answer::Taken | Answer::Late(_) | Answer::Status(_) | Answer::RetryAfter(..) => {
                let after = if let Answer::RetryAfter(_, seconds) = answer { Some(seconds * 1000) } else { None };
                sim.oracle().done(&sim, request, Some(status), after);
                if stream.write_all(whole.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A request's head and body; none once the connection is closed.
async fn read(stream: &mut DuplexStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(Some(0), |n| n.parse().ok())?;
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, bytes.split_off(end)))
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
