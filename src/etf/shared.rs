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
    pub fn part_of(owner: &Arc<PooledBytes>, part: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(owner.as_ptr() as usize)?;
        let range = start..start.checked_add(part.len())?;
        let inside = owner.get(range.clone()).is_some_and(|found| std::ptr::eq(found, part));
        (inside && part.len() >= owner.len() / 4 * 3).then(|| Self { owner: Arc::clone(owner), range })
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> Self {
        Self { range: 0..bytes.len(), owner: Arc::new(bytes.to_vec().into()) }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner[self.range.clone()]
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
