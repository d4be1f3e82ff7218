//! `forebay check`: every problem of a config and its presets, with its place and its cure.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::admin::ConfigProblem;
use crate::base::open_regular;
use crate::config::{self, Problem, Problems, Severity};

use super::{doctor, environment};

/// Checks a config and its presets, and says everything that is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config.
    file: Option<PathBuf>,
    /// Connect to every destination, too
    #[arg(long)]
    connect: bool,
    /// Take warnings for errors: exit with 2 if there is one
    #[arg(long)]
    strict: bool,
    /// Print JSON for a program.
    #[arg(long)]
    json: bool,
}

/// The exit code for a config that cannot be used.
const BAD_CONFIG: u8 = 2;

/// Checks the config: 0 where it can be used, 2 where it cannot, or has a warning and is to have none; 1 where a destination was to be connected to and cannot be.
///
/// # Errors
/// The standard output cannot be written.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref().unwrap_or(config);
    let (problems, destinations) = match config::load(file, &environment) {
        Ok((config, warnings)) => (warnings, config.destinations),
        Err(Problems(problems)) => (problems, Vec::new()),
    };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let reached = match args.connect {
        true => super::block_on(async { Ok(doctor::destinations(&destinations).await.0) })?,
        false => Vec::new(),
    };
    if args.json {
        let list: Vec<_> = problems.iter().map(ConfigProblem::from).collect();
        let mut report = json!({ "usable": errors == 0, "errors": errors, "warnings": warnings, "problems": list });
        if let Some(report) = report.as_object_mut().filter(|_| args.connect) {
            report.insert("connections".to_owned(), reached.iter().map(doctor::json).collect());
        }
        writeln!(std::io::stdout(), "{report:#}")?;
    } else {
        print(&problems)?;
        let found = format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
        writeln!(std::io::stdout(), "{}: {found}", file.display())?;
        if !reached.is_empty() {
            doctor::print(&reached, false)?;
        }
    }
    super::hint_at_init(file);
    let unreachable = reached.iter().any(|check| check.verdict == doctor::Verdict::Fail);
    let refused = if args.strict { errors + warnings } else { errors };
    Ok(match refused {
        0 if unreachable => ExitCode::FAILURE,
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(BAD_CONFIG),
    })
}

/// Prints problems to the standard output: drawn for a terminal, a line each for a program.
///
/// # Errors
/// The standard output cannot be written.
pub fn print(problems: &[Problem]) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    if !std::io::stdout().is_terminal() {
        return problems.iter().try_for_each(|problem| writeln!(out, "{problem}"));
    }
    let mut texts: HashMap<&str, Option<String>> = HashMap::new();
    for problem in problems {
        let text = texts.entry(&problem.file).or_insert_with(|| text(&problem.file));
        writeln!(out, "{}\n", config::render(problem, text.as_deref()))?;
    }
    Ok(())
}

/// A file's text; none of a pipe, which has given its text already.
fn text(file: &str) -> Option<String> {
    io::read_to_string(open_regular(Path::new(file)).ok()?).ok()
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_cannot_be_used_ends_in_2() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("forebay.yaml");
        for (text, code) in [("shutdown_grace: 5s\n", ExitCode::SUCCESS), ("shutdown_grace: 5\n", ExitCode::from(2))] {
            std::fs::write(&file, text).unwrap();
            let strict = Args { file: None, connect: false, strict: true, json: false };
            assert_eq!(run(&strict, &file).unwrap(), ExitCode::from(2), "there is a warning");
            for json in [false, true] {
                assert_eq!(
                    run(&Args { file: None, connect: false, strict: false, json }, &file).unwrap(),
                    code,
                    "{text}"
                );
            }
        }
        let file = dir.path().join("missing.yaml");
        assert_eq!(
            run(&Args { file: None, connect: false, strict: false, json: false }, &file).unwrap(),
            ExitCode::from(2)
        );
    }

    #[test]
    fn a_program_gets_the_place_in_parts() {
        let problems =
            config::parse_str("a.yaml", "log: { levl: info }", std::path::Path::new(""), &|_| None).unwrap_err();
        let wanted = json!({
            "severity": "error", "file": "a.yaml", "line": 1, "column": 8, "path": "log.levl",
            "message": "unknown key; did you mean `level`?",
        });
        let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error);
        assert_eq!(errors.map(|problem| json!(ConfigProblem::from(problem))).collect::<Vec<_>>(), [wanted]);
    }
}
