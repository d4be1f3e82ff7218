//! YAML into [`Config`]; nothing else knows YAML.
//!
//! The way of a file: `tree` reads it with the place of every key; `reader` walks the tree, fills in `${VAR}`s and
//! collects problems; `parse` and `preset` (with `verify` and `template`) make
//! the settings out of it. What keys there are stands in `keys`.

mod expand;
mod handshake;
mod keys;
mod parse;
mod preset;
pub mod presets;
mod problems;
mod reader;
mod render;
pub mod schema;
mod template;
mod tree;
mod verify;

use std::path::Path;
use std::time::Duration;

pub use expand::Env;
pub use problems::{Problem, Problems, Severity, suggest};
pub use render::render;
pub use tree::Place;

use crate::base::Name;
use crate::deliver::Destination;
use crate::source::SourceSettings;
use crate::{admin, ingress, journal, telemetry};

/// Everything the file says, checked. What is in here cannot be wrong in itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public side.
    pub ingress: ingress::Settings,
    /// The private side.
    pub admin: admin::Settings,
    /// The journal.
    pub journal: journal::Settings,
    /// The sources, in the file's order.
    pub sources: Vec<SourceSettings>,
    /// The destinations, in the file's order.
    pub destinations: Vec<Destination>,
    /// Logging.
    pub log: telemetry::LogSettings,
    /// How long a shutdown waits for what is under way.
    pub shutdown_grace: Duration,
}

impl Config {
    /// The destination called `name`.
    #[must_use]
    pub fn destination(&self, name: &Name) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name == *name)
    }
}

/// How long a shutdown waits where nothing is said.
const GRACE: Duration = Duration::from_secs(30);

/// Reads the config at `path`; the environment is asked through `env`. Gives the warnings, too.
///
/// # Errors
/// Every problem there is, not the first alone.
pub fn load(path: &Path, env: &Env<'_>) -> Result<(Config, Vec<Problem>), Problems> {
    let (file, text) = open(path)?;
    parse_str(&file, &text, parent(path), env)
}

/// As [`load`] for a command that brings its own secret: a key whose variable is not set or whose file cannot be
/// read is as if it were absent. A source whose secret is not there has an empty keyring, with which nothing can be
/// signed.
///
/// # Errors
/// Every other problem there is.
pub fn load_what_is_there(path: &Path, env: &Env<'_>) -> Result<Config, Problems> {
    let (file, text) = open(path)?;
    let reader = reader::Reader::new(&file, parent(path), env).with(reader::Outside::Spared);
    parse_with(reader, &text).map(|(config, _)| config)
}

/// Reads `text` as the config called `file` in messages; relative paths in it are relative to `dir`.
///
/// # Errors
/// Every problem there is.
pub fn parse_str(file: &str, text: &str, dir: &Path, env: &Env<'_>) -> Result<(Config, Vec<Problem>), Problems> {
    parse_with(reader::Reader::new(file, dir, env), text)
}

fn parse_with(reader: reader::Reader<'_>, text: &str) -> Result<(Config, Vec<Problem>), Problems> {
    let config = reader.tree(text).and_then(|node| {
        let root = reader.root(&node, "").map()?;
        let presets = presets::Presets::of(&root);
        Some(parse::config(&root, &presets))
    });
    Problems::settle(reader.into_problems(), config)
}

/// Reads only the private side's settings from the config at `path`, whatever the rest of it says: a command
/// that asks a running gateway needs no source's secret in its environment.
///
/// # Errors
/// The problems of that section, and of the file as a whole.
pub fn load_admin(path: &Path, env: &Env<'_>) -> Result<admin::Settings, Problems> {
    let (file, text) = open(path)?;
    let reader = reader::Reader::new(&file, parent(path), env);
    let settings = reader.tree(&text).and_then(|node| Some(parse::admin_alone(&reader.root(&node, "").map()?)));
    Problems::settle(reader.into_problems(), settings).map(|(settings, _)| settings)
}

/// The file's name for messages, and its text.
fn open(path: &Path) -> Result<(String, String), Problems> {
    let file = path.display().to_string();
    match reader::read_limited(path, tree::FILE_BYTES_MAX) {
        Ok(text) => Ok((file, text)),
        Err(why) => Err(Problems::of_file(&file, format!("the config cannot be read: {why}"))),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests;
