//! Machines over a small etcd that loses requests and answers, does late what it was asked long ago, forgets its history, and is
//! written to by others.

use proptest::prelude::*;

use super::*;
use crate::etcd::message::{
    Compared, EventKind, Op, OpResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
};
use crate::etf::{TermView, Traits, encode};
use crate::store::etcd::ask::tell_of;
use crate::store::etcd::layout::{self, Of, read_value, write_value};
use crate::store::scan::at_once;
use crate::store::{Change, OwnedValue, Pending, PendingMany, Shows, Update, UpdateMany, Value, Written};

const ID: &str = "s";

/// etcd, as far as it is used.
#[derive(Default)]
struct Etcd {
    revision: i64,
    entries: BTreeMap<Bytes, KeyValue>,
    /// The changes of each revision, from the first that it remembers.
    log: BTreeMap<i64, Vec<Event>>,
    /// Revisions before this one are forgotten.
    compacted: i64,
}

impl Etcd {
    fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        let mut events = Vec::new();
        let mut response = self.branch(request, &mut events);
        if !events.is_empty() {
            self.revision += 1;
            self.log.insert(self.revision, events);
        }
        response.header = Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() });
        response
    }

    fn branch(&mut self, request: &TxnRequest, events: &mut Vec<Event>) -> TxnResponse {
        assert!(request.compare.len().max(request.success.len()).max(request.failure.len()) < 128);
        let succeeded = request.compare.iter().all(|compare| {
            let Some(Compared::ModRevision(wanted)) = compare.with else { panic!("{compare:?}") };
            self.entries.get(&compare.key).map_or(0, |kv| kv.mod_revision) == wanted
        });
        let responses = if succeeded { &request.success } else { &request.failure };
        let responses = responses.iter().map(|op| {
            let response = match op.request.as_ref().unwrap() {
                Op::Put(put) => {
                    self.put(put.key.clone(), put.value.clone(), events);
                    None
                }
                Op::DeleteRange(delete) => {
                    self.delete(&delete.key, &delete.range_end, events);
                    None
                }
                Op::Range(range) => {
                    let kvs = self.entries.get(&range.key).cloned().into_iter().collect();
                    Some(OpResponse::Range(RangeResponse { kvs, ..RangeResponse::default() }))
                }
                Op::Txn(inner) => Some(OpResponse::Txn(self.branch(inner, events))),
            };
            ResponseOp { response }
        });
        let responses = responses.collect();
        TxnResponse { header: None, succeeded, responses }
    }

    fn event(&self, kind: EventKind, kv: KeyValue, events: &mut Vec<Event>) {
        assert!(events.iter().all(|known| known.kv.as_ref().unwrap().key != kv.key), "a key twice");
        events.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv: None });
    }

    fn put(&mut self, key: Bytes, value: Bytes, events: &mut Vec<Event>) {
        let kv = KeyValue { key: key.clone(), value, mod_revision: self.revision + 1, ..KeyValue::default() };
        self.event(EventKind::Put, kv.clone(), events);
        self.entries.insert(key, kv);
    }

    fn delete(&mut self, key: &Bytes, end: &Bytes, events: &mut Vec<Event>) {
        let is_in = |known: &Bytes| if end.is_empty() { known == key } else { known >= key && known < end };
        let gone: Vec<Bytes> = self.entries.keys().filter(|known| is_in(known)).cloned().collect();
        for key in gone {
            self.entries.remove(&key);
            let kv = KeyValue { key, mod_revision: self.revision + 1, ..KeyValue::default() };
            self.event(EventKind::Delete, kv, events);
        }
    }

    /// Something that one write of one key does.
    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        let mut events = Vec::new();
        match value {
            Some(value) => self.put(key, value, &mut events),
            None => self.delete(&key, &Bytes::new(), &mut events),
        }
        if !events.is_empty() {
            self.revision += 1;
            self.log.insert(self.revision, events);
        }
    }

    fn compact(&mut self) {
        self.compacted = self.revision;
        self.log = self.log.split_off(&self.compacted);
    }
}

/// Adds one to each key's number.
struct Count(Vec<u8>);

fn number(value: Option<Value<'_>>) -> u64 {
    value.map_or(0, |value| TermView::parse(value.bytes).unwrap().as_unsigned().unwrap())
}

fn term(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

impl Update for Count {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.0 = term(number(present) + 1);
        Change::Put(Value::of(&self.0, Traits::none()))
    }
}

impl Pending for Count {
    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

impl UpdateMany for Count {
    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        for (at, present) in present.iter().enumerate() {
            let bytes = term(number(*present) + 1);
            change(at, Change::Put(Value::of(&bytes, Traits::none())));
        }
    }
}

impl PendingMany for Count {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

/// Puts or deletes each of several keys, or leaves it as it is, whatever is there.
struct Mixed(u8);

impl UpdateMany for Mixed {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        let bytes = term(self.0.into());
        for at in 0..present.len() {
            match self.0 >> (2 * at) & 3 {
                0 => change(at, Change::Delete),
                1 => {}
                _ => change(at, Change::Put(Value::of(&bytes, Traits::none()))),
            }
        }
    }
}

