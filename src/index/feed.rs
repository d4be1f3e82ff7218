//! The feeder: one thread that owns the writing connection and applies the journal's changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::store::{Scrubbed, Store};
use super::{IndexError, Shared};
use crate::event::EventId;
use crate::journal::{Changes, Journal};

/// How often it looks for changes of its own accord.
const INTERVAL: Duration = Duration::from_millis(250);

/// Changes that it takes at a time: what one transaction holds, and what is in memory.
const BATCH: usize = 1000;

/// Wants to be told once everything up to now is in the index.
pub(super) type Wish = oneshot::Sender<Result<(), IndexError>>;

pub(super) struct Feeder<J> {
    pub(super) journal: J,
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
        let mut healthy = true;
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
        if self.shared.damaged.swap(false, Ordering::Relaxed) {
            self.rebuild()?;
        }
        let goal = self.journal.tail();
        if self.store.applied() >= goal {
            return self.scrub();
        }
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
        self.shared.generation.fetch_add(1, Ordering::Release); // readers let go of the deleted file
        outcome
    }
}
