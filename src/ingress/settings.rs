//! What the public side listens on, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Address;
use crate::base::ByteSize;
use crate::limit::RateLimit;

/// The public side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; at least one.
    pub listen: Vec<Listen>,
    /// The proxies whose word on who sent a request is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// A path that answers 200 for load balancers, if wanted.
    pub health_path: Option<String>,
    /// Paths of sources, as patterns, a part of which is secret: a request's path that is like one is not logged.
    pub secret_paths: Vec<String>,
    /// Its limits.
    pub limits: Limits,
}

impl Settings {
    /// Listening so, and nothing else said.
    #[must_use]
    pub fn listening(listen: Vec<Listen>) -> Self {
        Self {
            listen,
            trusted_proxies: Vec::new(),
            health_path: None,
            secret_paths: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where; it is what tells listeners apart when the settings change.
    pub address: Address,
    /// TLS, if it speaks that.
    pub tls: Option<Tls>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
}

impl Listen {
    /// Plain HTTP at `address`.
    #[must_use]
    pub fn plain(address: impl Into<Address>) -> Self {
        Self { address: address.into(), tls: None, proxy_protocol: ProxyProtocol::Off }
    }
}

/// Whether a proxy says, in front of everything else, whom a connection is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// It does not: a PROXY header is no HTTP.
    #[default]
    Off,
    /// It must: a connection without a PROXY header is closed.
    Required,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is used where no name matches.
    pub certificates: Vec<CertificateFiles>,
    /// Whose certificates clients must show, a PEM file; nobody need show one if none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Limits on connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Those of one client at the same time: an IPv4 address or an IPv6 /64. Trusted proxies and loopback are exempt.
    pub per_client: usize,
    /// Bytes of a request's head.
    pub header_bytes: ByteSize,
    /// Header lines of a request.
    pub headers: usize,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// For a whole body.
    pub body_timeout: Duration,
    /// Bytes a second that a body must keep up after its first 5 s; none is no minimum.
    pub body_min_rate: Option<ByteSize>,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A connection whose peer reads nothing of what is sent to it is closed after this.
    pub write_timeout: Duration,
    /// Bytes of requests held at the same time.
    pub in_flight_bytes: ByteSize,
    /// What a client may send that fails verification, at all sources together; any number if none.
    pub unverified: Option<RateLimit>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_client: 1024,
            header_bytes: ByteSize(32 << 10),
            headers: 100,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_min_rate: Some(ByteSize(1 << 10)),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            in_flight_bytes: ByteSize(64 << 20),
            unverified: None,
        }
    }
}
