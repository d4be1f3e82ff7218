//! The durable store of events, deliveries, outcomes and claims.
//!
//! [`Journal`] is what the rest of the program knows of it; [`log`] keeps it in a directory.

pub mod archive;
mod changes;
pub mod disk;
mod lane;
pub mod log;
mod patience;
mod routes;
pub mod seal;
mod settings;
mod stats;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::{mpsc, watch};

use crate::admit::Lease;
use crate::base::{Name, UnixMillis};
use crate::event::{Attempt, DeadReason, DedupeKey, DeliveryId, Event, EventId};
use crate::provider::VerifiedEvent;

pub use changes::{Change, Changes, DeliveryState};
pub use lane::{Lane, Pending, PendingBatch};
pub use patience::once_there_is_room;
pub use routes::{Routes, Routing};
pub use settings::{Retention, Settings};
pub use stats::{KeyUse, LaneStats, SourceStats, Stats};

/// The durable store. A handle: cheap to clone, all clones are one journal.
pub trait Journal: Clone + Send + std::marker::Sync + 'static {
    /// Whether an event that came now could be kept. No I/O.
    fn room(&self) -> Room;

    /// The same for an event of `source`: there may be room, and none for it, while its own events take their share. No I/O.
    fn room_for(&self, source: &Name) -> Room;

    /// Whether the key of `claim` is free. If an event holds it, that is a duplicate: it is noted, and dead
    /// deliveries of the event are rearmed if it asked for that. For requests that the application answers.
    ///
    /// Nothing is claimed: [`Journal::append`] does that. Of requests with one key that this process has under way, the
    /// caller lets one through at a time.
    ///
    /// # Errors
    /// [`AppendError`] as [`Journal::append`].
    fn reserve(&self, claim: &Claim) -> impl Future<Output = Result<Reserved, AppendError>> + Send;

    /// Keeps `entry`: claim, event and deliveries, all or none of them. With [`Sync::Durable`] it returns once they would
    /// survive a power cut; with [`Sync::Behind`] once they are written, durable within 100 ms.
    ///
    /// Of identical appends at the same time one is [`Appended::Fresh`]; the rest are
    /// [`Appended::Duplicate`], and with [`Sync::Durable`] only once that one is durable.
    ///
    /// # Errors
    /// - [`AppendError::Full`]: nothing was written; history could not make room.
    /// - [`AppendError::OverShare`]: nothing was written; the event would wait, and what waits of its source takes its share.
    /// - [`AppendError::Failed`]: the store has failed and takes nothing until it is opened again.
    /// - [`AppendError::TooLarge`]: the event alone is larger than the journal could ever hold.
    ///
    /// # Cancellation
    /// Dropped while it waits for a slot: nothing is kept and nothing is claimed. Dropped later: the
    /// append goes on and keeps the claim; only the answer is lost, and the sender's retry is a duplicate.
    fn append(&self, entry: Entry, sync: Sync) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// The lanes this process owns, as they come and go.
    fn lanes(&self) -> watch::Receiver<Arc<[Lane]>>;

    /// Unsettled deliveries of `lane` after `after`, in append order; waits while there are none.
    ///
    /// A delivery may be given more than once (rearmed, or read again from the start): the lane's owner
    /// knows which it already holds.
    ///
    /// # Errors
    /// [`JournalError`] if the store cannot be read or `lane` is no longer ours.
    ///
    /// # Cancellation
    /// Safe: the cursor is the caller's.
    fn pending(
        &self,
        lane: &Lane,
        after: Position,
        max: usize,
    ) -> impl Future<Output = Result<PendingBatch, JournalError>> + Send;

    /// Records that attempt `number` of a delivery is about to run, before it runs: a crash in between
    /// costs a number, never repeats one. Returns once the record is written (not yet synced).
    ///
    /// # Errors
    /// [`JournalError`] if it could not be written, `lane` is no longer ours, or the delivery is orphaned; the attempt must
    /// not run.
    fn start(
        &self,
        lane: &Lane,
        delivery: DeliveryId,
        number: u32,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Records how an attempt ended. `Dead` returns once durable; the others once written, durable within 100 ms.
    ///
    /// # Errors
    /// [`JournalError`] if it could not be written or `lane` is no longer ours; the delivery stays pending.
    fn settle(&self, lane: &Lane, settled: Settled) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Records how an attempt ended that was under way when its event was appended ([`FirstAttempt::UnderWay`]).
    /// The delivery has no lane's owner to say it: the request path made the attempt. Otherwise as [`Journal::settle`].
    ///
    /// # Errors
    /// [`JournalError`] if it could not be written; the attempt's outcome is then unknown and another follows.
    fn report(&self, settled: Settled) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Pauses a destination, or lets it go on; durable, so that a restart does not forget it.
    ///
    /// # Errors
    /// [`JournalError`] if it could not be written.
    fn pause(&self, destination: &Name, pause: Pause) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The destinations that are paused.
    fn paused(&self) -> BTreeSet<Name>;

    /// Says which routes there are from now on: at the start, and whenever the config has changed. Deliveries of others are
    /// orphaned: kept, and not given to their lanes' owners until their route is back; their `max_age` then begins anew.
    /// Once it returns, none of them is attempted any more.
    ///
    /// # Errors
    /// [`JournalError`] if it could not be written; the routes are as asked for all the same, until the journal is opened again.
    fn set_routes(&self, routes: Routes) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The routes there are, as they change.
    fn routing(&self) -> watch::Receiver<Arc<Routing>>;

    /// Makes deliveries of the event at `at` pending again, counting attempts on: all of them that are
    /// settled, or only those `only` names; with [`Rearm::Duplicate`] only dead ones. A replay has orphaned ones delivered
    /// all the same, if their destination is there; a duplicate leaves alone what has no route. Returns those it rearmed, durable.
    ///
    /// # Errors
    /// [`JournalError`] if the event is gone or the record could not be written.
    fn rearm(
        &self,
        at: Located,
        only: Option<Name>,
        why: Rearm,
    ) -> impl Future<Output = Result<Vec<DeliveryId>, JournalError>> + Send;

    /// The event at `at`; none if it is no longer kept.
    ///
    /// # Errors
    /// [`JournalError`] if the store cannot be read, [`JournalError::Damaged`] if its record fails its checksum,
    /// [`JournalError::Erased`] if it was erased.
    fn event(&self, at: Located) -> impl Future<Output = Result<Option<Kept>, JournalError>> + Send;

    /// Erases the event at `at`: whatever waits of it has ended, and once this returns nothing of what its sender wrote, nor of
    /// what was answered, is in the store. Its claim stays, so that a sender's retry is a duplicate and brings nothing
    /// back. It goes on where whoever asked goes away; what a crash cuts off is finished at the next opening. Of an event that was erased
    /// before it does nothing.
    ///
    /// # Errors
    /// [`JournalError::Unknown`] if it is no longer kept, [`JournalError::Damaged`] if its record cannot be read,
    /// [`JournalError::Busy`] while another is erased or a backup is made; nothing has changed then. Another [`JournalError`]: it
    /// may be erased in part, and is wholly once it is asked for again or the journal is opened again.
    fn erase(&self, at: Located) -> impl Future<Output = Result<Erased, JournalError>> + Send;

    /// Begins a backup: what a crash now would leave, as an archive (see [`archive`]). Events go on being taken meanwhile. Dropped, it ends.
    ///
    /// # Errors
    /// [`JournalError::Busy`] while another is made or an event erased; others if the store cannot be read or written.
    fn backup(&self) -> impl Future<Output = Result<Backup, JournalError>> + Send;

    /// What happened after `after`, in order, at most about `max`; empty when there is nothing new.
    /// Feeds the index.
    ///
    /// # Errors
    /// [`JournalError`] if the store cannot be read.
    fn changes(&self, after: Position, max: usize) -> impl Future<Output = Result<Changes, JournalError>> + Send;

    /// What there is of it, for metrics and `/readyz`. No I/O.
    fn stats(&self) -> Stats;

    /// The position after the newest change that [`Journal::changes`] would give.
    fn tail(&self) -> Position;

    /// Lets go of what `keep` no longer asks for. Called now and then.
    ///
    /// # Errors
    /// [`JournalError`] if the store cannot be read or written.
    fn trim(&self, keep: Retention) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// Whether an event that came now could be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Open,
    /// No: pending, dead and claims alone fill it, the disk is nearly full, or it cannot be written to for a while.
    Full {
        /// When to ask again.
        retry_after: Duration,
        /// What the operating system said when it was last written to, if it refused.
        refused: Option<Arc<str>>,
    },
    /// No, for this source: what waits of it takes its share of the journal. Others have room.
    OverShare {
        /// When to ask again.
        retry_after: Duration,
    },
    /// No, while a write or a flush hangs: the disk does not answer.
    Stalled {
        /// When to ask again.
        retry_after: Duration,
    },
    /// No, until it is opened again.
    Failed(Arc<str>),
}

