use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::etf::Traits;
use crate::store::{Store, Value};

fn put(store: &MemoryStore, key: u64, deadline: u64) {
    let value = Value { deadline, ..Value::of(b"value", Traits::none()) };
    store.put(&key.to_be_bytes(), value, || unreachable!("at once")).unwrap().unwrap();
}

fn delete(store: &MemoryStore, key: u64) {
    store.delete(&key.to_be_bytes(), || unreachable!("at once")).unwrap().unwrap();
}

/// The keys that are due, which are deleted.
fn take_due(store: &MemoryStore, now: u64, max: usize) -> Vec<u64> {
    let mut keys = Vec::new();
    loop {
        let due = store.due_now(now, max);
        for key in &due.keys {
            let key = u64::from_be_bytes((&**key).try_into().unwrap());
            keys.push(key);
            delete(store, key);
        }
        if !due.is_more {
            keys.sort_unstable();
            // One whose deadline was moved back may be shown twice.
            keys.dedup();
            return keys;
        }
    }
}

#[test]
fn an_entry_is_found_by_what_is_kept_of_its_hash() {
    for hash in [0, u64::MAX, 0x1234_5678_9abc_def0] {
        let found = hash_of(trace_of(hash));
        assert_eq!(found & 0xff00_00ff_ffff_ffff, hash & 0xff00_00ff_ffff_ffff);
    }
}

#[test]
fn a_start_is_not_behind_its_deadline_and_near_it_as_that_comes_near() {
    let now = 1_700_000_000_000;
    for ahead in [0, 1, 300, 10_000, 3_600_000, 86_400_000 * 365] {
        let start = start_of(now + ahead, now);
        assert!(start <= now + ahead && now + ahead - start <= (ahead / 16).max(256), "{ahead}: {start}");
    }
    assert!(start_of(now - 5_000, now) <= now - 5_000);
}

#[test]
fn what_is_due_comes_in_parts_and_again_where_it_is_not_deleted() {
    let store = MemoryStore::default();
    for key in 0..5_000 {
        put(&store, key, 1_000 + key);
    }
    assert_eq!((store.deadlines(), store.next_due().map(|next| next <= 1_000)), (5_000, Some(true)));
    assert!(store.due_now(999, 100).keys.is_empty());
    let first = store.due_now(10_000, 100);
    assert!(first.is_more && first.keys.len() >= 100 && first.keys.len() < 1_000, "{}", first.keys.len());
    // Nobody deletes them.
    let mut all = first.keys;
    loop {
        let due = store.due_now(10_000, 100);
        all.extend(due.keys);
        if !due.is_more {
            break;
        }
    }
    assert_eq!(all.len(), 5_000);
    assert!(store.due_now(10_000, 100).keys.is_empty(), "a moment ago");
    assert_eq!(take_due(&store, 10_000 + AGAIN_AFTER_MS, 100).len(), 5_000);
    assert_eq!((store.len(), store.deadlines(), store.next_due().is_some()), (0, 0, true));
    assert!(take_due(&store, 30_000, 100).is_empty());
    assert_eq!((store.next_due(), store.listed()), (None, 0));
}

#[test]
fn what_is_listed_has_a_bound_whatever_is_done_to_one_key() {
    let store = MemoryStore::default();
    let end = 1_000_000_000;
    put(&store, 1, end);
    for round in 0..100_000 {
        put(&store, 0, end + round);
        if round % 2 == 0 {
            delete(&store, 0);
        }
        // It is asked when it says so, though nothing ends.
        if store.next_due().is_some_and(|next| next <= round) {
            assert!(store.due_now(round, 100).keys.is_empty());
        }
        assert!(store.listed() <= 2 * STALE_MAX + 100, "{}", store.listed());
    }
    assert!(store.next_due().is_some_and(|next| next > 100_000) || store.listed() > 0);
    assert_eq!(take_due(&store, 2 * end, 100), [0, 1]);
    // A deadline that moves on is listed once.
    for round in 0..100_000 {
        put(&store, 2, 3 * end + round);
    }
    assert!(store.listed() <= 2 * STALE_MAX);
}

#[test]
fn one_that_is_put_again_between_its_end_and_its_deletion_ends_in_time() {
    let store = MemoryStore::default();
    put(&store, 1, 1_000);
    assert_eq!(store.due_now(1_000, 100).keys.len(), 1);
    for round in 0..10 {
        // It is not deleted, as it was put again, for less than it takes until it is looked at again.
        let end = 1_100 + 100 * round;
        put(&store, 1, end);
        assert!(store.due_now(end - 1, 100).keys.is_empty());
        assert_eq!(store.due_now(end, 100).keys.len(), 1);
    }
}

