//! The built binary, tried from outside: each test states a promise that a user could read.
//!
//! One binary for all of them, so that they link once. `support` starts the gateway, an application and a sender.

// A test that meets something it did not expect is to fail there and then.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
// The bans on `tokio::spawn` and the like are for the gateway.
#![allow(clippy::disallowed_methods)]

mod backup;
mod bad_configs;
mod bounds;
mod canaries;
mod cli;
mod crash;
mod dedupe;
mod delivery;
mod destinations;
mod doctor;
mod doors;
mod edge;
mod erase;
mod floods;
mod framing;
mod full;
mod handshakes;
mod intake;
mod journals;
mod limits;
mod listen;
mod no_index;
mod orphans;
mod presets;
mod proxy;
mod reload;
mod restarts;
mod schemes;
mod sealed;
mod shares;
mod support;
mod tail;
