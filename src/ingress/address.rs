//! Where a listener is, as the config writes it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `127.0.0.1:8080`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:/run/forebay.sock`: a socket file that the gateway makes.
    Unix(PathBuf),
    /// `fd:…`: sockets that whoever started the gateway has opened, and goes on to hold.
    Inherited(Inherited),
}

/// Which of the inherited sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inherited {
    /// `fd:`: all of them.
    All,
    /// `fd:web`: those of this name.
    Named(String),
    /// `fd:3`: the one with this number.
    Number(u32),
}

impl Address {
    /// The address and port, if it has one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Inherited(_) => None,
        }
    }

    /// Whether it is sure that only this machine reaches it. Of inherited sockets that is not known before the start.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
            Self::Inherited(_) => false,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(Inherited::All) => f.write_str("fd:"),
            Self::Inherited(Inherited::Named(name)) => write!(f, "fd:{name}"),
            Self::Inherited(Inherited::Number(number)) => write!(f, "fd:{number}"),
        }
    }
}

/// Who connects over a Unix socket, which has no addresses: somebody on this machine.
pub(super) const LOCAL_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
