//! Watchers against a store that is a map: whatever is written, read, slow, cut off and begun again meanwhile, what a watcher was
//! told gives the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::log::{Bounds, Happened, Told};
use super::registry::{Begins, Fed, Output, Refused, Registry, SHOWING_MAX, SHOWN_BYTES_MAX, WATCHERS_MAX};
use super::watcher::{Page, Wants};
use super::{WantedPage, Watches};
use crate::etf::order::TermRange;
use crate::etf::pattern::Pattern;
use crate::etf::{Pid, Reference, SharedBytes, TermView, TermWriter, Traits, encode};
use crate::kv::order::Committed;
use crate::store::{Change, StoreError, Value, Written};

const BACKLOG: Bounds = Bounds { events: 8, bytes: usize::MAX };

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: node.into(), id, serial: 0, creation: 1 }
}

fn reference(id: u32) -> Reference {
    Reference { node: "k@h".into(), creation: 1, words: vec![id, 0, 0] }
}

fn encoded(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

fn all() -> Wants {
    Wants { pattern: None, prefix: None, values: true }
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Put(u64, u64, Option<u64>),
    Gone(u64, u64, bool),
    Current(u64),
    Clear(u64),
    Overrun,
    Failed,
    Undecodable(u64),
}

/// A node that takes so many messages.
struct Node {
    room: usize,
    decodes: bool,
    heard: Vec<(u32, u32, Heard)>,
    demonitored: Vec<u32>,
}

impl Node {
    fn with_room(room: usize) -> Self {
        Self { room, decodes: true, heard: Vec::new(), demonitored: Vec::new() }
    }
}

fn heard(message: TermView<'_>) -> Heard {
    if message.is_atom("overrun") {
        return Heard::Overrun;
    }
    let number = |term: TermView<'_>| term.as_unsigned().expect("a number");
    if let Some([first, second]) = message.as_tuple::<2>() {
        return match () {
            () if first.is_atom("error") => Heard::Failed,
            () if second.is_atom("current") => Heard::Current(number(first)),
            () if second.is_atom("clear") => Heard::Clear(number(first)),
            () => {
                assert!(second.is_atom("undecodable"));
                Heard::Undecodable(number(first))
            }
        };
    }
    if let Some([seq, word, key, value]) = message.as_tuple::<4>() {
        assert!(word.is_atom("put"));
        return Heard::Put(number(seq), number(key), Some(number(value)));
    }
    let [seq, word, key] = message.as_tuple::<3>().expect("an event");
    match () {
        () if word.is_atom("put") => Heard::Put(number(seq), number(key), None),
        () => Heard::Gone(number(seq), number(key), word.is_atom("expire")),
    }
}

impl Output for Node {
    fn has_room(&self) -> bool {
        self.room > 0
    }

    fn can_decode(&self, _traits: Traits) -> bool {
        self.decodes
    }

    fn send(&mut self, to: &Pid, write: &mut dyn FnMut(&mut TermWriter<'_>) -> Option<SharedBytes>) {
        let mut bytes = Vec::new();
        let ending = write(&mut TermWriter::new(&mut bytes));
        bytes.extend_from_slice(ending.as_deref().unwrap_or_default());
        let message = TermView::parse(&bytes).expect("a term");
        let [kvnode, watch, told] = message.as_tuple::<3>().expect("three");
        assert!(kvnode.is_atom("kvnode"));
        let watch = Reference::from(watch.as_reference().expect("a reference"));
        self.room -= 1;
        self.heard.push((to.id, watch.words[0], heard(told)));
    }

    fn demonitor(&mut self, _of: &Pid, reference: &Reference) {
        self.demonitored.push(reference.words[0]);
    }
}

/// A watcher as its process sees it.
#[derive(Debug, Default)]
struct Seen {
    watch: Option<u32>,
    pairs: BTreeMap<u64, u64>,
    last: u64,
    /// It was told that it has been shown all, or did not ask for it.
    is_current: bool,
}

impl Seen {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Put(seq, key, value) => {
                assert!(!self.is_current || seq > self.last, "{seq} comes behind {}", self.last);
                if self.is_current {
                    self.last = seq;
                } else {
                    assert!(!self.pairs.contains_key(&key), "{key} is shown twice");
                }
                self.pairs.insert(key, value.expect("it wants values"));
            }
            Heard::Gone(seq, key, _) => {
                assert!(self.is_current && seq > self.last, "{seq} comes behind {}", self.last);
                self.last = seq;
                self.pairs.remove(&key);
            }
            Heard::Clear(seq) => {
                assert!(self.is_current && seq > self.last, "{seq} comes behind {}", self.last);
                self.last = seq;
                self.pairs.clear();
            }
            Heard::Current(seq) => {
                assert!(!self.is_current);
                (self.last, self.is_current) = (seq, true);
            }
            Heard::Overrun => self.watch = None,
            Heard::Failed | Heard::Undecodable(_) => panic!("{heard:?}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write {
        key: u64,
        put: bool,
    },
    /// Several keys at once.
    WriteMany {
        keys: Vec<u64>,
    },
    /// A node takes so many messages.
    Take {
        node: usize,
        room: usize,
    },
    /// A page is read from the store, and comes later.
    Read,
    Came,
    /// A watcher's process ends and another begins behind what it has seen.
    Again {
        watcher: usize,
    },
    /// All keys go.
    Clear,
    /// A copy takes the place of all.
    Swap,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..6u64, any::<bool>()).prop_map(|(key, put)| Act::Write { key, put }),
        1 => proptest::collection::vec(0..6u64, 1..4).prop_map(|keys| Act::WriteMany { keys }),
        4 => (0..2usize, 0..6usize).prop_map(|(node, room)| Act::Take { node, room }),
        3 => Just(Act::Read),
        3 => Just(Act::Came),
        1 => (0..4usize).prop_map(|watcher| Act::Again { watcher }),
        1 => Just(Act::Clear),
        1 => Just(Act::Swap),
    ]
}

