//! Listening sockets of all kinds: opened by us for each worker, or shared by all of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use socket2::{Domain, Protocol, SockRef, Type};

use super::Address;
use super::address::LOCAL_PEER;
use super::stream::Stream;

/// How many connections may wait to be accepted, a socket; the system may hold it lower.
pub(super) const BACKLOG: i32 = 1024;

/// A listening socket that does not block.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// The same socket once more: whoever is first takes the next connection.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// Where it is; none if it has no name.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok().map(Address::Tcp),
            Self::Unix(socket) => {
                socket.local_addr().ok().and_then(|name| name.as_pathname().map(|path| Address::Unix(path.to_owned())))
            }
        }
    }

    /// To wait for connections on the current runtime.
    pub(super) fn into_acceptor(self) -> io::Result<Acceptor> {
        match self {
            Self::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Acceptor::Tcp),
            Self::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Acceptor::Unix),
        }
    }

    /// The next connection that is in the queue by now.
    fn queued(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                SockRef::from(&stream).set_nonblocking(true)?;
                Ok((tokio::net::TcpStream::from_std(stream)?.into(), peer))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                SockRef::from(&stream).set_nonblocking(true)?;
                Ok((tokio::net::UnixStream::from_std(stream)?.into(), LOCAL_PEER))
            }
        }
    }
}

/// A listening socket on a runtime.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    /// The next connection, and who it is from. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, peer)| (stream.into(), peer)),
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| (stream.into(), LOCAL_PEER)),
        }
    }

    /// Those that are in the queue, up to the moment when it is empty; then the socket closes. To close it with
    /// connections in its queue would reset them, although their senders were told that they are connected.
    pub(super) fn into_queue(self) -> impl Iterator<Item = io::Result<(Stream, SocketAddr)>> {
        let mut socket = match self {
            Self::Tcp(socket) => socket.into_std().map(Socket::Tcp),
            Self::Unix(socket) => socket.into_std().map(Socket::Unix),
        }
        .ok();
        std::iter::from_fn(move || {
            let next = socket.as_ref()?.queued();
            if next.as_ref().is_err_and(|error| !is_of_one_connection(error)) {
                socket = None; // empty, or of no more use
                return None;
            }
            Some(next)
        })
    }
}

/// Whether only the connection that would have been accepted is lost; the next may be fine.
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Whether a port that one of our own sockets has may be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Any other socket on it is somebody else's.
    Refused,
    /// We have it already, at another address.
    Ours,
}

/// One socket for each of `workers`, so that they share no accept queue.
pub(super) fn tcp(wanted: SocketAddr, workers: usize, others: Others) -> io::Result<Vec<Socket>> {
    if wanted.port() != 0 && others == Others::Refused {
        // Sockets that share a port do not see that another gateway of the same user shares it too: it would
        // take a part of the connections unnoticed. One that does not share is refused instead.
        open(wanted, Port::Own)?;
    }
    let first = listen(wanted)?;
    let address = first.local_addr()?;
    let mut sockets = vec![Socket::Tcp(first)];
    for _ in 1..workers {
        sockets.push(Socket::Tcp(listen(address)?));
    }
    Ok(sockets)
}

/// One socket for all of `workers`: a kind that cannot be opened twice.
pub(super) fn shared(socket: Socket, workers: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    sockets.push(socket);
    Ok(sockets)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    Shared,
}

fn open(address: SocketAddr, port: Port) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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

/// What to do about an address that the system refuses.
pub(super) fn cure(error: &io::Error) -> &'static str {
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
