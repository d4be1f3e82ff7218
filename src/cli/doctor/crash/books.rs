//! What was sent, what was promised and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The books. Webhooks are numbered from 1; what is sent under a number is always the same.
#[derive(Default)]
pub(super) struct Books {
    pages: Mutex<Pages>,
    next: AtomicU64,
    under_way: AtomicU64,
    /// Whether the application takes what it has put off.
    all_may_arrive: AtomicBool,
}

#[derive(Default)]
struct Pages {
    /// The event of each webhook that was acknowledged.
    acknowledged: BTreeMap<u64, String>,
    /// Webhooks whose answer never came: their senders send them again.
    unanswered: Vec<u64>,
    /// Events that the application has taken.
    delivered: BTreeSet<String>,
    /// The event as which each webhook arrived.
    arrived: BTreeMap<u64, String>,
    /// The newest attempt of each delivery.
    attempts: BTreeMap<String, u32>,
    /// Answers to senders.
    answers: u64,
    counts: Counts,
    broken: Broken,
}

/// What there was of everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: usize,
    pub(super) delivered: usize,
    pub(super) attempts: u64,
    pub(super) duplicates: u64,
    pub(super) refused: u64,
}

/// How often each promise was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Broken {
    /// Acknowledged, and neither delivered nor a dead letter.
    pub(super) lost: usize,
    /// Arrived with other bytes than were sent.
    pub(super) wrong_bytes: u64,
    /// Arrived, and was never sent.
    pub(super) invented: u64,
    /// An attempt whose number is not above that of the one before it.
    pub(super) numbers_not_rising: u64,
    /// Acknowledged as one event, and then taken or delivered as another.
    pub(super) forgotten: u64,
}

/// How a webhook was answered.
pub(super) struct Answer {
    pub(super) accepted: bool,
    pub(super) event: String,
    pub(super) duplicate: bool,
}

/// What the application says to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Taken,
    Later,
    Never,
}

/// A webhook under way.
pub(super) struct UnderWay<'b>(&'b Books);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The source that webhook `number` is sent to, and the destination of its deliveries: what goes to the other one waits
/// in the journal until the last kill.
pub(super) fn source(number: u64) -> &'static str {
    if number % 8 == 5 { "waiting" } else { "ready" }
}

