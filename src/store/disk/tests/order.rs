//! The order of the keys is there beside the entries, whatever is written, and a folder without it gets it when it is opened.

use super::super::engine::planted::{self, Fault};
use super::*;
use crate::etf::order::TermRange;
use crate::store::ordered::place_of;
use crate::store::{Order, Page};

/// All keys in order, in pages of so many.
pub(super) fn in_order(store: &DiskStore, each: usize) -> Vec<Vec<u8>> {
    let range = TermRange::default();
    let (mut keys, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let mut count = 0;
        let order = Order::OfTerms { range: &range, reverse: false };
        let page = store.page(order, after.as_deref(), Shows::Pairs, &mut |key, value| {
            assert!(value.is_some());
            keys.push(key.to_vec());
            count += 1;
            if count >= each { Visit::Enough } else { Visit::Next }
        });
        match page.unwrap() {
            Page::Behind(place) => after = Some(place),
            Page::Last => return keys,
            page => panic!("{page:?}"),
        }
    }
}

pub(super) fn integer(number: u32) -> Vec<u8> {
    crate::etf::encode(|w| _ = w.unsigned(number.into()))
}

/// Takes the order out of a folder, and the mark that it is there: what is left is what a version before has left.
fn take_order_out(dir: &Path) {
    let shared = Shared::open(dir, SyncPolicy::Always, Memory::within(u64::MAX)).unwrap();
    shared.with_engine(|engine, ledger| engine.take_order_out(ledger)).unwrap();
    shared.close();
    shared.write_until_closed();
    fs::write(dir.join("format"), "kvnode 5\n").unwrap();
}

fn damage(dir: &Path) -> Option<String> {
    let read_only = ReadOnlyDisk::open(dir).unwrap();
    read_only.check(&mut |_, _| true).err().map(|error| error.to_string())
}

#[test]
fn a_folder_without_an_order_gets_it_when_it_is_opened_also_where_that_ends_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    // Its order is written in several batches.
    let long =
        |number: u32| crate::etf::encode(|w| _ = w.tuple(2).unsigned(number.into()).binary(&[b'k'; 2_000]));
    let mut keys: Vec<Vec<u8>> = (0..5_000).map(integer).chain((0..20).map(long)).collect();
    {
        let store = open(dir.path(), SyncPolicy::Never).unwrap();
        for key in &keys {
            store.put(key, value(b"v"), || Box::new(|_| {}));
        }
        done(|done| _ = store.barrier(|| done)).unwrap();
        assert_eq!(in_order(&store, 700), keys);
    }
    take_order_out(dir.path());
    assert_eq!(damage(dir.path()), None, "it is whole without");
    let mut failures = 0;
    loop {
        planted::plant(planted::Place::BetweenOrders, Fault::Panics);
        match Disk::open(dir.path(), SyncPolicy::Always, u64::MAX) {
            Err(_) => failures += 1,
            Ok(disk) => {
                assert!(planted::is_passed() || failures > 0);
                drop(disk);
                break;
            }
        }
        assert!(planted::is_passed());
        // What is there by half is no damage.
        assert_eq!(damage(dir.path()), None);
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "kvnode 7\n");
        if failures == 3 {
            planted::clear();
        }
        assert!(failures < 50, "it never gets to its end");
    }
    assert!(failures > 3, "{failures}");
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    assert_eq!(in_order(&store, 1_000), keys);
    delete(&store, &keys[7]).unwrap();
    put(&store, &integer(9_000), b"new").unwrap();
    keys.remove(7);
    keys.insert(4_999, integer(9_000));
    assert_eq!(in_order(&store, 5_000), keys);
    drop(store);
    assert_eq!(damage(dir.path()), None);
}

#[test]
fn a_folder_without_room_for_an_order_is_served_without_and_gets_it_later() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        (0..100).for_each(|number| put(&store, &integer(number), b"v").unwrap());
    }
    take_order_out(dir.path());
    planted::plant(planted::Place::RoomForOrder, Fault::Full);
    {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert!(planted::is_passed());
        let range = TermRange::default();
        let order = Order::OfTerms { range: &range, reverse: false };
        assert_eq!(store.page(order, None, Shows::Keys, &mut |_, _| Visit::Next), Ok(Page::Unordered));
        // What comes and goes meanwhile is in order later.
        delete(&store, &integer(50)).unwrap();
        put(&store, &integer(1_000), b"v").unwrap();
        put(&store, &integer(7), b"over").unwrap();
    }
    assert_eq!(damage(dir.path()), None);
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    let expected: Vec<_> = (0..100).filter(|number| *number != 50).chain([1_000]).map(integer).collect();
    assert_eq!(in_order(&store, 9), expected);
    drop(store);
    assert_eq!(damage(dir.path()), None);
}

#[test]
fn a_check_finds_an_entry_without_its_record_and_a_record_without_its_entry() {
    for (is_more, said) in
        [(false, "missing in the order of its keys"), (true, "some are of entries that are not there")]
    {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path(), SyncPolicy::Always).unwrap();
            (0..9).for_each(|number| put(&store, &integer(number), b"v").unwrap());
        }
        {
            let shared = Shared::open(dir.path(), SyncPolicy::Always, Memory::within(u64::MAX)).unwrap();
            let place = if is_more { b"another place".to_vec() } else { place_of(&integer(4)) };
            shared
                .with_engine(|engine, ledger| engine.misplace(is_more, &integer(4), &place, ledger))
                .unwrap();
            shared.close();
            shared.write_until_closed();
        }
        let damage = damage(dir.path()).expect("it is damaged");
        assert!(damage.contains(said), "{damage}");
        let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
        assert!(disk.check(&mut |_, _| true).is_err());
    }
}

#[test]
fn keys_of_any_length_are_in_order_once_and_two_with_one_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    let text = |len: usize, last: u8| {
        let text = [&vec![b'x'; len][..], &[last]].concat();
        crate::etf::encode(|w| _ = w.binary(&text))
    };
    let keys = [
        text(59_000, b'a'),
        text(59_990, b'a'),
        text(59_990, b'b'),
        text(70_000, b'a'),
        text(1_000_000, b'b'),
    ];
    for key in keys.iter().rev() {
        put(&store, key, b"v").unwrap();
    }
    let seen = in_order(&store, 2);
    // Those that are cut have one head.
    assert_eq!(seen[..1], keys[..1]);
    let (mut sorted, mut all) = (seen.clone(), keys.to_vec());
    sorted.sort();
    all.sort();
    assert_eq!(sorted, all);
    for key in &keys {
        delete(&store, key).unwrap();
        delete(&store, key).unwrap();
    }
    assert_eq!(in_order(&store, 2), Vec::<Vec<u8>>::new());
    store.disk.check(&mut |_, _| true).unwrap();
    // As if another key had the digest of this one.
    let key = &keys[4];
    store
        .disk
        .shared
        .with_engine(|engine, ledger| engine.misplace(true, key, &place_of(key), ledger))
        .unwrap();
    assert_eq!(put(&store, key, b"v"), Err(StoreError::Io("eexist")));
    assert_eq!((get(&store, key), put(&store, &keys[3], b"v")), (Ok(None), Ok(())));
}
