//! The public side, changed while it runs: where it listens, its certificates, its limits.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{KeepAlive, open_to};
use crate::support::gateway::{PATIENCE, head};
use crate::support::{FakeApp, Gateway, reserve};

impl Gateway {
    /// Puts `ingress` in force in place of the one of [`head`].
    pub(super) async fn reload_ingress(&self, ingress: &str, rest: &str) -> serde_json::Value {
        let dir = self.config().parent().unwrap().to_owned();
        self.write_whole(&(head(&dir).replacen("ingress: { listen: 127.0.0.1:0 }", ingress, 1) + rest));
        let answer = self.post("/api/v1/reload", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

#[tokio::test]
async fn addresses_come_and_go_and_connections_stay() {
    let app = FakeApp::start().await;
    let old = reserve(); // bound by us, and never listened on: SO_REUSEADDR lets the gateway have it
    let gateway = Gateway::start_with(&format!("listen: \"{old}\""), &open_to(&app.url())).await;
    let mut connection = KeepAlive::open(&gateway).await;
    connection.begin("/open", "", "1").await;
    assert_eq!(connection.finish("1").await, 200);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = gateway.config().parent().unwrap().to_owned();
    let busy = format!("ingress: {{ listen: [127.0.0.1:0, \"{}\"] }}", taken.local_addr().unwrap());
    gateway.write_whole(&(head(&dir).replacen("ingress: { listen: 127.0.0.1:0 }", &busy, 1) + &open_to(&app.url())));
    let refused = gateway.post("/api/v1/reload", "").await;
    assert_eq!(refused.status, 422);
    let problem = refused.json()["problems"][0].clone();
    assert!(problem["path"] == "ingress.listen" && problem.to_string().contains("another program"), "{problem}");

    let new = reserve();
    let ingress = format!("ingress: {{ listen: \"{new}\" }}");
    gateway.reload_ingress(&ingress, &open_to(&app.url())).await;
    let mut elsewhere = KeepAlive(TcpStream::connect(new).await.unwrap());
    elsewhere.begin("/open", "", "2").await;
    assert_eq!(elsewhere.finish("2").await, 200);
    connection.begin("/open", "", "3").await;
    assert_eq!(connection.finish("3").await, 200, "a connection outlives the address it came by");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while TcpStream::connect(old).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the old address is still there");
        tokio::task::yield_now().await;
    }
}

fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("key.new"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.new"), made.cert.pem()).unwrap();
    std::fs::rename(dir.join("key.new"), dir.join("key.pem")).unwrap();
    std::fs::rename(dir.join("cert.new"), dir.join("cert.pem")).unwrap();
    made.cert.der().clone()
}

async fn connect(gateway: &Gateway, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.ingress.strip_prefix("http://").unwrap()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn status(stream: &mut TlsStream<TcpStream>, path: &str) -> u16 {
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it was closed");
    }
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

/// Nobody says a word: the files alone are renewed, as a renewing tool does it.
#[tokio::test]
async fn certificates_rotate_by_themselves_and_connections_stay() {
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let first = certificate(dir.path());
    let tls = "ingress: { listen: 127.0.0.1:0, tls: { cert: cert.pem, key: key.pem } }";
    let text = head(dir.path()).replacen("ingress: { listen: 127.0.0.1:0 }", tls, 1) + &open_to(&app.url());
    std::fs::write(dir.path().join("forebay.yaml"), text).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let mut old = connect(&gateway, &first).await.unwrap();
    assert_eq!(status(&mut old, "/open").await, 200);

    let second = certificate(gateway.config().parent().unwrap());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut new = loop {
        match connect(&gateway, &second).await {
            Ok(stream) => break stream,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(connect(&gateway, &first).await.is_err());
    assert_eq!((status(&mut new, "/open").await, status(&mut old, "/open").await), (200, 200));

    // A key that is not the certificate's: the one before stays, and somebody hears of it.
    let stray = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(gateway.config().with_file_name("key.pem"), stray.signing_key.serialize_pem()).unwrap();
    let refused = gateway.post("/api/v1/reload", "").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("cannot be used together"), "{}", refused.text());
    assert!(connect(&gateway, &second).await.is_ok());
}

/// Limits of requests hold for the next request, those of connections for the next connection.
#[tokio::test]
async fn limits_change() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let mut connection = KeepAlive::open(&gateway).await;
    connection.begin("/healthz", "", "x").await;
    assert_eq!(connection.finish("x").await, 404);

    let ingress =
        "ingress: { listen: 127.0.0.1:0, health_path: /healthz, limits: { headers: 4, in_flight_bytes: 1MiB } }";
    let rest = open_to(&app.url()).replace("verify: none,", "verify: none, body_limit: 100KiB,");
    gateway.reload_ingress(ingress, &rest).await;
    let probe = gateway.http.get(&format!("{}/healthz", gateway.ingress)).await;
    assert_eq!((probe.status, probe.text().as_str()), (200, "ok"));
    let headers = [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")];
    let url = format!("{}/open", gateway.ingress);
    let fresh = crate::support::http::Http::new();
    assert_eq!(fresh.send(http::Method::POST, &url, &headers, b"x").await.status, 431);
    let large = vec![b'x'; 101 << 10];
    assert_eq!(fresh.send(http::Method::POST, &url, &[], &large).await.status, 413);
}
