//! The keys of a request of several, in canonical form, each once.

use ahash::{AHashSet, RandomState};
use hashbrown::HashTable;

use crate::etf::tag::NEW_FLOAT_EXT;
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|at| self.get(at))
    }

    /// All of them, as a store takes them.
    pub(super) fn slices(&self) -> Vec<&[u8]> {
        self.iter().collect()
    }

    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of memory that they take.
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Of all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// `-0.0`, encoded, and `0.0`.
const ZEROS: [[u8; 9]; 2] =
    [[NEW_FLOAT_EXT, 0x80, 0, 0, 0, 0, 0, 0, 0], [NEW_FLOAT_EXT, 0, 0, 0, 0, 0, 0, 0, 0]];

/// Whether two of these differ only in the sign of a zero: a BEAM before OTP 27 takes them for one key, and does not decode a map
/// that has both.
pub(super) fn differ_by_zero<'a>(keys: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
    let [negative, positive] = &ZEROS;
    let has_negative = |key: &[u8]| key.windows(negative.len()).any(|part| part == negative);
    if !keys.clone().any(has_negative) {
        return false;
    }
    let mut seen = AHashSet::new();
    let without_sign = |key: &[u8]| {
        let mut key = key.to_vec();
        for at in 0..key.len().saturating_sub(negative.len() - 1) {
            if key[at..].starts_with(negative) {
                key[at..at + positive.len()].copy_from_slice(positive);
            }
        }
        key
    };
    !keys.map(without_sign).all(|key| seen.insert(key))
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

    #[test]
    fn keys_that_differ_in_the_sign_of_a_zero_are_noticed() {
        let key = |float: f64| encode(|w| _ = w.tuple(2).float(float).float(1.5));
        let differ = |keys: &[Vec<u8>]| differ_by_zero(keys.iter().map(Vec::as_slice));
        assert!(differ(&[key(1.0), key(-0.0), key(0.0)]));
        assert!(!differ(&[key(1.0), key(-0.0), key(-1.0)]) && !differ(&[key(0.0), key(1.0)]) && !differ(&[]));
    }
}
