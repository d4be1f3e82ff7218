//! Line by line: both sides of every border.

use super::super::head::{METHOD_MAX, TARGET_MAX};
use super::*;

#[track_caller]
fn check(stream: impl AsRef<[u8]>, expected: Result<usize, Fault>) {
    let (stream, verdict) = (stream.as_ref(), read(stream.as_ref(), LIMITS));
    let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]);
    match expected {
        Ok(messages) => {
            assert_eq!((verdict.fault, verdict.good), (None, stream.len()), "{shown:?}");
            assert_eq!(verdict.ends.len(), messages, "{shown:?}");
        }
        Err(fault) => assert_eq!(verdict.fault, Some(fault), "{shown:?}"),
    }
}

/// A request with these header lines, beside a host.
#[track_caller]
fn with(lines: &str, expected: Result<usize, Fault>) {
    check(format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), expected);
}

#[test]
fn a_body_has_one_length() {
    for lines in ["Content-Length: 0\r\n", "content-length:00000000000000000000\r\n", "Content-Length:\t 0 \t\r\n", ""]
    {
        with(lines, Ok(1));
    }
    check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n0123456789", Ok(1));
    check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n0123", Ok(0));
    for value in [
        "",
        "+1",
        "-1",
        "0x1",
        "1_0",
        "1Z",
        "1, 1",
        "1 1",
        "1,1",
        "1.0",
        "9223372036854775808",
        "18446744073709551616",
        "000000000000000000001",
        "1\x0b",
    ] {
        let fault = if value.contains('\x0b') { Fault::Line } else { Fault::Framing };
        with(&format!("Content-Length: {value}\r\n"), Err(fault));
    }
    for lines in [
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\ncontent-length: 2\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        with(lines, Err(Fault::Framing));
    }
}

#[test]
fn a_coding_is_chunked_and_nothing_else() {
    for value in ["chunked", "Chunked", "CHUNKED", "\t chunked \t"] {
        check(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{value}\r\n\r\n0\r\n\r\n"), Ok(1));
    }
    for value in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "identity, chunked",
        ",chunked",
        "chunked,",
        "chunked;q=1",
        "xchunked",
    ] {
        with(&format!("Transfer-Encoding: {value}\r\n"), Err(Fault::Framing));
    }
    for odd in [&b"\x0bchunked"[..], b"\x0cchunked", b"\xa0chunked", b"\x85chunked", b"chunked\x00"] {
        let head = [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ", odd, b"\r\n\r\n"].concat();
        check(head, Err(Fault::Line));
    }
}

#[test]
fn http_1_0_says_how_long_a_body_is() {
    for method in ["POST", "PUT", "PATCH"] {
        check(format!("{method} / HTTP/1.0\r\nHost: a\r\n\r\n"), Err(Fault::Framing));
        check(format!("{method} / HTTP/1.0\r\nContent-Length: 2\r\n\r\nok"), Ok(1));
        check(format!("{method} / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Fault::Framing));
    }
    check("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n", Ok(2));
}

#[test]
fn chunks_are_plain() {
    let chunked = |chunks: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    for chunks in [
        "0\r\n\r\n",
        "2\r\nok\r\n0\r\n\r\n",
        "02\r\nok\r\n000\r\n\r\n",
        "0000000000000002\r\nok\r\n0\r\n\r\n",
        "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "0\r\nX: y\r\nContent-Length: 3\r\n\r\n",
        "2\r\n\r\n\r\n0\r\n\r\n",
    ] {
        check(chunked(chunks), Ok(1));
    }
    check(chunked("ffffffffffffffff\r\nok"), Ok(0));
    for chunks in [
        "\r\n",
        "0x2\r\n",
        "+2\r\n",
        "2 \r\n",
        " 2\r\n",
        "2_\r\n",
        "g\r\n",
        "00000000000000002\r\n",
        "2;\r\n",
        "2;x=y\r\n",
        "2\n",
        "2\r\r\n",
        "2\rx",
        "2\r\noks",
        "2\r\nok\n",
        "2\r\nok\rx",
        "0\n\n",
    ] {
        check(chunked(chunks), Err(Fault::Chunk));
    }
    check(chunked(&"0".repeat(1 << 20)), Err(Fault::Chunk));
    for (trailers, fault) in [
        ("X\r\n\r\n", Fault::Field),
        (" X: y\r\n\r\n", Fault::Field),
        (": y\r\n\r\n", Fault::Field),
        ("X : y\r\n\r\n", Fault::Field),
        ("X: y\n\r\n", Fault::Line),
        ("\n", Fault::Line),
        ("X: \0\r\n", Fault::Line),
    ] {
        check(chunked(&format!("0\r\n{trailers}")), Err(fault));
    }
    check(chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(100))), Ok(1));
    check(chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(101))), Err(Fault::HeadersTooMany));
    check(chunked(&format!("0\r\nX: {}", "y".repeat(32 << 10))), Err(Fault::HeadTooLarge));
}

