//! What the application does not answer, or not so that its sender could be told, is kept for later.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{LATER, NO_BREAKER, SOON, assert_kept, attempts, id, post, proxied, says, to};
use crate::support::{FakeApp, Gateway};

#[tokio::test]
async fn every_other_4xx_is_relayed_and_every_other_answer_is_kept_for_later() {
    let app = FakeApp::start().await;
    let config = proxied(&app.url(), "deadline: 8s", &format!("timeout: 60s, {NO_BREAKER}"));
    let gateway = Gateway::start(&config).await;
    for code in [200, 204, 299, 400, 401, 403, 404, 409, 410, 418, 499] {
        app.behave(move |_| Some(says(code, "")));
        let answer = post(&gateway, &code.to_string()).await;
        assert_eq!((answer.status, answer.header("forebay-buffered")), (code, None));
    }
    for code in [301, 302, 307, 408, 425, 429, 500, 502, 503, 599] {
        app.behave(move |seen| Some(says(if seen.header("forebay-attempt") == "1" { code } else { 200 }, "")));
        let answer = post(&gateway, &code.to_string()).await;
        assert_kept(&answer);
        let event = gateway.event(&id(&answer), "delivered").await;
        assert_eq!(attempts(&event), [(1, Some(code.into())), (2, Some(200))]);
    }
    assert_eq!(gateway.metric(r#"forebay_requests_total{source="s",outcome="buffered"}"#).await, 10.0);
}

#[tokio::test]
async fn while_the_application_is_away_its_events_are_kept_and_delivered_when_it_is_back() {
    let app = FakeApp::down();
    let gateway = to(&app).await;
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    let again = post(&gateway, "1").await;
    assert_eq!((again.status, id(&again), again.header("forebay-duplicate")), (200, id(&answer), Some("true")));
    let gateway = gateway.kill_and_restart().await; // what was acknowledged survives
    app.up().await;
    gateway.event(&id(&answer), "delivered").await;
    assert_eq!(app.event_ids().len(), 1);
}

#[tokio::test]
async fn an_answer_of_a_mebibyte_is_relayed_and_a_longer_one_is_not() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    for (length, kept) in [(1 << 20, false), ((1 << 20) + 1, true)] {
        app.behave(move |_| Some(says(200, vec![b'x'; length])));
        let answer = post(&gateway, &length.to_string()).await;
        assert_eq!((answer.header("forebay-buffered").is_some(), answer.status), (kept, 200));
        assert!(kept || answer.body.len() == length);
        // It was a 2xx all the same: the application has the event, and does not get it again.
        assert_eq!(attempts(&gateway.event(&id(&answer), "delivered").await), [(1, Some(200))]);
    }
}

/// An application that says this, whatever it is asked, and hangs up.
async fn blunt(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            say(stream, answer).await;
        }
    });
    url
}

/// The same behind TLS, with a certificate that nobody has signed but itself.
async fn blunt_and_self_signed(answer: &'static [u8]) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                say(stream, answer).await;
            }
        }
    });
    url
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {}
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn a_malformed_or_broken_answer_is_kept_for_later() {
    for answer in [
        &b""[..],
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ] {
        let url = blunt(answer).await;
        let config = proxied(&url, "deadline: 8s", NO_BREAKER);
        let gateway = Gateway::start(&config).await;
        assert_kept(&post(&gateway, "1").await);
    }
}

/// Both would answer 200 if they were asked.
#[tokio::test]
async fn an_application_that_cannot_do_tls_or_prove_who_it_is_is_not_asked() {
    let plain = FakeApp::start().await;
    let stranger = blunt_and_self_signed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for url in [plain.url().replace("http://", "https://"), stranger] {
        let gateway = Gateway::start(&proxied(&url, "deadline: 8s", "timeout: 60s").replace(SOON, LATER)).await;
        let answer = post(&gateway, "1").await;
        assert_kept(&answer);
        let event = gateway.event(&id(&answer), "pending").await;
        assert_eq!(attempts(&event), [(1, None)], "{url}");
        let error = event["deliveries"][0]["attempts"][0]["error"].as_str().unwrap();
        assert!(error.starts_with("cannot connect"), "{url}: {error}");
    }
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_is_neither_relayed_nor_followed() {
    let (app, elsewhere) = (FakeApp::start().await, FakeApp::start().await);
    let config = proxied(&app.url(), "deadline: 8s", &format!("timeout: 60s, {NO_BREAKER}"));
    let gateway = Gateway::start(&config).await;
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{}/s", elsewhere.url());
        app.behave(move |seen| {
            let mut answer = says(if seen.header("forebay-attempt") == "1" { code } else { 200 }, "");
            answer.headers_mut().insert("location", location.parse().unwrap());
            Some(answer)
        });
        let answer = post(&gateway, &code.to_string()).await;
        assert_kept(&answer);
        assert_eq!(answer.header("location"), None);
        let event = gateway.event(&id(&answer), "delivered").await;
        assert_eq!(attempts(&event), [(1, Some(code.into())), (2, Some(200))]);
    }
    assert!(elsewhere.seen().is_empty());
}
