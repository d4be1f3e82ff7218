//! A problem for a terminal: the message over its line of the file, as compilers draw it.
//!
//! A line is drawn up to the end of what is wrong, and not at all where it may hold a secret: the text is what a
//! person pastes into a ticket.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::problems::{Problem, Severity};

/// Draws `problem`; `text` is the text of its file, where it could be read.
#[must_use]
pub fn render(problem: &Problem, text: Option<&str>) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let (what, cure) = match problem.message.split_once("; ") {
        Some((what, cure)) => (what, Some(cure)),
        None => (problem.message.as_str(), None),
    };
    let title = if problem.path.is_empty() { what.to_owned() } else { format!("{}: {what}", problem.path) };
    let title = level.primary_title(title);
    let line = problem.place.line as usize;
    let report = match text.and_then(|text| quotable(text, line, problem.place.column as usize)) {
        Some((line_text, span)) => title.element(
            Snippet::source(line_text)
                .path(&*problem.file)
                .line_start(line)
                .annotation(AnnotationKind::Primary.span(span).label(cure)),
        ),
        None => {
            let origin = Origin::path(&*problem.file);
            let origin = match line {
                0 => origin,
                line => origin.line(line).char_column(problem.place.column as usize),
            };
            let report = title.element(origin);
            match cure {
                Some(cure) => report.element(Level::HELP.message(cure)),
                None => report,
            }
        }
    };
    Renderer::styled().render(&[report])
}

/// The line up to the end of the word at `column`, and where that word is in it.
fn quotable(text: &str, line: usize, column: usize) -> Option<(String, std::ops::Range<usize>)> {
    let index = line.checked_sub(1)?;
    if is_private(text, index) {
        return None;
    }
    let line = text.lines().nth(index)?;
    let start = line.char_indices().nth(column.checked_sub(1)?).map_or(line.len(), |(at, _)| at);
    let (before, rest) = line.split_at_checked(start)?;
    let word = rest.find(|char: char| char.is_whitespace() || matches!(char, ',' | '}' | ']')).unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(word)?;
    let more = if after.trim().is_empty() { "" } else { " …" };
    let end = start + word.len().max(1);
    Some((format!("{before}{word}{more} "), start..end))
}

/// Words of keys whose values must not be shown.
const PRIVATE: &[&str] =
    &["secret", "token", "password", "passwd", "credential", "authorization", "cookie", "key", "headers", "set:", "@"];

/// Whether a line names such a key, or belongs to the value of one above it.
fn is_private(text: &str, index: usize) -> bool {
    let mut under: Option<usize> = None;
    for (at, line) in text.lines().enumerate() {
        let words = line.trim_start();
        let indent = line.len() - words.len();
        let belongs = under.is_some_and(|above| indent > above || (indent == above && words.starts_with('-')));
        if !words.is_empty() && !belongs {
            let line = line.to_ascii_lowercase();
            under = PRIVATE.iter().any(|word| line.contains(word)).then_some(indent);
        }
        if at == index {
            return under.is_some();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::tree::Place;

    fn drawn(text: &str, line: u32, column: u32) -> String {
        let problem = Problem {
            severity: Severity::Error,
            file: Arc::from("forebay.yaml"),
            place: Place { line, column },
            path: "a.b".to_owned(),
            message: "it is wrong; mend it".to_owned(),
        };
        let drawn = render(&problem, Some(text));
        assert!(drawn.contains("a.b: it is wrong") && drawn.contains("mend it"), "{drawn}");
        drawn
    }

    #[test]
    fn the_line_is_drawn_up_to_the_end_of_what_is_wrong() {
        let text = "a:\n  b: tne # comment\n  timeuot: 3s\n";
        assert!(drawn(text, 2, 6).contains("b: tne"));
        let key = drawn(text, 3, 3);
        assert!(key.contains("timeuot:") && !key.contains("3s"), "{key}");
        for (line, column) in [(0, 0), (9, 9), (2, 99), (1, 0)] {
            drawn(text, line, column);
        }
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_drawn() {
        for text in [
            "x:\n  secret: hunter2\n",
            "x:\n  secrte: hunter2\n",
            "secrets:\n  - hunter2\n",
            "secrets:\n- hunter2\n",
            "a: { READ_TOKEN: hunter2 }\na: hunter2",
            "secret: |\n  one\n\n  hunter2\n",
            "url: http://user:hunter2@host/\n",
            "headers: { set: { X-Api: hunter2 } }\n",
        ] {
            for line in 1..=text.lines().count() {
                let private = text.lines().nth(line - 1).unwrap();
                let column = private.find(|char: char| char.is_alphabetic()).unwrap_or(0);
                let drawn = drawn(text, u32::try_from(line).unwrap(), u32::try_from(column).unwrap() + 1);
                assert!(text.ends_with("a: hunter2") || !drawn.contains("hunter2"), "{text}\n{drawn}");
            }
        }
    }
}
