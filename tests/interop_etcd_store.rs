//! The store in etcd with real etcds: it is a map for all processes that write, and no write is done twice when etcd is killed or stopped.

#![cfg(feature = "etcd")]
#![allow(clippy::disallowed_methods, reason = "tests of real members live in real time")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by it, and shows what it has seen"
)]

#[path = "interop_etcd_store/faults.rs"]
mod faults;
#[path = "interop_etcd_store/figures.rs"]
mod figures;
#[path = "interop_etcd_store/model.rs"]
mod model;
#[path = "interop_etcd_store/rules.rs"]
mod rules;
mod support;

use std::sync::Arc;
use std::sync::mpsc;

use kvnode::etcd::{Config, Etcd};
use kvnode::etf::{Traits, encode};
use kvnode::store::{
    Change, Done, Engine, EtcdEngine, EtcdStore, Others, Pending, ReadDone, Store, StoreError, Update, Value,
    WriteDone, Written, wait,
};
use parking_lot::Mutex;
use support::EtcdCluster;

/// An engine of these, as another process would have it.
#[track_caller]
fn engine(cluster: &EtcdCluster) -> EtcdEngine {
    let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
    EtcdEngine::new(etcd, "kvnode")
}

fn names(name: &str) -> Vec<String> {
    vec![format!("global:{name}")]
}

/// A term: what keys and values are.
fn term(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    encode(|w| _ = w.binary(bytes))
}

fn value(bytes: &[u8]) -> Value<'_> {
    Value::of(bytes, Traits::none())
}

/// What was written: its number, and of each key what it got.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrote {
    seq: u64,
    changes: Vec<(Vec<u8>, Found)>,
    /// Of each change among those of all processes.
    numbers: Vec<u64>,
}

impl From<Written<'_>> for Wrote {
    fn from(written: Written<'_>) -> Self {
        let of = |(key, change): &(&[u8], Change<'_>)| match change {
            Change::Put(value) => (key.to_vec(), Some((value.bytes.to_vec(), value.revision))),
            _ => (key.to_vec(), None),
        };
        let numbers = written.numbers.to_vec();
        Self { seq: written.seq, changes: written.changes.iter().map(of).collect(), numbers }
    }
}

type Answer = mpsc::Receiver<Result<Option<Wrote>, StoreError>>;

/// Asks for a write, and gives where its answer comes.
fn asked(write: impl FnOnce(WriteDone)) -> Answer {
    let (tell, told) = mpsc::channel();
    write(Box::new(move |result| tell.send(result.map(|written| Some(written.into()))).unwrap()));
    told
}

fn put(store: &EtcdStore, key: &[u8], bytes: &[u8]) -> Result<Wrote, StoreError> {
    let told = asked(|done| assert_eq!(store.put(key, value(bytes), || done), None));
    told.recv().unwrap().map(Option::unwrap)
}

fn delete(store: &EtcdStore, key: &[u8]) -> Result<Wrote, StoreError> {
    let told = asked(|done| assert_eq!(store.delete(key, || done), None));
    told.recv().unwrap().map(Option::unwrap)
}

/// A value with its revision.
type Found = Option<(Vec<u8>, u64)>;

fn found(found: Option<Value<'_>>) -> Found {
    found.map(|found| (found.bytes.to_vec(), found.revision))
}

fn get(store: &EtcdStore, key: &[u8]) -> Found {
    let (tell, told) = mpsc::channel();
    let later = || -> ReadDone { Box::new(move |it| tell.send(found(it.unwrap())).unwrap()) };
    store.get(key, found, later).unwrap_or_else(|| told.recv().unwrap())
}

/// Waits for all that was asked before.
fn settle(store: &EtcdStore) -> Result<(), StoreError> {
    wait(|done: Done| assert_eq!(store.barrier(|| done), None)).unwrap()
}

/// Decides by the present value; `None`: it stays.
type Decide = Arc<dyn Fn(Option<&[u8]>) -> Option<Option<Vec<u8>>> + Send + Sync>;

struct Decides {
    decide: Decide,
    decided: Option<Option<Vec<u8>>>,
    tell: mpsc::Sender<Result<Option<Wrote>, StoreError>>,
}

impl Update for Decides {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.decided = (self.decide)(present.map(|present| present.bytes));
        match &self.decided {
            None => Change::Keep,
            Some(None) => Change::Delete,
            Some(Some(bytes)) => Change::Put(value(bytes)),
        }
    }
}

impl Pending for Decides {
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        if let Ok(Some(written)) = &result {
            let [(_, change)] = written.changes else { panic!("it is of one key") };
            let shown = if let Change::Put(value) = change { Some(value.bytes.to_vec()) } else { None };
            assert_eq!(Some(shown), self.decided, "what was written is what was decided");
        }
        self.tell.send(result.map(|written| written.map(Wrote::from))).unwrap();
    }
}

fn update(store: &EtcdStore, key: &[u8], decide: Decide) -> Answer {
    let (tell, told) = mpsc::channel();
    let mut update = Decides { decide: Arc::clone(&decide), decided: None, tell: tell.clone() };
    let later = |_: &mut Decides| -> Box<dyn Pending> { Box::new(Decides { decide, decided: None, tell }) };
    assert_eq!(store.update(key, &mut update, later), None);
    told
}

/// Adds one to a number.
fn count(store: &EtcdStore, key: &[u8]) -> Answer {
    let decide = |present: Option<&[u8]>| {
        let present = present.map_or(0, |present| (0..).find(|number| term(*number) == present).unwrap());
        Some(Some(term(present + 1)))
    };
    update(store, key, Arc::new(decide))
}

/// What others have written, as the store tells of it.
fn others(store: &EtcdStore) -> Arc<Mutex<Vec<Wrote>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    store.tell_of_others(Box::new(move |others| {
        if let Others::Wrote { written, .. } = others {
            tell.lock().push(written.into());
        }
    }));
    told
}

/// Waits until the store has all that any process was answered by now, and has told of it.
fn catch_up(store: &EtcdStore) {
    assert_eq!(wait(|done: Done| store.catch_up(done)).unwrap(), Ok(()));
}

/// The rules of engines, and that counters add up while etcd is killed.
#[test]
fn the_same_on_each_other_etcd() {
    support::etcd_versions::run_on_others(&["rules::", "faults::so_they_do_while_etcd_is_killed"], 11);
}
