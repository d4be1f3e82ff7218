//! Certificates from PEM files, chosen by the name that the client asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::CertificateFiles;

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
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Reads `files` into a server's side of TLS 1.2 and 1.3, HTTP/2 preferred to HTTP/1.1.
///
/// # Errors
/// [`TlsError`] with the file's name for the first certificate or key that cannot be used.
pub fn server_config(files: &[CertificateFiles]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let keys = files.iter().map(|files| load(files, &provider)).collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// HTTP/2's name in ALPN.
pub(super) const H2: &[u8] = b"h2";

fn load(files: &CertificateFiles, provider: &rustls::crypto::CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file(&files.cert, &error))?;
    if chain.is_empty() {
        let why = "there is no `BEGIN CERTIFICATE` in it".to_owned();
        return Err(TlsError::File { path: files.cert.clone(), why });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file(&files.key, &error))?;
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

fn file(path: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    let why = match error {
        rustls_pki_types::pem::Error::Io(error) => format!("cannot be read: {error}"),
        rustls_pki_types::pem::Error::NoItemsFound => "there is no unencrypted PEM private key in it".to_owned(),
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
        server_config(&[files]).unwrap_err().to_string()
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
