//! The keys whose writes a slave has missed: what a repair has to send anew. Keys only, each once, under a bound.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashSet;

/// What one key costs beside its own bytes: two pointers, a slot of the set, counts.
const KEY_OVERHEAD_BYTES: usize = 80;

/// A set of keys in the order in which they came: the same inputs give the same outputs.
#[derive(Debug, Default)]
pub(super) struct MissedKeys {
    order: VecDeque<Arc<[u8]>>,
    known: AHashSet<Arc<[u8]>>,
    bytes: usize,
}

impl MissedKeys {
    pub(super) fn insert(&mut self, key: &[u8]) {
        if self.known.contains(key) {
            return;
        }
        let key: Arc<[u8]> = key.into();
        self.bytes += key.len() + KEY_OVERHEAD_BYTES;
        self.known.insert(Arc::clone(&key));
        self.order.push_back(key);
    }

    pub(super) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let key = self.order.pop_front()?;
        self.known.remove(&key);
        self.bytes -= key.len() + KEY_OVERHEAD_BYTES;
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The memory that they take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_once_and_comes_out_in_order() {
        let mut missed = MissedKeys::default();
        for key in [b"b", b"a", b"b"] {
            missed.insert(key);
        }
        assert_eq!(missed.len(), 2);
        assert_eq!(missed.pop().as_deref(), Some(&b"b"[..]));
        assert_eq!(missed.pop().as_deref(), Some(&b"a"[..]));
        assert_eq!((missed.pop(), missed.bytes()), (None, 0));
    }
}
