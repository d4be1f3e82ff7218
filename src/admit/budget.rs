//! How many bytes of requests are held at the same time, and how sources share them.
//!
//! A source may hold as many bytes as are still free, so one that takes all it can get ends at a half, two of them at a
//! third each, and something is left for those that hold nothing (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
//! Transactions on Networking 6(2), 1998). A lone source may have everything, and so may one request of a source that
//! has no other, if it is free: a large body is not refused because others might come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Denied;
use crate::base::ByteSize;

/// The bytes that all requests together may take. A handle: all clones are one budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account(Mutex<Used>);

#[derive(Debug)]
struct Used {
    limit_bytes: u64,
    bytes: u64,
    shares: usize,
}

impl Budget {
    /// A budget with nothing spent. What is larger than `limit` is never let in.
    #[must_use]
    pub fn new(limit: ByteSize) -> Self {
        Self(Arc::new(Account(Mutex::new(Used { limit_bytes: limit.0, bytes: 0, shares: 0 }))))
    }

    /// Changes the limit. What is out stays out, also where it is more than that.
    pub fn resize(&self, limit: ByteSize) {
        self.0.used().limit_bytes = limit.0;
    }

    /// A part in it, for one source. Ask once, when the source is set up: as long as there is another share, none may
    /// have everything.
    #[must_use]
    pub fn share(&self) -> Share {
        self.0.used().shares += 1;
        Share(Arc::new(Holder { account: Arc::clone(&self.0), bytes: Mutex::new(0) }))
    }

    /// The bytes that are out.
    #[must_use]
    pub fn used(&self) -> ByteSize {
        ByteSize(self.0.used().bytes)
    }
}

