use std::sync::mpsc;

use super::super::engine::planted::{self, Fault, Place};
use super::super::ledger;
use super::super::queue::Change;
use super::super::record::{self, Entry};
use super::*;
use crate::etf::Traits;
use crate::store::{Value, Written};

const VALUE: Value<'_> = Value::of(b"v", Traits::none());

fn put(shared: &Shared, key: &[u8]) -> Result<Vec<(usize, StoreError)>, StoreError> {
    let change = Change::Put(Entry::new(key, VALUE), Box::new(|_| {}));
    shared.commit(&mut [Write { store: 1, key: key.into(), change }], 100).1
}

fn has(shared: &Shared, key: &[u8]) -> bool {
    shared.read(1, key).unwrap().is_some()
}

fn open(dir: &Path) -> Shared {
    Shared::open(dir, SyncPolicy::Always, Memory::within(1 << 20)).unwrap()
}

fn names(name: &str) -> [String; 1] {
    [name.into()]
}

/// Writes a batch that stays out: it is on disk, and nobody is told so.
fn write_untold(shared: &Shared, key: &[u8]) {
    let engine = shared.engine.read();
    let db = &engine.as_ref().unwrap().db;
    let keyspace = |name| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
    let mut batch = db.batch().durability(Some(PersistMode::SyncData));
    batch.insert(&keyspace("s1"), record::engine_key(key), record::encode(key, VALUE));
    batch.insert(&keyspace("meta"), ledger::KEY, shared.ledger.stamp(db.seqno()).unwrap());
    batch.commit().unwrap();
}

#[test]
fn what_a_failed_batch_has_left_in_the_journal_is_taken_back_before_anything_follows() {
    for a_name_follows in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let shared = open(dir.path());
        assert_eq!(shared.store(&names("a")).unwrap().0, 1);
        assert_eq!(put(&shared, b"1"), Ok(Vec::new()));
        // As between a panic and the moment that all threads know of it.
        write_untold(&shared, b"2");
        if a_name_follows {
            assert!(shared.store(&names("b")).is_err(), "it would come behind it");
            assert_eq!(shared.store(&names("a")).unwrap().0, 1);
        } else {
            assert_eq!(put(&shared, b"x"), Err(StoreError::Io("eio")));
        }
        assert!(has(&shared, b"1"), "reads go on");
        assert_eq!(put(&shared, b"3"), Ok(Vec::new()));
        let keys = [b"1", b"2", b"3", b"x"];
        assert_eq!(keys.map(|key| has(&shared, key)), [true, false, true, false]);
        assert_eq!(shared.store(&names("b")).unwrap().0, 2);
        drop(shared);
        assert_eq!(keys.map(|key| has(&open(dir.path()), key)), [true, false, true, false]);
    }
}

#[test]
fn a_batch_that_is_written_is_answered_so_whatever_the_engine_does_behind_it() {
    for (place, fault) in
        [(Place::BehindCommit, Fault::Panics), (Place::Tables, Fault::Panics), (Place::Tables, Fault::Full)]
    {
        let dir = tempfile::tempdir().unwrap();
        let shared = open(dir.path());
        shared.store(&names("a")).unwrap();
        planted::plant(place, fault);
        let (tell, told) = mpsc::channel();
        let done = move |done: Result<Written<'_>, StoreError>| {
            tell.send(done.map(|written| written.seq)).unwrap();
        };
        let change = Change::Put(Entry::new(b"1", VALUE), Box::new(done));
        shared.push(Write { store: 1, key: b"1"[..].into(), change });
        let writes = shared.queue.lock().take(BATCH_BYTES_MAX);
        shared.carry_out(writes);
        assert!(planted::is_passed());
        assert_eq!(told.recv().unwrap(), Ok(2), "{place:?} {fault:?}: it has its number");
        assert!(shared.broken.lock().is_none(), "the engine was opened again");
        assert!(has(&shared, b"1"));
        assert_eq!(put(&shared, b"2"), Ok(Vec::new()), "{place:?} {fault:?}");
        assert_eq!(shared.ledger.last(), 3);
        drop(shared);
        assert_eq!([b"1", b"2"].map(|key| has(&open(dir.path()), key)), [true, true]);
    }
}

#[test]
fn a_batch_that_the_engine_panics_before_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let shared = open(dir.path());
    shared.store(&names("a")).unwrap();
    for fault in [Fault::Panics, Fault::Full] {
        planted::plant(Place::BeforeCommit, fault);
        assert!(put(&shared, b"1").is_err() && !has(&shared, b"1"));
        assert_eq!(put(&shared, b"2"), Ok(Vec::new()));
    }
    drop(shared);
    assert_eq!([b"1", b"2"].map(|key| has(&open(dir.path()), key)), [false, true]);
}

#[test]
fn a_name_that_was_not_taken_is_taken_when_it_is_tried_again() {
    for (place, fault) in [
        (Place::BeforeCommit, Fault::Full),
        (Place::BeforeCommit, Fault::Panics),
        (Place::BehindCommit, Fault::Full),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let shared = open(dir.path());
        planted::plant(place, fault);
        let refused = shared.store(&names("a")).unwrap_err();
        assert!(matches!(refused, OpenError::System { .. }), "{refused}: it is no damage");
        assert_eq!(shared.store(&names("a")).unwrap().0, 1, "{place:?} {fault:?}");
        assert_eq!(put(&shared, b"1"), Ok(Vec::new()));
        planted::plant(Place::BehindCommit, Fault::Panics);
        assert_eq!(shared.store(&names("b")).unwrap().0, 2, "it is written");
        assert_eq!(shared.store(&names("c")).unwrap().0, 3);
        assert_eq!(put(&shared, b"2"), Ok(Vec::new()));
        drop(shared);
        let shared = open(dir.path());
        assert_eq!(shared.named(), [names("a"), names("b"), names("c")]);
        assert!(has(&shared, b"1") && has(&shared, b"2"));
    }
}

#[test]
fn what_is_closed_is_not_opened_again_for_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let shared = open(dir.path());
    planted::plant(Place::BeforeCommit, Fault::Full);
    shared.store(&names("a")).unwrap_err();
    shared.close();
    shared.write_until_closed();
    let refused = shared.store(&names("a")).unwrap_err();
    assert!(refused.to_string().contains("it is closed"), "{refused}");
    assert!(shared.engine.read().is_none());
}
