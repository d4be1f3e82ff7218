//! HTTP/2 with frames that no client would write: header blocks as literals (RFC 7541, section 6.2.2), one stream each.

use super::{kept_are, next_good_one_passes, open};
use crate::support::Gateway;
use crate::support::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, H2, HEADERS, RST_STREAM, block, frame,
};

/// The longest payload that anybody must take.
const FRAME_MAX: usize = 16 << 10;

type Fields<'f> = [(&'f [u8], &'f [u8])];

/// What became of stream 1.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answer(u16),
    /// The stream was reset or the connection ended, as a protocol error (RFC 9113, section 8.1.1 allows both).
    Malformed,
}

const PROTOCOL_ERROR: u32 = 1;

async fn send(gateway: &Gateway, frames: &[Vec<u8>]) -> Outcome {
    let mut h2 = H2::connect(&gateway.ingress, &[]).await;
    assert!(h2.send(&frames.concat()).await, "it is closed already");
    loop {
        let Frame { kind, stream, payload } = h2.next().await.expect("a frame");
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match (kind, stream) {
            (HEADERS, 1) => return Outcome::Answer(status(&payload)),
            (RST_STREAM, 1) if code(0) == PROTOCOL_ERROR => return Outcome::Malformed,
            (GOAWAY, _) if code(4) == PROTOCOL_ERROR => return Outcome::Malformed,
            (RST_STREAM | GOAWAY, _) => panic!("ended otherwise: {payload:?}"),
            _ => {}
        }
    }
}

/// The `:status` that a header block begins with: one of the static table, or three digits.
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x48, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x08 | 0x48, length, rest @ ..] if length & 128 != 0 => huffman(&rest[..usize::from(length & 127)]),
        other => panic!("no status: {other:?}"),
    }
}

/// Three digits in the Huffman code of RFC 7541, appendix B: 0 to 2 have five bits, 3 to 9 have six.
fn huffman(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut digit = || {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        if five <= 2 { five } else { (five << 1 | bits.next().unwrap()) - 0b01_1001 + 3 }
    };
    (0..3).fold(0, |number, _| number * 10 + digit())
}

/// A good head, which the cases change.
const GOOD: [(&[u8], &[u8]); 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/hooks")];

/// [`GOOD`] and more.
fn and<'f>(more: &Fields<'f>) -> Vec<(&'f [u8], &'f [u8])> {
    [&GOOD, more].concat()
}

/// [`GOOD`] with another value for one of its fields.
fn but<'f>(name: &[u8], value: &'f [u8]) -> Vec<(&'f [u8], &'f [u8])> {
    GOOD.into_iter().map(|(field, good)| (field, if field == name { value } else { good })).collect()
}

/// [`GOOD`] without one of its fields.
fn without(name: &[u8]) -> Vec<(&'static [u8], &'static [u8])> {
    GOOD.into_iter().filter(|(field, _)| *field != name).collect()
}

fn request(fields: &Fields<'_>, body: &[u8]) -> Vec<Vec<u8>> {
    let block = block(fields);
    let pieces: Vec<_> = block.chunks(FRAME_MAX).collect();
    let mut frames = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let flags = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        frames.push(frame(kind, flags, 1, piece));
    }
    frames.push(frame(DATA, END_STREAM, 1, body));
    frames
}

/// Sends each of `cases` and one good request after each, and counts what was kept.
async fn check(cases: &[(&str, Vec<Vec<u8>>, Outcome)]) {
    let (app, gateway) = open().await;
    let mut kept = 0;
    for (about, frames, expected) in cases {
        let outcome = send(&gateway, frames).await;
        assert_eq!(outcome, *expected, "{about}");
        next_good_one_passes(&gateway, about).await;
        kept += 1 + usize::from(*expected == Outcome::Answer(200));
    }
    kept_are(&app, &gateway, kept).await;
}