/// What is sent under `number`: mostly up to 4 KiB, now and then 64 KiB.
pub(super) fn body(number: u64) -> Bytes {
    let block = data_encoding::HEXLOWER.encode(&Sha256::digest(number.to_le_bytes()));
    let blocks = if number % 100 == 99 { 1024 } else { 1 + number % 64 };
    format!(r#"{{"type":"crash","number":{number},"block":"{}"}}"#, block.repeat(usize::try_from(blocks).unwrap_or(1)))
        .into()
}

impl Books {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a sender sends next: mostly a new webhook, else one whose answer never came, or one that was acknowledged.
    pub(super) fn choose(&self) -> u64 {
        let mut pages = self.pages();
        let dice = fastrand::u8(..100);
        let again = if dice < 50 { pages.unanswered.pop() } else { None };
        let known = || {
            let newest = pages.acknowledged.last_key_value().filter(|_| dice >= 90)?;
            let near = pages.acknowledged.range(fastrand::u64(..=*newest.0)..).next()?;
            Some(*near.0)
        };
        again.or_else(known).unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A webhook is sent; it is under way while what this gives lives.
    pub(super) fn sends(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Nobody will know whether webhook `number` was kept.
    pub(super) fn unanswered(&self, number: u64) {
        self.pages().unanswered.push(number);
    }

    pub(super) fn answered(&self, number: u64, Answer { accepted, event, duplicate }: Answer) {
        let mut pages = self.pages();
        pages.answers += 1;
        if !accepted {
            pages.counts.refused += 1;
            return;
        }
        pages.counts.duplicates += u64::from(duplicate);
        let before = pages.acknowledged.get(&number).cloned();
        match before {
            Some(before) if before != event || !duplicate => pages.broken.forgotten += 1,
            Some(_) => {}
            None => drop(pages.acknowledged.insert(number, event)),
        }
    }

    /// An attempt at the application, as its headers and body tell it.
    pub(super) fn arrives(&self, number: u64, event: &str, delivery: &str, attempt: u32, sent: &[u8]) -> Says {
        let says = self.says(number, attempt);
        let mut pages = self.pages();
        pages.counts.attempts += 1;
        if number == 0 || number > self.next.load(Ordering::Relaxed) {
            pages.broken.invented += 1;
            return Says::Taken;
        }
        pages.broken.wrong_bytes += u64::from(sent != body(number));
        let last = pages.attempts.insert(delivery.to_owned(), attempt);
        pages.broken.numbers_not_rising += u64::from(last.is_some_and(|last| last >= attempt));
        let first = pages.arrived.entry(number).or_insert_with(|| event.to_owned());
        let is_another = first != event;
        pages.broken.forgotten += u64::from(is_another);
        if says == Says::Taken {
            pages.delivered.insert(event.to_owned());
        }
        says
    }

    fn says(&self, number: u64, attempt: u32) -> Says {
        match number {
            _ if source(number) == "waiting" && !self.all_may_arrive.load(Ordering::Relaxed) => Says::Later,
            _ if number.is_multiple_of(16) => Says::Never,
            _ if number.is_multiple_of(7) && attempt < 3 => Says::Later,
            _ => Says::Taken,
        }
    }

    pub(super) fn let_all_arrive(&self) {
        self.all_may_arrive.store(true, Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self) -> Vec<u64> {
        self.pages().acknowledged.keys().copied().collect()
    }

    /// Answers that senders got.
    pub(super) fn answers(&self) -> u64 {
        self.pages().answers
    }

    /// Attempts there were.
    pub(super) fn arrivals(&self) -> u64 {
        self.pages().counts.attempts
    }

    /// How many acknowledged events are neither delivered nor among the `dead`.
    pub(super) fn lost(&self, dead: &[String]) -> usize {
        let pages = self.pages();
        let dead: BTreeSet<_> = dead.iter().collect();
        pages.acknowledged.values().filter(|event| !pages.delivered.contains(*event) && !dead.contains(event)).count()
    }

    pub(super) fn counts(&self) -> Counts {
        let pages = self.pages();
        Counts { acknowledged: pages.acknowledged.len(), delivered: pages.delivered.len(), ..pages.counts }
    }

    /// The promises that were broken, if any was.
    pub(super) fn broken(&self, dead: &[String]) -> Option<Broken> {
        let lost = self.lost(dead);
        let pages = self.pages();
        let elsewhere = pages
            .acknowledged
            .iter()
            .filter(|(number, event)| pages.arrived.get(number).is_some_and(|as_| as_ != *event));
        let forgotten = pages.broken.forgotten + elsewhere.count() as u64;
        let broken = Broken { lost, forgotten, ..pages.broken };
        (broken != Broken::default()).then_some(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(event: &str, duplicate: bool) -> Answer {
        Answer { accepted: true, event: event.to_owned(), duplicate }
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        let books = Books::default();
        for _ in 0..4 {
            books.choose();
        }
        books.answered(1, accepted("evt_1", false));
        assert_eq!(books.arrives(1, "evt_1", "dlv_1", 1, &body(1)), Says::Taken);
        books.answered(1, accepted("evt_1", true));
        assert_eq!(books.broken(&[]), None);

        books.answered(2, accepted("evt_2", false));
        assert_eq!(books.broken(&[]), Some(Broken { lost: 1, ..Broken::default() }));
        assert_eq!(books.broken(&["evt_2".to_owned()]), None);
        books.answered(2, accepted("evt_2b", false));
        assert_eq!(books.arrives(1, "evt_1", "dlv_1", 1, b"other"), Says::Taken);
        assert_eq!(books.arrives(1000, "evt_9", "dlv_9", 1, b""), Says::Taken);
        let all = Broken { lost: 1, wrong_bytes: 1, invented: 1, numbers_not_rising: 1, forgotten: 1 };
        assert_eq!(books.broken(&[]), Some(all));
    }
}
