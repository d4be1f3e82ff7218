//! Headers, good and bad, and the same headers in pieces.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

/// Version 2 with these two bytes after the signature, then the length of `rest`, then `rest`.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const IPV4: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x8b, 0x3e, 0x01, 0xbb];

fn ipv4_and(extras: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&IPV4[..], extras].concat())
}

fn ipv6() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    v2(0x21, 0x21, &[&ip("2001:db8::7")[..], &ip("::1"), &[0x8b, 0x3e, 1, 0xbb]].concat())
}

/// [`ipv4_and`] with a checksum behind `extras`, right or off by one.
fn summed(extras: &[u8], off: u32) -> Vec<u8> {
    let mut header = ipv4_and(&[extras, &[CHECKSUM, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc32c::crc32c(&header).wrapping_add(off).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    header
}

fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let (v4, v6) = (Some("203.0.113.7:35646"), Some("[2001:db8::7]:35646"));
    let longest =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    vec![
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 35646 443\r\n".to_vec(), v4),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 0 65535\r\n".to_vec(), Some("203.0.113.7:0")),
        (b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::1 35646 443\r\n".to_vec(), v6),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
        (longest.as_bytes().to_vec(), None),
        (ipv4_and(&[]), v4),
        (ipv4_and(&[1, 0, 2, b'h', b'2', 4, 0, 0]), v4),
        (ipv4_and(&[TLS, 0, 10, 1, 0, 0, 0, 0, 0x21, 0, 2, b'T', b'L']), v4),
        (ipv4_and(&[&[4, 0x0f, 0xf1][..], &[0; 0x0ff1]].concat()), v4), // 4 KiB in all
        (summed(&[4, 0, 1, 9], 0), v4),
        (ipv6(), v6),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &[1, 2, 3]), None), // LOCAL: whatever follows is skipped
        (v2(0x21, 0x00, &[1, 2, 3]), None),
    ]
}

fn bad() -> Vec<(Vec<u8>, HeaderError)> {
    use HeaderError::{Checksum, Kind, Length, Line, Missing};
    let line = |text: &str| (text.as_bytes().to_vec(), Line);
    vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"PROXI TCP4".to_vec(), Missing),
        (b"proxy TCP4".to_vec(), Missing),
        (b"\x16\x03\x01".to_vec(), Missing),
        (b"\r\n\r\nGET / ".to_vec(), Missing),
        line("PROXY \r\n"),
        line("PROXY TCP4\r\n"),
        line("PROXY  TCP4 203.0.113.7 192.0.2.1 1 2\r\n"),
        line("PROXY TCP4 203.0.113.7  192.0.2.1 1 2\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 1 2 \r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n"),
        line("PROXY TCP4 203.0.113.7\t192.0.2.1 1 2\r\n"),
        line("PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n"),
        line("PROXY TCP4 203.0.113.256 192.0.2.1 1 2\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 +1 2\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n"),
        line("PROXY TCP4 2001:db8::7 ::1 1 2\r\n"),
        line("PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n"),
        line("PROXY TCP6 [2001:db8::7] ::1 1 2\r\n"),
        line("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
        line("PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n"),
        line("PROXY UNKNOWNS\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 1 2\nGET / HTTP/1.1\r\n"),
        line("PROXY UNKNOWN a\rb\r\n"),
        line("PROXY UNKNOWN \u{7f}\r\n"),
        line("PROXY UNKNOWN é\r\n"),
        line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92))), // 108 bytes
        line(&"PROXY UNKNOWN ".repeat(20)),
        (v2(0x11, 0x11, &IPV4), Kind),
        (v2(0x22, 0x11, &IPV4), Kind),
        (v2(0x21, 0x12, &IPV4), Kind),
        (v2(0x21, 0x10, &IPV4), Kind),
        (v2(0x21, 0x41, &IPV4), Kind),
        (v2(0x21, 0x11, &IPV4[..11]), Length),
        (v2(0x21, 0x21, &[0; 35]), Length),
        (v2(0x21, 0x31, &[0; 215]), Length),
        (v2(0x20, 0x00, &vec![0; REST_MAX + 1]), Length),
        (ipv4_and(&[1, 0]), Length),
        (ipv4_and(&[1, 0, 3, b'h', b'2']), Length),
        (ipv4_and(&[4, 0, 0, 4]), Length),
        (ipv4_and(&[TLS, 0, 4, 1, 0, 0, 0]), Length),
        (ipv4_and(&[TLS, 0, 9, 1, 0, 0, 0, 0, 0x21, 0, 2, b'T']), Length),
        (ipv4_and(&[CHECKSUM, 0, 3, 0, 0, 0]), Length),
        (ipv4_and(&[CHECKSUM, 0, 4, 0, 0, 0, 0, CHECKSUM, 0, 4, 0, 0, 0, 0]), Length),
        (summed(&[], 1), Checksum),
        (summed(&[4, 0, 1, 9], 1), Checksum),
    ]
}

#[test]
fn a_good_header_is_taken_with_what_follows_left_alone() {
    for (header, source) in good() {
        let expected = Header { length: header.len(), source: source.map(|source| source.parse().unwrap()) };
        let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed), Ok(Some(expected)), "{:?}", String::from_utf8_lossy(&header));
        for cut in 1..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(None), "{:?}, cut at {cut}", String::from_utf8_lossy(&header));
        }
    }
}

#[test]
fn a_bad_header_is_refused_and_no_part_of_it_is_taken() {
    for (header, error) in bad() {
        assert_eq!(parse(&header), Err(error), "{:?}", String::from_utf8_lossy(&header));
        for cut in 1..header.len() {
            let part = parse(&header[..cut]);
            assert!(
                part == Ok(None) || part == Err(error),
                "{:?} at {cut}: {part:?}",
                String::from_utf8_lossy(&header)
            );
        }
    }
}

/// Feeds `bytes` in pieces of `piece` bytes, and reads the header and then everything else.
async fn through_a_socket(bytes: &[u8], piece: usize) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
    let (mut far, near) = UnixStream::pair().unwrap();
    let mut stream = Stream::from(near);
    let feed = async {
        for piece in bytes.chunks(piece) {
            let _ = far.write_all(piece).await; // refused before its end
            tokio::task::yield_now().await;
        }
        drop(far);
    };
    let take = async {
        let source = read(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (source, rest)
    };
    tokio::join!(feed, take).1
}

#[tokio::test]
async fn a_header_in_pieces_loses_no_byte_behind_it() {
    for (header, source) in good() {
        let source = source.map(|source| source.parse().unwrap());
        for piece in [1, 7, 4096, 8192] {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let taken = through_a_socket(&bytes, piece).await;
            assert_eq!(taken, (Ok(source), b"GET / HTTP/1.1\r\n\r\n".to_vec()), "{piece}");
        }
    }
    assert_eq!(through_a_socket(b"", 1).await.0, Err(HeaderError::Missing));
    assert_eq!(through_a_socket(b"PROXY TCP4 ", 3).await.0, Err(HeaderError::Ended));
}

proptest! {
    #[test]
    fn nothing_panics_and_more_bytes_change_no_verdict(
        index in 0..good().len(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        more in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut header = good().swap_remove(index).0;
        let at = at.index(header.len());
        header[at] = with;
        let alone = parse(&header);
        let followed = parse(&[&header[..], &more].concat());
        if alone != Ok(None) {
            prop_assert_eq!(alone, followed);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 1..300), as_binary in any::<bool>()) {
        let _ = parse(&bytes);
        let prefix: &[u8] = if as_binary { SIGNATURE } else { WORD };
        let _ = parse(&[prefix, &bytes].concat());
    }
}