impl PendingMany for Mixed {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

/// Keeps what is there.
struct Keep;

impl Update for Keep {
    fn decide(&mut self, _present: Option<Value<'_>>) -> Change<'_> {
        Change::Keep
    }
}

impl Pending for Keep {
    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

/// Deletes what is there, as if its time was over.
struct Expire;

impl Update for Expire {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        if present.is_some() { Change::Delete } else { Change::Keep }
    }

    fn is_expiry(&self) -> bool {
        true
    }
}

impl Pending for Expire {
    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

fn expire() -> Ask {
    Ask::Update(Box::new(Expire))
}

fn put_of(number: u64) -> Ask {
    Ask::Put(Value::of(&term(number), Traits::none()).to_owned(), Box::new(|_| {}))
}

/// What a process holds that is told of each write.
type Followed = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A key, and what it has got: the value with its revision, or none.
type Changed = (Vec<u8>, Option<(Vec<u8>, u64)>);

/// A change as watchers are told of it, with its number; `None`: all keys went.
type Told = (u64, Option<Changed>);

/// What a process has told its watchers, from the last time on that it knew of each change.
#[derive(Default)]
struct Events {
    /// What was there behind this number.
    base: (u64, Followed),
    told: Vec<Told>,
}

impl Events {
    /// What a watcher has come to that was told of all up to a number.
    fn up_to(&self, number: u64) -> Followed {
        let told = self.told.iter().take_while(|(told, _)| *told <= number);
        told.fold(self.base.1.clone(), |held, (_, told)| follow(held, told))
    }

    /// What such a watcher comes to that is told the rest.
    fn from(&self, number: u64, held: Followed) -> Followed {
        let told = self.told.iter().skip_while(|(told, _)| *told <= number);
        told.fold(held, |held, (_, told)| follow(held, told))
    }
}

fn follow(mut held: Followed, told: &Option<Changed>) -> Followed {
    match told {
        None => held.clear(),
        Some((key, Some(value))) => _ = held.insert(key.clone(), value.clone()),
        Some((key, None)) => _ = held.remove(key),
    }
    held
}

/// A process.
struct Node {
    machine: Machine,
    table: Arc<Table>,
    layout: Layout,
    call: Option<(u64, TxnRequest)>,
    look: bool,
    /// A load is under way; with its revision where it has one.
    load: Option<Option<i64>>,
    /// The watch shows this revision next.
    watch: Option<i64>,
    is_open: bool,
    asked: u64,
    untold: BTreeMap<u64, Duration>,
    told: Vec<(u64, Result<&'static str, StoreError>)>,
    followed: Followed,
    events: Events,
    /// Keys that were told of as ended.
    ended: usize,
    seq: u64,
    /// Steps of counters that were answered.
    done: BTreeMap<Vec<u8>, u64>,
    unknown: BTreeMap<Vec<u8>, u64>,
}

struct World {
    etcd: Etcd,
    now: Duration,
    nodes: Vec<Node>,
    /// What etcd may do still.
    late: Vec<TxnRequest>,
}

impl World {
    fn new(nodes: u64) -> Self {
        let node = |writer| {
            let (table, layout) =
                (Arc::new(Table::new(MemoryStore::default())), Layout::new("p", ID, writer));
            let machine = Machine::new(layout.clone(), Bounds::new(3 << 19), Arc::clone(&table));
            let (untold, followed, events, done, unknown) = Default::default();
            let (call, load, watch, told) = (None, None, None, Vec::new());
            let (look, is_open, asked, seq) = (false, false, 0, 1);
            Node {
                machine,
                table,
                layout,
                call,
                look,
                load,
                watch,
                is_open,
                asked,
                untold,
                told,
                followed,
                events,
                ended: 0,
                seq,
                done,
                unknown,
            }
        };
        let nodes = (0..nodes).map(node).collect();
        let mut world = Self { etcd: Etcd::new(), now: Duration::ZERO, nodes, late: Vec::new() };
        (0..world.nodes.len()).for_each(|node| world.carry_out(node));
        world
    }

    /// The same with loads that are whole and watches that have begun.
    fn open(nodes: u64) -> Self {
        let mut world = Self::new(nodes);
        for node in 0..world.nodes.len() {
            (0..3).for_each(|_| world.load(node, false));
            assert!(world.nodes[node].is_open);
            // Its mark is there.
            world.ask(node, &[99], Ask::Note(Vec::new(), Box::new(|_| {})));
            for _ in 0..2 {
                world.deliver(node);
                world.show(node, usize::MAX);
            }
            assert_eq!(world.nodes[node].told.len(), 1);
        }
        (0..world.nodes.len()).for_each(|node| world.show(node, usize::MAX));
        world.nodes.iter_mut().for_each(|node| node.told.clear());
        world
    }

    fn handle(&mut self, node: usize, input: Input) {
        self.nodes[node].machine.handle(input, self.now);
        self.carry_out(node);
    }

