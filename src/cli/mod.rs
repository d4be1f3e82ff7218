//! The commands, a file each.

pub mod backup;
pub mod check;
pub mod client;
pub mod destinations;
pub mod doctor;
pub mod events;
pub mod init;
mod interrupt;
pub mod listen;
mod progress;
pub mod providers;
pub mod reload;
pub mod restore;
pub mod schema;
pub mod send;
pub mod serve;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::admin;
use crate::app::{Load, Origin, Watch};
use crate::config::{self, Problems, Reading};

/// The config that a command takes where none is named.
pub const CONFIG: &str = "config/forebay.yaml";

/// Bad usage, or a config that cannot be used.
const USAGE: u8 = 2;

/// A webhook receiver gateway: verifies, keeps and forwards inbound webhooks.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
struct Cli {
    /// The config file
    #[arg(short, long, global = true, value_name = "FILE", env = "FOREBAY_CONFIG", default_value = CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Args),
    /// Check a config and say everything that is wrong with it
    Check(check::Args),
    /// Check whether this machine can run it: config, disk, clock, limits, addresses
    Doctor(doctor::Args),
    /// Print what a config may say: JSON Schema, or every key with its default
    Schema(schema::Args),
    /// Write a first config to start from
    Init(init::Args),
    /// Show the providers whose webhooks can be verified, built in or from the config
    Providers(providers::Args),
    /// Send a webhook as a provider would, signed
    Send(Box<send::Args>),
    /// Send what a running gateway's source takes on to an application under development, too
    Listen(listen::Args),
    /// List, show, replay and erase what a running gateway has kept
    Events(events::Args),
    /// List the destinations of a running gateway, pause them and let them go on
    Destinations(destinations::Args),
    /// Write all that a running gateway has kept into one file
    Backup(backup::Args),
    /// Unpack a backup into a new directory
    Restore(restore::Args),
    /// Make a running gateway read its config again
    Reload(reload::Args),
    /// Say in what a running gateway's config differs from its file
    Diff(reload::Args),
    /// List what could not be delivered
    #[command(name = "dead-letters")]
    DeadLetters(events::DeadLettersArgs),
}

/// Runs the command that the process was called with. Exit codes: 0 done, 1 failed, 2 usage or config, 3 another
/// process holds the journal.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS, // e.g. `| head`
        Err(error) => {
            anstream::eprintln!("forebay: {error:#}");
            if error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let path = cli.config.as_path();
    match cli.command {
        Command::Serve(args) => {
            let path = args.file.as_deref().unwrap_or(path);
            let load = loader(path.to_owned());
            let Reading { outcome, files } = load();
            match outcome {
                Ok((config, warnings)) => {
                    // What comes through a pipe can be read but once.
                    let watch = if args.no_watch || !path.is_file() { Watch::Off } else { Watch::Files };
                    serve::run(config, &warnings, Origin { files, load, watch })
                }
                Err(problems) => {
                    let code = refused(path, &problems);
                    anstream::eprintln!("forebay: nothing was started");
                    hint_at_init(path);
                    code
                }
            }
        }
        Command::Check(args) => check::run(&args, path),
        Command::Doctor(args) if args.kills().is_some() => crash(&args, path),
        Command::Doctor(args) => match config::load(path, &environment) {
            Ok((config, warnings)) => block_on(doctor::run(args, path, config, &warnings)),
            Err(problems) => {
                if args.json {
                    doctor::print_unusable(path, &problems)?;
                }
                let code = refused(path, &problems);
                hint_at_init(path);
                code
            }
        },
        Command::Schema(args) => schema::run(&args),
        Command::Init(args) => init::run(&args, path),
        Command::Providers(args) => match if_there(path, |path| config::presets::own(path, &environment)) {
            Ok(own) => providers::run(&args, &own.unwrap_or_default()),
            Err(_) => {
                let path = path.display();
                anstream::eprintln!(
                    "forebay: {path} cannot be used, so only built-in presets are shown; `forebay check` says why"
                );
                providers::run(&args, &[])
            }
        },
        Command::Send(args) => match if_there(path, |path| args.load(path, &environment)) {
            Ok(config) => block_on(send::run(*args, config.flatten())),
            Err(problems) => refused(path, &problems),
        },
        Command::Listen(args) => match admin_settings(path) {
            Ok(settings) => block_on(listen::run(args, settings.as_ref())),
            Err(problems) => refused(path, &problems),
        },
        Command::Events(args) => match admin_settings(path) {
            Ok(settings) => block_on(events::run(args, settings.as_ref())),
            Err(problems) => refused(path, &problems),
        },
        Command::Destinations(args) => match admin_settings(path) {
            Ok(settings) => block_on(destinations::run(args, settings.as_ref())),
            Err(problems) => refused(path, &problems),
        },
        Command::Backup(args) => match admin_settings(path) {
            Err(problems) if args.asks_a_gateway() => refused(path, &problems),
            settings => events::told(block_on(backup::run(args, settings.ok().flatten().as_ref()))),
        },
        Command::Restore(args) => match &args.dir {
            Some(dir) => restore::run(&args, dir),
            None => match config::load(path, &environment) {
                Ok((config, _)) => restore::run(&args, &config.journal.dir),
                Err(problems) => {
                    let code = refused(path, &problems);
                    anstream::eprintln!("forebay: --dir says where to restore to without a config");
                    code
                }
            },
        },
        Command::Reload(args) => reload(reload::Wanted::Reload, args, path),
        Command::Diff(args) => reload(reload::Wanted::Diff, args, path),
        Command::DeadLetters(args) => match admin_settings(path) {
            Ok(settings) => block_on(events::run_dead_letters(args, settings.as_ref())),
            Err(problems) => refused(path, &problems),
        },
    }
}

