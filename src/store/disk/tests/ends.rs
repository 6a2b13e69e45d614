//! Entries with a deadline: they are due in the order of their deadlines, over restarts too, and an entry that is deleted leaves no
//! record of its deadline.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Change, Due, UpdateMany};

fn put_until(store: &DiskStore, key: &[u8], deadline: u64) {
    let value = Value { deadline, ..value(b"v") };
    written(|done| assert_eq!(store.put(key, value, || done), None)).unwrap();
}

fn due(store: &DiskStore, now: u64, max: usize) -> Due {
    store.due(now, max, || unreachable!("at once")).expect("at once")
}

fn due_keys(store: &DiskStore, now: u64) -> Vec<Vec<u8>> {
    due(store, now, usize::MAX).keys.iter().map(|key| key.to_vec()).collect()
}

fn ends(store: &DiskStore) -> u64 {
    store.disk.shared.view().unwrap().ends_of(store.id).unwrap()
}

#[test]
fn entries_are_due_in_the_order_of_their_deadlines_and_as_often_as_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![109; 70_000];
    {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert_eq!((store.next_due(), due_keys(&store, u64::MAX - 1).len()), (None, 0));
        for (key, deadline) in [(&b"c"[..], 30), (b"a", 20), (&long, 25), (b"never", 0), (b"b", 40)] {
            put_until(&store, key, deadline);
        }
        assert_eq!(store.next_due(), Some(20));
        assert_eq!(due_keys(&store, 19), Vec::<Vec<u8>>::new());
        assert_eq!(due_keys(&store, 30), [b"a".to_vec(), long.clone(), b"c".to_vec()]);
        let some = due(&store, 40, 2);
        assert!(some.is_more && some.keys.len() == 2);
        // What is written with an earlier deadline than was looked for comes too.
        put_until(&store, b"early", 1);
        assert_eq!(store.next_due(), Some(1));
        assert_eq!(due_keys(&store, 1), [b"early"]);
        // It stays longer, for ever, and not at all.
        put_until(&store, b"a", 50);
        put_until(&store, b"early", 0);
        delete(&store, &long).unwrap();
        assert_eq!(due_keys(&store, 40), [b"c", b"b"]);
        assert_eq!((ends(&store), store.deadlines()), (3, 3));
    }
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    assert_eq!(store.deadlines(), 3);
    assert_eq!((store.next_due(), due_keys(&store, 40)), (Some(30), vec![b"c".to_vec(), b"b".to_vec()]));
    store.disk.check(&mut |_, _| true).unwrap();
    let (backup, restored) = (dir.path().join("backup"), dir.path().join("restored"));
    store.disk.backup(&backup, &mut |_, _| true).unwrap();
    Disk::restore(&backup, &restored, &mut |_, _| true).unwrap();
    let disk = Disk::open(&restored, SyncPolicy::Always, u64::MAX).unwrap();
    let store = disk.store(&disk.stores()[0]).unwrap();
    assert_eq!((due_keys(&store, 100).len(), store.deadlines(), store.len()), (3, 3, 5));
}

#[test]
fn an_end_without_its_entry_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        put_until(&store, b"a", 20);
    }
    {
        let db = fjall::Database::builder(dir.path().join("engine")).open().unwrap();
        let ends = db.keyspace("ends", fjall::KeyspaceCreateOptions::default).unwrap();
        let record = ends.iter().next().unwrap().key().unwrap();
        ends.remove(record).unwrap();
    }
    // (Of another batch than the ledger knows: what is looked at is the tables.)
    let view = engine::Engine::open(&dir.path().join("engine"), 1 << 20).unwrap().view();
    let damaged = view.check(dir.path(), &mut |_, _| true).unwrap_err().to_string();
    assert!(damaged.contains("1 entries with a deadline, and 0 deadlines are kept"), "{damaged}");
}

fn settled(store: &DiskStore) {
    done(|done| assert_eq!(store.barrier(|| done), None)).unwrap();
}

/// Puts all of them.
struct All(u64);

impl UpdateMany for All {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        for at in 0..present.len() {
            change(at, Change::Put(Value { deadline: self.0, ..value(b"many") }));
        }
    }
}

impl PendingMany for All {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        assert!(matches!(result, Ok(Some(_))), "{result:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_entry_with_a_deadline_has_one_record_whatever_is_written(
        steps in prop::collection::vec((0..4_u8, 0..5_u8, prop_oneof![Just(0), 1..200_u64]), 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut model, mut now) = (BTreeMap::new(), 0);
        let mut store = open(dir.path(), SyncPolicy::Never).unwrap();
        for (kind, key, ahead) in steps {
            let deadline = if ahead == 0 { 0 } else { now + ahead };
            match kind {
                0 => {
                    put_until(&store, &[109, key], deadline);
                    model.insert(vec![109, key], deadline);
                }
                1 => {
                    let keys = [vec![109, key], vec![109, key + 1]];
                    let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                    store.update_many(&slices, &mut All(deadline), |_| Box::new(All(deadline)));
                    model.extend(keys.into_iter().map(|key| (key, deadline)));
                }
                2 => {
                    delete(&store, &[109, key]).unwrap();
                    model.remove(&vec![109, key]);
                }
                _ if ahead == 0 => {
                    drop(store);
                    store = open(dir.path(), SyncPolicy::Never).unwrap();
                }
                _ => {
                    now += ahead;
                    settled(&store);
                    let mut due = due_keys(&store, now);
                    due.iter().for_each(|key| delete(&store, key).unwrap());
                    due.sort_unstable();
                    let ended: Vec<Vec<u8>> = model.iter().filter(|(_, end)| **end != 0 && **end <= now).map(|(key, _)| key.clone()).collect();
                    model.retain(|_, end| *end == 0 || *end > now);
                    prop_assert_eq!(due, ended);
                }
            }
            settled(&store);
            prop_assert_eq!(ends(&store), model.values().filter(|end| **end != 0).count() as u64);
            let first = model.values().filter(|end| **end != 0).min().copied();
            prop_assert_eq!(store.next_due(), first);
        }
        store.disk.check(&mut |_, _| true).unwrap();
    }
}