#[test]
fn lines_end_in_crlf_and_hold_printable_ascii() {
    for bad in [
        "POST / HTTP/1.1\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\n",
        "POST / HTTP/1.1\rHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "\nPOST / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: \x1b[0m\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: ü\r\n\r\n",
        "\x16\x03\x01\x02\0\x01",
        "\0",
    ] {
        check(bad, Err(Fault::Line));
    }
    for (bad, fault) in [
        ("X: y\r\n folded\r\n", Fault::Field),
        ("X: y\r\n\tfolded\r\n", Fault::Field),
        ("X : y\r\n", Fault::Field),
        (" X: y\r\n", Fault::Field),
        (": y\r\n", Fault::Field),
        ("X\r\n", Fault::Field),
        ("X(: y\r\n", Fault::Field),
        ("X\t: y\r\n", Fault::Field),
        ("\"X\": y\r\n", Fault::Field),
    ] {
        with(bad, Err(fault));
    }
    with("X:\r\nX-Y:y\r\n!#$%&'*+-.^_`|~09azAZ:\t a\tb \r\n", Ok(1));
    with(&format!("{}: y\r\n", "X".repeat(256)), Ok(1));
    with(&format!("{}: y\r\n", "X".repeat(257)), Err(Fault::HeadTooLarge));
}

#[test]
fn one_empty_line_may_come_before_a_request() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    check(format!("\r\n{request}\r\n{request}"), Ok(4)); // an end is seen after each empty line, too
    check(format!("\r\n\r\n{request}"), Err(Fault::RequestLine));
    check(format!("{request}\r\n\r\n"), Err(Fault::RequestLine));
    check(format!(" {request}"), Err(Fault::RequestLine));
}

#[test]
fn a_request_line_is_a_method_a_target_and_a_version() {
    let line = |line: &str, expected| check(format!("{line}\r\nHost: a\r\n\r\n"), expected);
    for good in ["GET / HTTP/1.1", "M-SEARCH /a HTTP/1.1", "get /a?b HTTP/1.1", "OPTIONS * HTTP/1.1"] {
        line(good, Ok(1));
    }
    for (bad, fault) in [
        ("GET /", Fault::Version),
        ("GET", Fault::RequestLine),
        ("GET / HTTP/1.2", Fault::Version),
        ("GET / HTTP/1.32", Fault::Version),
        ("GET / HTTP/2.0", Fault::Version),
        ("GET / http/1.1", Fault::Version),
        ("GET / HTTP/1.1 ", Fault::Version),
        ("GET  / HTTP/1.1", Fault::Target),
        ("GET /  HTTP/1.1", Fault::Target),
        ("GET / / HTTP/1.1", Fault::Target),
        ("GET HTTP/1.1", Fault::Version),
        ("GET\t/ HTTP/1.1", Fault::RequestLine),
        (" GET / HTTP/1.1", Fault::RequestLine),
        ("G(T / HTTP/1.1", Fault::RequestLine),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", Fault::Version),
        ("PRI * HTTP/2.0", Fault::Version),
        ("CONNECT a:80 HTTP/1.1", Fault::Tunnel),
        ("TRACE / HTTP/1.1", Fault::Tunnel),
    ] {
        line(bad, Err(fault));
    }
    line(&format!("{} / HTTP/1.1", "M".repeat(METHOD_MAX)), Ok(1));
    line(&format!("{} / HTTP/1.1", "M".repeat(METHOD_MAX + 1)), Err(Fault::RequestLine));
    line(&format!("GET /{} HTTP/1.1", "a".repeat(TARGET_MAX - 1)), Ok(1));
    line(&format!("GET /{} HTTP/1.1", "a".repeat(TARGET_MAX)), Err(Fault::TargetTooLong));
    line(&format!("GET /{} HTTP/1.1", "a".repeat(70 << 10)), Err(Fault::TargetTooLong));
}

#[test]
fn a_target_is_a_path_or_a_url_that_agrees_with_the_host() {
    let target = |target: &str, expected| check(format!("GET {target} HTTP/1.1\r\nHost: A:80\r\n\r\n"), expected);
    for good in [
        "/",
        "//",
        "/a/../b",
        "/%2f%00",
        "/;a=b",
        "/a?b?c",
        "/a?",
        "/?\u{27}^`{|}",
        "/\"{|}",
        "http://a:80/x",
        "HTTP://A:80/x?y",
        "https://a:80",
        "http://a:80?x",
    ] {
        target(good, Ok(1));
    }
    for bad in [
        "/#",
        "/a#b",
        "/a?b#c",
        "/a\\b",
        "/a?\\",
        "/<",
        "/>",
        "/`",
        "/?\"",
        "/?<",
        "/?>",
        "a",
        "a/b",
        "*",
        "?",
        "#",
        "http:/a",
        "http:///x",
        "ftp://a:80/",
        "http://u@a:80/",
        "http://a:80#",
        "http://a:80\\x",
        "a:80",
    ] {
        target(bad, Err(Fault::Target));
    }
    for other in ["http://b/", "http://a/", "http://a:8080/", "http://a:80.evil.example/"] {
        target(other, Err(if other.contains("evil") { Fault::Target } else { Fault::Host }));
    }
    check("GET http://a/ HTTP/1.0\r\n\r\n", Err(Fault::Host));
}

