//! Requests of proxy mode that are under way: another one with the same key waits for the answer of the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Receipt;
use crate::event::DedupeKey;
use crate::journal::Claim;

/// Requests with one key that wait for the first of them, at most.
const WAITERS_MAX: usize = 64;

/// The keys that have a request under way. A handle: all clones are one.
///
/// Its size is that of the requests under way, which the connections and the bytes in flight bound.
#[derive(Clone, Default)]
pub struct Underway(Arc<Mutex<HashMap<DedupeKey, First>>>);

/// The first request with a key, as the others see it.
struct First {
    answer: watch::Receiver<Option<Receipt>>,
    fingerprint: u64,
    /// The claims of those who have waited: the journal is told once it has the event.
    waited: Vec<Claim>,
    waiting: usize,
}

/// What a request with a key does.
pub enum Entered {
    /// It is the first.
    First(Lead),
    /// It waits.
    Waits(Waiting),
    /// Too many wait already.
    Crowd,
}

impl Underway {
    /// Takes note of a request with the key of `claim`.
    pub fn enter(&self, claim: &Claim) -> Entered {
        let mut keys = self.keys();
        let Some(first) = keys.get_mut(&claim.key) else {
            let (answer, answers) = watch::channel(None);
            let first = First { answer: answers, fingerprint: claim.fingerprint, waited: Vec::new(), waiting: 0 };
            keys.insert(claim.key, first);
            return Entered::First(Lead { underway: self.clone(), key: claim.key, answer });
        };
        if first.waiting >= WAITERS_MAX {
            return Entered::Crowd;
        }
        first.waiting += 1;
        if first.waited.len() < WAITERS_MAX {
            first.waited.push(*claim);
        }
        let (answer, conflict) = (first.answer.clone(), first.fingerprint != claim.fingerprint);
        Entered::Waits(Waiting { underway: self.clone(), key: claim.key, answer, conflict })
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<DedupeKey, First>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first request with a key. Dropped, the next request with the key is a first one again, and whoever still waits
/// is told to come again.
pub struct Lead {
    underway: Underway,
    key: DedupeKey,
    answer: watch::Sender<Option<Receipt>>,
}

impl Lead {
    /// Tells whoever waits, and whoever comes until this is dropped.
    pub fn tell(&self, receipt: &Receipt) {
        self.answer.send_replace(Some(receipt.clone()));
    }

    /// Gives the claims of those who have waited so far.
    pub fn waited(&self) -> Vec<Claim> {
        self.underway.keys().get_mut(&self.key).map(|first| std::mem::take(&mut first.waited)).unwrap_or_default()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.underway.keys().remove(&self.key);
    }
}

/// A request that waits for the first one with its key.
pub struct Waiting {
    underway: Underway,
    key: DedupeKey,
    answer: watch::Receiver<Option<Receipt>>,
    /// Whether its body is another.
    pub conflict: bool,
}

impl Waiting {
    /// What the first one is told; none if it is told nothing that holds for others.
    pub async fn answer(&mut self) -> Option<Receipt> {
        self.answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(first) = self.underway.keys().get_mut(&self.key)
            && first.answer.same_channel(&self.answer)
        {
            first.waiting -= 1;
        }
    }
}
