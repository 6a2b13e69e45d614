//! The end of a copy in a store that cannot put one aside.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use kvnode::distribution::DistributionFlags;
use kvnode::etf::{TermView, Traits, encode};
use kvnode::kv::figures::StoreFigures;
use kvnode::kv::{Follow, KeyValueServer, NewFile, SlaveWrites};
use kvnode::process::Dispatch;
use kvnode::replica::PrimaryStanding;
use kvnode::store::{
    Done, Due, DueDone, MemoryStore, Pending, ReadDone, Scan, Shows, Store, StoreError, Update, Value,
    WriteDone,
};

use crate::cluster::{Cluster, Sent, answer, cluster_of};
use crate::conversation::{frames_of, payload_of, send};
use crate::deferred::{Deferred, Manner};
use crate::dropped::Dropped;

/// Entries that the store has and its primary has not.
const REST: usize = 300_000;
/// A step is not to delete more of them.
const STEP_MAX: usize = 4096;

/// A store in memory that takes a copy in as one on disk does, and looks at its server whenever something becomes of a key by what
/// is there: so the rest of a copy is deleted.
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
        let server = self.server.get().and_then(Weak::upgrade).expect("it serves");
        // In the midst of a step, as a caller of `:status` may: nothing waits for the step's end.
        let primary = server.primary().expect("it is a slave");
        assert_eq!(primary.state, PrimaryStanding::Copying);
        self.entries.update(key, update, later)
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        self.entries.put(key, value, later)
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.entries.barrier(later)
    }

    fn seq(&self) -> u64 {
        self.entries.seq()
    }

    fn revision(&self) -> u64 {
        self.entries.revision()
    }

    fn raise_revision(&self, above: u64) {
        self.entries.raise_revision(above);
    }

    fn deadlines(&self) -> usize {
        self.entries.deadlines()
    }

    fn next_due(&self) -> Option<u64> {
        self.entries.next_due()
    }

    fn due(&self, now: u64, max: usize, later: impl FnOnce() -> DueDone) -> Option<Due> {
        self.entries.due(now, max, later)
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
        assert_eq!(shows, Shows::Copies, "values are not shown");
        self.entries.scan(part, shows)
    }
}

pub fn call(cluster: &mut Cluster, request: &str) -> String {
    let answers = cluster.call(request);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    said_in(answer)
}

/// What a call is answered with.
pub fn said_in(answer: &[u8]) -> String {
    let answer = TermView::parse(payload_of(answer)).expect("a term");
    let [_, answer] = answer.as_tuple::<2>().expect("an answer");
    format!("{answer:?}")
}

