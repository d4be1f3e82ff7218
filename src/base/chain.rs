//! Errors in one line.

use std::error::Error;
use std::fmt;

/// Prints an error and what is behind it, without what was said already.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'e>(pub &'e dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(inner) = cause {
            let said = inner.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = inner.source();
        }
        f.write_str(&text)
    }
}
