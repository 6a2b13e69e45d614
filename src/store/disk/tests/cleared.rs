//! A store is emptied at once, and what it had goes afterwards, whatever happens meanwhile.

use std::sync::mpsc::Receiver;

use super::super::engine::planted::{self, Fault};
use super::batches::batches_of;
use super::order::{in_order, integer};
use super::*;
use crate::store::Cleared;

/// Numbers of a clear's write.
pub(super) type Told = Result<u64, StoreError>;

fn clear_later(store: &DiskStore) -> Receiver<Told> {
    let (tell, told) = mpsc::channel();
    let later = || -> WriteDone {
        Box::new(move |result| {
            let seq = result.map(|written| {
                assert!(written.changes.is_empty());
                written.seq
            });
            tell.send(seq).unwrap();
        })
    };
    let now: Option<Result<Cleared, StoreError>> = store.clear(later);
    assert!(now.is_none());
    told
}

pub(super) fn clear(store: &DiskStore) -> Told {
    clear_later(store).recv().unwrap()
}

/// Puts so many entries, of which every third ends.
fn fill(store: &DiskStore, entries: u32) {
    for number in 0..entries {
        let deadline = if number.is_multiple_of(3) { 1_000 + u64::from(number) } else { 0 };
        let value = Value { deadline, ..value(b"v") };
        store.put(&integer(number), value, || Box::new(|_| {}));
    }
    settle(store);
}

/// Waits until nothing is left of what was there before.
pub(super) fn cleaned(store: &DiskStore) {
    while store.disk.shared.with_engine(|engine, _| engine.has_cleared()) {
        settle(store);
    }
}

pub(super) fn records(store: &DiskStore) -> (usize, Vec<String>) {
    store.disk.shared.with_engine(|engine, _| engine.records())
}

#[test]
fn nothing_is_found_from_then_on_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
    let (a, b) = (disk.store(&names("a")).unwrap(), disk.store(&names("b")).unwrap());
    fill(&a, 1_000);
    fill(&b, 10);
    done(|done| Notes::write(&a, "slaves", b"s", done)).unwrap();
    assert_eq!(a.next_due(), Some(1_000));
    let (seq, revision_before) = (a.seq(), a.revision());
    assert_eq!(clear(&a), Ok(seq + 1));
    assert_eq!((a.seq(), a.revision()), (seq + 1, revision_before + 1));
    assert_eq!((a.len(), a.bytes(), a.next_due()), (0, 0, None));
    assert!(all(&a).is_empty() && in_order(&a, 10).is_empty());
    assert_eq!((get(&a, &integer(1)), note(&a, "slaves")), (Ok(None), Ok(Some(b"s".to_vec()))));
    // A scan, a page and a backup of that moment, and a store that is made then.
    disk.backup(&dir.path().join("backup"), &mut |_, _| true).unwrap();
    let c = disk.store(&names("c")).unwrap();
    fill(&c, 5);
    put(&a, &integer(7), b"new").unwrap();
    assert_eq!(revision(&a, &integer(7)), Some(revision_before + 2));
    cleaned(&a);
    assert_eq!(records(&a), (1 + (10 + 4) + (5 + 2), ["s2", "s3", "s4"].map(str::to_owned).into()));
    assert_eq!(in_order(&a, 10), [integer(7)]);
    // And again, twice, with nothing between.
    assert_eq!((clear(&a), clear(&a)), (Ok(seq + 3), Ok(seq + 4)));
    cleaned(&a);
    assert_eq!(records(&a).0, 14 + 7);
    for round in 0..2 {
        put(&a, b"k", b"v").unwrap();
        // It is told before it waits no more.
        settle(&a);
        assert_eq!((all(&a).len(), all(&b).len(), all(&c).len()), (1, 10, 5), "{round}");
        disk.check(&mut |_, _| true).unwrap();
    }
    drop((a, b, c, disk));
    let counts = ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap();
    assert_eq!(counts.iter().map(|store| store.entries).collect::<Vec<_>>(), [1, 10, 5]);
    let a = open(dir.path(), SyncPolicy::Never).unwrap();
    assert_eq!((all(&a), a.disk.stores().len()), ([(b"k".to_vec(), b"v".to_vec())].into(), 3));
    let restored = dir.path().join("restored");
    let counts = Disk::restore(&dir.path().join("backup"), &restored, &mut |_, _| true).unwrap();
    assert_eq!(counts.iter().map(|store| store.entries).collect::<Vec<_>>(), [0, 10]);
}

