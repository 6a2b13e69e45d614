use std::collections::HashMap;

use proptest::prelude::*;

use super::super::revision::REVISION_MAX;
use super::*;
use crate::etf::Traits;
use crate::store::scan::at_once;

fn value(bytes: &[u8]) -> Value<'_> {
    Value::of(bytes, Traits::V4_NC)
}

fn never<T>() -> T {
    panic!("memory answers at once")
}

fn get(store: &MemoryStore, key: &[u8]) -> Option<Vec<u8>> {
    let found = store.get(
        key,
        |value| {
            value.map(|value| {
                assert_eq!(value.traits, Traits::V4_NC);
                value.bytes.to_vec()
            })
        },
        never,
    );
    found.expect("memory answers at once")
}

fn all(store: &MemoryStore) -> HashMap<Vec<u8>, Vec<u8>> {
    let mut scan = store.scan(None, Shows::Pairs);
    let mut seen = HashMap::new();
    loop {
        let batch = at_once(&mut *scan).expect("memory answers at once").expect("and fails at nothing");
        for (key, value) in batch.iter() {
            let value = value.expect("nothing is under way");
            assert!(seen.insert(key.to_vec(), value.bytes.to_vec()).is_none(), "a key is shown twice");
        }
        if batch.is_last {
            return seen;
        }
    }
}

/// Adds to what is there, up to a length.
struct Append(u8);

impl Update for (Append, Vec<u8>) {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.1 = present.map_or_else(Vec::new, |present| present.bytes.to_vec());
        match self.1.len() {
            0..3 => self.1.push(self.0.0),
            3 => return Change::Keep,
            _ => return Change::Delete,
        }
        Change::Put(value(&self.1))
    }
}

proptest! {
    #[test]
    fn it_is_a_map(steps in prop::collection::vec((0_u8..4, 0_u8..20, 0_usize..4), 1..200)) {
        let store = MemoryStore::default();
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for (step, (what, key, size)) in steps.into_iter().enumerate() {
            let key = vec![key; 1 + usize::from(key)];
            match what {
                0 => {
                    let bytes = vec![step as u8; [0, 1, 100, SHARED_FROM_BYTES][size]];
                    prop_assert_eq!(store.put(&key, value(&bytes), never), Some(Ok(store.seq())));
                    model.insert(key, bytes);
                }
                1 => {
                    prop_assert_eq!(store.delete(&key, never), Some(Ok(store.seq())));
                    model.remove(&key);
                }
                2 => {
                    let mut update = (Append(step as u8), Vec::new());
                    let seq = store.update(&key, &mut update, |_| never()).expect("at once").expect("room");
                    let present = model.get(&key).map_or(0, Vec::len);
                    prop_assert_eq!(seq, (present != 3).then(|| store.seq()));
                    match present {
                        0..3 => model.entry(key).or_default().push(step as u8),
                        3 => {}
                        _ => _ = model.remove(&key),
                    }
                }
                _ => prop_assert_eq!(get(&store, &key), model.get(&key).cloned()),
            }
            prop_assert_eq!(store.len(), model.len());
            let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert_eq!(store.bytes(), bytes as u64);
            prop_assert_eq!(&all(&store), &model);
        }
    }
}

#[test]
fn a_full_store_changes_nothing_and_reads_and_deletes_go_on() {
    let room = Arc::new(Room::new(2 * (PAIR_BYTES + 10)));
    let (store, other) = (MemoryStore::within(Arc::clone(&room)), MemoryStore::within(Arc::clone(&room)));
    assert_eq!(store.put(b"a", value(b"123456789"), never), Some(Ok(2)));
    assert_eq!(other.put(b"b", value(b"123456789"), never), Some(Ok(2)));
    for (key, bytes) in [(b"c", &b""[..]), (b"a", b"1234567890")] {
        assert_eq!(store.put(key, value(bytes), never), Some(Err(StoreError::NoSpace)));
    }
    assert_eq!((get(&store, b"a"), get(&store, b"c")), (Some(b"123456789".to_vec()), None));
    assert_eq!((store.len(), store.bytes()), (1, 10));
    assert_eq!(store.put(b"a", value(b"987654321"), never), Some(Ok(3)), "as large as before");
    drop(other);
    assert_eq!(store.put(b"c", value(b"1"), never), Some(Ok(4)), "what another store had");
    assert_eq!((store.delete(b"a", never), store.delete(b"c", never)), (Some(Ok(5)), Some(Ok(6))));
    assert_eq!(room.used(), 0);
}