/// A store, its watchers, and pages that were read and have not come.
struct World {
    registry: Registry,
    store: BTreeMap<u64, (u64, u64)>,
    counted: u64,
    /// Revisions are the store's own numbers.
    is_primary: bool,
    watchers: Vec<Seen>,
    coming: VecDeque<(WantedPage, Page)>,
    next: u32,
}

const NODES: [&str; 2] = ["a@h", "b@h"];

impl World {
    fn new(is_primary: bool) -> Self {
        let mut world = Self {
            registry: Registry::with(BACKLOG),
            store: BTreeMap::new(),
            counted: 10,
            is_primary,
            watchers: Vec::new(),
            coming: VecDeque::new(),
            next: 1,
        };
        for key in 0..5 {
            world.counted += 1;
            let revision = world.revision();
            world.store.insert(key, (key, revision));
        }
        world.registry.log().begin_at(world.counted);
        world.watchers.resize_with(4, Seen::default);
        (0..4).for_each(|watcher| world.begin(watcher));
        world
    }

    /// At a slave that of its primary, which says nothing here.
    fn revision(&self) -> u64 {
        if self.is_primary { self.counted } else { 1 + self.counted * 7919 % 101 }
    }

    fn node_of(watcher: usize) -> &'static str {
        NODES[watcher % 2]
    }

    /// Watches from what was seen last, or from the beginning.
    fn begin(&mut self, watcher: usize) {
        let id = self.next;
        self.next += 1;
        let pid = pid(Self::node_of(watcher), watcher as u32);
        let seen = &mut self.watchers[watcher];
        seen.watch = Some(id);
        if seen.is_current {
            let behind = Begins::Behind(seen.last);
            match self.registry.add(pid.clone(), reference(id), all(), behind) {
                Ok(seq) => return assert_eq!(seq, seen.last),
                Err(refused) => assert_eq!(refused, Refused::TooOld),
            }
        }
        (seen.pairs, seen.is_current) = (BTreeMap::new(), false);
        let begins = Begins::Initial;
        self.registry.add(pid, reference(id), all(), begins).expect("there is room");
    }

    fn write(&mut self, keys: &[u64], put: bool) {
        let (first, value) = (self.counted + 1, self.counted + 1);
        self.counted = first;
        let revision = self.revision();
        for (at, key) in keys.iter().enumerate() {
            self.counted = first + at as u64;
            let bytes = encoded(value);
            let happened = if put {
                self.store.insert(*key, (value, revision));
                Happened::Put(Value { revision, ..Value::of(&bytes, Traits::none()) })
            } else {
                self.store.remove(key);
                Happened::Delete
            };
            self.registry.happened(first, &encoded(*key), happened);
            assert_eq!(self.registry.log().last(), self.counted);
        }
    }

    fn take(&mut self, node: usize, room: usize) -> Fed {
        let mut out = Node::with_room(room);
        let fed = self.registry.feed(NODES[node], &mut out);
        for (process, watch, heard) in out.heard {
            let seen = &mut self.watchers[process as usize];
            assert_eq!(seen.watch, Some(watch), "{heard:?} is of a watch that is over");
            seen.hear(heard);
        }
        // Dropped, each begins again.
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].watch.is_none() {
                self.begin(watcher);
            }
        }
        fed
    }

    /// Reads the two entries behind a place.
    fn read(&mut self) {
        let Some(wanted) = self.registry.next_page() else { return };
        let after = wanted.after.as_deref().map(|place| u64::from(place[0]) + 1);
        let page: Vec<_> = self.store.range(after.unwrap_or(0)..).take(2).collect();
        let behind = (page.len() == 2).then(|| Box::from([*page[1].0 as u8]));
        let entries = page.iter().map(|&(&key, &(value, revision))| {
            let bytes = encoded(value);
            Told::new(revision, &encoded(key), Happened::Put(Value::of(&bytes, Traits::none())))
        });
        let entries = entries.collect();
        self.coming.push_back((wanted, Page { entries, behind }));
    }

    fn came(&mut self) {
        if let Some((wanted, page)) = self.coming.pop_front() {
            self.registry.page_came(&wanted, Ok(page));
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write { key, put } => self.write(&[key], put),
            Act::WriteMany { mut keys } => {
                keys.sort_unstable();
                keys.dedup();
                self.write(&keys, true);
            }
            Act::Take { node, room } => _ = self.take(node, room),
            Act::Read => self.read(),
            Act::Came => self.came(),
            Act::Again { watcher } => {
                if let Some(watch) = self.watchers[watcher].watch.take() {
                    let words = reference(watch).words;
                    let ended = self.registry.remove(Self::node_of(watcher), &words, None);
                    assert!(ended.is_some());
                    self.begin(watcher);
                }
            }
            Act::Clear => {
                self.counted += 1;
                self.store.clear();
                self.registry.happened(self.counted, &[], Happened::Clear);
                assert_eq!(self.registry.log().last(), self.counted);
            }
            Act::Swap => {
                self.counted += 2;
                let revision = self.revision();
                self.store = (3..6).map(|key| (key, (self.counted, revision))).collect();
                self.registry.cut();
                self.registry.log().raise(self.counted);
            }
        }
    }

    /// Until nothing more is to be told.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.read();
            self.came();
            (0..2).for_each(|node| _ = self.take(node, 100));
        }
        let pairs: BTreeMap<u64, u64> = self.store.iter().map(|(key, (value, _))| (*key, *value)).collect();
        for seen in &self.watchers {
            assert!(seen.is_current);
            assert_eq!(seen.pairs, pairs, "{seen:?}");
        }
        assert!((0..2).all(|node| self.take(node, 1) == Fed::All));
    }
}