/// A greeting of a primary with the session 1; gives the signal that watches it, and the answer.
pub fn greet(cluster: &mut Cluster) -> (Vec<u8>, String) {
    let frames = cluster.call("{:replica_hello, 1, {0, 0, [9], 9}, 7, 1000000, [], [], false}");
    let [watch, answer] = &frames[..] else { panic!("{frames:?}") };
    (watch.clone(), said_in(answer))
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
        let value = Value::of(&key, Traits::none());
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
    let (_watch, greeted) = greet(&mut cluster);
    assert!(greeted.starts_with("{:ok, "), "{greeted}");
    cast(&mut cluster, "{:replica_copy, 1, 7, :begin}");
    cast(&mut cluster, "{:replica_put, 1, 7, 7, :brought, 1}");
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
            cast(&mut cluster, "{:replica_put, 1, 8, 8, 299999, :again}");
            // Answered once what it asks for is so.
            assert!(cluster.call("{:replica_ask, 1, 8, 8}").is_empty());
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

/// A node's life with a store that answers later, which carries out nothing by itself.
struct Life {
    cluster: Cluster,
    store: Deferred,
}

impl Life {
    fn of(store: &Deferred, with: impl FnOnce(KeyValueServer<Deferred>) -> KeyValueServer<Deferred>) -> Self {
        let sent = Arc::new(Sent::default());
        let (dispatch, follow) =
            (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
        let server = with(KeyValueServer::new(store.clone(), dispatch, follow, 1 << 20)).shared();
        Self { cluster: cluster_of(server, sent, DistributionFlags::OFFERED), store: store.clone() }
    }

    /// A message, whatever is answered, of which nothing is carried out yet.
    fn send(&mut self, message: &str) {
        self.cluster.say(&send("kv", message));
    }

    fn call(&mut self, request: &str) {
        self.cluster.call(request);
    }

    fn cast(&mut self, request: &str) {
        self.send(&format!("{{:\"$gen_cast\", {request}}}"));
    }

    /// It is greeted by a primary of this term, and a copy begins in this session.
    fn begin(&mut self, session: u64, term: u64) {
        self.call(&format!(
            "{{:replica_hello, {session}, {{{term}, {term}, [9], 9}}, 7, 1000000, [], [], false}}"
        ));
        self.settle();
        self.cast(&format!("{{:replica_copy, {session}, 7, :begin}}"));
    }

    fn put(&mut self, session: u64, seq: u64, pair: &str) {
        self.cast(&format!("{{:replica_put, {session}, {seq}, {seq}, {pair}}}"));
    }

    /// What was answered later, in order.
    fn answers(&self) -> Vec<String> {
        let sent = std::mem::take(&mut *self.cluster.sent.0.lock());
        sent.iter().flat_map(|(_, frames)| frames_of(frames)).map(|answer| said_in(&answer)).collect()
    }

    /// The store carries out all that it was asked.
    fn settle(&self) {
        while self.store.step() {}
    }

    /// The end of a copy, step by step, with something done before the step with this number.
    fn end(&mut self, session: u64, at: usize, mut act: impl FnMut(&mut Self)) {
        self.cast(&format!("{{:replica_copy, {session}, 8, :end}}"));
        let mut steps = 0;
        loop {
            let next = self.cluster.sent.4.lock().pop();
            let Some(mut work) = next else {
                if self.store.waiting() == 0 {
                    return;
                }
                self.settle();
                continue;
            };
            loop {
                if steps == at {
                    act(self);
                }
                steps += 1;
                if !work.step() {
                    break;
                }
            }
        }
    }

    fn held(&self) -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| format!("{:?}", TermView::parse(bytes).expect("a term"));
        self.store.at_rest().iter().map(|(key, held)| (text(key), text(&held.bytes))).collect()
    }
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Each way in which such a store answers.
fn manners() -> impl Iterator<Item = Manner> {
    (0..16).map(|seed| Manner { late_scans: seed % 2 == 0, in_order: seed % 3 == 0, ..Manner::wild(seed) })
}

/// A store with the pairs `{1, :old}` to `{4, :old}`.
fn filled(manner: Manner) -> Deferred {
    let store = Deferred::new(manner);
    let mut life = Life::of(&store, |server| server);
    for key in 1..=4 {
        life.call(&format!("{{:put, {key}, :old}}"));
    }
    life.settle();
    store
}

#[test]
fn what_is_on_its_way_while_its_key_is_looked_at_is_not_the_rest_of_a_copy() {
    for manner in manners() {
        // Before the store is asked for its keys, while it is asked for them, and before they are deleted.
        for at in 0..4 {
            let store = filled(manner);
            let mut life = Life::of(&store, |server| server);
            life.begin(1, 0);
            life.put(1, 7, "1, :brought");
            life.end(1, at, |life| life.put(1, 9, "2, :on_its_way"));
            assert_eq!(
                life.held(),
                pairs([("1", ":brought"), ("2", ":on_its_way")]),
                "{manner:?}, before step {at}"
            );
        }
    }
}

#[test]
fn nothing_of_a_copy_that_a_restart_has_cut_off_counts_as_brought_by_the_next() {
    for manner in manners() {
        let store = filled(manner);
        for session in 1..4 {
            let mut life = Life::of(&store, |server| server);
            life.begin(session, 0);
            life.put(session, 7, &format!("{session}, :brought"));
            life.settle();
        }
        assert_eq!(store.at_rest().len(), 4);
        let mut life = Life::of(&store, |server| server);
        life.begin(4, 0);
        life.put(4, 7, "1, :again");
        life.end(4, 0, |_| {});
        assert_eq!(life.held(), pairs([("1", ":again")]), "{manner:?}");
    }
}

#[test]
fn a_callers_write_at_a_slave_stays_where_it_comes_while_a_copy_does() {
    for manner in manners() {
        let store = filled(manner);
        let mut life = Life::of(&store, |server| server.written_as_slave(SlaveWrites::Accept));
        life.begin(1, 0);
        life.call("{:put, 3, :own}");
        life.settle();
        life.put(1, 7, "1, :brought");
        life.end(1, 2, |life| life.call("{:put, 5, :own}"));
        assert_eq!(life.held(), pairs([("1", ":brought"), ("3", ":own"), ("5", ":own")]), "{manner:?}");
    }
}

#[test]
fn what_a_demoted_store_has_otherwise_is_kept_elsewhere_whenever_it_goes() {
    for manner in manners() {
        let store = filled(manner);
        let dropped = Dropped::default();
        let file = dropped.clone();
        let new_file: NewFile = Arc::new(move || Ok(("dropped".into(), Box::new(file.clone()))));
        let mut life = Life::of(&store, |server| server.dropping_into(new_file));
        // Of another term: what it holds may be its own.
        life.begin(1, 1);
        life.put(1, 7, "1, :old");
        life.put(1, 7, "2, :new");
        life.put(1, 7, "2, :newer");
        life.end(1, 2, |life| life.cast("{:replica_delete, 1, 9, 4}"));
        assert_eq!(life.held(), pairs([("1", ":old"), ("2", ":newer")]), "{manner:?}");
        let text = dropped.take();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["{2, :old}", "{3, :old}", "{4, :old}"], "{manner:?}");
    }
}

#[test]
fn a_number_that_is_not_kept_is_that_of_no_other_copy() {
    for manner in manners() {
        let store = filled(manner);
        let mut life = Life::of(&store, |server| server);
        life.call("{:replica_hello, 1, {0, 0, [9], 9}, 7, 1000000, [], [], false}");
        life.settle();
        store.let_notes_fail(true);
        life.cast("{:replica_copy, 1, 7, :begin}");
        life.put(1, 7, "1, :brought");
        life.settle();
        store.let_notes_fail(false);
        // Its node is killed, and its primary deletes the key meanwhile.
        let mut life = Life::of(&store, |server| server);
        life.begin(2, 0);
        life.put(2, 7, "2, :again");
        life.end(2, 0, |_| {});
        assert_eq!(life.held(), pairs([("2", ":again")]), "{manner:?}");
    }
}

#[test]
fn a_primary_is_answered_where_the_number_of_its_copy_is_not_kept() {
    for manner in manners() {
        let store = filled(manner);
        let mut life = Life::of(&store, |server| server);
        life.call("{:replica_hello, 1, {0, 0, [9], 9}, 7, 1000000, [], [], false}");
        life.settle();
        life.answers();
        store.let_notes_fail(true);
        life.cast("{:replica_copy, 1, 7, :begin}");
        life.put(1, 7, "1, :brought");
        life.cast("{:replica_copy, 1, 8, :end}");
        life.call("{:replica_ask, 1, 8, 8}");
        assert!(life.answers().is_empty(), "the copy is not in");
        life.settle();
        loop {
            let next = life.cluster.sent.4.lock().pop();
            let Some(mut work) = next else { break };
            while work.step() {}
            life.settle();
        }
        assert_eq!(life.answers(), ["{:error, :no_space}"], "{manner:?}");
    }
}

#[test]
fn what_a_store_is_from_here_on_and_its_disk_does_not_keep_is_told_as_such() {
    let not_kept = "{:error, {:not_kept, :no_space}}";
    for manner in manners() {
        let store = filled(manner);
        let mut life = Life::of(&store, |server| server);
        life.call("{:replica_hello, 1, {0, 0, [9], 9}, 7, 1000000, [], [], false}");
        life.cast("{:replica_copy, 1, 7, :whole}");
        life.settle();
        life.answers();
        store.let_notes_fail(true);
        for (request, is_so) in [
            ("{:promote, [report: true]}", "{:error, :not_a_slave}"),
            ("{:remove_slave, {:global, :other}}", "{:error, :no_slave}"),
        ] {
            if request.starts_with("{:remove") {
                store.let_notes_fail(false);
                life.call("{:add_slave, {:global, :other}}");
                life.settle();
                store.let_notes_fail(true);
            }
            life.call(request);
            life.settle();
            assert_eq!(life.answers().last().map(String::as_str), Some(not_kept), "{request}: {manner:?}");
            assert_eq!(call(&mut life.cluster, request), is_so, "{manner:?}");
        }
    }
}
