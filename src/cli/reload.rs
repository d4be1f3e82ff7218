//! `forebay reload` and `forebay diff`: the config file, and the config that a running gateway goes by.

use std::process::ExitCode;

use serde_json::json;

use super::client::{AdminArgs, Refused};
use super::events::{finish, json_text};
use super::text::plain;
use crate::admin::{self, ConfigProblem, Reloaded};

/// Makes a running gateway read its config again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Args {
    /// Whether they say where the gateway is.
    pub(super) fn names_the_gateway(&self) -> bool {
        self.admin.names_the_gateway()
    }
}

/// What is to be done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is put in force.
    Reload,
    /// It is compared with what is in force.
    Diff,
}

/// Runs the command; `settings` are the config's, if there is a config.
///
/// # Errors
/// What keeps it from asking the gateway. A config that cannot be used is printed, and no error but the exit code 2.
pub async fn run(wanted: Wanted, args: Args, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let client = args.admin.client(settings)?;
    let asked = match wanted {
        Wanted::Reload => client.post("/api/v1/reload", &json!({})).await,
        Wanted::Diff => client.get("/api/v1/diff", &[]).await,
    };
    if let Some(refused) = asked.as_ref().err().and_then(|error| error.downcast_ref::<Refused>())
        && !refused.problems.is_empty()
    {
        for problem in &refused.problems {
            eprintln!("{}", plain(&problem.to_string()));
        }
        eprintln!("forebay: {}", plain(&refused.message));
        return Ok(ExitCode::from(super::USAGE));
    }
    finish(asked.and_then(|reply| if args.json { json_text(&reply) } else { Ok(told(&reply.parse()?)) }))
}

fn told(Reloaded { applied, changes, warnings }: &Reloaded) -> String {
    let mut lines: Vec<String> = warnings.iter().map(|warning| plain(&warning.to_string())).collect();
    lines.extend(changes.iter().map(|change| plain(&change.text)));
    lines.push(match (applied, changes.len()) {
        (true, 0) => "reloaded; it says what it said before".to_owned(),
        (true, 1) => "reloaded; 1 change".to_owned(),
        (true, count) => format!("reloaded; {count} changes"),
        (false, 0) => "the gateway goes by what the file says".to_owned(),
        (false, _) if warnings.iter().any(ConfigProblem::is_error) => "`forebay reload` refuses this".to_owned(),
        (false, _) => "`forebay reload` puts this in force".to_owned(),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ConfigChange;

    #[test]
    fn changes_are_told_a_line_each() {
        let change = |text: &str| ConfigChange {
            change: "changed".to_owned(),
            section: "destination".to_owned(),
            name: Some("app".to_owned()),
            key: None,
            from: None,
            to: None,
            text: text.to_owned(),
        };
        let changes = vec![change("+ source acme"), change("~ destination app: timeout 30s -> 10s\u{1b}[2J")];
        let wanted = "+ source acme\n~ destination app: timeout 30s -> 10s\u{fffd}[2J\n";
        let compared = Reloaded { applied: false, changes, warnings: Vec::new() };
        assert_eq!(told(&compared), format!("{wanted}`forebay reload` puts this in force\n"));
        let applied = Reloaded { applied: true, ..compared };
        assert_eq!(told(&applied), format!("{wanted}reloaded; 2 changes\n"));
        assert_eq!(told(&Reloaded::default()), "the gateway goes by what the file says\n");
    }

    #[test]
    fn a_problem_names_its_path_once() {
        let problem = |message: &str| ConfigProblem {
            severity: "error".to_owned(),
            file: String::new(),
            line: 0,
            column: 0,
            path: "journal.encryption_key".to_owned(),
            message: message.to_owned(),
        };
        assert_eq!(problem("too short").to_string(), "journal.encryption_key: too short");
        let lacks = "journal.encryption_key lacks a key";
        assert_eq!(problem(lacks).to_string(), lacks);
    }
}