proptest! {
    #[test]
    fn what_a_watcher_was_told_gives_the_store(
        is_primary in any::<bool>(),
        acts in proptest::collection::vec(act(), 0..120),
    ) {
        let mut world = World::new(is_primary);
        for act in acts {
            world.act(act);
        }
        world.settle();
    }
}

fn registry() -> Registry {
    let mut registry = Registry::with(BACKLOG);
    registry.log().begin_at(10);
    registry
}

fn put(registry: &mut Registry, key: u64) {
    let value = encoded(key);
    registry.happened(0, &encoded(key), Happened::Put(Value::of(&value, Traits::none())));
}

#[test]
fn a_slow_watcher_is_told_once_that_it_is_and_others_are_not_concerned() {
    let mut registry = registry();
    for (node, id) in [("a@h", 1), ("a@h", 2), ("b@h", 3)] {
        registry.add(pid(node, id), reference(id), all(), Begins::Now).expect("there is room");
    }
    let mut fast = Node::with_room(usize::MAX);
    for key in 0..20 {
        put(&mut registry, key);
        assert_eq!(registry.feed("b@h", &mut fast), Fed::All);
    }
    assert_eq!(fast.heard.len(), 20);
    let mut slow = Node::with_room(usize::MAX);
    assert_eq!(registry.feed("a@h", &mut slow), Fed::All);
    assert_eq!(slow.heard, [(1, 1, Heard::Overrun), (2, 2, Heard::Overrun)]);
    assert_eq!((slow.demonitored, registry.len()), (vec![1, 2], 1));
    assert_eq!(registry.take_counts(), (20, 2));
    put(&mut registry, 1);
    assert_eq!(registry.announce(), [Arc::from("b@h")]);
    assert!(registry.announce().is_empty(), "once is enough");
}

