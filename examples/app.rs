//! A sample application behind Forebay: it prints a line for every webhook it gets, and answers 200.
//!
//! `cargo run --example app` listens on 127.0.0.1:3000, `cargo run --example app -- 127.0.0.1:4000` elsewhere.
//! Ctrl-C or SIGTERM ends it, once the requests under way are answered.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

const ADDRESS: &str = "127.0.0.1:3000";

/// The largest body that is taken, and how much of a body is shown.
const BODY_BYTES_MAX: usize = 64 << 20;
const SHOWN_CHARS: usize = 60;

/// How long requests under way may take once it is to end.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| ADDRESS.to_owned());
    let address: SocketAddr = text.parse().with_context(|| format!("`{text}` is no address like {ADDRESS}"))?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    say(&format!("the application listens on http://{}", listener.local_addr()?));

    let open = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // All of these are cancel-safe: a connection that was accepted is handed out at once.
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let server = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    connections.spawn(open.watch(server));
                }
                Err(error) => say(&format!("a connection was lost: {error}")),
            },
            Some(_) = connections.join_next() => {} // the sender's trouble, not ours
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, open.shutdown()).await.is_err() {
        say("some requests are still under way; they are dropped");
    }
    say("the application has stopped");
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => say(&line(&head, &body.to_bytes())),
        Err(error) => {
            say(&format!("{} {} broke off: {error}", head.method, head.uri.path()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    }
    Ok(response)
}

/// What is shown of a webhook. The event id is the same when it comes again, so an application can tell.
fn line(head: &http::request::Parts, body: &[u8]) -> String {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    format!(
        "{} {}  {}  {}  attempt {}  {} B  {}",
        head.method,
        head.uri.path(),
        header("forebay-event-type"),
        header("forebay-event-id"),
        header("forebay-attempt"),
        body.len(),
        beginning(body),
    )
}

/// The first characters of a body, without those that could rewrite the terminal.
fn beginning(body: &[u8]) -> String {
    let start = body.get(..SHOWN_CHARS * 4).unwrap_or(body); // a character has at most four bytes
    let text = String::from_utf8_lossy(start);
    let mut shown: String = text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < body.len() {
        shown.push('…');
    }
    shown
}

/// Prints `text` behind the time of day. Nobody may be reading: that is no reason to end.
fn say(text: &str) {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S%.3fZ");
    let _ = writeln!(io::stdout().lock(), "{now}  {text}");
}
