//! Forebay: a webhook receiver gateway.
//!
//! The modules in reading order; each uses only those above it (`tests/tidy.rs` holds that):
//!
//! - [`base`], [`telemetry`]: clock, secrets, units, tasks; metrics and logs
//! - [`event`]: the words: event, delivery, attempt
//! - [`router`], [`limit`], [`admit`], [`provider`], [`journal`], [`deliver`], [`index`]: the stages
//! - [`source`]: one endpoint, its stages bound together
//! - [`intake`]: **story 1**: one webhook, from request head to answer
//! - [`dispatch`]: **story 2**: one delivery, from journal to delivered or dead
//! - [`ingress`], [`admin`]: the public and the private side
//! - [`config`]: YAML into settings
//! - [`app`]: settings into a running gateway
//! - [`cli`]: the commands

pub mod admin;
pub mod admit;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod deliver;
pub mod dispatch;
pub mod event;
pub mod index;
pub mod ingress;
pub mod intake;
pub mod journal;
pub mod limit;
pub mod provider;
pub mod router;
pub mod source;
pub mod telemetry;