impl Account {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one source may take of a [`Budget`]. A handle: all clones are one share.
#[derive(Clone, Debug)]
pub struct Share(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    account: Arc<Account>,
    /// Held bytes. Changed under the account's lock alone, which is taken first.
    bytes: Mutex<u64>,
}

impl Share {
    /// Takes `bytes` out until the lease is dropped.
    ///
    /// # Errors
    /// [`Denied::Busy`] if so many are not left for this source; none were taken.
    pub fn take(&self, bytes: u64) -> Result<Lease, Denied> {
        let mut lease = Lease { holder: Arc::clone(&self.0), bytes: 0 };
        lease.grow(bytes)?;
        Ok(lease)
    }
}

impl Holder {
    fn bytes(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.account.used().shares -= 1;
    }
}

/// Bytes taken from a [`Budget`]; a drop gives them back.
///
/// It goes along with the request it was taken for, until the journal has the event.
#[derive(Debug)]
#[must_use = "dropped, it gives its bytes back at once"]
pub struct Lease {
    holder: Arc<Holder>,
    bytes: u64,
}

impl Lease {
    /// Grows by `more`.
    ///
    /// # Errors
    /// [`Denied::Busy`] if the budget does not have them for this source; the lease stays as it was.
    pub fn grow(&mut self, more: u64) -> Result<(), Denied> {
        let account = &self.holder.account;
        let mut used = account.used();
        let mut held = self.holder.bytes();
        let after = used.bytes.checked_add(more).filter(|after| *after <= used.limit_bytes).ok_or(Denied::Busy)?;
        let of_others = *held - self.bytes;
        let is_fair = *held + more <= used.limit_bytes - after;
        if used.shares > 1 && of_others > 0 && !is_fair {
            return Err(Denied::Busy);
        }
        used.bytes = after;
        *held += more;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.holder.account.used();
        used.bytes -= self.bytes;
        *self.holder.bytes() -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_limit_holds_for_whoever_comes_next() {
        let budget = Budget::new(ByteSize(10));
        let share = budget.share();
        let first = share.take(8).unwrap();
        budget.resize(ByteSize(4));
        assert_eq!(share.take(1).unwrap_err(), Denied::Busy);
        drop(first);
        let _all = share.take(4).unwrap();
        budget.resize(ByteSize(6));
        let _more = share.take(2).unwrap();
        assert_eq!(budget.used(), ByteSize(6));
    }

    #[test]
    fn a_lone_source_may_spend_a_budget_to_its_last_byte_and_no_further() {
        let budget = Budget::new(ByteSize(10));
        let share = budget.share();
        let first = share.take(4).unwrap();
        let _second = share.take(6).unwrap();
        assert_eq!(share.take(1).unwrap_err(), Denied::Busy);
        let _nothing = share.take(0).unwrap();
        drop(first);
        assert_eq!(budget.used(), ByteSize(6));
        let _third = share.take(4).unwrap();
        assert_eq!(share.take(u64::MAX).unwrap_err(), Denied::Busy);
    }

    #[test]
    fn a_lease_that_cannot_grow_keeps_what_it_has() {
        let budget = Budget::new(ByteSize(10));
        let mut lease = budget.share().take(3).unwrap();
        lease.grow(7).unwrap();
        assert_eq!(lease.grow(1), Err(Denied::Busy));
        assert_eq!(lease.grow(u64::MAX), Err(Denied::Busy));
        assert_eq!(budget.used(), ByteSize(10));
        drop(lease);
        assert_eq!(budget.used(), ByteSize(0));
    }

    /// Takes bytes one by one until there are none.
    fn all_it_gets(share: &Share) -> Vec<Lease> {
        std::iter::from_fn(|| share.take(1).ok()).collect()
    }

    #[test]
    fn of_two_sources_none_gets_more_than_is_left_to_the_other() {
        let budget = Budget::new(ByteSize(90));
        let (hog, second, third) = (budget.share(), budget.share(), budget.share());
        let held = all_it_gets(&hog);
        assert_eq!(held.len(), 45, "a half");
        let more = all_it_gets(&second);
        assert_eq!(more.len(), 22, "a half of what was left");
        drop((held, more));
        let (mut hog_holds, mut second_holds) = (Vec::new(), Vec::new());
        loop {
            let taken = (hog.take(1).ok(), second.take(1).ok());
            if taken.0.is_none() && taken.1.is_none() {
                break;
            }
            hog_holds.extend(taken.0);
            second_holds.extend(taken.1);
        }
        assert_eq!((hog_holds.len(), second_holds.len()), (30, 30), "a third each");
        assert!(third.take(30).is_ok(), "and a third for whoever comes");
    }

    #[test]
    fn the_only_request_of_a_source_may_be_as_large_as_what_is_free() {
        let budget = Budget::new(ByteSize(100));
        let (large, other) = (budget.share(), budget.share());
        let small = other.take(1).unwrap();
        let mut lease = large.take(10).unwrap();
        lease.grow(89).unwrap();
        assert_eq!(large.take(1).unwrap_err(), Denied::Busy);
        drop((lease, small, other));
        let _one = large.take(60).unwrap();
        assert!(large.take(40).is_ok(), "the other source is gone, so this one may have everything");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize, u64),
        Grow(usize, u64),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..4, 0u64..400).prop_map(|(source, bytes)| Step::Take(source, bytes)),
            1 => (any::<usize>(), 0u64..400).prop_map(|(lease, bytes)| Step::Grow(lease, bytes)),
            2 => any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        /// Four sources take and give back; a fifth, which holds nothing, finds room after each step. With one-byte
        /// steps three hogs would leave it a quarter; each of the four may here be over by its last body.
        #[test]
        fn the_sum_holds_an_idle_source_finds_room_and_everything_comes_back(
            steps in prop::collection::vec(step(), 1..200)
        ) {
            const LIMIT: u64 = 4_000;
            const BODY: u64 = 400;
            let budget = Budget::new(ByteSize(LIMIT));
            let shares: Vec<Share> = (0..4).map(|_| budget.share()).collect();
            let idle = budget.share();
            let mut leases: Vec<(usize, Lease)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(source, bytes) => leases.extend(shares[source].take(bytes).ok().map(|lease| (source, lease))),
                    Step::Grow(at, bytes) if !leases.is_empty() => {
                        let at = at % leases.len();
                        let bytes = bytes.min(BODY.saturating_sub(leases[at].1.bytes)); // a body has a limit
                        let _ = leases[at].1.grow(bytes);
                    }
                    Step::Drop(at) if !leases.is_empty() => drop(leases.swap_remove(at % leases.len())),
                    Step::Grow(..) | Step::Drop(_) => {}
                }
                let sum: u64 = leases.iter().map(|(_, lease)| lease.bytes).sum();
                prop_assert_eq!(budget.used(), ByteSize(sum));
                prop_assert!(sum <= LIMIT);
                let hogs = (0..4).filter(|source| leases.iter().any(|(of, lease)| of == source && lease.bytes > 0)).count() as u64;
                let room = (LIMIT / (hogs + 1)).saturating_sub(BODY);
                prop_assert!(idle.take(room).is_ok(), "{} are free, {} hogs", LIMIT - sum, hogs);
            }
            drop(leases);
            prop_assert_eq!(budget.used(), ByteSize(0));
        }
    }
}
