//! TLS: versions of HTTP, names and time-outs.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::ingress::CertificateFiles;

/// A public side with a certificate for each of `names`, and a client that trusts them all.
struct Trusting {
    running: Running,
    roots: RootCertStore,
    _directory: tempfile::TempDir,
}

impl Trusting {
    async fn start(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut roots = RootCertStore::empty();
        let mut files = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let made = rcgen::generate_simple_self_signed([(*name).to_owned()]).unwrap();
            let pair = CertificateFiles {
                cert: directory.path().join(format!("{n}.pem")),
                key: directory.path().join(format!("{n}.key")),
            };
            std::fs::write(&pair.cert, made.cert.pem()).unwrap();
            std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
            roots.add(made.cert.der().clone()).unwrap();
            files.push(pair);
        }
        let running = Running::with(|settings| settings.listen[0].tls = files).await;
        Self { running, roots, _directory: directory }
    }

    async fn connect(&self, name: &str, protocols: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        in_time(TlsConnector::from(Arc::new(config)).connect(name, self.running.connect().await)).await
    }
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let trusting = Trusting::start(&["one.test", "*.two.test"]).await;
    for name in ["one.test", "a.two.test"] {
        trusting.connect(name, &[]).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let error = trusting.connect("three.test", &[]).await.unwrap_err().to_string();
    assert!(error.contains("one.test"), "the first serves where none matches: {error}");
}

#[tokio::test]
async fn webhooks_come_over_tls_and_a_close_is_said() {
    let mut trusting = Trusting::start(&["one.test"]).await;
    let mut stream = trusting.connect("one.test", &[b"http/1.1"]).await.unwrap();
    let request = "POST /hooks HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await.expect("a TLS end, not a cut");
    assert_eq!((status(&answer), body(&answer)), (200, "ok"));
    assert!(trusting.running.heads.recv().await.unwrap().client.tls);
}

#[tokio::test]
async fn http2_is_chosen_by_alpn() {
    let trusting = Trusting::start(&["one.test"]).await;
    let stream = trusting.connect("one.test", &[b"http/1.1", b"h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    trusting.running.tasks.spawn("client", async {
        let _ = connection.await;
    });
    let request = ::http::Request::post("https://one.test/hooks")
        .body(http_body_util::Full::new(bytes::Bytes::from("ok")))
        .unwrap();
    assert_eq!(in_time(sender.send_request(request)).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_given_up() {
    let trusting = Trusting::start(&["one.test"]).await;
    let mut stream = trusting.running.connect().await;
    let start = tokio::time::Instant::now();
    stream.write_all(&[22, 3, 1]).await.unwrap();
    let _ = in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
}