/// A place in the journal: later records have greater ones. Zero is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before everything.
    pub const START: Self = Self(0);
}

/// An event and where its record is. Records move (stragglers are copied forward), ids stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    /// The event.
    pub id: EventId,
    /// Where its record was when this was made.
    pub at: Position,
}

/// What one append keeps.
#[derive(Debug)]
pub struct Entry {
    /// The event; only verification makes one.
    pub event: VerifiedEvent,
    /// The claim on its dedupe key, if it has one.
    pub claim: Option<Claim>,
    /// The destinations it goes to, in route order: delivery `index` is the place in this list.
    pub deliveries: Vec<NewDelivery>,
    /// An attempt at the first delivery that the request path made, or is making.
    pub attempt: Option<FirstAttempt>,
    /// What the application answered, where the sender is told just that.
    pub relayed: Option<Relayed>,
    /// The body's place in the budget of bytes in flight; given back once the append is over, however long that takes.
    pub lease: Option<Lease>,
}

/// How soon an append must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before anybody hears of it.
    Durable,
    /// Within 100 ms: nobody was promised that it is kept.
    Behind,
}

/// An attempt that was made before the event was appended: number 1, at its first delivery.
#[derive(Clone, Debug)]
pub enum FirstAttempt {
    /// It began then and has not ended: [`Journal::report`] says how it does. After a crash its outcome is unknown.
    UnderWay(UnixMillis),
    /// It has ended.
    Over(Attempt, Verdict),
}

