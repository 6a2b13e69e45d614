//! The memory of one large message, which grows with the bytes that arrive.

use std::sync::Arc;

use crate::etf::{Pool, PooledBytes};

/// Bytes that one read may bring straight into it. They stay in a core's cache from being cleared to being written.
pub(super) const STEP_BYTES: usize = 256 << 10;
/// Bytes that one read may bring when little is here yet.
const FIRST_STEP_BYTES: usize = 8 << 10;
/// How many times the bytes that are here may be taken in advance.
const AHEAD: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Growing {
    bytes: Vec<u8>,
    filled: usize,
    /// The length that the sender has claimed. Nothing is taken because of it.
    claimed: usize,
}

impl Growing {
    /// For a message that is said to have `claimed` bytes: in memory that is used again where there is some.
    pub(super) fn new(claimed: usize, pool: &Pool) -> Self {
        Self { bytes: pool.take(claimed), filled: 0, claimed }
    }

    /// Bytes that have arrived.
    pub(super) const fn len(&self) -> usize {
        self.filled
    }

    /// Those bytes.
    #[expect(clippy::indexing_slicing, reason = "`filled` bytes and more stand there")]
    pub(super) fn arrived(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.filled);
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.filled = self.bytes.len();
    }

    /// Room for `len` bytes, or for as many as a read should bring.
    #[expect(clippy::indexing_slicing, reason = "it has just been made as long as that")]
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled + len.min(self.filled.clamp(FIRST_STEP_BYTES, STEP_BYTES));
        if self.bytes.len() < end {
            self.reserve(end - self.bytes.len());
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }

    /// That a read has put `len` bytes into the room.
    pub(super) fn filled(&mut self, len: usize) {
        self.filled += len;
        debug_assert!(self.filled <= self.bytes.len(), "a read stays in the room that it was given");
    }

    /// Capacity for `more` bytes behind those that stand there; where it has to grow, for a few times as much,
    /// since each step may move what is there.
    fn reserve(&mut self, more: usize) {
        let wanted = self.bytes.len() + more;
        if wanted > self.bytes.capacity() {
            let ahead = self.claimed.min(self.filled * AHEAD).max(wanted);
            self.bytes.reserve_exact(ahead - self.bytes.len());
        }
    }

    /// All that has arrived.
    pub(super) fn finish(mut self, pool: &Arc<Pool>) -> Arc<PooledBytes> {
        self.bytes.truncate(self.filled);
        if self.bytes.capacity() / 2 > self.filled {
            // It was claimed to be larger.
            self.bytes.shrink_to_fit();
        }
        Arc::new(PooledBytes::new(self.bytes, pool))
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_what_is_copied_stand_in_order() {
        let mut growing = Growing::new(1 << 30, &Pool::new(0));
        growing.extend(b"ab");
        growing.room(10)[..3].copy_from_slice(b"cde");
        growing.filled(3);
        growing.extend(b"fg");
        growing.room(1)[0] = b'h';
        growing.filled(1);
        assert_eq!(growing.len(), 8);
        assert_eq!(**growing.finish(&Pool::new(0)), *b"abcdefgh");
    }

    #[test]
    fn memory_that_was_used_before_is_used_again() {
        let pool = Pool::new(1 << 20);
        let mut growing = Growing::new(300 << 10, &pool);
        growing.extend(&vec![7; 300 << 10]);
        let first = growing.finish(&pool);
        let place = first.as_ptr();
        drop(first);
        let mut growing = Growing::new(299 << 10, &pool);
        growing.extend(&vec![8; 298 << 10]);
        growing.room(1000)[..2].copy_from_slice(&[9; 2]);
        growing.filled(2);
        let second = growing.finish(&pool);
        assert_eq!(
            (second.as_ptr(), second.len(), &second[second.len() - 3..]),
            (place, (298 << 10) + 2, &[8, 9, 9][..])
        );
        drop(second);
        let mut growing = Growing::new(299 << 10, &pool);
        growing.extend(b"little");
        drop(growing.finish(&pool));
        assert_eq!(pool.bytes(), 0, "what was claimed and did not come is given back");
    }

    #[test]
    fn a_claim_takes_no_memory() {
        let mut growing = Growing::new(1 << 30, &Pool::new(0));
        for _ in 0..100 {
            let len = growing.room(1000).len();
            growing.filled(len);
            assert!(growing.capacity() <= AHEAD * growing.len() + FIRST_STEP_BYTES, "{}", growing.capacity());
        }
        let mut growing = Growing::new(1001, &Pool::new(0));
        growing.extend(&[7; 1000]);
        assert_eq!(growing.room(9).len(), 9);
        assert!(growing.capacity() < 1100, "hardly more than is claimed: {}", growing.capacity());
    }
}
