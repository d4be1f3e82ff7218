//! What the guard lets through, the HTTP library reads in the same way: as many messages, with the same bodies, and no
//! answer of its own.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

use super::*;

/// What the library made of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// The bodies of the requests; none where one broke off.
    bodies: Vec<Option<Bytes>>,
    /// How many answers there were.
    answers: usize,
}

async fn hear(stream: &[u8], pieces: usize) -> Heard {
    let (client, server) = duplex(1 << 16);
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&bodies);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let noted = Arc::clone(&noted);
        async move {
            let body = request.into_body().collect().await.ok().map(|body| body.to_bytes());
            noted.lock().unwrap().push(body);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"noted"))))
        }
    });
    let serve = async {
        let io = TokioIo::new(Guard::new(server, LIMITS));
        let mut builder = http1::Builder::new();
        builder.half_close(true).max_header_size(LIMITS.bytes);
        let _ = builder.serve_connection(io, service).await; // an error where it broke off
    };
    let (mut read, mut write) = split(client);
    let send = async {
        for piece in stream.chunks(pieces) {
            if write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = write.shutdown().await;
    };
    let mut answers = Vec::new();
    let receive = async {
        let _ = read.read_to_end(&mut answers).await;
    };
    tokio::join!(serve, send, receive);
    let answers = String::from_utf8_lossy(&answers);
    assert!(!answers.contains(" 4"), "the library refused by itself: {answers}");
    let bodies = std::mem::take(&mut *bodies.lock().unwrap());
    Heard { bodies, answers: answers.matches(" 200 OK").count() }
}

/// The bodies that the stream's messages have, up to the first fault. None for one that does not end.
fn bodies(stream: &[u8], verdict: &Verdict) -> Vec<Option<Vec<u8>>> {
    let mut bodies = Vec::new();
    let mut start = 0;
    for end in &verdict.ends {
        let message = &stream[start..*end];
        start = *end;
        if message != b"\r\n" {
            bodies.push(Some(body(message)));
        }
        if version_of(message) == b"HTTP/1.0" {
            return bodies; // its connection ends with it
        }
    }
    let rest = stream.get(start..verdict.good).unwrap_or_default();
    if rest.windows(4).any(|four| four == b"\r\n\r\n") {
        bodies.push(None);
    }
    bodies
}

fn version_of(message: &[u8]) -> &[u8] {
    let message = message.strip_prefix(b"\r\n").unwrap_or(message);
    let end = message.windows(2).position(|two| two == b"\r\n").unwrap_or(0);
    &message[end.saturating_sub(8)..end]
}

/// The body of a whole message, read in the plainest way there is.
fn body(message: &[u8]) -> Vec<u8> {
    let skipped = if message.starts_with(b"\r\n") { 2 } else { 0 };
    let head_end = skipped + message[skipped..].windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let (head, mut rest) = message.split_at(head_end);
    if !head.to_ascii_lowercase().windows(20).any(|name| name == b"\r\ntransfer-encoding:") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

fn agree(stream: &[u8], pieces: usize) {
    let verdict = read(stream, LIMITS);
    let expected = bodies(stream, &verdict);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let heard = runtime.block_on(hear(stream, pieces));
    let shown = String::from_utf8_lossy(stream);
    let heard_bodies: Vec<_> = heard.bodies.iter().map(|body| body.as_ref().map(|body| body.to_vec())).collect();
    assert_eq!(heard_bodies, expected, "{shown:?} {verdict:?}");
    assert_eq!(heard.answers, expected.len(), "each of them is answered: {shown:?}");
}

proptest! {
    #[test]
    fn the_library_reads_the_same_messages(stream in generated::mutated(), pieces in 1..200usize) {
        agree(&stream, pieces);
        agree(&stream, 1 << 16);
    }
}