/// An application's answer as it is told again to whoever sends a duplicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The status.
    pub status: u16,
    /// The body's type.
    pub content_type: Option<HeaderValue>,
    /// The body; none if it was too long to keep.
    pub body: Option<Bytes>,
}

impl Relayed {
    /// The longest body that is kept.
    pub const BODY_MAX: usize = 16 << 10;
}

/// Whether a key is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is.
    Free,
    /// An event holds it.
    Seen {
        /// Which.
        original: Located,
        /// Whether its body is another.
        conflict: bool,
    },
}

/// Whether a destination is delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It is left alone until somebody says otherwise.
    Paused,
    /// It is.
    Resumed,
}

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The event.
    pub event: Event,
    /// Its deliveries, by index, as they were asked for.
    pub deliveries: Vec<NewDelivery>,
    /// What the application answered, where the sender was told just that.
    pub relayed: Option<Relayed>,
}

/// A delivery to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where it goes.
    pub destination: Name,
    /// The path that the route puts in place of the destination's.
    pub path: Option<Box<str>>,
}

/// A dedupe key, held by an event for a while.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What is claimed.
    pub key: DedupeKey,
    /// What keys of the same signed bytes have in common, where they are not one: see [`Appended::SameBody`].
    pub same_body: Option<DedupeKey>,
    /// A digest of the body: another one under the same key is a conflict.
    pub fingerprint: u64,
    /// For how long, from now on, by the journal's own time: setting the wall clock changes nothing.
    pub window: Duration,
    /// What a later duplicate does to dead deliveries of this event.
    pub rearms: bool,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The event is kept.
    Fresh(Located),
    /// The event is kept, although an earlier one within its window had the same signed bytes: it came under another id.
    SameBody {
        /// The event.
        kept: Located,
        /// The earlier one, or one of them.
        like: EventId,
    },
    /// The key is held: the event that holds it is durable, this one is not kept.
    Duplicate {
        /// Who holds it.
        original: Located,
        /// Whether the bodies differ.
        conflict: bool,
    },
}

/// Why an event was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// No room.
    #[error("the journal is full")]
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// No room for this source.
    #[error("what waits of the source takes its share of the journal")]
    OverShare {
        /// When to try again.
        retry_after: Duration,
    },
    /// Failed until reopened.
    #[error("the journal has failed: {0}")]
    Failed(Arc<str>),
    /// Never any room.
    #[error("an event of {bytes} bytes is more than the journal can hold")]
    TooLarge {
        /// The record's size.
        bytes: usize,
    },
    /// The journal is closing.
    #[error("the journal is closed")]
    Closed,
}

/// What erasing an event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Deliveries that have ended with it: they were pending or dead.
    pub purged: u32,
}

/// A backup that is being made.
#[derive(Debug)]
pub struct Backup {
    /// About how long it will be, in bytes.
    pub bytes: u64,
    /// The archive, piece by piece. It is whole only if it ends with its manifest.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// Why the journal could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// Failed until reopened.
    #[error("the journal has failed: {0}")]
    Failed(Arc<str>),
    /// A file could not be read.
    #[error("the journal cannot be read: {0}")]
    Read(Arc<str>),
    /// A record fails its checksum.
    #[error("the record is damaged")]
    Damaged,
    /// A record is sealed with a key that is not configured.
    #[error("the record is sealed with a key that is not there: {0}; add it to journal.encryption_key")]
    NoKey(seal::KeyId),
    /// The lane has another owner.
    #[error("the lane is no longer ours")]
    Fenced,
    /// It was erased.
    #[error("the event was erased")]
    Erased,
    /// Something that goes through all of it is under way: one at a time.
    #[error("an event is being erased or a backup made; try again once that is over")]
    Busy,
    /// Nothing is known of it.
    #[error("no such event or delivery")]
    Unknown,
    /// Its route is not in the config.
    #[error("the delivery is orphaned: its route is not in the config")]
    Orphaned,
    /// No room for the record.
    #[error("the journal is full")]
    Full,
    /// The journal is closing.
    #[error("the journal is closed")]
    Closed,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// The attempt; none when the delivery is given up without one.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub verdict: Verdict,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The application took it.
    Delivered,
    /// Another attempt at this time.
    RetryAt(UnixMillis),
    /// No more attempts.
    Dead(DeadReason),
    /// The application answered the sender with a 4xx: no more attempts, and nothing is wrong here.
    Refused,
}

/// Why deliveries are made pending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearm {
    /// An operator asked.
    Replay,
    /// A duplicate came.
    Duplicate,
}
