//! Streams of messages: well-formed ones, and what is left of them after a few mutations.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A message that is to be accepted.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let line = select(vec![
        "POST /x HTTP/1.1",
        "GET / HTTP/1.1",
        "PUT /a?b=c HTTP/1.1",
        "POST http://a.example:80/x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "DELETE /%2f/..;x HTTP/1.1",
    ]);
    let field = select(vec![
        "X-A: b",
        "x:",
        "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Cookie: a=b; c=d\t",
        "Content-Type: application/json",
        "Connection: keep-alive",
        "Expect: 100-continue",
        "Accept:*/*",
    ]);
    let body = prop_oneof![
        Just(None),
        vec(any::<u8>(), 0..40)
            .prop_map(|body| { Some([format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()) }),
        (vec(vec(any::<u8>(), 1..20), 0..4), select(vec!["", "X-T: y\r\n"])).prop_map(|(chunks, trailers)| {
            let mut all = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in chunks {
                all.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                all.extend(chunk);
                all.extend(b"\r\n");
            }
            all.extend(format!("0\r\n{trailers}\r\n").as_bytes());
            Some(all)
        }),
    ];
    (line, vec(field, 0..4), body).prop_map(|(line, mut fields, body)| {
        let mut expected = false;
        fields.retain(|field| !field.starts_with("Expect") || !std::mem::replace(&mut expected, true));
        let mut all = format!("{line}\r\nHost: a.example:80\r\n").into_bytes();
        fields.iter().for_each(|field| all.extend(format!("{field}\r\n").as_bytes()));
        all.extend(body.unwrap_or_else(|| b"\r\n".to_vec()));
        all
    })
}

/// A few messages one after the other.
pub fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(message(), 1..4).prop_map(|messages| messages.concat())
}

/// A few messages, changed in a few places.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let bytes = select(vec![
        &b"\r"[..],
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b"\0",
        b"\xa0",
        b"0",
        b"1",
        b"f",
        b";",
        b"#",
        b"\\",
        b"+",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"0\r\n\r\n",
        b"Upgrade: x\r\n",
    ]);
    (stream(), vec((any::<Index>(), bytes, 0..3usize), 0..4)).prop_map(|(mut stream, changes)| {
        for (place, bytes, removed) in changes {
            let at = place.index(stream.len() + 1);
            let end = (at + removed).min(stream.len());
            stream.splice(at..end, bytes.iter().copied());
        }
        stream
    })
}
