//! `forebay schema`: what a config may say, for editors and for people.

use std::io::Write;
use std::process::ExitCode;

use crate::config::schema::{Document, defaults, json_schema};

/// Prints the JSON Schema of the config.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print every key with its default instead, as commented YAML.
    #[arg(long, conflicts_with = "preset")]
    defaults: bool,
    /// Print the schema of a preset file instead.
    #[arg(long)]
    preset: bool,
}

/// Prints what `args` ask for.
///
/// # Errors
/// The standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let page = if args.defaults {
        defaults()
    } else {
        let document = if args.preset { Document::Preset } else { Document::Config };
        format!("{:#}\n", json_schema(document))
    };
    std::io::stdout().write_all(page.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
