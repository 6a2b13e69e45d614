//! The end of a copy in a store that cannot put one aside.

use std::sync::{Arc, OnceLock, Weak};

use kvnode::distribution::DistributionFlags;
use kvnode::etf::{TermView, Traits, encode};
use kvnode::kv::figures::StoreFigures;
use kvnode::kv::{Follow, KeyValueServer};
use kvnode::process::Dispatch;
use kvnode::replica::PrimaryStanding;
use kvnode::store::{
    Done, MemoryStore, Pending, ReadDone, Scan, Shows, Store, StoreError, Update, Value, WriteDone,
};

use crate::cluster::{Cluster, Sent, answer, cluster_of};
use crate::conversation::{frames_of, payload_of, send};

/// Entries that the store has and its primary has not.
const REST: usize = 300_000;
/// A step is not to delete more of them.
const STEP_MAX: usize = 4096;

/// A store in memory that takes a copy in as one on disk does, and looks at its server whenever it deletes.
struct InPlace {
    entries: Arc<MemoryStore>,
    server: Arc<OnceLock<Weak<KeyValueServer<Self>>>>,
}

impl Store for InPlace {
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        self.entries.get(key, now, later)
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.entries.update(key, update, later)
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<u64, StoreError>> {
        let server = self.server.get().and_then(Weak::upgrade).expect("it serves");
        // In the midst of a step, as a caller of `:status` may: nothing waits for the step's end.
        let primary = server.primary().expect("it is a slave");
        assert_eq!(primary.state, PrimaryStanding::Copying);
        self.entries.delete(key, later)
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.entries.barrier(later)
    }

    fn seq(&self) -> u64 {
        self.entries.seq()
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> u64 {
        self.entries.bytes()
    }

    fn parts(&self) -> usize {
        self.entries.parts()
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        assert_eq!(shows, Shows::Keys, "values are read where they are kept elsewhere alone");
        self.entries.scan(part, shows)
    }
}

fn call(cluster: &mut Cluster, request: &str) -> String {
    let answers = cluster.call(request);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    let answer = TermView::parse(payload_of(answer)).expect("a term");
    let [_, answer] = answer.as_tuple::<2>().expect("an answer");
    format!("{answer:?}")
}

fn cast(cluster: &mut Cluster, request: &str) {
    let answers = cluster.say(&send("kv", format!("{{:\"$gen_cast\", {request}}}")));
    assert!(answers.is_empty(), "{answers:?}");
}

#[test]
fn a_store_serves_while_it_deletes_step_by_step_what_a_copy_has_not_brought() {
    let entries = Arc::new(MemoryStore::default());
    for number in 0..REST as u64 {
        let key = encode(|w| _ = w.unsigned(number));
        let value = Value { bytes: &key, shared: None, traits: Traits::none() };
        entries
            .put(&key, value, || panic!("memory answers at once"))
            .expect("at once")
            .expect("there is room");
    }
    let own = Arc::new(OnceLock::new());
    let store = InPlace { entries: Arc::clone(&entries), server: Arc::clone(&own) };
    let sent = Arc::new(Sent::default());
    let (dispatch, follow) = (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
    let server = KeyValueServer::new(store, dispatch, follow, 1 << 20).shared();
    own.set(Arc::downgrade(&server)).expect("it is set once");
    let mut cluster = cluster_of(server, Arc::clone(&sent), DistributionFlags::OFFERED);
    let greeted = call(&mut cluster, "{:replica_hello, 1, {0, 0, [9], 9}, 7, [], [], false}");
    assert!(greeted.starts_with("{:ok, "), "{greeted}");
    cast(&mut cluster, "{:replica_copy, 1, 7, :begin}");
    cast(&mut cluster, "{:replica_put, 1, 7, :brought, 1}");
    cast(&mut cluster, "{:replica_copy, 1, 7, :end}");
    let mut work = sent.4.lock().pop().expect("something is to be deleted");
    assert_eq!(entries.len(), REST + 1, "step by step");
    let mut steps = 0;
    loop {
        let before = entries.len();
        let has_more = work.step();
        let deleted = before - entries.len();
        assert!(deleted <= STEP_MAX, "{deleted} in a step");
        if !has_more {
            break;
        }
        steps += 1;
        if steps == 10 {
            cast(&mut cluster, "{:replica_put, 1, 8, 299999, :again}");
            // Answered once what it asks for is so.
            assert!(cluster.call("{:replica_ask, 1, 8}").is_empty());
        }
        let status = call(&mut cluster, ":status");
        assert!(status.contains("state: :copying"), "{status}");
    }
    assert!(steps > REST / STEP_MAX, "{steps} steps");
    assert_eq!(entries.len(), 2);
    assert_eq!(call(&mut cluster, "{:get, 299999}"), ":again", "what comes meanwhile stays");
    assert_eq!(call(&mut cluster, "{:get, :brought}"), "1");
    let answers: Vec<_> = sent.0.lock().drain(..).flat_map(|(_, frames)| frames_of(&frames)).collect();
    assert_eq!(answers, [answer("{:ok, 8}")]);
    let status = call(&mut cluster, ":status");
    assert!(status.contains("state: :following") && status.contains("lag: 0"), "{status}");
}
