//! How writes that wait become batches.

use super::super::queue::Decided;
use super::super::record::Entry;
use super::cleared::{cleaned, records};
use super::order::{in_order, integer};
use super::*;

/// Carries writes of one store out by hand, as they fit; gives the batches that this took.
pub(super) fn batches_of(dir: &Path, writes: impl IntoIterator<Item = Option<u32>>) -> u64 {
    let changes = writes.into_iter().map(|write| {
        let done: WriteDone = Box::new(|result| assert!(result.is_ok()));
        match write {
            None => (Vec::new(), Change::Clear(done)),
            Some(number) => {
                let key = integer(number);
                let entry = Entry::new(&key, value(b"v"));
                (key, Change::Put(entry, done))
            }
        }
    });
    batches_of_changes(dir, changes)
}

fn batches_of_changes(dir: &Path, changes: impl Iterator<Item = (Vec<u8>, Change)>) -> u64 {
    let open = || Shared::open(dir, SyncPolicy::Always, Memory::within(u64::MAX)).unwrap();
    let shared = open();
    let (id, _) = shared.store(&names("a")).unwrap();
    let before = shared.with_engine(|_, ledger| ledger.last());
    for (key, change) in changes {
        shared.push(Write { store: id, key: key.into(), change });
    }
    shared.close();
    shared.write_until_closed();
    drop(shared);
    open().with_engine(|_, ledger| ledger.last()) - before
}

/// Puts what is there again, as `:touch` does: it holds nothing before it is carried out.
struct Again(Vec<u8>);

impl Update for Again {
    fn decide(&mut self, present: Option<Value<'_>>) -> store::Change<'_> {
        self.0 = present.expect("it is there").bytes.to_vec();
        store::Change::Put(value(&self.0))
    }
}

impl Pending for Again {
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        assert!(result.is_ok());
    }
}

#[test]
fn small_updates_of_large_entries_are_no_single_batch() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path(), SyncPolicy::Always).unwrap(), b"k", &vec![1; 1 << 20]).unwrap();
    let again = (0..100).map(|_| {
        let update = Box::new(Again(Vec::new()));
        (b"k".to_vec(), Change::Update(update, Decided::default()))
    });
    // Each holds what it was shown, and what it puts.
    assert_eq!(batches_of_changes(dir.path(), again), 100 / 8 + 1);
}

#[test]
fn clears_of_few_entries_and_other_writes_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let few =
        [Some(1), Some(2), None, Some(1), Some(3), None, None, Some(3), Some(3), None, Some(4), Some(1)];
    assert_eq!(batches_of(dir.path(), few), 1);
    let left = |wanted: &[u32]| {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        store.disk.check(&mut |_, _| true).unwrap();
        let wanted: Vec<_> = wanted.iter().map(|number| integer(*number)).collect();
        assert_eq!((in_order(&store, 100), store.len()), (wanted, 2));
        assert_eq!(records(&store).0, 2);
        store.revision()
    };
    let revision = left(&[1, 4]);
    // What it held before goes with it, what is in it before the clear too; the others stay.
    assert_eq!(batches_of(dir.path(), [Some(4), None, Some(7), Some(8)]), 1);
    assert_eq!(left(&[7, 8]), revision + 4);
}

#[test]
fn a_clear_of_many_entries_among_other_writes_is_a_batch_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let many = (0..50).map(Some).chain([None, None, Some(1), None, Some(2)]);
    // The puts; the first clears; the rest. And one part after the other of what was there.
    let batches = batches_of(dir.path(), many);
    assert!((3..=6).contains(&batches), "{batches}");
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    cleaned(&store);
    assert_eq!((in_order(&store, 100), store.len(), records(&store).0), (vec![integer(2)], 1, 1));
    store.disk.check(&mut |_, _| true).unwrap();
}
