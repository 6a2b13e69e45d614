//! Machines over a small etcd that loses requests and answers, does late what it was asked long ago, forgets its history, and is
//! written to by others.

mod cases;
mod simulation;

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

/// The first keys are counters.
const COUNTERS: u64 = 3;

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
    /// How long it may take.
    limit: Duration,
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
                limit: Duration::ZERO,
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
                    (node.call, node.limit) = (Some((number, request)), limit);
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
                Output::RolledBack => {
                    (node.load, node.watch, node.call, node.look) = (None, None, None, false)
                }
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
            let applied = self.nodes[node].table.applied();
            let response = self.etcd.txn(&request);
            let revision = response.header.unwrap().revision;
            self.handle(node, Input::Observed { applied, revision });
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
                    5 if request.success.len() > 2 && number % 2 == 0 => Error::TooManyOperations,
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
