//! What the public side listens on, and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

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

/// One address.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// The certificates, if it speaks TLS; the first is used where no name matches.
    pub tls: Vec<CertificateFiles>,
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
