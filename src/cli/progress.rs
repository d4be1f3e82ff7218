//! How far a long piece of work has come, on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two looks of it.
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

/// A bar on standard error, where that is a terminal; it is wiped off when dropped.
pub struct Progress {
    what: &'static str,
    all: u64,
    done: u64,
    shown_at: Option<Instant>,
    visible: bool,
}

impl Progress {
    /// `all` is about how many bytes there are to do; 0 where nobody knows.
    #[must_use]
    pub fn new(what: &'static str, all: u64) -> Self {
        Self { what, all, done: 0, shown_at: None, visible: io::stderr().is_terminal() }
    }

    /// So many more are done.
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.visible && self.shown_at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.shown_at = Some(Instant::now());
            let _ = write!(io::stderr(), "\r{}", self.line()); // a bar that cannot be shown is no reason to stop
        }
    }

    fn line(&self) -> String {
        let done = super::backup::size(self.done);
        if self.all == 0 {
            return format!("{} {done}", self.what);
        }
        let share = (self.done.min(self.all) * WIDTH as u64 / self.all) as usize;
        let (full, rest) = ("#".repeat(share), "-".repeat(WIDTH - share));
        format!("{} [{full}{rest}] {done} of {}   ", self.what, super::backup::size(self.all))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            let _ = write!(io::stderr(), "\r{}\r", " ".repeat(79)); // as above
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_never_longer_than_it_can_be() {
        let mut progress = Progress { visible: false, ..Progress::new("backing up", 4096) };
        assert_eq!(progress.line(), format!("backing up [{}] 0 bytes of 4 KiB   ", "-".repeat(WIDTH)));
        progress.add(2048);
        assert_eq!(progress.line(), format!("backing up [{}{}] 2 KiB of 4 KiB   ", "#".repeat(15), "-".repeat(15)));
        progress.add(1 << 20);
        assert!(progress.line().starts_with(&format!("backing up [{}] 1 MiB", "#".repeat(WIDTH))));
    }
}