#[test]
fn what_was_asked_before_is_done_before_and_what_is_asked_behind_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    put(&store, b"a", b"1").unwrap();
    let go = hold(&store);
    put_later(&store, b"b");
    let cleared = clear_later(&store);
    let read = |key: &[u8]| {
        let (tell, told) = mpsc::channel();
        let own = |found: Option<Value<'_>>| found.map(|found| found.bytes.to_vec());
        let later = || -> ReadDone { Box::new(move |found| tell.send(own(found.unwrap())).unwrap()) };
        assert!(store.get(key, |_| (), later).is_none(), "nothing that is to go is shown");
        told
    };
    let before = [read(b"a"), read(b"b"), read(b"none")];
    put_later(&store, b"c");
    let behind = read(b"c");
    assert!(cleared.try_recv().is_err() && before.iter().all(|told| told.try_recv().is_err()));
    drop(go);
    assert!(before.iter().all(|told| told.recv().unwrap().is_none()));
    assert_eq!((behind.recv().unwrap(), cleared.recv().unwrap()), (Some(b"1".to_vec()), Ok(5)));
    assert_eq!(all(&store).len(), 1);
}

#[test]
fn a_kill_at_any_moment_leaves_all_or_nothing_and_what_was_there_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Never).unwrap();
    fill(&store, 2_000);
    let told = clear_later(&store);
    // Of some moments of it: before, in the middle, and while the rest goes.
    let mut left: Vec<_> = (0..3).map(|_| killed(&store)).collect();
    told.recv().unwrap().unwrap();
    left.push(killed(&store));
    put(&store, b"k", b"v").unwrap();
    left.push(killed(&store));
    cleaned(&store);
    left.push(killed(&store));
    drop(store);
    for (at, dir) in left.iter().enumerate() {
        let wanted = [if at < 3 { 2_000 } else { 0 }, 0, usize::from(at > 3)];
        let counts = ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap();
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert!(wanted[usize::from(at > 2)..].contains(&store.len()), "{at}: {}", store.len());
        assert_eq!(counts[0].entries, store.len() as u64);
        cleaned(&store);
        let ends = if store.len() > 1 { 667 } else { 0 };
        assert_eq!((all(&store).len(), records(&store).0), (store.len(), store.len() + ends));
        // That of a clear that did not come to its write is empty, and the next one takes it.
        let keyspaces = records(&store).1.len();
        assert!(keyspaces == 1 || keyspaces == 2 && store.len() == 2_000, "{at}: {keyspaces}");
        clear(&store).unwrap();
        cleaned(&store);
        assert_eq!((records(&store).0, records(&store).1.len()), (0, 1), "{at}");
        store.disk.check(&mut |_, _| true).unwrap();
    }
}

/// Does something with the folder's own threads out of the way, on this one, and gives what a clear was told.
fn by_hand(dir: &Path, fault: Option<(planted::Place, Fault)>) -> Vec<Told> {
    let shared = Shared::open(dir, SyncPolicy::Always, Memory::within(u64::MAX)).unwrap();
    let (id, _) = shared.store(&names("a")).unwrap();
    let (tell, told) = mpsc::channel();
    for _ in 0..2 {
        let tell = tell.clone();
        let done: WriteDone = Box::new(move |result| tell.send(result.map(|written| written.seq)).unwrap());
        shared.push(Write { store: id, key: Arc::from(&[][..]), change: Change::Clear(done) });
        // Else they would be one.
        let between = Change::Nothing(Box::new(|_| {}));
        shared.push(Write { store: id, key: Arc::from(&[][..]), change: between });
    }
    if let Some((place, fault)) = fault {
        planted::plant(place, fault);
    }
    shared.close();
    shared.write_until_closed();
    assert!(planted::is_passed());
    told.try_iter().collect()
}

