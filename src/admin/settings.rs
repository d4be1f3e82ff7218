//! What the private side listens on, and who may use it.

use std::net::SocketAddr;

use crate::base::Secret;

/// The private side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens. Not loopback only with a token: `config` refuses the rest.
    pub listen: SocketAddr,
    /// Lets its holder read and operate. None: everybody who reaches the address may.
    pub token: Option<Secret>,
    /// Lets its holder read.
    pub read_token: Option<Secret>,
    /// Whether `/metrics` is open to everybody although there is a token.
    pub open_metrics: bool,
}
