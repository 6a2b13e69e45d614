//! The keys of a request of several, in canonical form, each once.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::etf::{TermError, TermView};
use crate::kv::server::with_canonical;

/// Encoded terms in one block of memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        let to = self.ends.get(at).copied().unwrap_or(from);
        self.bytes.get(from..to).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// All of them, as a store takes them.
    pub(super) fn slices(&self) -> Vec<&[u8]> {
        self.iter().collect()
    }

    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Of all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Keys that are gathered.
#[derive(Default)]
pub(super) struct Keys {
    keys: Pieces,
    /// Their places.
    table: HashTable<usize>,
    hasher: RandomState,
}

impl Keys {
    /// Adds a key; gives its place, and whether it is new.
    ///
    /// # Errors
    /// It can be no key.
    pub(super) fn insert(&mut self, key: TermView<'_>) -> Result<(usize, bool), TermError> {
        let Self { keys, table, hasher } = self;
        with_canonical(key, |key| {
            let hash = hasher.hash_one(key);
            if let Some(&at) = table.find(hash, |&at| keys.get(at) == key) {
                return (at, false);
            }
            let at = keys.len();
            keys.push(key);
            table.insert_unique(hash, at, |&at| hasher.hash_one(keys.get(at)));
            (at, true)
        })
    }

    pub(super) fn into_pieces(self) -> Pieces {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn a_key_is_one_in_whatever_form_it_comes() {
        let mut keys = Keys::default();
        let mut insert = |bytes: &[u8]| keys.insert(TermView::parse(bytes).expect("a term")).expect("a key");
        let [one, one_more, float] = [&[97, 1][..], &[98, 0, 0, 0, 1], &[70, 63, 240, 0, 0, 0, 0, 0, 0]];
        assert_eq!(insert(one), (0, true));
        assert_eq!(insert(float), (1, true));
        assert_eq!(insert(one_more), (0, false));
        for number in 0..1000 {
            assert_eq!(insert(&encode(|w| _ = w.tuple(1).unsigned(number))), (number as usize + 2, true));
        }
        assert_eq!(insert(&[104, 1, 98, 0, 0, 0, 7]), (9, false));
        let keys = keys.into_pieces();
        assert_eq!((keys.len(), keys.slices().len(), keys.get(0)), (1002, 1002, one));
        assert_eq!(keys.get(9), [104, 1, 97, 7]);
    }
}
