//! The index: lists, search and counts over what the journal keeps.
//!
//! A SQLite database in `<journal>/index/index.db`, fed from the journal's change stream. It is derived: it
//! remembers the position it has applied, is rebuilt when it is lost, damaged, of another version or of
//! another journal, and never decides an acknowledgement. One thread writes; queries run on the blocking
//! pool, a few at a time, each with a deadline.

mod apply;
mod cells;
mod feed;
mod follow;
mod query;
mod status;
mod store;

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_erase;
#[cfg(test)]
mod tests_follow;
#[cfg(test)]
mod tests_on_log;
#[cfg(test)]
mod tests_sealed;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rusqlite::{Connection, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::base::Tasks;
use crate::event::EventId;
use crate::journal::seal::Keyring;
use crate::journal::{Journal, JournalError, Located, Routing};

pub use follow::{Batch, Follower, Lost, Mark, Start};
pub use query::{AttemptRow, Cursor, CursorError, DeliveryRow, Detail, Filter, Item, LIMIT_DEFAULT, LIMIT_MAX, Page};
pub use status::{EventStatus, Standing, StatusError};

use cells::Cells;
use feed::{Feeder, Wish};
use store::Store;

/// Queries at the same time; more wait.
const READERS: usize = 3;

/// How long one query may take. A search has to look at every event.
const QUERY_TIMEOUT: Duration = Duration::from_secs(8);

/// SQLite's instructions between two looks at the clock.
const INSTRUCTIONS: i32 = 20_000;

/// Callers that wait for a pass at the same time; more wait for a place.
const WISHES: usize = 64;

/// The index. A handle: cheap to clone, all clones are one index.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
    wishes: mpsc::Sender<Wish>,
}

/// Why the index could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// Its directory or file cannot be made, read or deleted.
    #[error("the index at {path} cannot be used: {reason}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: Arc<str>,
    },
    /// SQLite says no.
    #[error("the index cannot be read or written: {0}")]
    Database(Arc<rusqlite::Error>),
    /// The journal says no.
    #[error("the index cannot follow the journal")]
    Journal(#[from] JournalError),
    /// The query was cut off.
    #[error("the query took longer than {} s; narrow it with `since`, `source` or `status`", QUERY_TIMEOUT.as_secs())]
    TooSlow,
    /// The program is shutting down.
    #[error("the index is closed")]
    Closed,
}

impl IndexError {
    fn unusable(path: &Path, error: &std::io::Error) -> Self {
        Self::Unusable { path: path.to_owned(), reason: error.to_string().into() }
    }
}

impl IndexError {
    /// Whether the disk or the permissions are in the way, which may pass.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unusable { .. } | Self::TooSlow | Self::Closed | Self::Journal(_) => true,
            Self::Database(error) => store::is_outside(error),
        }
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::TooSlow,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

/// What the feeder and the queries share.
struct Shared {
    dir: PathBuf,
    readers: Arc<Semaphore>,
    idle: Mutex<Vec<Reader>>,
    /// Rises when the file is replaced; readers of an older one are closed.
    generation: AtomicU64,
    /// A query came upon damage; the feeder rebuilds at its next pass.
    damaged: AtomicBool,
    /// Why it does not follow the journal just now.
    trouble: ArcSwapOption<IndexError>,
    /// How cells of the present file are sealed.
    cells: ArcSwap<Cells>,
    touched: broadcast::WeakSender<EventId>,
    /// Tells which of the pending deliveries are orphaned: that is not in the database, since it changes with the config.
    routing: watch::Receiver<Arc<Routing>>,
}

struct Reader {
    db: Connection,
    generation: u64,
}

