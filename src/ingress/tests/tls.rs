//! TLS: versions of HTTP, names and time-outs.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::ingress::{CertificateFiles, Tls};

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
        let running = Running::with(|settings| {
            settings.listen[0].tls = Some(Tls { certificates: files, client_ca: None });
        })
        .await;
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

/// Certificates that an authority signed, in files.
struct Authority {
    directory: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: rcgen::Issuer::new(params, key) }
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn signs(&self, name: &str) -> Shown {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

/// What a client shows.
type Shown = (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

impl Trusting {
    /// Settings that differ from those at the start as `change` says.
    fn settings(&self, change: impl FnOnce(&mut Tls)) -> Settings {
        let files = |name: &str| CertificateFiles {
            cert: self._directory.path().join(format!("{name}.pem")),
            key: self._directory.path().join(format!("{name}.key")),
        };
        let mut tls = Tls { certificates: vec![files("0")], client_ca: None };
        change(&mut tls);
        let listen = vec![Listen { tls: Some(tls), ..Listen::plain(LOOPBACK) }];
        Settings::listening(listen)
    }

    fn client(&self, shown: Option<Shown>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        match shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        }
    }

    /// Asks over a new connection. An error is one of TLS: in TLS 1.3 a client is refused after its own handshake.
    async fn ask(&self, config: &Arc<ClientConfig>) -> io::Result<(String, TlsStream<TcpStream>)> {
        let name = ServerName::try_from("one.test").unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let mut stream = in_time(connector.connect(name, self.running.connect().await)).await?;
        stream.write_all(b"GET /hooks HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        in_time(stream.read_to_string(&mut answer)).await?;
        Ok((answer, stream))
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_right_authority_is_not_let_in() {
    let (ours, other) = (Authority::new(), Authority::new());
    let mut trusting = Trusting::start(&["one.test"]).await;
    let settings = trusting.settings(|tls| tls.client_ca = Some(ours.file()));
    trusting.running.bound.change(&settings).unwrap();
    let good = Arc::new(trusting.client(Some(ours.signs("client.test"))));
    assert_eq!(status(&trusting.ask(&good).await.unwrap().0), 200);
    for shown in [None, Some(other.signs("client.test"))] {
        let config = Arc::new(trusting.client(shown));
        let error = trusting.ask(&config).await.unwrap_err().to_string();
        assert!(error.contains("alert"), "{error}");
    }
    trusting.running.heads.recv().await.unwrap();
    assert!(trusting.running.heads.try_recv().is_err(), "one request came through");

    // A session that the former authority let in is not resumed under another one.
    let settings = trusting.settings(|tls| tls.client_ca = Some(other.file()));
    trusting.running.bound.change(&settings).unwrap();
    assert!(trusting.ask(&good).await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_by_ticket() {
    let trusting = Trusting::start(&["one.test"]).await;
    let config = Arc::new(trusting.client(None));
    for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let (answer, stream) = trusting.ask(&config).await.unwrap();
        assert_eq!(status(&answer), 200);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let mut trusting = Trusting::start(&["one.test"]).await;
    let mut before = trusting.connect("one.test", &[]).await.unwrap();
    let made = rcgen::generate_simple_self_signed(["one.test".to_owned()]).unwrap();
    let settings = trusting.settings(|_tls| {});
    let files = settings.listen[0].tls.as_ref().unwrap().certificates[0].clone();
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    let error = trusting.running.bound.change(&settings).unwrap_err().to_string();
    assert!(error.contains("the key is not the certificate's"), "{error}");
    trusting.connect("one.test", &[]).await.expect("the old one serves as long as the new one is half there");

    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    trusting.running.bound.change(&settings).unwrap();
    assert!(trusting.connect("one.test", &[]).await.is_err(), "not trusted yet: it is the new one");
    trusting.roots.add(made.cert.der().clone()).unwrap();
    trusting.connect("one.test", &[]).await.unwrap();
    before.write_all(b"GET /hooks HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    in_time(before.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 200);
}