    fn carry_out(&mut self, at: usize) {
        let (now, node) = (self.now, &mut self.nodes[at]);
        for output in node.machine.outputs() {
            match output {
                Output::Send { number, request, limit } => {
                    assert!(limit > Duration::ZERO && limit <= PATIENCE, "{limit:?}");
                    node.call = Some((number, request));
                }
                Output::Look(_) => node.look = true,
                Output::Load => (node.load, node.watch) = (Some(None), None),
                Output::Watch(revision) => node.watch = Some(revision),
                Output::Opened => {
                    node.is_open = true;
                    node.followed = held(&node.table);
                    node.events =
                        Events { base: (node.table.revision(), held(&node.table)), told: Vec::new() };
                }
                Output::NotLoaded(_) => {}
                Output::Tell(asked, result) => {
                    let at = node.untold.remove(&asked.number).expect("each is told of once");
                    assert!(now <= at + PATIENCE + Duration::from_secs(1), "in time");
                    node.note(&asked, &result);
                    if let Ok(Outcome::Wrote(wrote)) = &result {
                        node.follow(wrote);
                    }
                    let word = result.map(|outcome| match outcome {
                        Outcome::Wrote(..) => "wrote",
                        Outcome::Kept => "kept",
                        Outcome::Done => "done",
                        Outcome::Note(_) => "note",
                    });
                    node.told.push((asked.number, word));
                }
                Output::TellOfOther(wrote) => node.follow(&wrote),
                // It is of a load: the table is as that has found it.
                Output::Missed(number) => {
                    node.events = Events { base: (number, held(&node.table)), told: Vec::new() };
                }
            }
        }
        if node.is_open {
            assert_eq!(held(&node.table), node.followed, "what is there is what was told");
            assert!(node.followed.values().all(|(_, revision)| *revision <= node.table.revision()));
            assert_eq!(node.table.seq(), node.seq);
        }
    }

    fn ask(&mut self, node: usize, keys: &[u64], ask: Ask) -> u64 {
        let (at, its) = (self.now, &mut self.nodes[node]);
        its.asked += 1;
        let number = its.asked;
        its.untold.insert(number, at);
        let keys = keys.iter().map(|key| Key::from(term(*key))).collect();
        self.handle(node, Input::Asked(vec![Asked { number, at, keys, ask }]));
        number
    }

    fn count(&mut self, node: usize, key: u64) -> u64 {
        self.ask(node, &[key], Ask::Update(Box::new(Count(Vec::new()))))
    }

    /// What was sent is done, and answered.
    fn deliver(&mut self, node: usize) {
        if let Some((number, request)) = self.nodes[node].call.take() {
            let response = self.etcd.txn(&request);
            self.handle(node, Input::Answered(number, Ok(response)));
        }
        if std::mem::take(&mut self.nodes[node].look) {
            let (from, to) = self.nodes[node].layout.marks();
            let marks = self.etcd.entries.range(from..to).map(|(_, kv)| kv.mod_revision);
            let last = marks.max().unwrap_or(0);
            self.handle(node, Input::Looked(Ok(last)));
        }
    }

    /// The answer is lost: to what was done, or what may be done later, or never.
    fn lose(&mut self, node: usize, how: u8) {
        let Some((number, request)) = self.nodes[node].call.take() else { return };
        match how % 8 {
            0 | 7 => drop(self.etcd.txn(&request)),
            1 => self.late.push(request),
            2 => {
                drop(self.etcd.txn(&request));
                // Sent twice by the client.
                self.late.push(request);
            }
            // It was surely not done by this.
            how => {
                let error = match how {
                    3 => Error::Unavailable { reason: String::new() },
                    4 => Error::LeaderLost,
                    5 => Error::NoSpace,
                    _ => Error::TooLarge { bytes: 9, bytes_max: None },
                };
                return self.handle(node, Input::Answered(number, Err(error)));
            }
        }
        let error = Error::Unknown { reason: String::new() };
        self.handle(node, Input::Answered(number, Err(error)));
    }

    fn do_late(&mut self, which: usize) {
        if !self.late.is_empty() {
            let request = self.late.swap_remove(which % self.late.len());
            self.etcd.txn(&request);
        }
    }

    /// The watch shows so many revisions.
    fn show(&mut self, node: usize, count: usize) {
        let Some(next) = self.nodes[node].watch else { return };
        if next < self.etcd.compacted {
            let revision = Some(self.etcd.compacted);
            return self.handle(node, Input::Lost(Error::Compacted { revision }));
        }
        let (from, to) = self.nodes[node].layout.all();
        let is_in = |event: &&Event| {
            let key = &event.kv.as_ref().unwrap().key;
            *key >= from && *key < to
        };
        let shown: Vec<_> = self.etcd.log.range(next..).take(count).collect();
        let Some(last) = shown.last().map(|(last, _)| **last) else { return };
        let events: Vec<Event> =
            shown.iter().flat_map(|(_, events)| events.iter().filter(is_in).cloned()).collect();
        self.nodes[node].watch = Some(last + 1);
        let input = if events.is_empty() { Input::Progress(last) } else { Input::Changes(events) };
        self.handle(node, input);
    }

