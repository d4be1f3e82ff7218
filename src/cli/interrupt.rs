//! A command that is told to stop leaves through its drops, so that what it made for itself is gone.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What tells a command to stop, by number and name.
const SIGNALS: [(SignalKind, &str); 3] =
    [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM"), (SignalKind::hangup(), "SIGHUP")];

/// A command was told to stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}: stopped before it was done; nothing of it is left")]
pub struct Interrupted(&'static str);

/// From when it is made on, no signal that tells to stop ends the process.
pub struct Signals(Vec<(Signal, &'static str)>);

impl Signals {
    /// Those that the process was started to ignore (`nohup`, a shell's background) stay ignored.
    ///
    /// # Errors
    /// The system lets nobody wait for signals.
    pub fn new() -> io::Result<Self> {
        let ignored = ignored();
        let heeded = SIGNALS.into_iter().filter(|(kind, _)| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        heeded.map(|(kind, name)| Ok((signal(kind)?, name))).collect::<io::Result<_>>().map(Self)
    }

    /// Does `task` to its end, or drops it when a signal comes.
    ///
    /// # Errors
    /// The task's, or [`Interrupted`].
    pub async fn unless<T>(&mut self, task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let told = poll_fn(|context| {
            let come =
                self.0.iter_mut().find_map(|(signal, name)| signal.poll_recv(context).is_ready().then_some(*name));
            come.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            biased; // what fails because of the signal is not what is told
            name = told => Err(Interrupted(name).into()),
            done = task => done,
        }
    }
}

/// The signals that this process ignores: a bit each, the lowest for number 1. None where it cannot be told.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
