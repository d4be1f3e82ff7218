//! Sockets: for each address one a worker, so that workers share no accept queue.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};

use super::tls::{TlsError, server_config};
use super::{Listen, Settings};

/// How many connections may wait to be accepted, a socket; the system may hold it lower.
const BACKLOG: i32 = 1024;

/// Why the public side cannot listen. The cause stands in the message, before its cure, and is no source beside it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address that cannot be had.
    #[error("{address}: {error}; {cure}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
        /// What to do.
        cure: &'static str,
    },
    /// Its certificates cannot be used.
    #[error("{address} with TLS: {error}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: TlsError,
    },
}

/// The public side's sockets, listening. Nothing is accepted before `serve`.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<SocketAddr>,
    workers: Vec<Listeners>,
}

/// The sockets of one worker, one for each address. May go to the worker's thread.
#[derive(Debug)]
pub struct Listeners(pub(super) Vec<Listener>);

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Listens on every address of `settings`, with a socket for each of `workers` (at least one).
///
/// # Errors
/// [`BindError`] for the first address or certificate that cannot be had; no socket stays open.
pub fn bind(settings: &Settings, workers: usize) -> Result<Bound, BindError> {
    let workers = workers.max(1);
    let mut bound = Bound { addresses: Vec::new(), workers: (0..workers).map(|_| Listeners(Vec::new())).collect() };
    for Listen { address, tls } in &settings.listen {
        let tls = match tls.as_slice() {
            [] => None,
            files => Some(server_config(files).map_err(|error| BindError::Tls { address: *address, error })?),
        };
        let refused = |error: io::Error| BindError::Address { address: *address, cure: cure(&error), error };
        let (actual, sockets) = sockets(*address, workers).map_err(refused)?;
        bound.addresses.push(actual);
        for (worker, socket) in bound.workers.iter_mut().zip(sockets) {
            worker.0.push(Listener { socket, tls: tls.clone() });
        }
    }
    Ok(bound)
}

impl Bound {
    /// The addresses in the order of the settings, with the port that was found for port 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets, worker by worker.
    #[must_use]
    pub fn into_workers(self) -> Vec<Listeners> {
        self.workers
    }
}

fn sockets(wanted: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if wanted.port() != 0 {
        // Sockets that share a port do not see that another gateway of the same user shares it too: it would
        // take a part of the connections unnoticed. One that does not share is refused instead.
        open(wanted, Port::Own)?;
    }
    let first = listen(wanted)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(listen(address)?);
    }
    Ok((address, sockets))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    Shared,
}

fn open(address: SocketAddr, port: Port) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // a restart need not wait for the last connections' TIME_WAIT
    socket.set_reuse_port(port == Port::Shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, Port::Shared)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program, or another entry of `ingress.listen`, has this port: stop it or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher port, or grant CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address: use 0.0.0.0 or [::] for all of them"
        }
        _ => "choose another address under `ingress.listen`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::Limits;

    fn settings(addresses: &[SocketAddr]) -> Settings {
        let listen = addresses.iter().map(|address| Listen { address: *address, tls: Vec::new() }).collect();
        Settings {
            listen,
            trusted_proxies: Vec::new(),
            health_path: None,
            secret_paths: Vec::new(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn port_0_is_one_port_for_all_workers_of_an_address() {
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = bind(&settings(&[any, any]), 3).unwrap();
        let addresses = bound.addresses().to_vec();
        assert_ne!(addresses[0].port(), 0);
        assert_ne!(addresses[0], addresses[1]);
        let workers = bound.into_workers();
        assert_eq!(workers.len(), 3);
        for Listeners(listeners) in &workers {
            let ports: Vec<_> = listeners.iter().map(|one| one.socket.local_addr().unwrap()).collect();
            assert_eq!(ports, addresses);
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address_and_the_cure() {
        let first = bind(&settings(&["127.0.0.1:0".parse().unwrap()]), 2).unwrap();
        let taken = first.addresses()[0];
        let message = bind(&settings(&[taken]), 2).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{taken}: Address already in use")), "{message}");
        assert!(message.contains("choose another port"), "{message}");
        assert!(std::error::Error::source(&bind(&settings(&[taken]), 2).unwrap_err()).is_none(), "said once");
        drop(first);
        bind(&settings(&[taken]), 2).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        let message = bind(&settings(&["192.0.2.1:0".parse().unwrap()]), 1).unwrap_err().to_string();
        assert!(message.contains("no interface of this machine"), "{message}");
    }
}