    /// A load goes on, or fails.
    fn load(&mut self, node: usize, fails: bool) {
        let Some(load) = self.nodes[node].load else { return };
        match load {
            _ if fails => {
                self.nodes[node].load = None;
                let error = Error::Unavailable { reason: String::new() };
                self.handle(node, Input::NotLoaded(error));
            }
            None => {
                self.nodes[node].load = Some(Some(self.etcd.revision));
                let (from, to) = self.nodes[node].layout.all();
                let entries = self.etcd.entries.range(from..to).map(|(_, kv)| kv.clone()).collect();
                self.handle(node, Input::Page(entries));
            }
            Some(revision) => {
                let its = &mut self.nodes[node];
                its.load = None;
                let (changed, is_all) = its.machine.changed_by_load();
                assert!(its.is_open || is_all);
                let before = held(&its.table);
                self.handle(node, Input::Loaded(revision));
                let after = held(&self.nodes[node].table);
                let differs =
                    before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
                for key in differs.filter(|_| !is_all) {
                    assert!(changed.iter().any(|changed| **changed == **key), "a reader of it waits");
                }
            }
        }
    }

    fn elapse(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine.wakes_at().is_some_and(|at| at <= self.now) {
                self.handle(node, Input::Woke);
            }
        }
    }

    /// All goes well until nothing is left to do.
    fn heal(&mut self) {
        for _ in 0..100 {
            while !self.late.is_empty() {
                self.do_late(0);
            }
            for node in 0..self.nodes.len() {
                self.load(node, false);
                self.deliver(node);
                self.show(node, usize::MAX);
            }
            self.elapse(Duration::from_millis(60));
        }
        for node in &self.nodes {
            assert!(node.machine.is_settled() && node.call.is_none() && node.untold.is_empty());
            let entries = self.etcd.entries.values().filter_map(|kv| {
                let Of::Entry(key) = node.layout.read(&kv.key) else { return None };
                let value = read_value(key, kv)?;
                Some((key.to_vec(), (value.bytes.to_vec(), value.revision)))
            });
            let entries: Followed = entries.collect();
            assert_eq!(held(&node.table), entries, "it has what etcd has");
            assert_eq!(node.events.from(0, node.events.base.1.clone()), entries, "so do its watchers");
        }
        for (one, other) in [(0, 1), (1, 0)] {
            let (Some(one), Some(other)) = (self.nodes.get(one), self.nodes.get(other)) else { continue };
            // A watcher is cut off behind each change, and goes on at the other one.
            let numbers = one.events.told.iter().map(|(number, _)| *number);
            for number in numbers.filter(|number| *number >= other.events.base.0) {
                let came_to = other.events.from(number, one.events.up_to(number));
                assert_eq!(came_to, held(&other.table), "nothing was missed behind {number}");
            }
        }
    }
}

impl Node {
    /// A process that is told of each write comes to this.
    fn follow(&mut self, wrote: &Wrote) {
        let Wrote { seq, changes, numbers, has_ended } = wrote;
        self.ended += usize::from(*has_ended);
        assert_eq!(*seq, self.seq + 1, "there is no gap");
        self.seq = *seq;
        assert_eq!(numbers.len(), changes.len().max(1), "each change has a number");
        let changed = changes.iter().map(|(key, value)| {
            Some((key.to_vec(), value.as_ref().map(|value| (value.bytes.to_vec(), value.revision))))
        });
        let changed = changed.chain(changes.is_empty().then_some(None));
        for (number, told) in numbers.iter().zip(changed) {
            let last = self.events.told.last().map_or(self.events.base.0, |(last, _)| *last);
            // Else it is in what its watchers begin with.
            if *number > last {
                self.events.told.push((*number, told));
            }
        }
        if changes.is_empty() {
            return self.followed.clear();
        }
        tell_of(wrote, |written| {
            for (key, change) in written.changes {
                match change {
                    Change::Put(value) => {
                        let before =
                            self.followed.insert(key.to_vec(), (value.bytes.to_vec(), value.revision));
                        assert!(
                            before.is_none_or(|(_, revision)| revision <= value.revision),
                            "it goes back"
                        );
                    }
                    Change::Delete | Change::Keep => _ = self.followed.remove(*key),
                }
            }
        });
    }

    fn note(&mut self, asked: &Asked, result: &Result<Outcome, StoreError>) {
        // The first keys are counters.
        if asked.keys.iter().any(|key| **key >= *term(COUNTERS)) {
            return;
        }
        let counts = match result {
            Ok(Outcome::Wrote(..)) => &mut self.done,
            Err(StoreError::Unknown) => &mut self.unknown,
            _ => return,
        };
        for key in &asked.keys {
            *counts.entry(key.to_vec()).or_default() += 1;
        }
    }

