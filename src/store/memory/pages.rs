//! Pages of a store in memory: a shard after the other, each in the order of the hashes of its keys, which no write changes.
//!
//! ```text
//! a place    'm', the store's own number: 8 bytes, shard: 1, hash: 8, key      it, and what is behind it in the order of hash and key
//! ```
//!
//! The key stands there where two keys have the same hash, and one of them is behind the place: never, in practice.
//!
//! A table of a shard has no order: what is shown of one that is large is found by a look at the hash of each of its entries, and
//! only those of a part of the hashes are put in order, about as many as a page has. So a page of a store of n entries costs n/256
//! hashes at least, and all pages n²/2^20: nothing with a million entries, some seconds with a hundred million.

use super::{Entry, MemoryStore, Shard};
use crate::store::{Page, Shows, Value, Visit};

/// A page ends after about so many entries, or so many bytes of keys, where its visitor does not end it before.
const SHOWN_MAX: usize = 16 << 10;
const KEY_BYTES_MAX: usize = 4 << 20;
/// Entries that are put in order together, about.
const ORDERED: usize = 4 << 10;
const TAG: u8 = b'm';
/// What the store's number is the hash of.
const NUMBERED: &[u8] = b"pages";

/// Where a page begins, or goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    shard: usize,
    hash: u64,
    key: &'a [u8],
}

impl<'a> Place<'a> {
    const fn start_of(shard: usize) -> Self {
        Self { shard, hash: 0, key: &[] }
    }

    fn read(place: &'a [u8], number: [u8; 8]) -> Option<Self> {
        let (own, rest) = place.strip_prefix(&[TAG])?.split_first_chunk::<8>()?;
        let (shard, rest) = rest.split_first()?;
        let (hash, key) = rest.split_first_chunk::<8>()?;
        let place = Self { shard: usize::from(*shard), hash: u64::from_be_bytes(*hash), key };
        (*own == number).then_some(place)
    }

    fn write(self, number: [u8; 8]) -> Page {
        let Ok(shard) = u8::try_from(self.shard) else { return Page::Last };
        Page::Behind([&[TAG][..], &number, &[shard], &self.hash.to_be_bytes(), self.key].concat())
    }
}

