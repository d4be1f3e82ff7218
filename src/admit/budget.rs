//! How many bytes of bodies are held at the same time, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Denied;
use crate::base::ByteSize;

/// The bytes that all bodies together may take. A handle: all clones are one budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Budget {
    /// A budget with nothing spent. A body larger than `limit` is never let in.
    #[must_use]
    pub fn new(limit: ByteSize) -> Self {
        Self(Arc::new(Account { limit_bytes: limit.0, used_bytes: AtomicU64::new(0) }))
    }

    /// Takes `bytes` out until the lease is dropped.
    ///
    /// # Errors
    /// [`Denied::Busy`] if so many are not left; none were taken.
    pub fn take(&self, bytes: u64) -> Result<Lease, Denied> {
        let mut lease = Lease { account: Arc::clone(&self.0), bytes: 0 };
        lease.cover(bytes)?;
        Ok(lease)
    }

    /// The bytes that are out.
    #[must_use]
    pub fn used(&self) -> ByteSize {
        ByteSize(self.0.used_bytes.load(Ordering::Relaxed))
    }
}

/// Bytes taken from a [`Budget`]; a drop gives them back.
///
/// It goes along with the body it was taken for, until the journal has the event.
#[derive(Debug)]
#[must_use = "dropped, it gives its bytes back at once"]
pub struct Lease {
    account: Arc<Account>,
    bytes: u64,
}

impl Lease {
    /// Grows to `bytes`, if it is smaller.
    ///
    /// # Errors
    /// [`Denied::Busy`] if the budget does not have the rest; the lease stays as it was.
    pub fn cover(&mut self, bytes: u64) -> Result<(), Denied> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let Account { limit_bytes, used_bytes } = &*self.account;
        let add = |used: u64| used.checked_add(more).filter(|total| total <= limit_bytes);
        used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| Denied::Busy)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.account.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_to_its_last_byte_and_no_further() {
        let budget = Budget::new(ByteSize(10));
        let first = budget.take(4).unwrap();
        let _second = budget.take(6).unwrap();
        assert_eq!(budget.take(1).unwrap_err(), Denied::Busy);
        let _nothing = budget.take(0).unwrap();
        drop(first);
        assert_eq!(budget.used(), ByteSize(6));
        let _third = budget.take(4).unwrap();
        assert_eq!(budget.take(u64::MAX).unwrap_err(), Denied::Busy);
    }

    #[test]
    fn a_lease_that_cannot_grow_keeps_what_it_has() {
        let budget = Budget::new(ByteSize(10));
        let mut lease = budget.take(3).unwrap();
        lease.cover(10).unwrap();
        assert_eq!(lease.cover(11), Err(Denied::Busy));
        lease.cover(2).unwrap();
        assert_eq!(budget.used(), ByteSize(10), "it never shrinks");
        drop(lease);
        assert_eq!(budget.used(), ByteSize(0));
    }
}