    fn told(&self, number: u64) -> Option<Result<&'static str, StoreError>> {
        self.told.iter().find(|(told, _)| *told == number).map(|(_, result)| result.clone())
    }
}

fn held(table: &Table) -> Followed {
    let mut held = Followed::new();
    let mut scan = table.entries.scan(None, Shows::Pairs);
    loop {
        let batch = at_once(&mut *scan).unwrap().unwrap();
        let pairs = batch.iter().map(|(key, value)| (key.to_vec(), value.unwrap()));
        held.extend(pairs.map(|(key, value)| (key, (value.bytes.to_vec(), value.revision))));
        if batch.is_last {
            return held;
        }
    }
}

const WROTE: Option<Result<&str, StoreError>> = Some(Ok("wrote"));

#[test]
fn what_gathers_while_a_transaction_is_on_its_way_goes_as_one_and_each_is_told_of_in_order() {
    let mut world = World::open(1);
    let before = world.etcd.revision;
    let first = world.ask(0, &[1], put_of(7));
    let later: Vec<u64> = (0..100).map(|_| world.count(0, 1)).collect();
    let barrier = world.ask(0, &[], Ask::Barrier(Box::new(|_| {})));
    assert_eq!(world.nodes[0].call.as_ref().unwrap().1.success.len(), 2, "the mark and the first");
    world.deliver(0);
    assert_eq!((world.nodes[0].told(first), world.nodes[0].told(later[0])), (WROTE, None));
    assert_eq!(world.nodes[0].call.as_ref().unwrap().1.success.len(), 2, "the mark and one key");
    world.deliver(0);
    let told: Vec<u64> = world.nodes[0].told.iter().map(|(number, _)| *number).collect();
    assert_eq!(told, (first..=barrier).collect::<Vec<_>>());
    let found = world.nodes[0].table.get(&term(1)).unwrap();
    assert_eq!((number(Some(found.value())), layout_place(found.revision)), (107, 99));
    assert_eq!(world.etcd.revision, before + 2);
    world.heal();
}

fn layout_place(revision: u64) -> u64 {
    revision & 0xff
}

#[test]
fn a_decision_that_came_too_late_is_made_anew_when_the_table_has_come_up() {
    let mut world = World::open(2);
    let (one, other) = (world.count(0, 1), world.count(1, 1));
    world.deliver(1);
    world.deliver(0);
    assert_eq!((world.nodes[1].told(other), world.nodes[0].told(one)), (WROTE, None));
    assert!(world.nodes[0].call.is_none(), "it waits for what it does not know");
    world.show(0, usize::MAX);
    world.deliver(0);
    assert_eq!(world.nodes[0].told(one), WROTE);
    world.heal();
    assert_eq!(number(world.nodes[1].table.get(&term(1)).as_ref().map(OwnedValue::value)), 2);
}

#[test]
fn what_decides_goes_alone_after_that_and_what_looks_at_nothing_goes_by_unless_it_has_its_key() {
    let mut world = World::open(2);
    let first = world.ask(0, &[9], put_of(1));
    let (a, b) = (world.count(0, 1), world.count(0, 2));
    let (by, behind) = (world.ask(0, &[3], put_of(3)), world.ask(0, &[2], put_of(4)));
    let barrier = world.ask(0, &[], Ask::Barrier(Box::new(|_| {})));
    world.deliver(0);
    let other = world.count(1, 1);
    world.deliver(1);
    world.deliver(0);
    world.show(0, usize::MAX);
    let told = |world: &World| {
        [first, a, b, by, behind, barrier].map(|number| world.nodes[0].told(number).is_some())
    };
    assert_eq!(told(&world), [true, false, false, false, false, false]);
    world.deliver(0);
    assert_eq!(told(&world), [true, false, false, true, false, false]);
    // The other one is faster once more.
    let again = world.count(1, 1);
    world.show(1, usize::MAX);
    world.deliver(1);
    assert_eq!((world.nodes[1].told(other), world.nodes[1].told(again)), (WROTE, WROTE));
    let late = world.ask(0, &[5], put_of(5));
    world.deliver(0);
    world.show(0, usize::MAX);
    for _ in 0..8 {
        world.deliver(0);
    }
    assert_eq!(told(&world), [true; 6]);
    assert_eq!(world.nodes[0].told(late), WROTE);
    world.heal();
    assert_eq!(number(world.nodes[1].table.get(&term(1)).as_ref().map(OwnedValue::value)), 3);
    assert_eq!(number(world.nodes[1].table.get(&term(2)).as_ref().map(OwnedValue::value)), 4);
}

#[test]
fn decisions_go_alone_also_where_the_watch_is_faster_than_the_answer() {
    let mut world = World::open(2);
    let first = world.ask(0, &[9], put_of(1));
    let counts = [world.count(0, 1), world.count(0, 2)];
    world.deliver(0);
    assert_eq!(world.nodes[0].told(first), WROTE);
    world.count(1, 1);
    world.deliver(1);
    // etcd makes it void, and the watch shows that first.
    let (number, request) = world.nodes[0].call.take().unwrap();
    let response = world.etcd.txn(&request);
    assert!(!response.succeeded);
    world.show(0, usize::MAX);
    world.handle(0, Input::Answered(number, Ok(response)));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(counts[0]), WROTE);
    assert_eq!(world.nodes[0].told(counts[1]), None, "it goes by itself");
    world.deliver(0);
    assert_eq!(world.nodes[0].told(counts[1]), WROTE);
    world.heal();
}

#[test]
fn removals_of_ended_keys_that_another_process_removes_too_hold_nothing_up_and_are_told_of_as_such() {
    let mut world = World::open(2);
    for key in 0..20 {
        world.ask(0, &[key], put_of(key));
    }
    (0..2).for_each(|_| world.deliver(0));
    world.show(1, usize::MAX);
    // Both remove all, and one counts besides.
    let removals: Vec<[u64; 2]> =
        (1..20).map(|key| [0, 1].map(|node| world.ask(node, &[key], expire()))).collect();
    let count = world.count(1, 0);
    (0..2).for_each(|_| world.deliver(0));
    world.deliver(1);
    world.show(1, usize::MAX);
    assert_eq!(world.nodes[1].told(count), None, "it is the only one that is asked for again");
    world.deliver(1);
    assert_eq!(world.nodes[1].told(count), WROTE);
    assert!(removals.iter().all(|[one, _]| world.nodes[0].told(*one) == WROTE));
    assert!(removals.iter().all(|[_, other]| world.nodes[1].told(*other) == Some(Ok("kept"))));
    assert_eq!((world.nodes[0].ended, world.nodes[1].ended), (19, 19));
    assert!(world.nodes[1].call.is_none());
    world.heal();
}

#[test]
fn removals_in_a_batch_that_came_too_late_are_left_out_and_what_callers_decide_goes_on() {
    let mut world = World::open(2);
    for key in 0..5 {
        world.ask(0, &[key], put_of(key));
    }
    (0..2).for_each(|_| world.deliver(0));
    world.show(1, usize::MAX);
    world.ask(1, &[99], put_of(1));
    let removals = [1, 2, 3, 4].map(|key| world.ask(1, &[key], expire()));
    let count = world.count(1, 0);
    world.deliver(1);
    // One of the keys is written anew.
    world.count(0, 1);
    world.deliver(0);
    world.deliver(1);
    world.show(1, usize::MAX);
    assert!(removals.iter().all(|number| world.nodes[1].told(*number) == Some(Ok("kept"))));
    assert_eq!(world.nodes[1].call.as_ref().unwrap().1.success.len(), 2, "the mark and the counter");
    world.deliver(1);
    assert_eq!(world.nodes[1].told(count), WROTE);
    world.heal();
    assert_eq!(world.nodes[0].table.entries.len(), 6);
}

#[test]
fn a_decision_to_keep_is_looked_at_by_etcd_too_and_waits_for_revisions_that_it_may_tell() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let (put, kept) = (world.ask(0, &[1], put_of(1)), world.ask(0, &[1], Ask::Update(Box::new(Keep))));
    world.deliver(0);
    world.deliver(0);
    let told = |world: &World| [first, put, kept].map(|number| world.nodes[0].told(number));
    assert_eq!(told(&world), [WROTE, WROTE, None]);
    world.etcd.write(world.nodes[0].layout.entry(&term(1)), None);
    world.deliver(0);
    assert_eq!(told(&world)[2], None, "it was about something else");
    let before = world.etcd.revision;
    world.show(0, usize::MAX);
    // What was decided before fails once more, and moves the mark; what is decided now is right.
    world.deliver(0);
    assert_eq!((told(&world)[2].clone(), world.etcd.revision), (None, before + 1));
    world.deliver(0);
    assert_eq!((told(&world)[2].clone(), world.etcd.revision), (Some(Ok("kept")), before + 1));
    world.heal();
}