#[test]
fn a_watcher_is_told_of_keys_that_match_and_without_values_if_it_wants_none() {
    let mut registry = registry();
    let pattern = Pattern::new(TermView::parse(&encoded(7)).expect("a term")).expect("a pattern");
    let wants = Wants { pattern: Some(Arc::new(pattern)), prefix: None, values: false };
    registry.add(pid("a@h", 1), reference(1), wants, Begins::Now).expect("there is room");
    for key in [6, 7, 8] {
        put(&mut registry, key);
    }
    registry.happened(0, &encoded(7), Happened::Expire);
    registry.happened(0, &[], Happened::Clear);
    let mut node = Node::with_room(usize::MAX);
    registry.feed("a@h", &mut node);
    let told = [Heard::Put(12, 7, None), Heard::Gone(14, 7, true), Heard::Clear(15)];
    assert_eq!(node.heard, told.map(|told| (1, 1, told)), "whatever it wants, of all keys it is told");
}

#[test]
fn what_a_node_cannot_decode_is_told_by_its_number() {
    let mut registry = registry();
    registry.add(pid("a@h", 1), reference(1), all(), Begins::Now).expect("there is room");
    put(&mut registry, 1);
    let mut node = Node { decodes: false, ..Node::with_room(usize::MAX) };
    registry.feed("a@h", &mut node);
    assert_eq!(node.heard, [(1, 1, Heard::Undecodable(11))]);
}

#[test]
fn a_watcher_is_told_of_nothing_that_it_says_it_knows() {
    let mut registry = registry();
    registry.log().count_to(15);
    // The store has counted to that, and not told all of it.
    let begins = Begins::Behind(14);
    assert_eq!(registry.add(pid("a@h", 1), reference(1), all(), begins), Ok(14));
    assert_eq!(registry.add(pid("a@h", 2), reference(2), all(), Begins::Now), Ok(10));
    for number in [12, 14, 15] {
        registry.happened(number, &encoded(number), Happened::Delete);
    }
    let mut node = Node::with_room(usize::MAX);
    registry.feed("a@h", &mut node);
    let told = |numbers: &[u64], id| {
        numbers.iter().map(|at| (id, id, Heard::Gone(*at, *at, false))).collect::<Vec<_>>()
    };
    assert_eq!(node.heard, [told(&[15], 1), told(&[12, 14, 15], 2)].concat());
}

