//! How logging is set up.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

use super::{LogFormat, LogSettings};

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A filter that is none.
    #[error(
        "`{level}` is not a log level: {why}; write one of error, warn, info, debug, trace, off, or `info,target=debug`"
    )]
    Filter {
        /// What was written.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else has set up logging in this process.
    #[error("logging is set up already")]
    SetUpAlready,
}

/// The level or filter that the program logs by, which may change while it runs.
#[derive(Clone)]
pub struct Level(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl Level {
    /// For tests: nothing is logged.
    #[cfg(test)]
    pub fn of_nothing() -> Self {
        Self(Arc::new(|_| {}))
    }

    /// Logs by `level` from now on.
    ///
    /// # Errors
    /// [`LogError::Filter`] if it cannot be read; nothing has changed.
    pub fn change(&self, level: &str) -> Result<(), LogError> {
        (self.0)(filter(level)?);
        Ok(())
    }
}

/// Sends the program's log lines to standard error, as `settings` say.
///
/// # Errors
/// [`LogError`] if the filter cannot be read, or logging is set up already.
pub fn init(settings: &LogSettings) -> Result<Level, LogError> {
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let (subscriber, level) = subscriber(&settings.level, json, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::SetUpAlready)?;
    Ok(level)
}

/// Checks a level or filter.
///
/// # Errors
/// [`LogError::Filter`] if it cannot be read.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(|_filter| ())
}

type Logger = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(text: &str, json: bool, writer: W) -> Result<(Logger, Level), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    /// The logger outlives whoever changes its level.
    fn level<S: 'static>(handle: Handle<EnvFilter, S>) -> Level {
        Level(Arc::new(move |filter| drop(handle.reload(filter))))
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter(text)?).with_writer(writer);
    Ok(if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_filter_reloading();
        let level = level(builder.reload_handle());
        (Box::new(builder.finish()), level)
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
        let level = level(builder.reload_handle());
        (Box::new(builder.finish()), level)
    })
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let refuse = |why: String| LogError::Filter { level: level.to_owned(), why };
    let parts: Vec<&str> = level.split(',').map(str::trim).collect();
    // To the filter a word that is no level is a target, and turns everything else off: a typo would go dark.
    let is_known = |part: &str| part.contains('=') || LEVELS.iter().any(|known| part.eq_ignore_ascii_case(known));
    if let Some(unknown) = parts.iter().find(|part| !is_known(part)) {
        return Err(refuse(format!("`{unknown}` is unknown")));
    }
    let ours: Vec<String> = parts.into_iter().map(of_this_program).collect();
    EnvFilter::try_new(ours.join(",")).map_err(|error| refuse(error.to_string()))
}

/// `debug` and `trace` alone are for this program: the libraries below it print what they carry, as they see fit, and
/// what that is changes with their versions: it may be a token or a body. Whoever wants that names the library.
fn of_this_program(part: &str) -> String {
    let is_fine = ["debug", "trace"].iter().any(|level| part.eq_ignore_ascii_case(level));
    if is_fine { format!("info,{}={part}", env!("CARGO_CRATE_NAME")) } else { part.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Captured {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(level: &str, json: bool) -> String {
        let captured = Captured::default();
        let (subscriber, _) = subscriber(level, json, captured.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too fine");
            tracing::info!(source = "acme", "kept");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_beside_the_message() {
        let text = logged("info", true);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["message"], &line["source"], &line["level"]),
            (&"kept".into(), &"acme".into(), &"INFO".into())
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn text_is_for_people_and_the_level_is_obeyed() {
        let text = logged("info", false);
        assert!(text.contains("kept") && text.contains("source=\"acme\""), "{text}");
        assert_eq!(logged("off", false), "");
        assert!(logged("debug", false).contains("too fine"));
        assert_eq!(logged("info,forebay=warn", true), "");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        for json in [true, false] {
            let captured = Captured::default();
            let (subscriber, level) = subscriber("info", json, captured.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                let say = || tracing::debug!("fine");
                say();
                level.change("debug").unwrap();
                say();
                assert!(level.change("loud").is_err());
                say();
                level.change("warn").unwrap();
                say();
            });
            let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches("fine").count(), 2, "{text}");
        }
    }

    #[test]
    fn a_fine_level_is_for_this_program_and_not_for_the_libraries_below_it() {
        let of_a_library = |level: &str| {
            let captured = Captured::default();
            let (subscriber, _) = subscriber(level, true, captured.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::trace!(target: "h2::codec", "authorization: Bearer hunter2");
                tracing::debug!(target: "hyper", "cookie: hunter2");
                tracing::info!(target: "rustls", "kept");
                tracing::trace!("ours");
            });
            let bytes = captured.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        };
        for level in ["trace", "TRACE", "warn,trace", "trace,forebay::journal=info"] {
            let text = of_a_library(level);
            assert!(!text.contains("hunter2") && text.contains("kept") && text.contains("ours"), "{level}: {text}");
        }
        assert!(of_a_library("trace,h2=trace").contains("Bearer hunter2"), "who names it gets it");
        assert!(!of_a_library("trace,forebay=warn").contains("ours"));
    }

    #[test]
    fn a_level_that_is_none_is_an_error_that_says_what_to_write() {
        for level in ["", "loud", "inof", "info,,warn", "info,forebay=loud", "warn, verbose"] {
            let error = check_level(level).unwrap_err().to_string();
            assert!(error.contains("error, warn, info, debug, trace, off"), "{level}: {error}");
        }
        for level in ["info", "WARN", "off", "info,forebay::journal=debug", "warn, hyper=error"] {
            check_level(level).unwrap();
        }
    }
}