#[test]
fn the_number_of_a_copy_stays_beside_a_value_and_counts_where_it_is_there() {
    let store = MemoryStore::default();
    for (len, copy) in [(3, 7), (SHARED_FROM_BYTES, u32::MAX), (3, 0)] {
        let bytes = vec![1; len];
        let value = Value { copy, ..value(&bytes) };
        assert!(store.put(b"k", value, never).is_some_and(|written| written.is_ok()));
        let found = store.get(b"k", |found| found.map(|found| (found.bytes.len(), found.copy)), never);
        assert_eq!(found, Some(Some((len, copy))));
        assert_eq!(store.bytes(), (1 + len + if copy == 0 { 0 } else { 5 }) as u64);
        let mut batches = store.scan(None, Shows::Copies);
        let mut seen = Vec::new();
        loop {
            let batch = at_once(&mut *batches).expect("at once").expect("it fails at nothing");
            seen.extend(batch.copies().map(|(key, copy)| (key.to_vec(), copy)));
            assert!(batch.iter().all(|(_, value)| value.is_none()), "values are not shown");
            if batch.is_last {
                break;
            }
        }
        assert_eq!(seen, [(b"k".to_vec(), Some(copy))]);
    }
}

fn revision(store: &MemoryStore, key: &[u8]) -> Option<u64> {
    store.get(key, |found| found.map(|found| found.revision), never).expect("at once")
}

#[test]
fn a_key_has_the_number_of_its_last_write_or_the_revision_that_it_comes_with() {
    let store = MemoryStore::default();
    let large = vec![1; SHARED_FROM_BYTES];
    let put = |key: &[u8], bytes: &[u8], revision| store.put(key, Value { revision, ..value(bytes) }, never);
    assert_eq!((store.revision(), put(b"a", b"1", 0), revision(&store, b"a")), (1, Some(Ok(2)), Some(2)));
    assert_eq!((put(b"b", &large, 0), revision(&store, b"b")), (Some(Ok(3)), Some(3)));
    assert_eq!((put(b"a", b"2", 40), revision(&store, b"a")), (Some(Ok(4)), Some(40)));
    assert_eq!((put(b"b", &large, 20), revision(&store, b"b")), (Some(Ok(5)), Some(20)));
    assert_eq!((store.delete(b"a", never), store.revision()), (Some(Ok(6)), 42));
    assert_eq!((put(b"a", b"1", 0), revision(&store, b"a")), (Some(Ok(7)), Some(43)));
    for (above, expected) in [(20, 43), (50, 50), (u64::MAX, REVISION_RAISED_MAX)] {
        store.raise_revision(above);
        assert_eq!(store.revision(), expected);
    }
    assert_eq!(put(b"a", b"1", 0), Some(Ok(8)));
    assert_eq!(
        (revision(&store, b"a"), store.revision()),
        (Some(REVISION_RAISED_MAX + 1), REVISION_RAISED_MAX + 1)
    );
    put(b"c", b"1", REVISION_MAX);
    assert_eq!(revision(&store, b"c"), Some(REVISION_MAX), "seven bytes hold it");
    assert_eq!(store.revision(), REVISION_RAISED_MAX + 2);
    let value = store.get(b"c", |found| found.map(|found| (found.bytes.to_vec(), found.traits)), never);
    assert_eq!(value, Some(Some((b"1".to_vec(), Traits::V4_NC))), "beside the rest");
}

#[test]
fn what_takes_the_place_of_a_store_brings_its_revisions() {
    let store = MemoryStore::default();
    store.put(b"a", value(b"1"), never);
    let with = store.staging().expect("there is one");
    for (key, revision) in [(b"b", 70), (b"c", 50)] {
        with.put(key, Value { revision, ..value(b"1") }, never);
    }
    let before = store.replace(with).expect("it gives what it had");
    assert_eq!(revision(&before, b"a"), Some(2));
    assert_eq!([b"a", b"b", b"c"].map(|key| revision(&store, key)), [None, Some(70), Some(50)]);
    store.put(b"a", value(b"1"), never);
    assert!(revision(&store, b"a") > Some(70));
}

#[test]
fn a_slot_of_the_table_takes_two_words() {
    assert_eq!(size_of::<Entry>(), 16);
}

#[test]
fn a_large_key_is_found() {
    let store = MemoryStore::default();
    let key = vec![1; SHARED_FROM_BYTES];
    store.put(&key, value(b"v"), never);
    assert_eq!(get(&store, &key), Some(b"v".to_vec()));
}