/// Otherwise the library would refuse it, in its own words, or drop a part of it.
#[test]
fn whatever_is_accepted_of_targets_methods_and_names_the_library_accepts_whole() {
    for byte in (0..=255).map(char::from) {
        let accepted = |head: String| {
            let bytes: Vec<u8> = head.chars().map(|char| u8::try_from(char).unwrap()).collect();
            read(&bytes, LIMITS).ends == [bytes.len()]
        };
        for target in
            [format!("/a{byte}b"), format!("/a?b{byte}"), format!("http://a/{byte}"), format!("http://a{byte}x")]
        {
            let host = target.strip_prefix("http://").map_or("a", |rest| rest.split(['/', '?']).next().unwrap());
            if accepted(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")) {
                let path = target.find("://").map_or(&*target, |at| target.get(at + 3 + host.len()..).unwrap());
                let uri: http::Uri = target.parse().unwrap();
                let read = uri.path_and_query().unwrap().as_str();
                assert!(read == path || read == format!("/{path}"), "{target:?} {read:?}");
            }
        }
        if accepted(format!("G{byte}T / HTTP/1.1\r\nHost: a\r\n\r\n")) {
            assert!(http::Method::from_bytes(&[b'G', byte as u8, b'T']).is_ok(), "{byte:?}");
        }
        if accepted(format!("GET / HTTP/1.1\r\nHost: a\r\n{byte}: b\r\n\r\n")) {
            assert!(http::HeaderName::from_bytes(&[byte as u8]).is_ok(), "{byte:?}");
        }
    }
}

#[test]
fn a_host_is_there_once_and_is_one() {
    let hosts = |lines: &str, expected| check(format!("GET / HTTP/1.1\r\n{lines}\r\n"), expected);
    for good in ["a", "A.example", "a_b.example:8080", "192.0.2.1:1", "[::1]", "[2001:db8::1]:65535", "~"] {
        hosts(&format!("Host: {good}\r\n"), Ok(1));
    }
    for bad in [
        "", ":80", "a:", "a:b", "a:123456", "a b", "a,b", "u@a", "a/b", "a?b", "a#b", "a%41", "[::1", "::1", "[::g]",
        "[a]", "[]", "[::1]x", "[::1]:", "http://a",
    ] {
        hosts(&format!("Host: {bad}\r\n"), Err(Fault::Host));
    }
    hosts("", Err(Fault::Host));
    hosts("Host: a\r\nHost: a\r\n", Err(Fault::Host));
    check("GET / HTTP/1.0\r\n\r\n", Ok(1));
    check("GET / HTTP/1.0\r\nHost:\r\n\r\n", Err(Fault::Host));
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(Fault::Host));
}

#[test]
fn tunnels_and_odd_expectations_are_refused() {
    for value in ["websocket", "h2c", "foo", ""] {
        with(&format!("Connection: upgrade\r\nUpgrade: {value}\r\n"), Err(Fault::Tunnel));
    }
    with("Expect: 100-Continue\r\n", Ok(1));
    for value in ["200-ok", "", "100-continue, 100-continue", "100-continue;x"] {
        with(&format!("Expect: {value}\r\n"), Err(Fault::Expectation));
    }
    with("Expect: 100-continue\r\nExpect: 100-continue\r\n", Err(Fault::Expectation));
}

#[test]
fn a_head_has_its_limits_to_the_byte_and_the_line() {
    let limits = HeadLimits { bytes: 100, lines: 3 };
    let fault = |stream: &str| read(stream.as_bytes(), limits).fault;
    let head = |bytes: usize| {
        let head = "\r\nGET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(bytes - head.len() - 4))
    };
    assert_eq!(fault(&head(100)), None);
    assert_eq!(fault(&head(101)), Some(Fault::HeadTooLarge));
    let twice = head(100) + &head(100);
    assert_eq!(fault(&twice), None, "each head has them anew");
    let lines = |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(lines - 1));
    assert_eq!(fault(&lines(3)), None);
    assert_eq!(fault(&lines(4)), Some(Fault::HeadersTooMany));
}

#[test]
fn messages_follow_each_other() {
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: ";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\nX: y\r\n\r\n";
    let verdict = read(format!("{sized}{chunked}{sized}").as_bytes(), LIMITS);
    let ends = [sized.len(), sized.len() + chunked.len(), 2 * sized.len() + chunked.len()];
    assert_eq!((verdict.fault, &verdict.ends[..]), (None, &ends[..]));
}
