//! The room that all stores of a node have together (`--memory-max`).

use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;

/// What a pair is counted with beside its bytes: its place in the table and the allocator's own, by measure.
pub const PAIR_BYTES: u64 = 48;

/// Counts what stores hold, as bytes of keys and values and [`PAIR_BYTES`] for each pair, against a bound.
///
/// A store that ends gives back what it has taken.
#[derive(Debug)]
pub struct Room {
    used: AtomicU64,
    bytes_max: u64,
}

impl Default for Room {
    /// Without a bound.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Room {
    /// Room for so many bytes.
    pub const fn new(bytes_max: u64) -> Self {
        Self { used: AtomicU64::new(0), bytes_max }
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes room for what comes in place of `old` bytes. What does not take more than before always fits.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] where it would be more than the bound: nothing has changed then.
    pub(super) fn exchange(&self, old: u64, new: u64) -> Result<(), StoreError> {
        if new <= old {
            self.give_back(old - new);
            return Ok(());
        }
        let more = new - old;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|&sum| sum <= self.bytes_max)
        });
        taken.map(|_| ()).map_err(|_| StoreError::NoSpace)
    }

    /// Gives room back that was taken.
    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_changes_nothing_and_what_shrinks_always_fits() {
        let room = Room::new(100);
        assert_eq!(room.exchange(0, 100), Ok(()));
        assert_eq!(room.exchange(0, 1), Err(StoreError::NoSpace));
        assert_eq!((room.exchange(60, 61), room.used()), (Err(StoreError::NoSpace), 100));
        assert_eq!((room.exchange(60, 60), room.exchange(60, 10), room.used()), (Ok(()), Ok(()), 50));
        assert_eq!(room.exchange(0, u64::MAX), Err(StoreError::NoSpace));
        room.give_back(50);
        assert_eq!(room.used(), 0);
    }
}
