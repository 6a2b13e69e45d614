use std::fs;

use super::super::ledger::Access;
use super::*;
use crate::etf::Traits;
use crate::store::Value;

fn put(key: &str, value: &[u8]) -> Write {
    let value = Value::of(value, Traits::default());
    let entry = Entry::new(key.as_bytes(), value);
    Write { store: 1, key: key.as_bytes().into(), change: Change::Put(entry, Box::new(|_| {})) }
}

/// The engine of a folder, and its ledger.
fn opened(dir: &Path) -> (Engine, Ledger) {
    if !dir.join(ledger::NAME).exists() {
        Ledger::make(dir).unwrap();
    }
    let (ledger, verdict, _) = Ledger::open(dir, Access::Write { always: true }, &|_| Ok(0)).unwrap();
    assert_eq!(verdict.torn().unwrap(), None);
    let engine = Engine::open(&dir.join("engine"), 1 << 20).unwrap();
    ledger.opened(engine.number()).unwrap();
    (engine, ledger)
}

fn commit((engine, ledger): &(Engine, Ledger), mut writes: Vec<Write>) -> Committed {
    engine.commit(&mut writes, PersistMode::SyncData, RoomFor::All, ledger, |_| None).unwrap()
}

#[test]
fn a_key_that_cannot_be_read_is_refused_and_the_others_of_its_batch_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path());
    assert_eq!(disk.0.name(1, &["a".into()], &disk.1).unwrap(), Health::Sound);
    let keys: Vec<String> = (0..200).map(|number| format!("key{number}")).collect();
    // What does not get shorter.
    let noise = |key: &str| {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        (0..100)
            .flat_map(|_| {
                hash.update(key.as_bytes());
                hash.digest().to_be_bytes()
            })
            .collect::<Vec<_>>()
    };
    commit(&disk, keys.iter().map(|key| put(key, &noise(key))).collect());
    disk.0.write_tables().unwrap();
    disk.0.wait_for_tables(0).unwrap();
    let place = disk.0.stores[&1].entries.path().join("tables");
    drop(disk);
    for table in fs::read_dir(place).unwrap() {
        let table = table.unwrap().path();
        let mut bytes = fs::read(&table).unwrap();
        bytes[1_000] ^= 1;
        fs::write(table, bytes).unwrap();
    }
    let disk = opened(dir.path());
    let engine = &disk.0;
    let (good, bad): (Vec<_>, Vec<_>) = keys.iter().partition(|key| engine.read(1, key.as_bytes()).is_ok());
    assert!(!good.is_empty() && !bad.is_empty(), "{} and {}", good.len(), bad.len());
    let committed = commit(&disk, vec![put(good[0], b"1"), put(bad[0], b"2"), put(good[1], b"3")]);
    assert_eq!(committed.refused, [(1, StoreError::Io("damaged"))]);
    for (key, value) in [(good[0], b"1"), (good[1], b"3")] {
        assert_eq!(engine.read(1, key.as_bytes()).unwrap().unwrap().value().bytes, value);
    }
    assert!(engine.read(1, bad[0].as_bytes()).is_err());
}

#[test]
fn batches_are_numbered_one_by_one_over_reopenings() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path());
    assert_eq!((disk.0.number(), disk.1.last()), (0, 0));
    assert_eq!(disk.0.name(1, &["a".into()], &disk.1).unwrap(), Health::Sound);
    let written = |disk: &(Engine, Ledger), writes: Vec<Write>| {
        commit(disk, writes);
        disk.1.last()
    };
    assert_eq!(disk.1.last(), 1);
    assert_eq!(written(&disk, vec![put("k", b"1")]), 2);
    assert_eq!(written(&disk, vec![]), 2, "there is nothing to write");
    drop(disk);
    let disk = opened(dir.path());
    assert_eq!((disk.0.number(), written(&disk, vec![put("k", b"2")])), (2, 3));
}

#[test]
fn deadlines_of_a_store_that_has_no_number_of_them_yet_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path());
    assert_eq!(disk.0.name(1, &["a".into()], &disk.1).unwrap(), Health::Sound);
    let ending = |key: &str, deadline| {
        let value = Value { deadline, ..Value::of(b"v", Traits::default()) };
        let entry = Entry::new(key.as_bytes(), value);
        Write { store: 1, key: key.as_bytes().into(), change: Change::Put(entry, Box::new(|_| {})) }
    };
    commit(&disk, vec![ending("a", 5), ending("b", 0), ending("c", 7), ending("a", 6), ending("c", 0)]);
    let held = disk.0.held(1).unwrap();
    assert_eq!((held.entries, held.deadlines), (3, 1));
    // As the version before has written it.
    let key = meta_key(b't', 1);
    let totals = disk.0.meta.get(&key).unwrap().unwrap();
    disk.0.meta.insert(&key, &totals[..24]).unwrap();
    assert_eq!(disk.0.held(1).unwrap(), held);
    disk.0.meta.insert(&key, [&totals[..24], &9_u64.to_be_bytes()].concat()).unwrap();
    assert_eq!(disk.0.held(1).unwrap().deadlines, 9);
    let said = disk.0.view().check(dir.path(), &mut |_, _| true).unwrap_err().to_string();
    assert!(said.contains("1 entries with a deadline, and was left with 9"), "{said}");
}