#[test]
fn what_nobody_waits_for_any_more_is_made_void_and_what_is_done_all_the_same_is_told_of() {
    for is_done in [false, true] {
        let mut world = World::open(1);
        let put = world.ask(0, &[1], put_of(1));
        world.lose(0, if is_done { 0 } else { 1 });
        world.elapse(Duration::from_millis(60));
        world.lose(0, 1);
        world.elapse(PATIENCE);
        assert_eq!(world.nodes[0].told(put), Some(Err(StoreError::Unknown)));
        let behind = world.ask(0, &[2], put_of(2));
        world.deliver(0);
        world.deliver(0);
        assert_eq!(world.nodes[0].told(behind), WROTE);
        world.heal();
        assert_eq!(world.nodes[0].table.get(&term(1)).is_some(), is_done);
        assert_eq!(world.nodes[0].seq, if is_done { 3 } else { 2 });
    }
}

#[test]
fn what_was_never_sent_is_unavailable_in_time() {
    let mut world = World::open(1);
    let put = world.ask(0, &[1], put_of(1));
    let read = world.ask(0, &[], Ask::CatchUp(Box::new(|_| {})));
    for _ in 0..79 {
        world.lose(0, 3);
        world.elapse(Duration::from_millis(50));
    }
    assert_eq!(world.nodes[0].told(put), None);
    world.lose(0, 3);
    world.elapse(Duration::from_millis(50));
    let unavailable = Some(Err(StoreError::Unavailable));
    assert_eq!((world.nodes[0].told(put), world.nodes[0].told(read)), (unavailable.clone(), unavailable));
    world.heal();
    assert!(world.nodes[0].table.get(&term(1)).is_none());
}

