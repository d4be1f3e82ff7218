//! What reaches the application is written anew: rows G1 to G6.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{kept_are, open};
use crate::support::gateway::{PATIENCE, github_to};
use crate::support::raw::{Then, raw, statuses};
use crate::support::{FakeApp, Gateway, HELLO, HELLO_SIGNATURE};

/// Row G1, headers named by `Connection`: they belong to the connection and go no further. Verification and the key are
/// of what came, and what the gateway sets itself nobody can have removed.
#[tokio::test]
async fn headers_named_by_connection_end_here_and_ours_stay() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let request = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: hooks.test\r\nConnection: close, X-Hub-Signature-256, X-GitHub-Delivery\r\n\
         Connection: Content-Length, Host, Forebay-Event-Id, Forebay-Source, X-Forwarded-For, Idempotency-Key\r\n\
         X-Hub-Signature-256: {HELLO_SIGNATURE}\r\nX-GitHub-Delivery: d1\r\nX-Other: stays\r\n\
         Content-Length: {}\r\n\r\nHello, World!",
        HELLO.len()
    );
    let first = raw(&gateway, request.as_bytes(), Then::Wait).await;
    let again = raw(&gateway, request.as_bytes(), Then::Wait).await;
    assert_eq!((statuses(&first), statuses(&again)), (vec![200], vec![200]));
    assert!(again.contains("forebay-duplicate: true"), "the key was read all the same: {again}");
    let seen = &app.until("it", |seen| !seen.is_empty()).await[0];
    for gone in ["connection", "x-hub-signature-256", "x-github-delivery"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    assert_eq!((seen.header("x-other"), &seen.body[..]), ("stays", HELLO));
    assert_eq!((seen.header("forebay-source"), seen.header("x-forwarded-for")), ("github", "127.0.0.1"));
    assert!(seen.header("forebay-event-id").starts_with("evt_"));
    assert_eq!(seen.header("idempotency-key"), seen.header("forebay-event-id"));
}

/// Rows G2, G3 and G6: what only the gateway may say is taken out, however it is written; the rest goes on, credentials
/// and repetitions, too, in its order.
#[tokio::test]
async fn only_the_gateway_says_what_is_the_gateways_to_say() {
    let (app, gateway) = open().await;
    let request = "POST /hooks HTTP/1.1\r\nHost: hooks.test\r\nConnection: close\r\nContent-Length: 2\r\n\
         Forebay-Event-Id: evt_0\r\nFOREBAY-SOURCE: other\r\nForebay_Verified: yes\r\nForebay-Anything: x\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX_Forwarded_For: 192.0.2.1\r\nX-Forwarded-Host: evil.test\r\n\
         X-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\nContent_Length: 99\r\nTransfer_Encoding: chunked\r\n\
         Keep-Alive: 1\r\nProxy-Authorization: p\r\nTE: trailers\r\nTrailer: x\r\n\
         Cookie: a=b\r\nAuthorization: Basic abc\r\nX-Many: 1\r\nx-many: 2\r\nX-MANY: 3\r\n\r\nok";
    assert_eq!(statuses(&raw(&gateway, request.as_bytes(), Then::Wait).await), [200]);
    let seen = &app.until("it", |seen| !seen.is_empty()).await[0];
    for gone in [
        "forebay_verified",
        "forebay-anything",
        "x_forwarded_for",
        "forwarded",
        "content_length",
        "transfer_encoding",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
    ] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    for (name, value) in [
        ("forebay-source", "hooks"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "hooks.test"),
        ("x-forwarded-proto", "http"),
        ("content-length", "2"),
        ("cookie", "a=b"),
        ("authorization", "Basic abc"),
    ] {
        assert_eq!(seen.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    assert!(seen.header("forebay-event-id").starts_with("evt_") && seen.header("forebay-event-id") != "evt_0");
    assert_eq!(seen.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2", "3"]);
}

/// Row G4, chunks: on the wire to the application there is one length and no coding.
#[tokio::test]
async fn a_chunked_body_goes_on_with_one_length() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Gateway::start(&format!(
        "sources:\n  hooks: {{ path: /hooks, verify: none, to: [app] }}\ndestinations:\n  app: {{ url: {url} }}\n"
    ))
    .await;
    let request = "POST /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
         5\r\n0\r\n\r\n\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n";
    assert_eq!(statuses(&raw(&gateway, request.as_bytes(), Then::Wait).await), [200]);
    let wire = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut wire = Vec::new();
        while !wire.ends_with(b"ok") {
            assert_ne!(stream.read_buf(&mut wire).await.unwrap(), 0);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(wire).unwrap()
    };
    let wire = tokio::time::timeout(PATIENCE, wire).await.expect("a delivery");
    let (head, body) = wire.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert_eq!(body, "0\r\n\r\nok");
    assert_eq!(head.matches("\r\ncontent-length: 7").count(), 1, "{head}");
    for gone in ["transfer-encoding", "trailer", "x-t"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
}

/// Row G5, an encoded body: signatures are of the bytes as they come, so nothing is ever inflated.
#[tokio::test]
async fn an_encoded_body_is_refused_as_it_stands() {
    let (app, gateway) = open().await;
    let head = "POST /hooks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n";
    for encoding in ["gzip", "br", "identity, gzip", "deflate"] {
        let request = format!("{head}Content-Encoding: {encoding}\r\n\r\n\x1f\x7f");
        assert_eq!(statuses(&raw(&gateway, request.as_bytes(), Then::Wait).await), [415], "{encoding}");
    }
    let plain = format!("{head}Content-Encoding: identity\r\n\r\nok");
    assert_eq!(statuses(&raw(&gateway, plain.as_bytes(), Then::Wait).await), [200]);
    kept_are(&app, &gateway, 1).await;
}
