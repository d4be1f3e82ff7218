//! The feeder: one thread that owns the writing connection and applies the journal's changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::store::{Scrubbed, Store};
use super::{IndexError, Shared};
use crate::event::EventId;
use crate::journal::seal::Keyring;
use crate::journal::{Changes, Journal, Position};

/// How often it looks for changes of its own accord.
const INTERVAL: Duration = Duration::from_millis(250);

/// Changes that it takes at a time: what one transaction holds, and what is in memory.
const BATCH: usize = 1000;

/// How often it says how far it has come, while there is much to catch up with.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Wants to be told once everything up to now is in the index.
pub(super) type Wish = oneshot::Sender<Result<(), IndexError>>;

pub(super) struct Feeder<J> {
    pub(super) journal: J,
    /// What seals now.
    pub(super) keys: Arc<ArcSwap<Keyring>>,
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    pub(super) wishes: mpsc::Receiver<Wish>,
    /// Tells followers which events are new or have changed. The only sender: it goes with the feeder.
    pub(super) touched: broadcast::Sender<EventId>,
    pub(super) stopping: CancellationToken,
}

impl<J: Journal> Feeder<J> {
    /// Feeds until it is stopped or every handle of the index is gone. Blocks: for a thread of its own.
    ///
    /// Whoever asks while a pass runs waits for the next one: that one begins after they asked, so it
    /// goes at least as far as the journal's tail when they did.
    pub(super) fn run(mut self, runtime: &Handle) {
        let mut healthy = self.shared.trouble.load().is_none(); // that was logged
        loop {
            let mut waiting = Vec::new(); // as many as the channel holds
            if runtime.block_on(self.woken(&mut waiting)).is_none() {
                self.shared.close_readers(); // the writer, closed last, folds the write-ahead log in
                return;
            }
            while let Ok(wish) = self.wishes.try_recv() {
                waiting.push(wish);
            }
            let outcome = self.pass(runtime);
            match &outcome {
                Err(IndexError::Closed) => {} // it is being stopped
                Err(error) if healthy => tracing::error!(%error, "the index cannot follow the journal; still trying"),
                Ok(()) if !healthy => tracing::info!("the index follows the journal again"),
                _ => {}
            }
            healthy = outcome.is_ok();
            self.shared.note(outcome.as_ref().err());
            for wish in waiting {
                let _ = wish.send(outcome.clone()); // they may have stopped waiting
            }
        }
    }

    /// Waits for the interval or a wish; none is the end. All three waits are cancel-safe.
    async fn woken(&mut self, waiting: &mut Vec<Wish>) -> Option<()> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            wish = self.wishes.recv() => wish.map(|wish| waiting.push(wish)),
            () = tokio::time::sleep(INTERVAL) => Some(()),
        }
    }

    /// Applies everything up to the journal's tail as it is now.
    fn pass(&mut self, runtime: &Handle) -> Result<(), IndexError> {
        if self.store.open()? {
            self.replaced();
        }
        if self.store.follow(&self.keys.load())? {
            self.replaced();
        }
        if self.shared.damaged.swap(false, Ordering::Relaxed) {
            self.rebuild()?;
        }
        let goal = self.journal.tail();
        if self.store.applied() >= goal {
            return self.scrub();
        }
        let mut progress = Progress::from(self.store.applied());
        while self.store.applied() < goal {
            let batch = runtime.block_on(self.changes())?;
            if batch.next <= self.store.applied() {
                return Ok(());
            }
            match self.store.apply(&batch) {
                Ok(touched) if self.touched.receiver_count() > 0 => {
                    touched.into_iter().for_each(|id| drop(self.touched.send(id))); // the last follower may have left
                }
                Ok(_) => {}
                Err(IndexError::Database(error)) if super::store::is_damage(&error) => self.rebuild()?,
                Err(error) => return Err(error),
            }
            progress.say(batch.changes.len(), self.store.applied(), goal);
        }
        self.store.shrink()?;
        self.scrub()
    }

    fn scrub(&mut self) -> Result<(), IndexError> {
        if self.store.scrub()? == Scrubbed::Now {
            self.shared.generation.fetch_add(1, Ordering::Release); // readers let go of the deleted file
            self.shared.close_readers();
        }
        Ok(())
    }

    async fn changes(&self) -> Result<Changes, IndexError> {
        tokio::select! { // the journal's `changes` only reads: dropped, it has done nothing
            biased;
            () = self.stopping.cancelled() => Err(IndexError::Closed),
            changes = self.journal.changes(self.store.applied(), BATCH) => Ok(changes?),
        }
    }

    fn rebuild(&mut self) -> Result<(), IndexError> {
        let outcome = self.store.rebuild("it is damaged");
        self.replaced();
        outcome
    }

    /// Readers let go of the file that was deleted.
    fn replaced(&self) {
        self.shared.cells.store(Arc::new(self.store.cells().clone()));
        self.shared.generation.fetch_add(1, Ordering::Release);
    }
}

/// How far a pass has come.
struct Progress {
    from: Position,
    changes: usize,
    said: Instant,
}

impl Progress {
    fn from(from: Position) -> Self {
        Self { from, changes: 0, said: Instant::now() }
    }

    /// So many `more` changes are in the index, which are all up to `applied`; now and then that is logged.
    fn say(&mut self, more: usize, applied: Position, goal: Position) {
        self.changes += more;
        if self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let (done, all) = (applied.0.saturating_sub(self.from.0), goal.0.saturating_sub(self.from.0));
        let percent = u128::from(done) * 100 / u128::from(all.max(1));
        tracing::info!(
            changes = self.changes,
            percent,
            "the index catches up with the journal; delivery does not wait for it"
        );
    }
}
