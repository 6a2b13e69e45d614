use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::etf::Traits;
use crate::store::{Room, Store};

/// What becomes of each key (`None`: it stays, `Some(None)`: it goes), and what was shown of them.
struct Decided(Vec<Option<Option<Vec<u8>>>>, Vec<Option<Vec<u8>>>);

impl UpdateMany for Decided {
    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        self.1 = present.iter().map(|value| value.map(|value| value.bytes.to_vec())).collect();
        for (at, decided) in self.0.iter().enumerate() {
            match decided {
                None => change(at, Change::Keep),
                Some(None) => change(at, Change::Delete),
                Some(Some(bytes)) => change(at, Change::Put(value(bytes))),
            }
        }
    }
}

fn value(bytes: &[u8]) -> Value<'_> {
    Value::of(bytes, Traits::none())
}

fn never<T>() -> T {
    panic!("memory answers at once")
}

fn read(store: &MemoryStore, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let now = |found: &[Option<Value<'_>>]| {
        found.iter().map(|value| value.map(|value| value.bytes.to_vec())).collect()
    };
    store.get_many(keys, now, never).expect("memory answers at once")
}

fn decisions() -> impl Strategy<Value = HashMap<u8, Option<Option<Vec<u8>>>>> {
    let value = prop::collection::vec(any::<u8>(), 0..3);
    prop::collection::hash_map(0..12_u8, prop::option::of(prop::option::of(value)), 0..12)
}

type Model = HashMap<Vec<u8>, Vec<u8>>;

fn size(map: &Model) -> u64 {
    map.iter().map(|(key, value)| (key.len() + value.len()) as u64 + PAIR_BYTES).sum()
}

proptest! {
    #[test]
    fn it_is_a_map_that_changes_as_a_whole_or_not_at_all(
        steps in prop::collection::vec(decisions(), 1..30), pairs_max in 3..14_u64,
    ) {
        let bytes_max = pairs_max * (PAIR_BYTES + 2);
        let room = Arc::new(Room::new(bytes_max));
        let store = MemoryStore::within(Arc::clone(&room));
        let mut model = Model::new();
        for step in steps {
            let keys: Vec<Vec<u8>> = step.keys().map(|key| vec![*key]).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let mut update = Decided(step.values().cloned().collect(), Vec::new());
            let seq = store.seq();
            let changed = store.update_many(&keys, &mut update, |_| never()).expect("at once");
            prop_assert_eq!(update.1, keys.iter().map(|key| model.get(*key).cloned()).collect::<Vec<_>>());
            let mut then = model.clone();
            for (key, decided) in keys.iter().zip(&update.0) {
                match decided {
                    None => {}
                    Some(None) => _ = then.remove(*key),
                    Some(Some(value)) => _ = then.insert(key.to_vec(), value.clone()),
                }
            }
            match changed {
                Ok(number) => {
                    let is_change = update.0.iter().any(Option::is_some);
                    prop_assert_eq!(number, is_change.then_some(seq + 1));
                    model = then;
                }
                Err(error) => {
                    prop_assert_eq!(error, StoreError::NoSpace);
                    prop_assert!(size(&then) > bytes_max);
                    prop_assert_eq!(store.seq(), seq);
                }
            }
            prop_assert_eq!(room.used(), size(&model));
            let all: Vec<Vec<u8>> = (0..12).map(|key| vec![key]).collect();
            let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            let wanted: Vec<_> = all.iter().map(|key| model.get(*key).cloned()).collect();
            prop_assert_eq!(read(&store, &all), wanted);
            prop_assert_eq!(store.len(), model.len());
        }
    }
}

#[test]
fn readers_of_several_keys_see_a_change_of_several_whole() {
    let store = MemoryStore::default();
    let keys: Vec<Vec<u8>> = (0..40_u8).map(|key| vec![key]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let write = |keys: &[&[u8]], number: u8| {
        let mut update = Decided(vec![Some(Some(vec![number])); keys.len()], Vec::new());
        store.update_many(keys, &mut update, |_| never()).expect("at once").expect("room");
    };
    write(&keys, 0);
    std::thread::scope(|scope| {
        for turn in 0..2 {
            // In orders of their own: the locks have one order all the same, or two would stand still.
            let mut keys = keys.clone();
            keys.rotate_left(turn * 17);
            scope.spawn(move || (0..200).for_each(|number| write(&keys, number)));
        }
        for _ in 0..400 {
            let seen = read(&store, &keys);
            assert!(seen.iter().all(|value| *value == seen[0]), "{seen:?}");
        }
    });
}
