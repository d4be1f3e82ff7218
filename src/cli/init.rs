//! `forebay init`: a first config to start from.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

/// Writes a commented config to start from.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it. A file that is there already is left alone.
    file: Option<PathBuf>,
}

/// The config that is written: the repository's own example, which a test holds to be sound.
pub const STARTER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/forebay.yaml"));

/// Writes the config and says what to do next; 2 where there is a file already.
///
/// # Errors
/// The file or a directory above it cannot be written.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref().unwrap_or(config);
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    }
    let mut opened = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            anstream::eprintln!(
                "{} is there already and was left alone; name another file, or move it away",
                file.display()
            );
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be written", file.display())),
    };
    opened.write_all(STARTER.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))?;
    std::io::stdout().write_all(next_commands(&file.display().to_string()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What to type next: the variables that the config needs, then `check` and `serve`.
fn next_commands(file: &str) -> String {
    let mut text = format!("Wrote {file}. Next:\n\n");
    for variable in variables(STARTER) {
        text.push_str(&format!(
            "  export {variable}=\"$(openssl rand -hex 32)\"  # the sender is told the same secret\n"
        ));
    }
    text.push_str(&format!("  forebay check {file}\n  forebay serve {file}\n"));
    text
}

/// The variables without a default that stand outside of comments.
fn variables(yaml: &str) -> impl Iterator<Item = &str> {
    let lines = yaml.lines().filter(|line| !line.trim_start().starts_with('#'));
    let after = lines.flat_map(|line| line.split("${").skip(1));
    after.filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).filter(|name| !name.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/forebay.yaml");
        let args = Args { file: None };
        assert_eq!(run(&args, &file).unwrap(), ExitCode::SUCCESS);
        assert_eq!(fs::read_to_string(&file).unwrap(), STARTER);

        fs::write(&file, "mine").unwrap();
        assert_eq!(run(&args, &file).unwrap(), ExitCode::from(2));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn the_next_commands_set_what_the_config_needs() {
        let yaml = "a: ${ONE}\n# b: ${NOT}\nc: \"${TWO:-x}, ${THREE}\"\n";
        assert_eq!(variables(yaml).collect::<Vec<_>>(), ["ONE", "THREE"]);
        assert_eq!(variables(STARTER).count(), 1);
        assert!(next_commands("a.yaml").ends_with("  forebay serve a.yaml\n"));
    }
}
