//! Bytes as they stand, and what comes back for them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::gateway::PATIENCE;

/// What a sender does when it has sent all.
#[derive(Clone, Copy, PartialEq)]
pub enum Then {
    /// It waits for the other side to close.
    Wait,
    /// It says that no more will come.
    End,
}

pub async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.ingress.trim_start_matches("http://")).await.unwrap()
}

/// Sends `bytes` on a connection of its own, and reads until the other side closes.
pub async fn raw(gateway: &Gateway, bytes: &[u8], then: Then) -> String {
    let mut stream = connect(gateway).await;
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let send = async {
        // The other side may have heard enough before all is sent.
        let _ = write.write_all(bytes).await;
        if then == Then::End {
            let _ = write.shutdown().await;
        }
    };
    let exchange = async { tokio::join!(send, read.read_to_end(&mut answer)).1 };
    let closed = tokio::time::timeout(PATIENCE, exchange).await.map(|_| ()); // a reset ends it as well
    assert!(closed.is_ok(), "it does not close after {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of all answers in `answers`.
pub fn statuses(answers: &str) -> Vec<u16> {
    let after = |(at, _): (usize, &str)| answers.get(at + 9..at + 12)?.parse().ok();
    answers.match_indices("HTTP/1.").filter_map(after).collect()
}

/// Sends a head that declares `bytes` of body, and waits for leave to send them: the status of the answer.
pub async fn declare(gateway: &Gateway, source: &str, bytes: usize) -> (TcpStream, u16) {
    let mut stream = connect(gateway).await;
    let head = format!("POST /{source} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
    (stream, std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap())
}