#[test]
fn keys_that_are_shown_at_once_have_a_bound() {
    let store = MemoryStore::default();
    for key in 0..40_u64 {
        let key = [&key.to_be_bytes()[..], &[0; 100_000]].concat();
        let value = Value { deadline: 1_000, ..Value::of(b"value", Traits::none()) };
        store.put(&key, value, || unreachable!("at once")).unwrap().unwrap();
    }
    let mut all = 0;
    loop {
        let due = store.due_now(2_000, 100);
        assert!(due.keys.len() <= 11, "{}", due.keys.len());
        all += due.keys.len();
        if !due.is_more {
            break;
        }
    }
    assert_eq!(all, 40);
}

#[test]
fn a_store_that_takes_the_place_of_another_has_its_own_deadlines() {
    let store = MemoryStore::default();
    put(&store, 1, 1_000);
    let copy = store.staging().expect("it can");
    put(&copy, 2, 2_000);
    put(&copy, 3, 0);
    let before = store.replace(copy).expect("it can");
    assert_eq!(take_due(&store, 5_000, 100), [2]);
    assert_eq!(take_due(&before, 5_000, 100), [1]);
    assert_eq!(store.len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, u64),
    PutMany(Vec<u64>, u64),
    Delete(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let ahead = || prop_oneof![Just(0), 1..500_u64, 1..100_000_u64, Just(u64::from(u32::MAX))];
    prop_oneof![
        4 => (0..40_u64, ahead()).prop_map(|(key, ahead)| Step::Put(key, ahead)),
        1 => (prop::collection::vec(0..40_u64, 0..5), ahead()).prop_map(|(keys, ahead)| Step::PutMany(keys, ahead)),
        2 => (0..40_u64).prop_map(Step::Delete),
        2 => prop_oneof![0..300_u64, 0..50_000_u64].prop_map(Step::Pass),
    ]
}

/// Puts all of them.
struct All(u64);

impl crate::store::UpdateMany for All {
    fn decide(
        &mut self,
        present: &[Option<Value<'_>>],
        change: &mut dyn FnMut(usize, crate::store::Change<'_>),
    ) {
        for at in 0..present.len() {
            let value = Value { deadline: self.0, ..Value::of(b"value", Traits::none()) };
            change(at, crate::store::Change::Put(value));
        }
    }
}

proptest! {
    #[test]
    fn exactly_the_keys_whose_time_has_come_are_due(steps in prop::collection::vec(step(), 0..200)) {
        let (store, mut model, mut now) = (MemoryStore::default(), BTreeMap::new(), 1_000_000);
        let deadline = |now, ahead| if ahead == 0 { 0 } else { now + ahead };
        for step in steps {
            match step {
                Step::Put(key, ahead) => {
                    put(&store, key, deadline(now, ahead));
                    model.insert(key, deadline(now, ahead));
                }
                Step::PutMany(mut keys, ahead) => {
                    keys.sort_unstable();
                    keys.dedup();
                    let bytes: Vec<_> = keys.iter().map(|key| key.to_be_bytes()).collect();
                    let slices: Vec<&[u8]> = bytes.iter().map(|key| &key[..]).collect();
                    store.change_many(&slices, &mut All(deadline(now, ahead))).unwrap();
                    model.extend(keys.into_iter().map(|key| (key, deadline(now, ahead))));
                }
                Step::Delete(key) => {
                    delete(&store, key);
                    model.remove(&key);
                }
                Step::Pass(millis) => {
                    now += millis;
                    let ended = |end: u64| end != 0 && end <= now;
                    let due: Vec<u64> = model.iter().filter(|(_, end)| ended(**end)).map(|(key, _)| *key).collect();
                    model.retain(|_, end| !ended(*end));
                    prop_assert_eq!(take_due(&store, now, 3), due);
                }
            }
            let with_end = model.values().filter(|end| **end != 0).count() as u64;
            prop_assert_eq!(store.deadlines.entries.load(Ordering::Relaxed), with_end);
            if let Some(first) = model.values().filter(|end| **end != 0).min() {
                prop_assert!(store.next_due().is_some_and(|next| next <= *first));
            }
        }
    }
}
