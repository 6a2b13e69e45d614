//! The keys whose present values a slave cannot be sent, as its node's OTP cannot decode them: they would cost the connection.

use std::collections::BTreeSet;

/// What one key costs beside its own bytes, about.
const KEY_OVERHEAD_BYTES: usize = 48;

/// A set of keys under a bound.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    keys: BTreeSet<Box<[u8]>>,
    bytes: usize,
    /// Keys that came past the bound, some of them perhaps twice.
    more: u64,
}

impl Withheld {
    pub(super) fn insert(&mut self, key: &[u8], bytes_max: usize) {
        if self.keys.contains(key) {
            return;
        }
        let bytes = key.len() + KEY_OVERHEAD_BYTES;
        if self.bytes + bytes > bytes_max {
            self.more += 1;
            return;
        }
        self.bytes += bytes;
        self.keys.insert(key.into());
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.keys.remove(key) {
            self.bytes -= key.len() + KEY_OVERHEAD_BYTES;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.more == 0
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.keys.len() as u64 + self.more
    }

    /// Some of them.
    pub(super) fn first(&self, count: usize) -> Vec<Box<[u8]>> {
        self.keys.iter().take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_once_and_past_the_bound_counted() {
        let mut withheld = Withheld::default();
        for key in [b"a", b"b", b"a", b"c"] {
            withheld.insert(key, 2 * (1 + KEY_OVERHEAD_BYTES));
        }
        assert_eq!((withheld.len(), withheld.first(1).len()), (3, 1));
        withheld.remove(b"b");
        withheld.remove(b"x");
        assert_eq!((withheld.len(), withheld.bytes), (2, 1 + KEY_OVERHEAD_BYTES));
        withheld.clear();
        assert!(withheld.is_empty());
    }
}
