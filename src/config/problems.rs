//! What is wrong with a config: every problem with its place and its cure.

use std::fmt;
use std::sync::Arc;

use super::tree::Place;
use crate::admin::ConfigProblem;

/// Something that is wrong, or that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named to us.
    pub file: Arc<str>,
    /// The place in the file.
    pub place: Place,
    /// The key, e.g. `destinations.app.timeout`; empty for the file as a whole.
    pub path: String,
    /// What is wrong; and after a semicolon the cure. Quotes nothing secret.
    pub message: String,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// It can, and somebody should look.
    Warning,
}

/// As the private side and programs have it.
impl From<&Problem> for ConfigProblem {
    fn from(problem: &Problem) -> Self {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        Self {
            severity: severity.to_owned(),
            file: problem.file.to_string(),
            line: problem.place.line as u64,
            column: problem.place.column as u64,
            path: problem.path.clone(),
            message: problem.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ConfigProblem::from(self).fmt(f)
    }
}

/// Everything that is wrong with a config, by file and place. At least one of them is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// One error about `file` as a whole.
    #[must_use]
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self(vec![Problem {
            severity: Severity::Error,
            file: Arc::from(file),
            place: Place::default(),
            path: String::new(),
            message: message.into(),
        }])
    }

    /// The config with its warnings if no problem is an error; else all problems.
    ///
    /// `config` is none only when an error was found.
    pub(super) fn settle<T>(mut found: Vec<Problem>, config: Option<T>) -> Result<(T, Vec<Problem>), Self> {
        sort(&mut found);
        let usable = found.iter().all(|problem| problem.severity == Severity::Warning);
        match config {
            Some(config) if usable => Ok((config, found)),
            _ => Err(Self(found)),
        }
    }
}

/// By place; files in the order in which they were first complained of, and nothing twice.
fn sort(problems: &mut Vec<Problem>) {
    let mut files: Vec<Arc<str>> = Vec::new();
    for problem in problems.iter() {
        if !files.contains(&problem.file) {
            files.push(Arc::clone(&problem.file));
        }
    }
    let file = |problem: &Problem| files.iter().position(|file| *file == problem.file);
    problems.sort_by_key(|problem| (file(problem), problem.place));
    problems.dedup();
}

/// The one of `known` that `word` is most likely a slip for, if one is near.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    let far = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= far && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to do about `word`: the nearest of `known`, or all of them where none is near.
#[must_use]
pub fn suggest<'k>(word: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => {
            let all: Vec<_> = known.into_iter().map(|word| format!("`{word}`")).collect();
            if all.is_empty() { "there are none here".to_owned() } else { format!("there are {}", all.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_the_nearest_word_and_a_strange_word_with_all() {
        let known = ["timeout", "url", "concurrency"];
        assert_eq!(suggest("tiemout", known), "did you mean `timeout`?");
        assert_eq!(suggest("Timeout", known), "did you mean `timeout`?");
        assert_eq!(suggest("colour", known), "there are `timeout`, `url`, `concurrency`");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_once() {
        let at = |line, message: &str| Problem {
            severity: Severity::Warning,
            file: Arc::from("a.yaml"),
            place: Place { line, column: 1 },
            path: "x".to_owned(),
            message: message.to_owned(),
        };
        let (_, sorted) = Problems::settle(vec![at(9, "b"), at(2, "a"), at(9, "b")], Some(())).unwrap();
        assert_eq!(sorted, [at(2, "a"), at(9, "b")]);
        assert_eq!(at(2, "a").to_string(), "a.yaml:2:1: warning: x: a");
    }
}
