//! TLS: certificates from PEM files, chosen by the name that the client asks for, and who may connect.
//!
//! Versions 1.2 and 1.3, with the cipher suites of rustls: forward secret and authenticated, all of them. There is no
//! renegotiation and no early data, which could be replayed. Sessions are resumed by tickets under keys that the process
//! makes for itself, for each door anew whenever its certificates are read, and changes every six hours: a worker need not
//! have seen the session, none is kept, and what a former `client_ca` let in is not let in by them.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{CertificateFiles, Tls};
use crate::base::{ByteSize, open_regular};

/// The largest file of certificates; those of all public authorities together are a tenth of it.
const PEM_BYTES_MAX: ByteSize = ByteSize(4 << 20);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be opened, or holds no PEM.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate and a key that do not belong together, or of a kind that is not supported.
    #[error("{cert} and {key} cannot be used together: {why}")]
    Pair {
        /// The file with the chain.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// Certificates by which clients cannot be told.
    #[error("{path} cannot say which clients are let in: {why}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Reads the files of `tls` into a server's side of TLS, HTTP/2 preferred to HTTP/1.1.
///
/// # Errors
/// [`TlsError`] with the file's name for the first certificate or key that cannot be used.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let keys = tls.certificates.iter().map(|files| load(files, &provider)).collect::<Result<Vec<_>, _>>()?;
    let clients: Arc<dyn ClientCertVerifier> = match &tls.client_ca {
        None => Arc::new(NoClientAuth),
        Some(path) => clients_of(path, &provider)?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true; // ours is the order: none is weak, and a scanner need not wonder
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Clients that show a certificate which one of those in `path` has signed.
fn clients_of(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |why: String| TlsError::ClientCa { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// HTTP/2's name in ALPN.
pub(super) const H2: &[u8] = b"h2";

/// The certificates in a PEM file, if any.
///
/// # Errors
/// [`pem::Error`] for a file that cannot be read, or is not PEM.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_reader_iter(open(path)?).collect()
}

/// The private key in a PEM file.
///
/// # Errors
/// [`pem::Error`] for a file that cannot be read, is not PEM, or has none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, pem::Error> {
    PrivateKeyDer::from_pem_reader(open(path)?)
}

fn open(path: &Path) -> Result<impl io::BufRead, pem::Error> {
    let file = open_regular(path).map_err(pem::Error::Io)?;
    if file.metadata().map_err(pem::Error::Io)?.len() > PEM_BYTES_MAX.0 {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {PEM_BYTES_MAX}"));
        return Err(pem::Error::Io(error));
    }
    Ok(BufReader::new(file.take(PEM_BYTES_MAX.0)))
}

/// The certificates in a file, at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(path).map_err(|error| file(path, &error))?;
    if chain.is_empty() {
        let why = "there is no `BEGIN CERTIFICATE` in it".to_owned();
        return Err(TlsError::File { path: path.to_owned(), why });
    }
    Ok(chain)
}

fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain(&files.cert)?;
    let key = private_key(&files.key).map_err(|error| file(&files.key, &error))?;
    let pair = CertifiedKey::from_der(chain, key, provider).and_then(|key| {
        key.end_entity_cert().and_then(ParsedCertificate::try_from)?;
        Ok(Arc::new(key))
    });
    pair.map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            other => other.to_string(),
        };
        TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), why }
    })
}

fn file(path: &Path, error: &pem::Error) -> TlsError {
    let why = match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => "there is no unencrypted PEM private key in it".to_owned(),
        other => format!("is not PEM: {other}"),
    };
    TlsError::File { path: path.to_owned(), why }
}

/// The certificates of one address. The first serves where no name matches, or none was asked for.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let matching = asked.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        matching.or_else(|| self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(cert: &str, key: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert: directory.path().join("c.pem"), key: directory.path().join("k.pem") };
        std::fs::write(&files.cert, cert).unwrap();
        if !key.is_empty() {
            std::fs::write(&files.key, key).unwrap();
        }
        server_config(&Tls { certificates: vec![files], client_ca: None }).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong() {
        let one = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        for (cert, key, says) in [
            ("", "x", "c.pem: there is no `BEGIN CERTIFICATE`"),
            (&one.cert.pem(), "", "k.pem: cannot be read: No such file"),
            (&one.cert.pem(), "none", "k.pem: there is no unencrypted PEM private key"),
            (&one.cert.pem(), &two.signing_key.serialize_pem(), "the key is not the certificate's"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "x", "c.pem: is not PEM"),
        ] {
            let message = message(cert, key);
            assert!(message.contains(says), "{says}: {message}");
        }
    }
}
