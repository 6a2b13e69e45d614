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
    loop {
        while let Some(map) = open.pop_if(|map| map.pending_after == pending) {
            keys.close(map.keys);
        }
        if pending == 0 {
            return Ok(());
        }
        pending -= 1;
        if let Some(map) = open.last_mut().filter(|map| map.next_key == pending + 1) {
            let start = term.bytes().len() - cursor.rest().len();
            keys.insert(map.keys, start, cursor.term()?)?;
            map.next_key -= 2;
            continue;
        }
        match cursor.peek()? {
            MAP_EXT => {
                let parts = 2 * cursor.map()? as u64;
                if parts > 2 {
                    let keys = keys.open(parts / 2);
                    open.push(OpenMap { keys, pending_after: pending, next_key: pending + parts });
                }
                pending += parts;
            }
            RECORD_EXT => {
                let (arity, _) = record_head(&mut cursor)?;
                let names = keys.open(arity as u64);
                for _ in 0..arity {
                    let start = term.bytes().len() - cursor.rest().len();
                    keys.insert(names, start, cursor.term()?)?;
                }
                keys.close(names);
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
    keys: KeySet,
    /// Terms that are still to come when its last value has been read.
    pending_after: u64,
    /// The same, before its next key is read.
    next_key: u64,
}

/// Keys of which no two may be the same.
#[derive(Clone, Copy)]
enum KeySet {
    /// Few: those in [`Keys::few`] from here on are compared one by one.
    Few(usize),
    /// Many, found in [`Keys::many`] under this number.
    Many(u32),
}

/// Most keys that are compared one by one: about as many as take as long to be hashed.
const FEW_MAX: u64 = 16;

/// The keys of all maps that are open, and of all large ones.
struct Keys<'a> {
    input: &'a [u8],
    /// The canonical bytes of keys that were encoded otherwise. Their places are counted from the input's end on.
    rewritten: Vec<u8>,
    scratch: Vec<u8>,
    /// Those of small maps that are open, the innermost last.
    few: Vec<Place>,
    many: HashTable<(u32, Place)>,
    sets: u32,
    hasher: RandomState,
}

/// Where the canonical bytes of a key are.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    len: u32,
}

impl Place {
    #[expect(clippy::indexing_slicing, reason = "`Keys::place` makes them, of bytes that are there")]
    fn bytes<'b>(self, input: &'b [u8], rewritten: &'b [u8]) -> &'b [u8] {
        let start = self.start as usize;
        let (all, start) =
            if start < input.len() { (input, start) } else { (rewritten, start - input.len()) };
        &all[start..][..self.len as usize]
    }
}

impl<'a> Keys<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            rewritten: Vec::new(),
            scratch: Vec::new(),
            few: Vec::new(),
            many: HashTable::new(),
            sets: 0,
            hasher: RandomState::new(),
        }
    }

    fn open(&mut self, len: u64) -> KeySet {
        if len <= FEW_MAX {
            return KeySet::Few(self.few.len());
        }
        self.sets += 1;
        KeySet::Many(self.sets)
    }

    /// Ends a set, which is the last one of those that are open.
    fn close(&mut self, set: KeySet) {
        if let KeySet::Few(first) = set {
            self.few.truncate(first);
        }
    }

    /// Notes a key, which begins at `start` in the input.
    fn insert(&mut self, set: KeySet, start: usize, key: TermView<'a>) -> Result<(), TermError> {
        let place = self.place(start, key)?;
        let (input, rewritten, hasher) = (self.input, &self.rewritten[..], &self.hasher);
        let new = place.bytes(input, rewritten);
        match set {
            KeySet::Few(first) => {
                if self.few.iter().skip(first).any(|seen| seen.bytes(input, rewritten) == new) {
                    return Err(TermError::DuplicateKey);
                }
                self.few.push(place);
            }
            KeySet::Many(id) => {
                let hash = hasher.hash_one((id, new));
                let same = |seen: &(u32, Place)| seen.0 == id && seen.1.bytes(input, rewritten) == new;
                if self.many.find(hash, same).is_some() {
                    return Err(TermError::DuplicateKey);
                }
                let rehash = |seen: &(u32, Place)| hasher.hash_one((seen.0, seen.1.bytes(input, rewritten)));
                self.many.insert_unique(hash, (id, place), rehash);
            }
        }
        Ok(())
    }

    fn place(&mut self, start: usize, key: TermView<'a>) -> Result<Place, TermError> {
        let canonical = canonical(key, &mut self.scratch)?;
        let start = if std::ptr::eq(canonical.as_ptr(), key.bytes().as_ptr()) {
            start
        } else {
            let start = self.input.len() + self.rewritten.len();
            self.rewritten.extend_from_slice(canonical);
            start
        };
        // Frames are smaller than 4 GiB.
        let start = u32::try_from(start).map_err(|_| TermError::KeyTooComplex)?;
        Ok(Place { start, len: canonical.len() as u32 })
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
        for len in 2..40 {
            assert_eq!(check(&map_of(0..len)), Ok(()));
            for twice in 0..len - 1 {
                let keys: Vec<i32> = (0..len - 1).chain([twice]).collect();
                assert_eq!(check(&map_of(keys.into_iter())), Err(TermError::DuplicateKey));
            }
        }
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
