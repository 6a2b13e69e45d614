//! Finding keys that occur twice in a map.

use ahash::RandomState;
use hashbrown::HashTable;

use super::super::split::{TermError, TermView, Traits};
use super::super::tag::*;
use super::{canonical, record_head};

/// Finds a key that occurs twice in one map, or a field that occurs twice in one native record, anywhere in `term`. For terms that are to be stored: a BEAM refuses
/// to decode such a one. Only needed where the term's traits have [`Traits::MAP`](crate::etf::Traits::MAP).
///
/// The work is near-linear in the term's length, however deep or wide its maps are: only keys are brought into
/// canonical form, and each of them once, as part of the outermost key that it is in.
///
/// # Errors
/// As [`canonical`] for the keys in it.
pub fn check_maps(term: TermView<'_>) -> Result<(), TermError> {
    let mut keys = Keys::new(term.bytes());
    let mut cursor = term.cursor();
    let (mut traits, mut funs) = (Traits::none(), Vec::new());
    // Terms that are still to come.
    let mut pending: u64 = 1;
    let mut open: Vec<OpenMap> = Vec::new();
    let mut maps = 0;
    loop {
        while open.last().is_some_and(|map| map.pending_after == pending) {
            open.pop();
        }
        if pending == 0 {
            return Ok(());
        }
        pending -= 1;
        if let Some(map) = open.last_mut().filter(|map| map.next_key == pending + 1) {
            let start = term.bytes().len() - cursor.rest().len();
            keys.insert(map.id, start, cursor.term()?)?;
            map.next_key -= 2;
            continue;
        }
        match cursor.peek()? {
            MAP_EXT => {
                let parts = 2 * cursor.map()? as u64;
                if parts > 2 {
                    open.push(OpenMap { id: maps, pending_after: pending, next_key: pending + parts });
                    maps += 1;
                }
                pending += parts;
            }
            RECORD_EXT => {
                let (arity, _) = record_head(&mut cursor)?;
                for _ in 0..arity {
                    let start = term.bytes().len() - cursor.rest().len();
                    keys.insert(maps, start, cursor.term()?)?;
                }
                maps += 1;
                pending += arity as u64;
            }
            _ => {
                pending += cursor.step(&mut traits, pending, &mut funs)?;
                // Where funs end has been checked when the term was received.
                funs.clear();
            }
        }
    }
}

/// A map of two or more pairs that is being walked.
struct OpenMap {
    id: u32,
    /// Terms that are still to come when its last value has been read.
    pending_after: u64,
    /// The same, before its next key is read.
    next_key: u64,
}

/// The keys of all maps that were met so far.
struct Keys<'a> {
    input: &'a [u8],
    /// The canonical bytes of keys that were encoded otherwise. Their places are counted from the input's end on.
    rewritten: Vec<u8>,
    scratch: Vec<u8>,
    seen: HashTable<Key>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Key {
    map: u32,
    start: u32,
    len: u32,
}

