//! YAML into [`Config`]; nothing else knows YAML.
//!
//! The way of a file: `tree` reads it with the place of every key; `include` takes the files that it names in; `field`
//! walks the tree and fills in `${VAR}`s; `reader` collects problems; `parse` and `preset` (with `verify` and `template`) make
//! the settings out of it. What keys there are stands in `keys`.

mod diff;
mod expand;
mod field;
mod handshake;
mod include;
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

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use diff::{Change, What};
pub use expand::Env;
pub use problems::{Problem, Problems, Severity, suggest};
pub use render::render;
pub use tree::Place;

use crate::base::Name;
use crate::deliver::Destination;
use crate::source::SourceSettings;
use crate::{admin, ingress, journal, telemetry};

use reader::{Outside, Reader};

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
    /// What was written, for [`Config::diff`].
    written: diff::Written,
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

/// What reading a config came to, and what it was read from.
#[derive(Debug)]
pub struct Reading {
    /// The config and its warnings, or everything that is wrong with it.
    pub outcome: Result<(Config, Vec<Problem>), Problems>,
    /// Every file and directory that was looked at, by name, whatever came of it, those that are not there included: the
    /// config, what it includes, presets, certificates and keys, `{ file: … }`, and the directories in which patterns
    /// and `providers.dir` look. Whatever changes the outcome changes one of these, or the environment.
    pub files: Vec<PathBuf>,
}

/// Reads the config at `path`; the environment is asked through `env`.
#[must_use]
pub fn read(path: &Path, env: &Env<'_>) -> Reading {
    read_by(Reader::new(env), path)
}

fn read_by(reader: Reader<'_>, path: &Path) -> Reading {
    let config = include::open(&reader, path).and_then(|node| config(&reader, &node));
    let (problems, files) = reader.finish();
    Reading { outcome: Problems::settle(problems, config), files }
}

/// As [`read`], for those who need not know from what. Gives the warnings, too.
///
/// # Errors
/// Every problem there is, not the first alone.
pub fn load(path: &Path, env: &Env<'_>) -> Result<(Config, Vec<Problem>), Problems> {
    read(path, env).outcome
}

/// As [`load`] for a command that brings its own secret: a key whose variable is not set or whose file cannot be
/// read is as if it were absent. A source whose secret is not there has an empty keyring, with which nothing can be
/// signed.
///
/// # Errors
/// Every other problem there is.
pub fn load_what_is_there(path: &Path, env: &Env<'_>) -> Result<Config, Problems> {
    read_by(Reader::new(env).with(Outside::Spared), path).outcome.map(|(config, _)| config)
}

/// Reads `text` as the config called `file` in messages; relative paths in it are relative to `dir`.
///
/// # Errors
/// Every problem there is.
pub fn parse_str(file: &str, text: &str, dir: &Path, env: &Env<'_>) -> Result<(Config, Vec<Problem>), Problems> {
    let reader = Reader::new(env);
    let tree = reader.tree(reader.file(file, dir), text);
    let config = tree.and_then(|tree| config(&reader, &include::all(&reader, tree)));
    Problems::settle(reader.into_problems(), config)
}

fn config(reader: &Reader<'_>, node: &tree::Node) -> Option<Config> {
    if matches!(node.value, tree::Value::Null) {
        let message = "the file is empty; `forebay init` writes a first one, and `{}` stands for nothing but defaults";
        reader.add(Severity::Error, (node.file, Place { line: 1, column: 1 }), "", message.to_owned());
        return None;
    }
    let root = reader.root(node, "").map()?;
    let presets = presets::Presets::of(&root);
    let config = parse::config(&root, &presets);
    Some(Config { written: diff::Written::at(root.field()), ..config })
}

/// Reads only the private side's settings from the config at `path`, whatever the rest of it says: a command
/// that asks a running gateway needs no source's secret in its environment.
///
/// # Errors
/// The problems of that section, and of the file as a whole.
pub fn load_admin(path: &Path, env: &Env<'_>) -> Result<admin::Settings, Problems> {
    let reader = Reader::new(env);
    let settings = reader.open(path).and_then(|node| Some(parse::admin_alone(&reader.root(&node, "").map()?)));
    Problems::settle(reader.into_problems(), settings).map(|(settings, _)| settings)
}

#[cfg(test)]
mod tests;
