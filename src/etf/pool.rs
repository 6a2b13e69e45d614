//! Memory of large values, used again.
//!
//! The pages of fresh memory cost more than the bytes that are put into them: a 16 MiB value that overwrites another
//! one was received at half the speed when its memory came from the system each time (`scripts/bench values`).

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Blocks below this many bytes are left to the allocator.
const BLOCK_BYTES_MIN: usize = 256 << 10;

/// Blocks that are free, within a bound.
pub struct Pool {
    free: Mutex<Free>,
    bytes_max: usize,
}

#[derive(Default)]
struct Free {
    blocks: Vec<Vec<u8>>,
    bytes: usize,
    /// Something was taken or given since the last [`Pool::rest`].
    used: bool,
}

impl Pool {
    /// One that keeps so many bytes at most.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), bytes_max })
    }

    /// Memory for `len` bytes: of any length, with any contents. Without capacity where no block fits that well.
    pub fn take(&self, len: usize) -> Vec<u8> {
        let mut free = self.free.lock();
        free.used = true;
        // A value must not hold much more memory than it needs.
        let fits = |block: &Vec<u8>| (len..=len / 3 * 4).contains(&block.capacity());
        let Some(at) = free.blocks.iter().position(fits) else { return Vec::new() };
        let block = free.blocks.swap_remove(at);
        free.bytes -= block.capacity();
        block
    }

    fn give(&self, block: Vec<u8>) {
        let bytes = block.capacity();
        let mut free = self.free.lock();
        free.used = true;
        if bytes >= BLOCK_BYTES_MIN && free.bytes + bytes <= self.bytes_max {
            free.bytes += bytes;
            free.blocks.push(block);
        }
    }

    /// Gives the memory back to the system when nobody has used it since this was last called.
    pub fn rest(&self) {
        if !mem::replace(&mut self.free.lock().used, false) {
            self.clear();
        }
    }

    /// Gives the memory back to the system now.
    pub fn clear(&self) {
        let unused = mem::take(&mut *self.free.lock());
        drop(unused);
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.free.lock().bytes
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("bytes", &self.bytes()).field("bytes_max", &self.bytes_max).finish()
    }
}

/// Bytes in memory that goes back to its pool with the last holder.
pub struct PooledBytes {
    bytes: Vec<u8>,
    pool: Weak<Pool>,
    /// How many of the holders are output that waits ([`QueuedBytes`](super::QueuedBytes)).
    queued: AtomicUsize,
}

impl PooledBytes {
    /// Bytes whose memory goes to `pool`.
    pub fn new(bytes: Vec<u8>, pool: &Arc<Pool>) -> Self {
        Self { bytes, pool: Arc::downgrade(pool), queued: AtomicUsize::new(0) }
    }

    /// The memory that it takes: more than it has bytes where a block of the pool was larger.
    pub(crate) const fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn queue(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unqueue(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

impl From<Vec<u8>> for PooledBytes {
    /// Bytes whose memory goes back to the system.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: Weak::new(), queued: AtomicUsize::new(0) }
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give(mem::take(&mut self.bytes));
        }
    }
}

impl Deref for PooledBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for PooledBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PooledBytes {}

impl fmt::Debug for PooledBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_where_it_fits_and_given_back_when_nobody_needs_it() {
        let pool = Pool::new(3 << 20);
        let one = PooledBytes::new(vec![7; 1 << 20], &pool);
        let place = one.as_ptr();
        drop(one);
        assert_eq!(pool.bytes(), 1 << 20);
        assert_eq!(pool.take(2 << 20).capacity(), 0, "too small");
        assert_eq!(pool.take(600 << 10).capacity(), 0, "much too large");
        let again = pool.take(900 << 10);
        assert_eq!((again.as_ptr(), again.capacity()), (place, 1 << 20));
        assert_eq!(pool.bytes(), 0);
        pool.give(again);
        pool.rest();
        assert_eq!(pool.bytes(), 1 << 20, "it was used since the start");
        pool.rest();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn no_more_is_kept_than_the_bound_and_nothing_small() {
        let pool = Pool::new(1 << 20);
        drop([600 << 10, 500 << 10, 100 << 10].map(|len| PooledBytes::new(vec![0; len], &pool)));
        assert_eq!(pool.bytes(), 600 << 10);
        let orphan = PooledBytes::new(vec![0; 1 << 20], &pool);
        drop(pool);
        drop(orphan);
    }
}