#[test]
fn where_etcd_takes_less_than_it_says_batches_get_smaller_and_the_large_write_alone_fails() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let small: Vec<u64> = (0..10).map(|key| world.ask(0, &[key], put_of(key))).collect();
    world.deliver(0);
    assert_eq!(world.nodes[0].told(first), WROTE);
    let mut refused = 0;
    loop {
        let (number, request) = world.nodes[0].call.take().unwrap();
        // The mark, and one key.
        if request.success.len() == 2 {
            let error = Error::TooLarge { bytes: 0, bytes_max: None };
            world.handle(0, Input::Answered(number, Err(error)));
            break;
        }
        assert!(world.nodes[0].told.len() == 1, "no write is told of");
        let error = Error::TooLarge { bytes: 0, bytes_max: None };
        world.handle(0, Input::Answered(number, Err(error)));
        refused += 1;
    }
    assert!((1..30).contains(&refused), "{refused}");
    assert!(matches!(world.nodes[0].told(small[0]), Some(Err(StoreError::TooLarge(_)))));
    for _ in 1..10 {
        world.deliver(0);
    }
    assert!(small[1..].iter().all(|number| world.nodes[0].told(*number) == WROTE));
    world.heal();
}

#[test]
fn a_reader_that_catches_up_finds_what_another_was_answered_also_a_deletion() {
    let mut world = World::open(2);
    world.ask(0, &[1], put_of(1));
    world.deliver(0);
    let gone = world.ask(0, &[1], Ask::Delete(Box::new(|_| {})));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(gone), WROTE);
    let reads = [(); 2].map(|()| world.ask(1, &[], Ask::CatchUp(Box::new(|_| {}))));
    world.deliver(1);
    world.show(1, 1);
    assert_eq!(reads.map(|read| world.nodes[1].told(read)), [None, None], "the deletion is not here");
    world.show(1, 1);
    let done = Some(Ok("done"));
    assert_eq!(world.nodes[1].told(reads[0]), done);
    world.deliver(1);
    assert_eq!(world.nodes[1].told(reads[1]), done);
    world.heal();
}

#[test]
fn marks_of_long_ago_go_and_a_writer_whose_mark_has_gone_writes_on() {
    let mut world = World::open(1);
    world.ask(0, &[1], put_of(1));
    world.deliver(0);
    for writer in 100..180 {
        let layout = Layout::new("p", ID, writer);
        world.etcd.write(layout.mark(), Some(layout::write_mark(2, &[])));
    }
    let before = std::mem::replace(&mut world.nodes[0], World::new(1).nodes.remove(0));
    world.nodes[0].layout = Layout::new("p", ID, 77);
    world.nodes[0].machine =
        Machine::new(world.nodes[0].layout.clone(), Bounds::new(3 << 19), Arc::clone(&world.nodes[0].table));
    world.carry_out(0);
    world.nodes.push(before);
    (0..3).for_each(|_| world.load(0, false));
    world.deliver(0);
    let (from, to) = world.nodes[0].layout.marks();
    assert_eq!(world.etcd.entries.range(from..to).count(), MARKS_LEFT);
    assert!(!world.etcd.entries.contains_key(&world.nodes[1].layout.mark()), "it was the oldest");
    let put = world.ask(1, &[1], put_of(2));
    world.deliver(1);
    world.heal();
    assert_eq!(world.nodes[1].told(put), WROTE);
}

/// Half of those that there may be, and the writer's own.
const MARKS_LEFT: usize = 33;

#[test]
fn what_another_program_puts_in_the_place_of_the_mark_keeps_no_write_up() {
    let mut world = World::open(1);
    for bytes in [&b"else"[..], b"", b"longer than a mark"] {
        world.etcd.write(world.nodes[0].layout.mark(), Some(Bytes::from_static(bytes)));
        world.show(0, usize::MAX);
        let put = world.ask(0, &[1], put_of(1));
        world.deliver(0);
        assert_eq!(world.nodes[0].told(put), WROTE);
        // While a batch is on its way.
        let put = world.ask(0, &[1], put_of(2));
        world.etcd.write(world.nodes[0].layout.mark(), Some(Bytes::from_static(bytes)));
        world.show(0, usize::MAX);
        world.deliver(0);
        assert_eq!(world.nodes[0].told(put), WROTE);
        world.heal();
    }
}

#[test]
fn what_cannot_be_read_is_decided_on_by_nothing_and_mended_by_what_looks_at_nothing() {
    let mut world = World::open(2);
    let key = world.nodes[0].layout.entry(&term(12));
    world.etcd.write(key, Some(Bytes::from_static(b"no head")));
    (0..2).for_each(|node| world.show(node, usize::MAX));
    let refused = [world.count(0, 12), world.ask(0, &[11, 12], Ask::UpdateMany(Box::new(Count(Vec::new()))))];
    // The first key is put, and so are the others.
    let mends = world.ask(0, &[12, 10, 11], Ask::UpdateMany(Box::new(Mixed(0x3f))));
    (0..2).for_each(|_| world.deliver(0));
    let damaged = Some(Err(StoreError::Io("damaged")));
    assert_eq!(refused.map(|number| world.nodes[0].told(number)), [damaged.clone(), damaged]);
    assert_eq!(world.nodes[0].told(mends), WROTE);
    world.heal();
    assert_eq!(world.nodes[1].table.entries.len(), 3);
}

/// A decision that panics.
struct Panics;