impl Index {
    /// Opens the index in `dir` and starts to feed it from `journal`, whose `identity` tells it from another one.
    ///
    /// Open it before the journal takes events: an index that is ahead of its journal (which lost its unsynced
    /// end in a power cut) is only seen as such until the journal has grown past it.
    ///
    /// What senders and applications wrote is sealed in it by what seals in the journal, `keys`; when that changes, it is
    /// built anew.
    ///
    /// Needs a tokio runtime with time; the feeder is a task of `tasks` and stops with it, or with the last handle.
    ///
    /// An index that is no good is replaced. Where the disk or the permissions do not allow that, [`Index::trouble`] says so, and
    /// it is tried again: nothing that is acknowledged or delivered needs it.
    pub fn open<J: Journal>(
        dir: &Path,
        identity: [u8; 16],
        journal: J,
        keys: Arc<ArcSwap<Keyring>>,
        tasks: &Tasks,
    ) -> Self {
        let mut store = Store::new(dir, identity, &keys.load(), journal.tail());
        let trouble = store.open().err();
        if let Some(error) = &trouble {
            tracing::error!(%error, "the index cannot be opened; events are taken and delivered without it, and it is tried again");
        }
        let touched = broadcast::Sender::new(follow::TOUCHED);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            readers: Arc::new(Semaphore::new(READERS)),
            idle: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            trouble: ArcSwapOption::from(trouble.map(Arc::new)),
            cells: ArcSwap::from_pointee(store.cells().clone()),
            touched: touched.downgrade(),
            routing: journal.routing(),
        });
        let (wishes, receiver) = mpsc::channel(WISHES);
        let feeder = Feeder {
            journal,
            keys,
            store,
            shared: Arc::clone(&shared),
            wishes: receiver,
            touched,
            stopping: tasks.stopping(),
        };
        tasks.spawn("index", async move {
            // One thread of the blocking pool, for as long as it feeds.
            let thread = tokio::task::spawn_blocking(move || feeder.run(&Handle::current()));
            if let Err(error) = thread.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        });
        Self { shared, wishes }
    }

    /// Why it does not follow the journal just now, if it does not. It is tried again and again.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<IndexError>> {
        self.shared.trouble.load_full()
    }

    /// Waits until everything that is in the journal now is in the index, and what was erased there is gone here. Concurrent
    /// calls share one pass.
    ///
    /// A rebuild can take minutes: give it a time-out and answer from what there is.
    ///
    /// # Errors
    /// [`IndexError`] if the index cannot follow the journal, or is closed.
    ///
    /// # Cancellation
    /// Safe: the pass goes on.
    pub async fn catch_up(&self) -> Result<(), IndexError> {
        let (wish, granted) = oneshot::channel();
        self.wishes.reserve().await.map_err(|_| IndexError::Closed)?.send(wish);
        granted.await.map_err(|_| IndexError::Closed)?
    }

    /// One page of the events that match `filter`, newest first.
    ///
    /// # Errors
    /// [`IndexError`] if the database cannot be read, [`IndexError::TooSlow`] past the deadline.
    pub async fn list(&self, filter: Filter) -> Result<Page, IndexError> {
        self.read(move |db, routing| query::list(db, routing, &filter)).await
    }

    /// One page of the events that match `filter` and have a dead delivery (to the filter's destination, if
    /// it names one), newest first.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn dead_letters(&self, filter: Filter) -> Result<Page, IndexError> {
        self.read(move |db, routing| query::dead_letters(db, routing, &filter)).await
    }

    /// Everything the index knows of one event.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn show(&self, id: EventId) -> Result<Option<Detail>, IndexError> {
        self.read(move |db, routing| query::show(db, routing, id)).await
    }

    /// Where the journal has an event.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn locate(&self, id: EventId) -> Result<Option<Located>, IndexError> {
        self.read(move |db, _| query::locate(db, id)).await
    }

    /// Follows the index from now on: first this, then [`Index::mark`], and nothing falls between the two.
    ///
    /// # Errors
    /// [`IndexError::Closed`] once the index is.
    pub fn follow(&self) -> Result<Follower, IndexError> {
        let sender = self.shared.touched.upgrade().ok_or(IndexError::Closed)?;
        Ok(Follower::new(sender.subscribe()))
    }

    /// The place where `start` is, and the event before it, if there is one: after that one is the same place.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn mark(&self, start: Start) -> Result<(Mark, Option<EventId>), IndexError> {
        self.read(move |db, _| follow::mark(db, start)).await
    }

    /// The next events from `mark` on that match `filter`, in the order in which they came; its `limit` is the most,
    /// and its `cursor` is not looked at.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn from_mark(&self, mark: Mark, filter: Filter) -> Result<Batch, IndexError> {
        self.read(move |db, routing| follow::from_mark(db, routing, mark, &filter)).await
    }

    /// Those of `ids` that came before `mark` and match `filter`, as they stand now.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn before_mark(&self, ids: Vec<EventId>, mark: Mark, filter: Filter) -> Result<Vec<Item>, IndexError> {
        self.read(move |db, routing| follow::before_mark(db, routing, &ids, mark, &filter)).await
    }

    /// How many events there are of each status; a status without events is left out.
    ///
    /// # Errors
    /// As [`Index::list`].
    pub async fn counts(&self) -> Result<Vec<(EventStatus, u64)>, IndexError> {
        self.read(|db, _| query::counts(db)).await
    }

    /// Runs `work` on the blocking pool. Dropped while it runs: it still ends, and its place with it.
    async fn read<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Routing) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = Arc::clone(&self.shared.readers).acquire_owned().await.map_err(|_| IndexError::Closed)?;
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            let outcome = shared.read(work);
            drop(place);
            outcome
        });
        match read.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(IndexError::Closed),
        }
    }
}

impl Shared {
    fn read<T>(&self, work: impl FnOnce(&Connection, &Routing) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        let outcome = self.reader().and_then(|mut reader| {
            let deadline = Instant::now() + QUERY_TIMEOUT;
            reader.db.progress_handler(INSTRUCTIONS, Some(move || Instant::now() > deadline))?;
            let snapshot = reader.db.unchecked_transaction()?; // all statements of one query see one state
            let routing = Arc::clone(&self.routing.borrow());
            let value = work(&snapshot, &routing)?;
            snapshot.finish()?;
            self.idle().push(reader); // at most READERS of them
            Ok(value)
        });
        if outcome.as_ref().is_err_and(store::is_damage) {
            self.damaged.store(true, Ordering::Relaxed);
        }
        Ok(outcome?)
    }

    /// A connection to the present file; one that failed is not used again.
    fn reader(&self) -> rusqlite::Result<Reader> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut idle = self.idle();
        idle.retain(|reader| reader.generation == generation);
        match idle.pop() {
            Some(reader) => Ok(reader),
            None => Ok(Reader { db: store::open_reader(&self.dir, &self.cells.load())?, generation }),
        }
    }

    /// Takes note of how a pass ended.
    fn note(&self, error: Option<&IndexError>) {
        if error.is_some() || self.trouble.load().is_some() {
            self.trouble.store(error.cloned().map(Arc::new));
        }
    }

    fn close_readers(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