#[test]
fn a_clear_that_fails_changes_nothing_and_one_that_has_failed_behind_its_write_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let full = |place| Some((place, Fault::Full));
    let panics = |place| Some((place, Fault::Panics));
    for (fault, wanted) in [
        (full(planted::Place::BeforeCommit), [false, true]),
        (panics(planted::Place::BeforeCommit), [false, true]),
        (full(planted::Place::BehindCommit), [false, true]),
        (panics(planted::Place::BehindCommit), [true, true]),
        (None, [true, true]),
    ] {
        {
            let store = open(dir.path(), SyncPolicy::Never).unwrap();
            fill(&store, 100);
        }
        let told = by_hand(dir.path(), fault);
        assert_eq!(told.iter().map(Result::is_ok).collect::<Vec<_>>(), wanted, "{fault:?}: {told:?}");
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert_eq!((store.len(), all(&store).len()), (0, 0));
        cleaned(&store);
        assert_eq!(records(&store).0, 0);
        assert_eq!(records(&store).1.len(), 1, "{:?}", records(&store));
        store.disk.check(&mut |_, _| true).unwrap();
    }
}

#[test]
fn what_clears_leave_is_bounded_however_fast_they_come_and_an_empty_store_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Never).unwrap();
    let keyspaces = || records(&store).1.len();
    let mut told = Vec::new();
    for number in 0..100 {
        for more in 0..25 {
            store.put(&integer(number * 100 + more), value(b"v"), || Box::new(|_| {}));
        }
        told.push(clear_later(&store));
        if number % 10 == 0 {
            settle(&store);
            assert!(keyspaces() <= 4, "{}", keyspaces());
        }
    }
    told.into_iter().for_each(|told| assert!(told.recv().unwrap().is_ok()));
    cleaned(&store);
    let (seq, before) = (store.seq(), records(&store));
    assert_eq!((before.0, before.1.len()), (0, 1));
    let revision = store.revision();
    assert_eq!([clear(&store), clear(&store)], [Ok(seq + 1), Ok(seq + 2)]);
    assert_eq!((records(&store), store.revision()), (before, revision + 2));
    drop(store);
    let store = open(dir.path(), SyncPolicy::Never).unwrap();
    assert_eq!((store.revision() >= revision + 2, all(&store).len()), (true, 0));
    store.disk.check(&mut |_, _| true).unwrap();
}

#[test]
fn few_entries_are_deleted_with_the_clear_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    let long = [7; 5_000];
    for round in 0..3 {
        fill(&store, 4);
        put(&store, &long, &[8; 10_000]).unwrap();
        settle(&store);
        assert_eq!((store.len(), all(&store).len(), records(&store).0), (5, 5, 5 + 2));
        let (seq, revision) = (store.seq(), store.revision());
        let before = killed(&store);
        assert_eq!(clear(&store), Ok(seq + 1));
        assert_eq!(records(&store), (0, vec!["s1".to_owned()]), "{round}");
        assert_eq!((store.len(), store.bytes(), store.revision()), (0, 0, revision + 1));
        assert_eq!((all(&store).len(), store.next_due(), get(&store, &long)), (0, None, Ok(None)));
        store.disk.check(&mut |_, _| true).unwrap();
        for (dir, entries) in [(before, 5), (killed(&store), 0)] {
            let store = open(dir.path(), SyncPolicy::Always).unwrap();
            assert_eq!((store.len(), all(&store).len()), (entries, entries));
        }
    }
}

#[test]
fn what_fails_while_the_rest_goes_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path(), SyncPolicy::Never).unwrap();
        fill(&store, 1_000);
    }
    // Nothing of it goes by itself.
    assert_eq!(by_hand(dir.path(), None).len(), 2);
    assert_eq!(batches_of(dir.path(), [Some(7)]), 1);
    for fault in [Fault::Full, Fault::Panics, Fault::Full] {
        let shared = Shared::open(dir.path(), SyncPolicy::Always, Memory::within(u64::MAX)).unwrap();
        let before = shared.with_engine(|engine, _| engine.records().0);
        planted::plant(planted::Place::BetweenParts, fault);
        assert!(!shared.clean() && planted::is_passed());
        assert!(!shared.clean(), "nothing is written before the engine is opened again");
        let after = shared.with_engine(|engine, _| engine.records().0);
        assert!(after < before && after > 1, "{after} of {before}");
        shared.close();
        shared.write_until_closed();
    }
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    cleaned(&store);
    assert_eq!((in_order(&store, 10), all(&store).len(), records(&store).0), (vec![integer(7)], 1, 1));
    store.disk.check(&mut |_, _| true).unwrap();
}