/// `doctor --crash`: beside the config's journal, if no other place is named; without a config beside the default one.
fn crash(args: &doctor::Args, path: &Path) -> anyhow::Result<ExitCode> {
    let kills = args.kills().unwrap_or_default();
    if let Some(dir) = args.dir() {
        return block_on(doctor::crash(args, kills, &dir));
    }
    match if_there(path, |path| config::load_what_is_there(path, &environment)) {
        Ok(config) => {
            let journal = config.map_or_else(|| PathBuf::from("data"), |config| config.journal.dir);
            let journal = std::path::absolute(journal)?;
            block_on(doctor::crash(args, kills, journal.parent().unwrap_or(Path::new("/"))))
        }
        Err(problems) => refused(path, &problems),
    }
}

/// A gateway whose address is given is asked even if the file cannot be read: it says better what is wrong with it.
fn reload(wanted: reload::Wanted, args: reload::Args, path: &Path) -> anyhow::Result<ExitCode> {
    match admin_settings(path) {
        Err(problems) if !args.names_the_gateway() => refused(path, &problems),
        settings => block_on(reload::run(wanted, args, settings.ok().flatten().as_ref())),
    }
}

/// Reads the config at `path` whenever it is called.
fn loader(path: PathBuf) -> Load {
    Arc::new(move || config::read(&path, &environment))
}

fn admin_settings(path: &Path) -> Result<Option<admin::Settings>, Problems> {
    if_there(path, |path| config::load_admin(path, &environment))
}

/// Some commands can do without a config: only one that was asked for has to be there.
fn if_there<T>(path: &Path, load: impl FnOnce(&Path) -> Result<T, Problems>) -> Result<Option<T>, Problems> {
    if path == Path::new(CONFIG) && !path.exists() { Ok(None) } else { load(path).map(Some) }
}

/// Says why a config cannot be used.
fn refused(path: &Path, Problems(problems): &Problems) -> anyhow::Result<ExitCode> {
    for problem in problems {
        anstream::eprintln!("{problem}");
    }
    anstream::eprintln!("forebay: {} cannot be used", path.display());
    Ok(ExitCode::from(USAGE))
}

/// Where there is no config at all, says how to get one.
fn hint_at_init(path: &Path) {
    if !path.exists() {
        anstream::eprintln!("forebay: `forebay init {}` writes a first one", path.display());
    }
}

/// Something that cannot be done as it was asked for: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Usage(anyhow::Error);

fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// The variable `name` of this process, where it is set and is text.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
