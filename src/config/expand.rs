//! `${VAR}`, `${VAR:-default}` and `$${` in a text, after YAML has been read: what a variable holds is never YAML.

/// Looks up an environment variable. A parameter everywhere, so that tests need no process environment.
pub type Env<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// A text with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Whether any of it came from a variable, and so must not be printed.
    pub outside: bool,
}

/// Why a text cannot be filled in. Messages name variables, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The variable is not set and has no default.
    #[error("the environment variable `{0}` is not set; set it (`export {0}=…`), or write `${{{0}:-a default}}`")]
    Unset(String),
    /// `${` without `}`.
    #[error("`${{` has no `}}`; close it, or write `$${{` for the characters themselves")]
    Open,
    /// Not a variable's name.
    #[error("`{0}` is not a variable's name (letters, digits and `_`); write `$${{` for the characters themselves")]
    Name(String),
}

impl ExpandError {
    /// What to say of a secret: a default for one would be a secret that everybody can read in the config.
    #[must_use]
    pub fn of_secret(&self) -> String {
        match self {
            Self::Unset(name) => {
                format!(
                    "the environment variable `{name}` is not set; set it (`export {name}=…`) or write `{{ file: … }}`"
                )
            }
            Self::Open | Self::Name(_) => self.to_string(),
        }
    }
}

/// Fills in the variables of `text`.
///
/// A default stands for a variable that is unset or empty, as in a shell. What is filled in is not looked at again.
///
/// # Errors
/// [`ExpandError`] names the first variable that cannot be filled in.
pub fn expand(text: &str, env: &Env<'_>) -> Result<Expanded, ExpandError> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), outside: false };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            expanded.text.push_str(literal);
            expanded.text.push_str("${");
            rest = after;
            continue;
        }
        expanded.text.push_str(before);
        let (inside, after) = after.split_once('}').ok_or(ExpandError::Open)?;
        expanded.text.push_str(&look_up(inside, env)?);
        expanded.outside = true;
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// Whether a variable is to be filled in into `text`.
#[must_use]
pub fn has_variable(text: &str) -> bool {
    expand(text, &|_| Some(String::new())).map_or(true, |expanded| expanded.outside)
}

fn look_up(inside: &str, env: &Env<'_>) -> Result<String, ExpandError> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(ExpandError::Name(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(ExpandError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: Result<(&str, bool), ExpandError>) {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        let found = expand(text, &env).map(|expanded| (expanded.text, expanded.outside));
        assert_eq!(found, wanted.map(|(text, outside)| (text.to_owned(), outside)), "{text}");
    }

    #[test]
    fn variables_are_filled_in_once() {
        check("plain $A $", Ok(("plain $A $", false)));
        check("${A}", Ok(("one", true)));
        check("a-${A}-${B:-two}-${EMPTY:-three}", Ok(("a-one-two-three", true)));
        check("${EMPTY}|${B:-}", Ok(("|", true)));
        check("${NESTED}", Ok(("${A}", true)));
        check("$${A} $$${A}", Ok(("${A} $${A}", false)));
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        check("${B}", Err(ExpandError::Unset("B".to_owned())));
        check("x${A", Err(ExpandError::Open));
        check("${}", Err(ExpandError::Name(String::new())));
        check("${1A}", Err(ExpandError::Name("1A".to_owned())));
        check("${A-x}", Err(ExpandError::Name("A-x".to_owned())));
        assert_eq!(
            ExpandError::Unset("B".to_owned()).to_string(),
            "the environment variable `B` is not set; set it (`export B=…`), or write `${B:-a default}`"
        );
        assert_eq!(
            ExpandError::Unset("B".to_owned()).of_secret(),
            "the environment variable `B` is not set; set it (`export B=…`) or write `{ file: … }`"
        );
    }
}