impl<'a> Keys<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            rewritten: Vec::new(),
            scratch: Vec::new(),
            seen: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// Notes a key, which begins at `start` in the input.
    fn insert(&mut self, map: u32, start: usize, key: TermView<'a>) -> Result<(), TermError> {
        let canonical = canonical(key, &mut self.scratch)?;
        let hash = self.hasher.hash_one((map, canonical));
        let start = if std::ptr::eq(canonical.as_ptr(), key.bytes().as_ptr()) {
            start
        } else {
            let start = self.input.len() + self.rewritten.len();
            self.rewritten.extend_from_slice(canonical);
            start
        };
        let len = canonical.len();
        // Frames are smaller than 4 GiB.
        let start = u32::try_from(start).map_err(|_| TermError::KeyTooComplex)?;
        let entry = Key { map, start, len: len as u32 };
        let (input, rewritten) = (self.input, &self.rewritten);
        let bytes = |key: &Key| {
            let start = key.start as usize;
            let (all, start) =
                if start < input.len() { (input, start) } else { (&rewritten[..], start - input.len()) };
            &all[start..start + key.len as usize]
        };
        let hasher = &self.hasher;
        let new = bytes(&entry);
        if self.seen.find(hash, |seen| seen.map == map && bytes(seen) == new).is_some() {
            return Err(TermError::DuplicateKey);
        }
        self.seen.insert_unique(hash, entry, |key| hasher.hash_one((key.map, bytes(key))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    fn check(bytes: &[u8]) -> Result<(), TermError> {
        check_maps(TermView::parse(bytes).unwrap())
    }

    fn map_of(keys: impl ExactSizeIterator<Item = i32>) -> Vec<u8> {
        encode(|out| {
            out.map(keys.len());
            keys.for_each(|key| _ = out.integer(i64::from(key)).nil());
        })
    }

    #[test]
    fn a_key_may_occur_in_several_maps_but_once_in_each() {
        let map = map_of(0..3);
        assert_eq!(check(&map), Ok(()));
        assert_eq!(check(&[&[104, 2][..], &map, &map].concat()), Ok(()));
        // The same key outside and inside, before and after.
        assert_eq!(check(&[&[116, 0, 0, 0, 2, 97, 0][..], &map, &[97, 9], &map].concat()), Ok(()));
        assert_eq!(
            check(&[&[116, 0, 0, 0, 2, 97, 9][..], &map, &[97, 9], &map].concat()),
            Err(TermError::DuplicateKey)
        );
        assert_eq!(check(&map_of([0, 1, 0].into_iter())), Err(TermError::DuplicateKey));
        assert_eq!(check(&[116, 0, 0, 0, 2, 97, 1, 106, 110, 1, 0, 1, 106]), Err(TermError::DuplicateKey));
    }

    #[test]
    fn maps_inside_keys_values_lists_and_funs_are_checked() {
        let twice = map_of([5, 5].into_iter());
        for head in [
            &[104, 1][..],
            &[104, 2, 106],
            &[108, 0, 0, 0, 0],
            &[116, 0, 0, 0, 1, 97, 1],
            &[116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 2],
            &[116, 0, 0, 0, 2, 97, 1, 106, 97, 2],
            &[104, 2, 116, 0, 0, 0, 2, 97, 1, 106, 97, 2, 106],
        ] {
            assert_eq!(check(&[head, &twice].concat()), Err(TermError::DuplicateKey), "{head:?}");
        }
        assert_eq!(check(&[&[116, 0, 0, 0, 1][..], &twice, &[106]].concat()), Err(TermError::DuplicateKey));
        assert_eq!(
            check(&[&[116, 0, 0, 0, 2, 97, 1, 106][..], &twice, &[106]].concat()),
            Err(TermError::DuplicateKey)
        );
        let record = |names: &[u8]| {
            [&[67, 0, 0, 0, 2, 0, 119, 1, b'm', 119, 1, b'r'][..], names, &[97, 1, 106]].concat()
        };
        assert_eq!(check(&record(b"w\x01aw\x01b")), Ok(()));
        assert_eq!(check(&record(b"w\x01as\x01a")), Err(TermError::DuplicateKey));
        let fun = [
            &[1][..],
            &[0; 16],
            &[0, 0, 0, 0, 0, 0, 0, 1, 119, 0, 97, 0, 97, 0, 88, 119, 0],
            &[0; 12],
            &twice,
        ]
        .concat();
        let fun = [&[112][..], &(fun.len() as u32 + 4).to_be_bytes(), &fun].concat();
        assert_eq!(check(&fun), Err(TermError::DuplicateKey));
    }

    #[test]
    fn a_hundred_thousand_keys_and_a_million_maps_take_no_time() {
        assert_eq!(check(&map_of(0..100_000)), Ok(()));
        assert_eq!(check(&map_of((0..100_000).map(|key| key % 99_999))), Err(TermError::DuplicateKey));
        // Keys that have to be rewritten.
        let wide: Vec<u8> = (0..100_000u32)
            .flat_map(|key| [[110, 5, 0].as_slice(), &key.to_le_bytes(), &[0, 106]].concat())
            .collect();
        let wide = [&[116][..], &100_000u32.to_be_bytes(), &wide].concat();
        assert_eq!(check(&wide), Ok(()));
        let deep = [[116, 0, 0, 0, 2, 97, 1, 106, 97, 2].repeat(1_000_000), vec![106]].concat();
        assert_eq!(check(&deep), Ok(()));
    }
}
