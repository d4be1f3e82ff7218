//! The public side as the internet meets it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::support::gateway::github_to;
use crate::support::raw::{Then, raw};
use crate::support::{FakeApp, Gateway, HELLO, HELLO_SIGNATURE};

#[tokio::test]
async fn tls_from_files_speaks_http1_and_http2() {
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let config = format!(
        "ingress: {{ listen: 127.0.0.1:0, tls: {{ cert: cert.pem, key: key.pem }} }}\n\
         admin: {{ listen: 127.0.0.1:0 }}\njournal: {{ dir: {} }}\nlog: {{ format: json }}\n{}",
        dir.path().join("data").display(),
        github_to(&app.url())
    );
    std::fs::write(dir.path().join("forebay.yaml"), config).unwrap();
    let gateway = Gateway::start_in(dir).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let url = gateway.ingress.replace("http://127.0.0.1", "https://localhost") + "/webhooks/github";
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector =
            if version == Version::HTTP_2 { builder.enable_http2().build() } else { builder.enable_http1().build() };
        let client = Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build(connector);
        let request = Request::post(&url)
            .header("x-hub-signature-256", HELLO_SIGNATURE)
            .header("x-github-delivery", format!("{version:?}"))
            .body(Full::new(Bytes::from_static(HELLO)))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        response.into_body().collect().await.unwrap();
    }
    let seen = app.until("both", |seen| seen.len() == 2).await;
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == "https"));
}

#[tokio::test]
async fn broken_and_hostile_requests_store_nothing_and_the_next_good_one_goes_through() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let good = format!("Host: h\r\nConnection: close\r\nX-Hub-Signature-256: {HELLO_SIGNATURE}\r\n");
    let post = "POST /webhooks/github HTTP/1.1\r\n";
    let long = format!("X-Long: {}\r\n", "a".repeat(40 << 10));
    let many = "X-Many: 1\r\n".repeat(101);
    let cases = [
        ("body cut short", format!("{post}{good}Content-Length: 13\r\n\r\nHello"), "400"),
        (
            "no host",
            format!("{post}X-Hub-Signature-256: {HELLO_SIGNATURE}\r\nContent-Length: 13\r\n\r\nHello, World!"),
            "400",
        ),
        ("two hosts", format!("{post}{good}Host: i\r\nContent-Length: 13\r\n\r\nHello, World!"), "400"),
        ("two lengths", format!("{post}{good}Content-Length: 13\r\nContent-Length: 14\r\n\r\nHello, World!"), "400"),
        ("odd length", format!("{post}{good}Content-Length: +13\r\n\r\nHello, World!"), "400"),
        ("two codings", format!("{post}{good}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "400"),
        ("a header of 40 KiB", format!("{post}{good}{long}Content-Length: 13\r\n\r\nHello, World!"), "431"),
        ("101 headers", format!("{post}{good}{many}Content-Length: 13\r\n\r\nHello, World!"), "431"),
        ("not HTTP", "\u{16}\u{3}\u{1}\u{2}garbage\r\n\r\n".to_owned(), "400"),
        ("CONNECT", "CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n".to_owned(), "400"),
        ("declared too large", format!("{post}{good}Content-Length: 99999999999\r\n\r\n"), "413"),
        (
            "a signature in a trailer",
            format!(
                "{post}Host: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nd\r\nHello, World!\r\n0\r\nX-Hub-Signature-256: {HELLO_SIGNATURE}\r\n\r\n"
            ),
            "401",
        ),
    ];
    for (what, bytes, status) in cases {
        let then = if what == "body cut short" { Then::End } else { Then::Wait };
        let answer = raw(&gateway, bytes.as_bytes(), then).await;
        let first = answer.lines().next().unwrap_or("").to_owned();
        assert!(first.contains(status), "{what}: {first}");
    }
    let good =
        raw(&gateway, format!("{post}{good}Content-Length: 13\r\n\r\nHello, World!").as_bytes(), Then::Wait).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    app.until("the good one", |seen| seen.len() == 1).await;
    let items = gateway.get("/api/v1/events").await.json()["items"].as_array().unwrap().len();
    assert_eq!((items, app.seen().len()), (1, 1));
}

/// Nothing secret comes out anywhere, whatever is asked at whatever level of detail.
#[tokio::test]
async fn secrets_stay_secret() {
    const CANARY: &str = "canary-5f2c9a-canary";
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "{}sources:\n  t: {{ provider: gitlab, secret: {CANARY}, to: [app] }}\ndestinations:\n  app: {{ url: {} }}\n",
        crate::support::gateway::head(dir.path()).replace("level: debug", "level: trace"),
        app.url()
    );
    std::fs::write(dir.path().join("forebay.yaml"), config).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let url = format!("{}/t", gateway.ingress);
    let post = async |token: &str| {
        let headers = [("x-gitlab-token", token), ("x-gitlab-event", "Push Hook")];
        gateway.http.send(http::Method::POST, &url, &headers, b"{}").await
    };
    assert_eq!(post("wrong-token-of-a-stranger").await.status, 401);
    let stored = post(CANARY).await;
    assert_eq!(stored.status, 200);
    let id = stored.header("forebay-event-id").unwrap();
    gateway.event(id, "delivered").await;
    assert_eq!(app.seen()[0].header("x-gitlab-token"), CANARY, "the application gets it raw");

    let mut everything = gateway.log().join("\n");
    for path in ["/metrics", "/readyz", "/api/v1/events", &format!("/api/v1/events/{id}"), "/api/v1/dead-letters"] {
        everything.push_str(&gateway.get(path).await.text());
    }
    let check = crate::support::gateway::command().arg("check").arg(gateway.config()).output().await.unwrap();
    everything.push_str(&String::from_utf8_lossy(&check.stdout));
    assert!(everything.contains("***"), "the header is shown, its value is not");
    assert!(!everything.contains(CANARY) && !everything.contains("wrong-token"), "a secret came out");
}
