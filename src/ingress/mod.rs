//! The public side: listeners, TLS, and what a sender is told.
//!
//! [`bind()`] opens the sockets, [`serve()`] runs one worker's share of them, [`Bound::change`] opens and closes some
//! meanwhile. A connection goes through `connection` (PROXY header, handshake, HTTP/1.1 or HTTP/2) while it has one of
//! `places`; `outgoing` ends it where its peer does not read, `frames` where it sends HTTP/2 frames that ask for nothing;
//! `strict` refuses what is ambiguous before the HTTP library sees it. Each of its requests goes through `answer`:
//! `forwarded` finds out who sent it, the [`Handler`] takes the webhook, and `respond` writes what became of it.

mod address;
mod answer;
mod bind;
mod connection;
mod drive;
mod edge;
mod forwarded;
mod frames;
mod inherited;
mod outgoing;
mod places;
mod proxy_protocol;
mod respond;
mod resting;
mod serve;
mod settings;
mod socket;
mod stream;
mod strict;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod unix;
mod watch;

use tower::Service;

use crate::intake::{Inbound, Receipt, Refusal};

pub use address::{Address, Inherited};
pub use bind::{BindError, Bound, Listeners, bind};
pub use edge::Edge;
pub use inherited::InheritError;
pub use serve::serve;
pub use settings::{CertificateFiles, Limits, Listen, ProxyProtocol, Settings, Tls};

/// Who takes webhooks: any tower service from a request to its receipt or refusal, such as a `service_fn` around
/// the intake. It is cloned for each connection and each request, so it is a handle.
pub trait Handler:
    Service<Inbound, Response = Receipt, Error = Refusal, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Handler for S where
    S: Service<Inbound, Response = Receipt, Error = Refusal, Future: Send> + Clone + Send + Sync + 'static
{
}