impl Update for Panics {
    fn decide(&mut self, _present: Option<Value<'_>>) -> Change<'_> {
        panic!("a decision of a test panics")
    }
}

impl Pending for Panics {
    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

impl UpdateMany for Panics {
    fn decide(&mut self, _present: &[Option<Value<'_>>], _change: &mut dyn FnMut(usize, Change<'_>)) {
        panic!("a decision of a test panics")
    }
}

impl PendingMany for Panics {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

#[test]
fn a_decision_that_panics_fails_and_nothing_else_does() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let before = world.count(0, 1);
    let panicked = [
        world.ask(0, &[1], Ask::Update(Box::new(Panics))),
        world.ask(0, &[1, 2], Ask::UpdateMany(Box::new(Panics))),
    ];
    let behind = world.count(0, 1);
    (0..2).for_each(|_| world.deliver(0));
    assert!([first, before, behind].iter().all(|number| world.nodes[0].told(*number) == WROTE));
    assert_eq!(
        panicked.map(|number| world.nodes[0].told(number)),
        [(); 2].map(|()| Some(Err(StoreError::Io("eio"))))
    );
    world.heal();
}

/// What a step of the model does, with what.
type Step = (u8, u8, u8);

const COUNTERS: u64 = 3;

fn run(steps: Vec<Step>, clears: bool) -> Result<(), TestCaseError> {
    let mut world = World::new(2);
    for (what, which, how) in steps {
        let node = usize::from(which & 1);
        let key = u64::from(how) % COUNTERS;
        let plain = 10 + u64::from(how) % 3;
        match what {
            0..=5 => _ = world.count(node, key),
            6 => {
                _ = world.ask(
                    node,
                    &[key, (key + 1) % COUNTERS],
                    Ask::UpdateMany(Box::new(Count(Vec::new()))),
                )
            }
            7 | 8 => _ = world.ask(node, &[plain], put_of(how.into())),
            9 => _ = world.ask(node, &[12, 10, 11], Ask::UpdateMany(Box::new(Mixed(how)))),
            10 => _ = world.ask(node, &[plain], Ask::Delete(Box::new(|_| {}))),
            11 if clears => _ = world.ask(node, &[], Ask::Clear(Box::new(|_| {}))),
            11 if how % 2 == 0 => _ = world.ask(node, &[plain], expire()),
            11 => _ = world.ask(node, &[plain], Ask::Update(Box::new(Keep))),
            12 => _ = world.ask(node, &[], Ask::Barrier(Box::new(|_| {}))),
            13 => _ = world.ask(node, &[plain], Ask::Note(vec![how], Box::new(|_| {}))),
            14 => _ = world.ask(node, &[], Ask::CatchUp(Box::new(|_| {}))),
            15..=24 => world.deliver(node),
            25..=29 => world.lose(node, how),
            30 | 31 => world.do_late(how.into()),
            32..=39 => world.show(node, usize::from(how % 4) + 1),
            40..=43 => world.load(node, how % 5 == 0),
            44 if how % 4 == 0 => world.etcd.compact(),
            44 | 45 => {
                // Others write: a value that can be read, one that cannot, or what is no key of the store.
                let value = write_value(&Value::of(&term(how.into()), Traits::none()), 0);
                let (key, value) = match how % 6 {
                    0 => (world.nodes[0].layout.entry(&term(plain)), Some(Bytes::from_static(b"no head"))),
                    1 => (world.nodes[0].layout.entry(&term(plain)), None),
                    2 => (Bytes::from_static(b"elsewhere"), Some(value)),
                    3 => (world.nodes[node].layout.mark(), None),
                    4 => (world.nodes[node].layout.mark(), Some(Bytes::from_static(b"else"))),
                    _ => (world.nodes[0].layout.entry(&term(plain)), Some(value)),
                };
                world.etcd.write(key, value);
            }
            46 if how % 8 == 0 && world.nodes[node].watch.is_some() => {
                world.handle(node, Input::Lost(Error::AnswerTooLarge { bytes_max: 1 }));
            }
            _ => world.elapse(Duration::from_millis(1 << (how % 10))),
        }
    }
    world.heal();
    for key in (0..COUNTERS).filter(|_| !clears) {
        let key = term(key);
        let of = |count: fn(&Node) -> &BTreeMap<Vec<u8>, u64>| -> u64 {
            world.nodes.iter().filter_map(|node| count(node).get(&key)).sum()
        };
        let (done, unknown) = (of(|node| &node.done), of(|node| &node.unknown));
        let counted = number(world.nodes[0].table.get(&key).as_ref().map(OwnedValue::value));
        prop_assert!((done..=done + unknown).contains(&counted), "{done} done, {unknown} unknown, {counted}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_lost_late_or_forgotten_no_step_of_a_counter_is_lost_or_done_twice(
        steps in prop::collection::vec((0_u8..50, any::<u8>(), any::<u8>()), 1..200),
    ) {
        run(steps, false)?;
    }

    #[test]
    fn clears_come_in_their_order_too(
        steps in prop::collection::vec((0_u8..50, any::<u8>(), any::<u8>()), 1..120),
    ) {
        run(steps, true)?;
    }
}
