//! The public side's doors: opened at the start, and changed while it runs.
//!
//! A door is one entry of `ingress.listen`. Its address is what it is known by; everything else about it (its
//! certificates, whether it wants a PROXY header) is replaced under it, and holds for connections from then on.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::inherited::{self, InheritError};
use super::socket::{self, Others, Socket};
use super::tls::{TlsError, server_config};
use super::unix::{self, FileError, SocketFile};
use super::{Address, Listen, ProxyProtocol, Settings};

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
    /// A socket file that cannot be had.
    #[error("{address}: {error}")]
    File {
        /// The address.
        address: Address,
        /// Why.
        error: FileError,
    },
    /// A socket that was not handed over, or is of no use.
    #[error("{address}: {error}")]
    Inherited {
        /// The address.
        address: Address,
        /// Why.
        error: InheritError,
    },
    /// No more descriptors, as a rule.
    #[error("{address}: {error}; raise the limit on open files (`ulimit -n`)")]
    Share {
        /// The address.
        address: Address,
        /// What the system says.
        error: io::Error,
    },
    /// Its certificates cannot be used.
    #[error("{address} with TLS: {error}")]
    Tls {
        /// The address.
        address: Address,
        /// Why.
        error: TlsError,
    },
}

/// The public side's doors. Nothing is accepted before `serve`. A drop closes none that is served.
#[derive(Debug)]
pub struct Bound {
    doors: Vec<Door>,
    /// Those that their workers may not have closed yet.
    closing: Vec<Closing>,
    workers: Vec<Listeners>,
}

/// One entry of the settings, open.
#[derive(Clone, Debug)]
struct Door {
    /// As it is configured.
    address: Address,
    /// Where it really is.
    found: Vec<Address>,
    /// Of inherited sockets, which.
    numbers: Vec<u32>,
    manner: Arc<ArcSwap<Manner>>,
    closing: CancellationToken,
    file: Option<Arc<SocketFile>>,
}

/// A door that is closed as soon as its workers get to it.
#[derive(Debug)]
struct Closing {
    found: Vec<Address>,
    /// Alive as long as one of its sockets.
    manner: Weak<ArcSwap<Manner>>,
}

/// What connections of a door go through before they speak HTTP.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) proxy_protocol: ProxyProtocol,
}

/// The listeners of one worker, those to come included. May go to the worker's thread; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Listeners(Arc<Opened>);

/// Listeners that their worker has not taken yet: at most those of the settings.
#[derive(Debug, Default)]
struct Opened {
    waiting: Mutex<Vec<Listener>>,
    more: Notify,
}

/// One worker's socket of a door.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) manner: Arc<ArcSwap<Manner>>,
    /// The door is closed while the gateway goes on.
    pub(super) closing: CancellationToken,
    pub(super) file: Option<Arc<SocketFile>>,
    pub(super) at_end: AtEnd,
}

/// What becomes of the connections in the queue when the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// They are taken in, or they would be reset.
    Drained,
    /// Whoever holds the socket has them wait for the next gateway.
    Left,
}

/// Listens on every address of `settings`, for each of `workers` (at least one).
///
/// # Errors
/// [`BindError`] for the first address or certificate that cannot be had; no socket stays open.
pub fn bind(settings: &Settings, workers: usize) -> Result<Bound, BindError> {
    let workers = (0..workers.max(1)).map(|_| Listeners::default()).collect();
    let mut bound = Bound { doors: Vec::new(), closing: Vec::new(), workers };
    bound.change(settings)?;
    Ok(bound)
}

impl Bound {
    /// Where the doors are, in the order of the settings: with the port that was found for port 0, and the
    /// addresses of inherited sockets.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.iter().flat_map(|door| &door.found).cloned().collect()
    }

    /// The listeners, worker by worker: each for a [`serve`](super::serve()).
    #[must_use]
    pub fn listeners(&self) -> Vec<Listeners> {
        self.workers.clone()
    }

    /// Changes to `settings` while the doors are served. Gives what [`Bound::addresses`] then gives.
    ///
    /// A door whose address stays the same keeps its sockets and their queues, so it refuses nobody for a moment. Its
    /// certificates are read again: to call this with the same settings is how certificates are renewed. Connections
    /// that are there go on as they began. New doors open before those that are no longer there close, and these first
    /// take in who is in their queue.
    ///
    /// # Errors
    /// [`BindError`] for the first address or certificate that cannot be had; then nothing has changed.
    pub fn change(&mut self, settings: &Settings) -> Result<Vec<Address>, BindError> {
        let manners = settings.listen.iter().map(Manner::of).collect::<Result<Vec<_>, _>>()?;
        let mut old: Vec<Option<&Door>> = self.doors.iter().map(Some).collect();
        let kept: Vec<Option<&Door>> = settings
            .listen
            .iter()
            .map(|listen| old.iter_mut().find(|door| door.is_some_and(|door| door.address == listen.address))?.take())
            .collect();
        let mut doors = Vec::new();
        let mut opened = Vec::new();
        let mut renewed = Vec::new();
        let mut numbers: Vec<u32> = kept.iter().flatten().flat_map(|door| door.numbers.clone()).collect();
        for ((listen, kept), manner) in settings.listen.iter().zip(kept).zip(manners) {
            if let Some(door) = kept {
                renewed.push((Arc::clone(&door.manner), manner));
                doors.push(door.clone());
            } else {
                let others = self.others(&listen.address);
                let (door, sockets) = Door::open(&listen.address, manner, self.workers.len(), others)?;
                if door.numbers.iter().any(|number| numbers.contains(number)) {
                    return Err(BindError::Inherited { address: door.address, error: InheritError::Twice });
                }
                numbers.extend(&door.numbers);
                doors.push(door);
                opened.push(sockets);
            }
        }
        // From here on nothing fails.
        for (manner, renewed) in renewed {
            manner.store(Arc::new(renewed));
        }
        for sockets in opened {
            for (worker, listeners) in self.workers.iter().zip(sockets) {
                worker.open(listeners);
            }
        }
        self.closing.retain(|closing| closing.manner.strong_count() > 0);
        for door in old.into_iter().flatten() {
            self.closing.push(Closing { found: door.found.clone(), manner: Arc::downgrade(&door.manner) });
            door.closing.cancel();
            if let Some(file) = &door.file {
                file.remove(); // at once: the name may come back
            }
        }
        self.doors = doors;
        Ok(self.addresses())
    }

    /// Whether one of our own sockets may be in the way of `address`: that of another address with its port.
    fn others(&self, address: &Address) -> Others {
        let port = address.tcp().map(|address| address.port());
        let closing = self.closing.iter().filter(|closing| closing.manner.strong_count() > 0);
        let closing = closing.flat_map(|closing| &closing.found);
        let mut found = self.doors.iter().flat_map(|door| &door.found).chain(closing).filter_map(Address::tcp);
        if found.any(|found| Some(found.port()) == port) { Others::Ours } else { Others::Refused }
    }
}

