//! Bytes that several owners hold: a large value is kept in the memory that it was received into, and written from
//! there, without a copy.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::PooledBytes;

/// A part of shared memory.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<PooledBytes>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The part of `owner` that `part` is a slice of; `None` where it is none, or so small a part that it would
    /// hold much more memory than it uses (less than three quarters).
    #[doc(hidden)]
    pub fn part_of(owner: &Arc<PooledBytes>, part: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(owner.as_ptr() as usize)?;
        let range = start..start.checked_add(part.len())?;
        let inside = owner.get(range.clone()).is_some_and(|found| std::ptr::eq(found, part));
        (inside && part.len() >= owner.len() / 4 * 3).then(|| Self { owner: Arc::clone(owner), range })
    }
}

impl SharedBytes {
    /// The memory that it is a part of.
    #[doc(hidden)]
    pub const fn owner(&self) -> &Arc<PooledBytes> {
        &self.owner
    }
}

impl From<Vec<u8>> for SharedBytes {
    /// Memory that is not shared yet, without a copy.
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), owner: Arc::new(bytes.into()) }
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> Self {
        Self { range: 0..bytes.len(), owner: Arc::new(bytes.to_vec().into()) }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    #[expect(clippy::indexing_slicing, reason = "the range is one of the owner's, by all that make one")]
    fn deref(&self) -> &[u8] {
        &self.owner[self.range.clone()]
    }
}

/// Shared bytes that wait for a peer, known as such: so that memory which nothing but such waiting keeps alive can be
/// told from a value that a store has anyway.
pub struct QueuedBytes(SharedBytes);

impl QueuedBytes {
    /// A part of it, which waits too.
    ///
    /// # Panics
    /// `range` is not within it: a misuse.
    pub fn part(&self, range: Range<usize>) -> Self {
        let (start, end) = (self.0.range.start + range.start, self.0.range.start + range.end);
        assert!(range.start <= range.end && end <= self.0.range.end, "a part is within the whole");
        SharedBytes { owner: Arc::clone(&self.0.owner), range: start..end }.into()
    }

    /// Whether nothing but output holds its memory.
    pub fn is_held_by_output_alone(&self) -> bool {
        // Both may change meanwhile: it is an estimate, for a bound.
        self.0.owner.queued() >= Arc::strong_count(&self.0.owner)
    }

    /// What tells its memory from other memory.
    pub fn memory(&self) -> usize {
        Arc::as_ptr(&self.0.owner) as usize
    }

    /// All bytes of its memory, also those outside of this part.
    pub fn memory_bytes(&self) -> usize {
        self.0.owner.memory_bytes()
    }
}

impl From<SharedBytes> for QueuedBytes {
    fn from(bytes: SharedBytes) -> Self {
        bytes.owner.queue();
        Self(bytes)
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.0.owner.unqueue();
    }
}

impl Deref for QueuedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for QueuedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuedBytes({})", self.len())
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_output_alone_holds_is_told_from_what_a_store_has() {
        let kept = SharedBytes::from(vec![7; 100]);
        let queued = QueuedBytes::from(kept.clone());
        let part = queued.part(10..20);
        assert_eq!((part.len(), part.memory(), part.memory_bytes()), (10, queued.memory(), 100));
        assert!(!queued.is_held_by_output_alone());
        drop(kept);
        assert!(queued.is_held_by_output_alone() && part.is_held_by_output_alone());
        let other = SharedBytes::clone(&part.0);
        drop(queued);
        assert!(!part.is_held_by_output_alone());
        drop(other);
        assert!(part.is_held_by_output_alone());
    }

    #[test]
    fn only_a_large_part_of_the_owner_is_shared() {
        let owner = Arc::new(PooledBytes::from(vec![7; 100]));
        let part = SharedBytes::part_of(&owner, &owner[10..90]).expect("a large part");
        assert!(std::ptr::eq(&*part, &owner[10..90]));
        assert_eq!(Arc::strong_count(&owner), 2);
        assert!(SharedBytes::part_of(&owner, &owner[50..90]).is_none(), "too small a part");
        assert!(SharedBytes::part_of(&owner, &[7; 90]).is_none(), "other memory");
        assert!(SharedBytes::part_of(&owner, &[]).is_none());
    }
}
