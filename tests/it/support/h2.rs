//! HTTP/2 written by hand, frame by frame (RFC 9113), so that a test can send what no library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gateway::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A setting: its number (RFC 9113, section 6.5.2) and its value.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let values = values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &values.collect::<Vec<_>>())
}

/// A header block of literals that are not indexed, nothing compressed (RFC 7541, section 6.2.2).
pub fn block<T: AsRef<[u8]>>(headers: &[(T, T)]) -> Vec<u8> {
    headers.iter().flat_map(|(name, value)| [vec![0], text(name.as_ref()), text(value.as_ref())].concat()).collect()
}

/// A string without Huffman coding: its length (RFC 7541, section 5.2), and itself.
fn text(text: &[u8]) -> Vec<u8> {
    [&integer(text.len(), 7), text].concat()
}

/// An integer in the last `bits` of its first byte, the others 0 (RFC 7541, section 5.1).
pub fn integer(value: usize, bits: u8) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The header block of a POST to `path`.
pub fn post(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "h")];
    block(&[&own[..], more].concat())
}

/// A connection that has said its preface and `settings`.
pub struct H2 {
    pub stream: TcpStream,
}

impl H2 {
    /// `ingress` as the gateway says it, with `http://`.
    pub async fn connect(ingress: &str, values: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(ingress.trim_start_matches("http://")).await.unwrap();
        let mut h2 = Self { stream };
        assert!(h2.send(&[PREFACE, &settings(values)].concat()).await);
        h2
    }

    /// Whether the other side still takes it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("it neither takes it nor closes").is_ok()
    }

    /// The next frame; none once it is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = tokio::time::timeout(PATIENCE, read_frame(&mut self.stream)).await;
        read.expect("it neither says anything nor closes")
    }

    /// The next frame that is `kind` on `stream`; none once it is closed.
    pub async fn until(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// Sends `bytes`, each time with its number, until the other side has closed or `at_most` times, and reads all the
    /// while.
    pub async fn flood(self, at_most: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Flooded {
        let (mut read, mut write) = self.stream.into_split();
        let reads = async {
            let mut sink = vec![0; 64 << 10];
            while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
        };
        let writes = async {
            for number in 0..at_most {
                if write.write_all(&bytes(number)).await.is_err() {
                    return number;
                }
            }
            at_most
        };
        let both = tokio::time::timeout(PATIENCE, async { tokio::join!(reads, writes) });
        let ((), taken) = both.await.expect("it does not close");
        Flooded { taken }
    }
}

/// How a flood ended.
pub struct Flooded {
    /// How often the other side, or the system on its behalf, took it.
    pub taken: usize,
}

async fn read_frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let [a, b, c, kind, _flags, s0, s1, s2, s3] = header;
    let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), payload })
}