/// Row F21, malformed heads in HTTP/2.
#[tokio::test]
async fn malformed_heads_are_refused() {
    use Outcome::{Answer, Malformed};
    let case = |about, fields: Vec<(&[u8], &[u8])>, outcome| (about, request(&fields, b"ok"), outcome);
    let protocol: &Fields<'_> = &[(b":protocol", b"websocket")];
    check(&[
        case("a good one", GOOD.to_vec(), Answer(200)),
        case("CRLF in the path", but(b":path", b"/hooks\r\nX: y"), Malformed),
        case("a space in the path", but(b":path", b"/hooks HTTP/1.1"), Malformed),
        case("an empty path", but(b":path", b""), Malformed),
        case("CRLF in the method", but(b":method", b"POST /x HTTP/1.1\r\nX: y"), Malformed),
        case("CRLF in the authority", but(b":authority", b"a\r\nX: y"), Malformed),
        case("CRLF in a value", and(&[(b"x", b"y\r\nX-Z: z")]), Malformed),
        case("LF in a value", and(&[(b"x", b"y\nz")]), Malformed),
        case("NUL in a value", and(&[(b"x", b"y\0z")]), Malformed),
        case("CRLF in a name", and(&[(b"x\r\ny", b"z")]), Malformed),
        case("a colon in a name", and(&[(b"x:y", b"z")]), Malformed),
        case("a space in a name", and(&[(b"x y", b"z")]), Malformed),
        case("an empty name", and(&[(b"", b"z")]), Malformed),
        case("capitals in a name", and(&[(b"X-Y", b"z")]), Malformed),
        case("connection", and(&[(b"connection", b"close")]), Malformed),
        case("keep-alive", and(&[(b"keep-alive", b"1")]), Malformed),
        case("proxy-connection", and(&[(b"proxy-connection", b"close")]), Malformed),
        case("transfer-encoding", and(&[(b"transfer-encoding", b"chunked")]), Malformed),
        case("upgrade", and(&[(b"upgrade", b"h2c")]), Malformed),
        case("te: gzip", and(&[(b"te", b"gzip")]), Malformed),
        case("te: trailers", and(&[(b"te", b"trailers")]), Answer(200)),
        case("two authorities", and(&[(b":authority", b"b")]), Malformed),
        case("two paths", and(&[(b":path", b"/x")]), Malformed),
        case("an unknown pseudo-header", and(&[(b":x", b"y")]), Malformed),
        case("a pseudo-header of answers", and(&[(b":status", b"200")]), Malformed),
        case("a pseudo-header behind a header", [&[(&b"x"[..], &b"y"[..])], &GOOD[..]].concat(), Malformed),
        case("no method", without(b":method"), Malformed),
        case("no scheme", without(b":scheme"), Malformed),
        case("extended CONNECT", [&but(b":method", b"CONNECT"), protocol].concat(), Malformed),
        case("a protocol without CONNECT", and(protocol), Malformed),
        case("CONNECT", vec![(b":method", b"CONNECT"), (b":authority", b"a:80")], Answer(400)),
        case("TRACE", but(b":method", b"TRACE"), Answer(400)),
        case("no authority and no host", without(b":authority"), Answer(400)),
        case("a host alone", [&without(b":authority")[..], &[(b"host", b"a")]].concat(), Answer(200)),
        case("another host", and(&[(b"host", b"b")]), Answer(400)),
        case("two hosts", and(&[(b"host", b"a"), (b"host", b"a")]), Answer(400)),
        case("a user in the authority", but(b":authority", b"u@a"), Answer(400)),
        case("a byte beyond ASCII in a value", and(&[(b"x", b"\xff")]), Answer(400)),
        case("a byte beyond ASCII in the path", but(b":path", "/hooks?ö".as_bytes()), Answer(400)),
        case("a backslash in the path", but(b":path", b"/hooks\\"), Answer(400)),
        case("no path but a star", but(b":path", b"*"), Answer(400)),
        case("another path", but(b":path", b"/hooks/../hooks"), Answer(404)),
        case("an odd expectation", and(&[(b"expect", b"200-ok")]), Answer(417)),
        case("a long path", but(b":path", &[&b"/hooks?"[..], &b"a".repeat(9 << 10)].concat()), Answer(414)),
        case("a head of 40 KiB", and(&[(b"x", &b"y".repeat(20 << 10)), (b"z", &b"y".repeat(20 << 10))]), Answer(431)),
        case("101 headers", and(&[(&b"x"[..], &b"y"[..]); 101]), Answer(431)),
    ])
    .await;
}

/// Row F22, a length that differs from the data.
#[tokio::test]
async fn a_length_must_be_that_of_the_data() {
    use Outcome::{Answer, Malformed};
    let case = |about, lengths: &[&[u8]], body: &[u8], outcome| {
        let lengths: Vec<_> = lengths.iter().map(|length| (&b"content-length"[..], *length)).collect();
        (about, request(&and(&lengths), body), outcome)
    };
    let trailers = |fields: &Fields<'_>| {
        let mut frames = request(&GOOD, b"");
        frames[1] = frame(DATA, 0, 1, b"ok");
        frames.push(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
        frames
    };
    check(&[
        case("the right one", &[b"2"], b"ok", Answer(200)),
        case("too large", &[b"3"], b"ok", Malformed),
        case("too small", &[b"1"], b"ok", Malformed),
        case("nothing", &[b"0"], b"GET /smuggled", Malformed),
        case("two", &[b"2", b"2"], b"ok", Answer(400)),
        case("a sign", &[b"+2"], b"ok", Malformed),
        ("trailers are dropped", trailers(&[(b"x", b"y"), (b"content-length", b"9")]), Answer(200)),
        ("a pseudo-header in trailers is dropped with them", trailers(&[(b":path", b"/x")]), Answer(200)),
    ])
    .await;
}