impl MemoryStore {
    pub(super) fn show_page(
        &self,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Page {
        let number = self.hasher.hash_one(NUMBERED).to_be_bytes();
        let mut place = match after.map(|after| Place::read(after, number)) {
            None => Place::start_of(0),
            Some(Some(place)) => place,
            Some(None) => return Page::Foreign,
        };
        let (mut shown, mut key_bytes) = (0, 0);
        while let Some(shard) = self.shards.get(place.shard) {
            let shard = shard.read();
            // So much of all hashes has about as many entries as are put in order together.
            let parts = shard.table.len() / ORDERED + 1;
            let to = place.hash.saturating_add(u64::MAX / parts as u64);
            let entries = self.in_order(&shard, place, to);
            for (at, (hash, entry)) in entries.iter().enumerate() {
                let (hash, key) = (*hash, entry.key());
                let has_twin = |at: Option<usize>| {
                    at.and_then(|at| entries.get(at)).is_some_and(|(other, _)| *other == hash)
                };
                let value = (shows == Shows::Pairs).then(|| entry.value());
                (shown, key_bytes) = (shown + 1, key_bytes + key.len());
                match visit(key, value) {
                    Visit::Back => {
                        let key = if has_twin(at.checked_sub(1)) { key } else { &[] };
                        return Place { hash, key, ..place }.write(number);
                    }
                    Visit::Next if key_bytes < KEY_BYTES_MAX => {}
                    Visit::Next | Visit::Enough => {
                        // No key is between this and it.
                        let next = if has_twin(Some(at + 1)) { [key, &[0]].concat() } else { Vec::new() };
                        return match (&next[..], hash.checked_add(1)) {
                            ([], Some(hash)) => Place { hash, key: &[], ..place },
                            ([], None) => Place::start_of(place.shard + 1),
                            (key, _) => Place { hash, key, ..place },
                        }
                        .write(number);
                    }
                }
            }
            place = match to.checked_add(1) {
                Some(hash) => Place { hash, key: &[], ..place },
                None => Place::start_of(place.shard + 1),
            };
            if shown >= SHOWN_MAX {
                return place.write(number);
            }
        }
        Page::Last
    }

    /// The entries of a shard from a place up to a hash.
    fn in_order<'s>(&self, shard: &'s Shard, from: Place<'_>, to: u64) -> Vec<(u64, &'s Entry)> {
        let is_in = |hash: u64, entry: &Entry| {
            from.hash <= hash && hash <= to && (hash > from.hash || entry.key() >= from.key)
        };
        let entries = shard.table.iter().map(|entry| (self.hasher.hash_one(entry.key()), entry));
        let mut found: Vec<_> = entries.filter(|(hash, entry)| is_in(*hash, entry)).collect();
        found.sort_unstable_by(|(hash, entry), (other, beside)| {
            hash.cmp(other).then_with(|| entry.key().cmp(beside.key()))
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::SHARDS;
    use super::*;
    use crate::etf::Traits;
    use crate::store::{Order, Store};

    fn put(store: &MemoryStore, number: u32) {
        let value = Value::of(&[97, 1], Traits::none());
        store.put(&number.to_be_bytes(), value, || unreachable!("at once"));
    }

    /// All keys, in pages of so many.
    fn pages(store: &MemoryStore, each: usize, mut between: impl FnMut(usize)) -> Vec<u32> {
        let (mut keys, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let mut count = 0;
            let page = store.page(Order::Any, after.as_deref(), Shows::Pairs, &mut |key, value| {
                assert_eq!(value.expect("it is shown").bytes, [97, 1]);
                let key = u32::from_be_bytes(key.try_into().expect("four bytes"));
                count += 1;
                // Each third page begins with what the one before has seen.
                if count > 1 && pages % 3 == 2 {
                    return Visit::Back;
                }
                keys.push(key);
                if count >= each { Visit::Enough } else { Visit::Next }
            });
            match page.expect("memory") {
                Page::Behind(place) => after = Some(place),
                Page::Last => return keys,
                page => panic!("it is of this store: {page:?}"),
            }
            pages += 1;
            between(pages);
        }
    }

    #[test]
    fn what_stays_is_shown_once_whatever_comes_and_goes() {
        for each in [1, 7, 1000, usize::MAX] {
            let store = MemoryStore::default();
            (0..5_000).for_each(|number| put(&store, number));
            let mut written = 10_000;
            let keys = pages(&store, each, |page| {
                // Tables grow and shrink.
                (0..100).for_each(|number| put(&store, written + number));
                written += 100;
                if page % 5 == 0 {
                    (10_000..written).for_each(|number| {
                        store.delete(&number.to_be_bytes(), || unreachable!("at once"));
                    });
                    written = 10_000;
                }
            });
            let stayed: Vec<u32> = keys.iter().copied().filter(|key| *key < 5_000).collect();
            let once: BTreeSet<u32> = stayed.iter().copied().collect();
            assert_eq!((stayed.len(), once.len()), (5_000, 5_000), "{each} each");
        }
    }

    #[test]
    fn a_large_shard_is_shown_in_parts() {
        let store = MemoryStore::default();
        let mut most = 0;
        for number in 0..SHARDS as u32 * ORDERED as u32 * 2 {
            put(&store, number);
        }
        let mut after = None;
        let mut keys = BTreeSet::new();
        loop {
            let mut count = 0;
            let page = store.page(Order::Any, after.as_deref(), Shows::Keys, &mut |key, value| {
                assert!(value.is_none() && keys.insert(key.to_vec()));
                count += 1;
                Visit::Next
            });
            most = most.max(count);
            match page.expect("memory") {
                Page::Behind(place) => after = Some(place),
                _ => break,
            }
        }
        assert_eq!(keys.len(), store.len());
        assert!(most < SHOWN_MAX + 2 * ORDERED, "{most}");
    }

    #[test]
    fn a_place_of_another_store_is_none() {
        let [store, other] = [MemoryStore::default(), MemoryStore::default()];
        (0..100).for_each(|number| put(&store, number));
        let page = store.page(Order::Any, None, Shows::Keys, &mut |_, _| Visit::Enough).expect("memory");
        let Page::Behind(place) = page else { panic!("{page:?}") };
        let foreign = |store: &MemoryStore, place: &[u8]| {
            store.page(Order::Any, Some(place), Shows::Keys, &mut |_, _| Visit::Enough) == Ok(Page::Foreign)
        };
        assert!(foreign(&other, &place) && !foreign(&store, &place));
        assert!(foreign(&store, &[]) && foreign(&store, b"d") && foreign(&store, &place[..17]));
        let staging = store.staging().expect("it has one");
        assert!(!foreign(&staging, &place), "a copy goes on");
    }
}
