//! The config, read again: on SIGHUP, when its files have changed, and when the private side asks for it.
//!
//! It is read and checked whole, and made into what it describes, before anything of it is in force; then it is swapped
//! in. Requests under way finish by the config they began with; what waits for delivery goes by the new one at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::files::Seen;
use super::live::Live;
use crate::admin::{ConfigChange, ConfigProblem, ConfigProblems, ReloadError, Reloaded, Wanted};
use crate::config::{Change, Problem, Problems, Reading, What};
use crate::telemetry::{Metrics, ReloadOutcome};

/// Between two looks at the files. A change is taken up once two looks in a row see the same, so that a file is not
/// read while it is being written.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// For reading the config and all that it names.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Questions that may wait for the one before them.
const ASKS: usize = 16;

/// Reads the config from where it was read at the start.
pub type Load = Arc<dyn Fn() -> Reading + Send + Sync>;

/// Whether changed files are read by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// They are.
    Files,
    /// Only when somebody says so.
    Off,
}

/// Somebody who wants the config read again, and waits for what comes of it.
pub(super) struct Ask {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// How a reload came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Signal,
    Asked,
    Files,
}

/// Reads the config again whenever there is cause to.
pub(super) struct Reloader {
    pub(super) live: Live,
    pub(super) load: Load,
    pub(super) watch: Watch,
    /// What was seen of the files before they were last read.
    pub(super) seen: Seen,
    pub(super) hangup: Signal,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) metrics: Metrics,
    /// The gateway shuts down: what is in force stays.
    pub(super) stopping: CancellationToken,
}

/// A way to ask the reloader, and its end of it.
pub(super) fn channel() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(ASKS)
}

/// Asks the reloader.
pub(super) async fn ask(asks: &mpsc::Sender<Ask>, wanted: Wanted) -> Result<Reloaded, ReloadError> {
    let (reply, answer) = oneshot::channel();
    let slot = asks.reserve().await.map_err(|_| ReloadError::Ending)?;
    slot.send(Ask { wanted, reply });
    answer.await.map_err(|_| ReloadError::Ending)?
}

impl Reloader {
    /// Runs until it is to stop.
    pub(super) async fn run(mut self) {
        let stopping = self.stopping.clone();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = None;
        loop {
            tokio::select! { // all are cancel-safe; what a branch does is done whole
                biased;
                () = stopping.cancelled() => return,
                Some(()) = self.hangup.recv() => drop(self.reload(Wanted::Apply, Cause::Signal).await),
                Some(Ask { wanted, reply }) = self.asks.recv() => {
                    let answer = self.reload(wanted, Cause::Asked).await;
                    drop(reply.send(answer)); // whoever asked may have gone
                }
                _ = look.tick(), if self.watch == Watch::Files => {
                    let now = self.seen.again();
                    if now == self.seen {
                        changed = None;
                    } else if changed.as_ref() == Some(&now) {
                        changed = None;
                        let _said = self.reload(Wanted::Apply, Cause::Files).await;
                    } else {
                        changed = Some(now);
                    }
                }
            }
        }
    }

    async fn reload(&mut self, wanted: Wanted, cause: Cause) -> Result<Reloaded, ReloadError> {
        let (seen, load) = (self.seen.again(), Arc::clone(&self.load));
        // A config that makes its reader panic, or a disk that does not answer, must not take the gateway down either.
        let reading = timeout(LOAD_TIMEOUT, tokio::task::spawn_blocking(move || load()));
        let Some(read) = self.stopping.run_until_cancelled(reading).await else { return Err(ReloadError::Ending) };
        let failed = |why: &str| Reading { outcome: Err(Problems::of_file("the config", why)), files: seen.files() };
        let Reading { outcome, files } = match read {
            Ok(Ok(reading)) => reading,
            Ok(Err(_panic)) => failed("reading it failed; this is a defect of forebay: please report it"),
            Err(_elapsed) => {
                failed("reading it takes too long; look at the disk that it and the files it names are on")
            }
        };
        if wanted == Wanted::Apply {
            self.seen = seen.only(&files);
        }
        let (config, warnings) = match outcome {
            Ok(read) => read,
            Err(problems) => return Err(self.refused(wanted, problems.0.iter().map(ConfigProblem::from).collect())),
        };
        let changes: Vec<ConfigChange> = self.live.config().diff(&config).iter().map(told).collect();
        let applied = wanted == Wanted::Apply;
        let mut said: Vec<ConfigProblem> = warnings.iter().map(ConfigProblem::from).collect();
        if !applied {
            said.extend(self.live.fixed(&config));
        } else {
            let changed = self.live.change(config).await;
            changed.map_err(|problems| self.refused(wanted, problems))?;
            self.say(cause, &changes, &warnings);
        }
        Ok(Reloaded { applied, changes, warnings: said })
    }

    fn say(&self, cause: Cause, changes: &[ConfigChange], warnings: &[Problem]) {
        if cause == Cause::Files && changes.is_empty() {
            tracing::debug!("the config was read again; it says what it said before");
            return;
        }
        self.metrics.reloaded(ReloadOutcome::Applied);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(cause = cause.as_str(), changes = changes.len(), "config reloaded");
        for change in changes {
            tracing::info!(change = change.text, "config changed");
        }
    }

    fn refused(&self, wanted: Wanted, problems: Vec<ConfigProblem>) -> ReloadError {
        let error = "the config cannot be used; the one before stays in force".to_owned();
        if wanted == Wanted::Apply {
            self.metrics.reloaded(ReloadOutcome::Rejected);
            let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.is_error());
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            for error in &errors {
                tracing::error!("{error}");
            }
            tracing::error!(problems = errors.len(), "{error}");
        }
        ReloadError::Refused(ConfigProblems { error, problems })
    }
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Asked => "api",
            Self::Files => "files",
        }
    }
}

fn told(change: &Change) -> ConfigChange {
    let what = match change.change {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
    };
    ConfigChange {
        change: what.to_owned(),
        section: change.section.clone(),
        name: change.name.clone(),
        key: change.key.clone(),
        from: change.from.clone(),
        to: change.to.clone(),
        text: change.to_string(),
    }
}