impl Manner {
    fn of(listen: &Listen) -> Result<Self, BindError> {
        let tls = listen.tls.as_ref().map(server_config).transpose();
        let tls = tls.map_err(|error| BindError::Tls { address: listen.address.clone(), error })?;
        Ok(Self { tls, proxy_protocol: listen.proxy_protocol })
    }
}

impl Door {
    /// Opens it, with what each worker gets of it.
    fn open(
        address: &Address,
        manner: Manner,
        workers: usize,
        others: Others,
    ) -> Result<(Self, Vec<Vec<Listener>>), BindError> {
        let share = |socket| {
            let shared = socket::shared(socket, workers);
            shared.map_err(|error| BindError::Share { address: address.clone(), error })
        };
        let mut numbers = Vec::new();
        let mut file = None;
        let sockets: Vec<Vec<Socket>> = match address {
            Address::Tcp(address) => {
                let refused =
                    |error: io::Error| BindError::Address { address: *address, cure: socket::cure(&error), error };
                vec![socket::tcp(*address, workers, others).map_err(refused)?]
            }
            Address::Unix(path) => {
                let listening = unix::listen(path, socket::BACKLOG);
                let (socket, made) = listening.map_err(|error| BindError::File { address: address.clone(), error })?;
                file = Some(Arc::new(made));
                vec![share(Socket::Unix(socket))?]
            }
            Address::Inherited(wanted) => {
                let taken = inherited::take(wanted);
                let taken = taken.map_err(|error| BindError::Inherited { address: address.clone(), error })?;
                let share = |(number, socket)| {
                    numbers.push(number);
                    share(socket)
                };
                taken.into_iter().map(share).collect::<Result<_, _>>()?
            }
        };
        let at_end = if matches!(address, Address::Inherited(_)) { AtEnd::Left } else { AtEnd::Drained };
        let name = |sockets: &Vec<Socket>| sockets.first().and_then(Socket::address).unwrap_or_else(|| address.clone());
        let door = Self {
            address: address.clone(),
            found: sockets.iter().map(name).collect(),
            numbers,
            manner: Arc::new(ArcSwap::from_pointee(manner)),
            closing: CancellationToken::new(),
            file,
        };
        let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        for socket in sockets {
            for (worker, socket) in listeners.iter_mut().zip(socket) {
                let (manner, closing, file) = (Arc::clone(&door.manner), door.closing.clone(), door.file.clone());
                worker.push(Listener { socket, manner, closing, file, at_end });
            }
        }
        Ok((door, listeners))
    }
}

impl Listeners {
    fn open(&self, listeners: Vec<Listener>) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(listeners);
        self.0.more.notify_one();
    }

    /// Those that have been opened since they were last taken; waits where there are none. Cancel-safe.
    pub(super) async fn opened(&self) -> Vec<Listener> {
        loop {
            let waiting = self.take();
            if !waiting.is_empty() {
                return waiting;
            }
            self.0.more.notified().await;
        }
    }

    /// As [`Listeners::opened`], without waiting.
    pub(super) fn take(&self) -> Vec<Listener> {
        std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(addresses: &[SocketAddr]) -> Settings {
        let listen = addresses.iter().map(|address| Listen::plain(*address)).collect();
        Settings::listening(listen)
    }

    #[tokio::test]
    async fn port_0_is_one_port_for_all_workers_of_an_address() {
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = bind(&settings(&[any, any]), 3).unwrap();
        let addresses = bound.addresses();
        assert_ne!(addresses[0].tcp().unwrap().port(), 0);
        assert_ne!(addresses[0], addresses[1]);
        assert_eq!(bound.listeners().len(), 3);
        for listeners in bound.listeners() {
            let ports: Vec<_> = listeners.opened().await.iter().filter_map(|one| one.socket.address()).collect();
            assert_eq!(ports, addresses);
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address_and_the_cure() {
        let first = bind(&settings(&["127.0.0.1:0".parse().unwrap()]), 2).unwrap();
        let taken = first.addresses()[0].tcp().unwrap();
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