#[test]
fn changes_that_bring_their_numbers_have_these_and_come_once() {
    let watches = Watches::default();
    watches.begin_behind(10, true);
    watches.is_on.store(true, Ordering::Relaxed);
    let (a, b, bytes) = (encoded(1), encoded(2), encoded(7));
    let commit = |changes: &[(&[u8], Change<'_>)], numbers: &[u64]| {
        let written = Written { seq: 2, changes, numbers };
        let write =
            Committed { written, traits: Traits::none(), revision: 0, confirmed: false, has_ended: false };
        watches.commit(&write).0
    };
    let begin = |id, begins| {
        let mut state = watches.state.lock();
        state.registry.add(pid("a@h", id), reference(id), all(), begins)
    };
    assert_eq!(begin(1, Begins::Now), Ok(10));
    let put = Change::Put(Value { revision: 11, ..Value::of(&bytes, Traits::none()) });
    // Another write of the batch has the number between.
    assert_eq!(commit(&[(&a, put), (&b, Change::Delete)], &[11, 13]), 13);
    assert_eq!(commit(&[(&a, put)], &[12]), 13, "what is told already");
    assert_eq!(commit(&[], &[20]), 20);
    let mut node = Node::with_room(usize::MAX);
    watches.state.lock().registry.feed("a@h", &mut node);
    let told = [Heard::Put(11, 1, Some(7)), Heard::Gone(13, 2, false), Heard::Clear(20)];
    assert_eq!(node.heard, told.map(|told| (1, 1, told)));
    assert_eq!(begin(2, Begins::Behind(12)), Ok(12));
    watches.miss_up_to(30);
    assert_eq!(commit(&[(&a, Change::Delete)], &[30]), 30);
    assert_eq!(commit(&[(&a, Change::Delete)], &[31]), 31);
    let mut node = Node::with_room(usize::MAX);
    watches.state.lock().registry.feed("a@h", &mut node);
    node.heard.sort_unstable_by_key(|(id, ..)| *id);
    assert_eq!(node.heard, [1, 2].map(|id| (id, id, Heard::Overrun)));
    assert_eq!((begin(3, Begins::Behind(29)), begin(4, Begins::Behind(30))), (Err(Refused::TooOld), Ok(30)));
    // Where nobody watches the numbers are kept all the same.
    watches.is_on.store(false, Ordering::Relaxed);
    assert_eq!((commit(&[(&a, put), (&b, put)], &[40, 42]), commit(&[(&a, put)], &[41])), (42, 42));
    assert_eq!((begin(5, Begins::Behind(41)), begin(6, Begins::Behind(42))), (Err(Refused::TooOld), Ok(42)));
}

#[test]
fn a_page_that_cannot_be_read_ends_the_watch() {
    let mut registry = registry();
    let initial = Begins::Initial;
    registry.add(pid("a@h", 1), reference(1), all(), initial).expect("there is room");
    let mut node = Node::with_room(usize::MAX);
    registry.feed("a@h", &mut node);
    assert!(registry.begins_to_read() && !registry.begins_to_read());
    let wanted = registry.next_page().expect("it is asked for");
    assert!(registry.page_came(&wanted, Err(StoreError::Io("eio"))), "it is announced");
    registry.feed("a@h", &mut node);
    assert_eq!((node.heard, registry.len()), (vec![(1, 1, Heard::Failed)], 0));
    assert!(registry.next_page().is_none());
}

#[test]
fn watches_are_bounded_and_those_that_are_over_leave_nothing() {
    let mut registry = registry();
    let initial = Begins::Initial;
    for id in 0..SHOWING_MAX as u32 {
        registry.add(pid("a@h", 1), reference(id), all(), initial).expect("there is room");
    }
    let over = registry.add(pid("a@h", 1), reference(u32::MAX), all(), initial);
    assert_eq!(over, Err(Refused::Busy));
    for expected in [Ok(0), Err(Refused::Busy)] {
        let elsewhere = registry.add(pid("b@h", 1), reference(u32::MAX), all(), initial);
        assert_eq!(elsewhere.map(|_| 0), expected, "one on each node is always let in");
    }
    registry.remove("b@h", &reference(u32::MAX).words, None);
    for id in SHOWING_MAX as u32..WATCHERS_MAX as u32 {
        registry.add(pid("a@h", 1), reference(id), all(), Begins::Now).expect("there is room");
    }
    let over = registry.add(pid("a@h", 1), reference(u32::MAX), all(), Begins::Now);
    assert_eq!(over, Err(Refused::TooMany));
    let other = registry.remove("a@h", &reference(0).words, Some(&pid("a@h", 2)));
    assert!(other.is_none(), "it is another's");
    for id in 0..WATCHERS_MAX as u32 {
        assert!(registry.remove("a@h", &reference(id).words, Some(&pid("a@h", 1))).is_some());
        assert!(registry.remove("a@h", &reference(id).words, None).is_none());
    }
    assert_eq!(registry.len(), 0);
    registry.add(pid("a@h", 1), reference(1), all(), initial).expect("there is room again");
}

/// A page of one entry of so many bytes.
fn page(bytes: usize) -> Page {
    let value = encode(|w| _ = w.binary(&vec![7; bytes]));
    let told = Told::new(1, &encoded(1), Happened::Put(Value::of(&value, Traits::none())));
    Page { entries: VecDeque::from([told]), behind: Some(Box::from([1])) }
}

#[test]
fn a_node_that_takes_nothing_keeps_none_from_being_shown_what_is_there() {
    let mut registry = registry();
    for id in 0..3 {
        registry.add(pid("slow@h", 1), reference(id), all(), Begins::Initial).expect("there is room");
    }
    registry.feed("slow@h", &mut Node::with_room(usize::MAX));
    assert!(registry.begins_to_read());
    for _ in 0..2 {
        let wanted = registry.next_page().expect("there is room");
        registry.page_came(&wanted, Ok(page(SHOWN_BYTES_MAX / 2)));
    }
    assert!(registry.next_page().is_none(), "as much as may waits for one node");
    registry.ends_reading();
    assert!(!registry.begins_to_read());
    registry.add(pid("quick@h", 1), reference(7), all(), Begins::Initial).expect("there is room");
    let mut quick = Node::with_room(usize::MAX);
    registry.feed("quick@h", &mut quick);
    assert!(registry.begins_to_read(), "for the other");
    let wanted = registry.next_page().expect("it is the other's");
    assert_eq!(&*wanted.node, "quick@h");
    registry.page_came(&wanted, Ok(page(10)));
    assert!(registry.next_page().is_none(), "it has not taken that");
    registry.ends_reading();
    quick.decodes = false;
    registry.feed("quick@h", &mut quick);
    assert!(registry.begins_to_read());
    registry.ends_reading();
    registry.remove("quick@h", &reference(7).words, None);
    assert!(!registry.begins_to_read());
    // The slow node goes: its pages' room is there for its last watcher.
    registry.remove("slow@h", &reference(0).words, None);
    assert!(registry.begins_to_read() && registry.next_page().is_some());
}

/// The lock of all writers is held meanwhile.
#[test]
fn long_keys_that_are_looked_into_cost_what_they_are_long() {
    let prefix = encode(|w| _ = w.list(1).unsigned(1).nil());
    let prefix = TermRange::prefix(TermView::parse(&prefix).expect("a term")).expect("a term");
    let wants = Wants { prefix: prefix.map(Arc::new), ..all() };
    let mut registry = Registry::with(Bounds { events: 1 << 10, bytes: usize::MAX });
    registry.add(pid("a@h", 1), reference(1), wants, Begins::Now).expect("there is room");
    let key = encode(|w| _ = w.binary(&vec![7; 64 << 10]));
    (0..200).for_each(|_| registry.happened(0, &key, Happened::Delete));
    let mut node = Node::with_room(usize::MAX);
    let mut fed = 1;
    while registry.feed("a@h", &mut node) == Fed::Part {
        fed += 1;
    }
    assert!(fed == 13 && node.heard.is_empty(), "{fed}");
}
