//! The watchers of a store, by the nodes that they are on, as a value: which of them is told what, in which order, and what is refused.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use ahash::AHashMap;

use super::log::{Bounds, Happened, Log, Place, Told};
use super::watcher::{Page, Step, Wants, Watcher};
use crate::etf::{Pid, Reference, SharedBytes, TermWriter, Traits, encode};
use crate::kv::reason::write_reason;
use crate::store::StoreError;

/// Watchers of a store. Each takes some 400 bytes, and a monitor as many.
pub const WATCHERS_MAX: usize = 100_000;
/// Watchers of a store that are being shown what is there, but for one on each node. A page of each is in memory at most.
pub(super) const SHOWING_MAX: usize = 1024;
/// Bytes of the patterns and prefixes of all watchers of a store.
pub(in crate::kv) const PATTERNS_BYTES_MAX: usize = 64 << 20;
/// Bytes of pages that wait: beyond it no page is read, but one for a node for which none waits. A node that takes nothing keeps
/// no other one from being shown what is there.
pub(super) const SHOWN_BYTES_MAX: usize = 32 << 20;
/// Events that are looked at while a connection is held up.
const LOOKS_MAX: usize = 16 << 10;
/// What the backlog of a store holds.
pub(super) const BACKLOG: Bounds = Bounds { events: 256 << 10, bytes: 64 << 20 };

/// Tells a watch from others: the words of its reference.
pub(super) type Key = Box<[u32]>;

/// Why a watch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) enum Refused {
    TooMany,
    PatternsTooLarge,
    /// As many as may are being shown what is there.
    Busy,
    /// What has happened since then is not known.
    TooOld,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) enum Begins {
    Now,
    Behind(u64),
    /// With what is there.
    Initial,
}

/// The output to a node.
pub(super) trait Output {
    fn has_room(&self) -> bool;
    fn can_decode(&self, traits: Traits) -> bool;
    /// `write` writes a term, or all of it but for what it gives.
    fn send(&mut self, to: &Pid, write: &mut dyn FnMut(&mut TermWriter<'_>) -> Option<SharedBytes>);
    fn demonitor(&mut self, of: &Pid, reference: &Reference);
}

/// A page that is to be read.
#[derive(Debug)]
pub(in crate::kv) struct WantedPage {
    pub node: Arc<str>,
    key: Key,
    pub wants: Wants,
    pub after: Option<Box<[u8]>>,
}

/// A watch of a process.
#[derive(Debug)]
struct Watch {
    pid: Pid,
    reference: Reference,
    /// `{:kvnode, ref, …`, encoded.
    head: Box<[u8]>,
    watcher: Watcher,
}

/// Watchers that are being shown what is there.
#[derive(Debug, Default)]
struct Showing {
    watchers: usize,
    /// Bytes of their pages that wait.
    bytes: usize,
}

impl Showing {
    fn forget(&mut self, watcher: &Watcher) {
        self.watchers -= usize::from(watcher.shown_since().is_some());
        self.bytes -= watcher.waiting_bytes();
    }
}

/// A page is to be read for this watch, from behind this place.
type Asked = (Arc<str>, Key, Option<Box<[u8]>>);

/// What a node's connection has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    All,
    /// There is more for it.
    Part,
}

/// The watchers on a node.
#[derive(Debug, Default)]
struct OnNode {
    watches: BTreeMap<Key, Watch>,
    showing: Showing,
    /// Those that have something else than what has happened last.
    ready: VecDeque<Key>,
    /// All that are told of the events before have been.
    told: Option<Place>,
    /// A round that is under way: up to this place, and the last watcher that has had its turn.
    round: Option<(Place, Key)>,
    /// Its connection is asked to take what there is.
    is_announced: bool,
}

/// The watchers of a store.
#[derive(Debug)]
pub(super) struct Registry {
    log: Log,
    nodes: AHashMap<Arc<str>, OnNode>,
    len: usize,
    showing: Showing,
    pattern_bytes: usize,
    /// Those for which a page is to be read.
    asked: VecDeque<Asked>,
    is_read: bool,
    sent: u64,
    overruns: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self::with(BACKLOG)
    }
}

impl Registry {
    pub(super) fn with(backlog: Bounds) -> Self {
        Self {
            log: Log::new(backlog),
            nodes: AHashMap::new(),
            len: 0,
            showing: Showing::default(),
            pattern_bytes: 0,
            asked: VecDeque::new(),
            is_read: false,
            sent: 0,
            overruns: 0,
        }
    }

    pub(super) const fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Messages that were sent, and watchers that were dropped as they were too slow, since this was last asked.
    pub(super) const fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::replace(&mut self.sent, 0), std::mem::replace(&mut self.overruns, 0))
    }

    /// A process watches. Gives the number that it begins behind.
    pub(super) fn add(
        &mut self,
        pid: Pid,
        reference: Reference,
        wants: Wants,
        begins: Begins,
    ) -> Result<u64, Refused> {
        let pattern_bytes = wants.held_bytes();
        if self.len >= WATCHERS_MAX {
            return Err(Refused::TooMany);
        }
        if self.pattern_bytes + pattern_bytes > PATTERNS_BYTES_MAX {
            return Err(Refused::PatternsTooLarge);
        }
        let (end, last) = (self.log.end(), self.log.last());
        let shows = |on_node: &OnNode| on_node.showing.watchers > 0;
        let is_busy = || self.showing.watchers >= SHOWING_MAX && self.nodes.get(&pid.node).is_some_and(shows);
        let (watcher, seq) = match begins {
            Begins::Now => (Watcher::following(wants, end, last), last),
            Begins::Behind(seq) => {
                let next = self.log.behind(seq).ok_or(Refused::TooOld)?;
                (Watcher::following(wants, next, seq), seq)
            }
            Begins::Initial if is_busy() => return Err(Refused::Busy),
            Begins::Initial => (Watcher::showing(wants, end, last), last),
        };
        let is_shown = usize::from(watcher.shown_since().is_some());
        self.len += 1;
        self.pattern_bytes += pattern_bytes;
        self.showing.watchers += is_shown;
        let head = encode(|w| _ = w.tuple(3).atom("kvnode").reference(&reference)).into();
        let key: Key = reference.words.as_slice().into();
        let node = self.nodes.entry(Arc::clone(&pid.node)).or_default();
        if node.watches.is_empty() {
            (node.told, node.round) = (Some(end), None);
        }
        node.ready.push_back(key.clone());
        node.is_announced = true;
        node.showing.watchers += is_shown;
        node.watches.insert(key, Watch { pid, reference, head, watcher });
        Ok(seq)
    }

    /// A watch is over; gives its process and reference. `by`: where it is that process's.
    pub(super) fn remove(&mut self, node: &str, words: &[u32], by: Option<&Pid>) -> Option<(Pid, Reference)> {
        let on_node = self.nodes.get_mut(node)?;
        let watch = on_node.watches.get(words)?;
        if by.is_some_and(|by| *by != watch.pid) {
            return None;
        }
        let watch = on_node.watches.remove(words)?;
        on_node.showing.forget(&watch.watcher);
        if on_node.watches.is_empty() {
            self.nodes.remove(node);
        } else if on_node.ready.len() > 2 * on_node.watches.len() + 64 {
            // Of those that come and go before their node takes anything.
            let OnNode { watches, ready, .. } = on_node;
            ready.retain(|key| watches.contains_key(key));
        }
        self.forget(&watch);
        if self.asked.len() > 2 * SHOWING_MAX {
            let is_there = |node: &Arc<str>, key: &Key| {
                self.nodes.get(node).is_some_and(|on_node| on_node.watches.contains_key(key))
            };
            self.asked.retain(|(node, key, _)| is_there(node, key));
        }
        Some((watch.pid, watch.reference))
    }

    fn forget(&mut self, watch: &Watch) {
        self.len -= 1;
        self.pattern_bytes -= watch.watcher.wants().held_bytes();
        self.showing.forget(&watch.watcher);
        self.log_is_read();
    }

    /// Where nobody is shown what is there the backlog needs no index.
    fn log_is_read(&mut self) {
        if self.showing.watchers == 0 {
            self.log.forget_index();
        }
    }

    /// All watches are over.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.asked.clear();
        (self.len, self.showing, self.pattern_bytes) = (0, Showing::default(), 0);
        self.log_is_read();
    }

    /// Something has happened to a key. It has the number `least`, or the next one.
    pub(super) fn happened(&mut self, least: u64, key: &[u8], happened: Happened<'_>) {
        let seq = (self.log.last() + 1).max(least);
        self.log.push(Told::new(seq, key, happened));
    }

    /// All that was watched is another now: no watcher can be told what has changed.
    pub(super) fn cut(&mut self) {
        self.log.cut();
    }

    /// The nodes whose connections are to be asked to take what there is.
    pub(super) fn announce(&mut self) -> Vec<Arc<str>> {
        let nodes = self.nodes.iter_mut().filter(|(_, on_node)| !on_node.is_announced);
        let announced = nodes.map(|(node, on_node)| {
            on_node.is_announced = true;
            Arc::clone(node)
        });
        announced.collect()
    }

    /// Writes what there is for a node, as long as it has room.
    pub(super) fn feed(&mut self, node: &str, out: &mut dyn Output) -> Fed {
        let mut looks = LOOKS_MAX;
        let fed = loop {
            let Some(key) = self.whose_turn(node) else { break Fed::All };
            if self.serve(node, &key, &mut looks, out) == Fed::Part {
                if let Some(on_node) = self.nodes.get_mut(node) {
                    on_node.ready.push_back(key);
                }
                break Fed::Part;
            }
        };
        if let Some(on_node) = self.nodes.get_mut(node) {
            // Asked for more, it is announced still.
            on_node.is_announced = fed == Fed::Part;
        }
        self.log_is_read();
        fed
    }

    fn whose_turn(&mut self, node: &str) -> Option<Key> {
        let on_node = self.nodes.get_mut(node)?;
        if let Some(key) = on_node.ready.pop_front() {
            return Some(key);
        }
        loop {
            let next = match &on_node.round {
                None if on_node.told == Some(self.log.end()) => return None,
                None => on_node.watches.keys().next(),
                Some((_, last)) => on_node
                    .watches
                    .range::<[u32], _>((Bound::Excluded(&**last), Bound::Unbounded))
                    .next()
                    .map(|(key, _)| key),
            };
            let to = on_node.round.take().map_or_else(|| self.log.end(), |(to, _)| to);
            match next {
                Some(key) => {
                    on_node.round = Some((to, key.clone()));
                    return Some(key.clone());
                }
                None => on_node.told = Some(to),
            }
        }
    }

    /// Tells a watcher what it is to be told, until there is no more, or no room.
    fn serve(&mut self, node: &str, key: &Key, looks: &mut usize, out: &mut dyn Output) -> Fed {
        let Some(OnNode { watches, showing, .. }) = self.nodes.get_mut(node) else { return Fed::All };
        let Some(Watch { pid, reference, head, watcher }) = watches.get_mut(key) else { return Fed::All };
        let with_values = watcher.wants().values;
        let is_over = loop {
            if !out.has_room() {
                return Fed::Part;
            }
            let mut tell = |told: &Told| {
                if out.can_decode(told.traits(with_values)) {
                    out.send(pid, &mut |w| told.write(w.raw(head), with_values));
                } else {
                    out.send(pid, &mut |w| {
                        told.write_undecodable(w.raw(head));
                        None
                    });
                }
                self.sent += 1;
            };
            match watcher.next(&self.log, looks) {
                Step::Event(told) => tell(told),
                Step::Shown(told) => {
                    showing.bytes -= told.bytes();
                    self.showing.bytes -= told.bytes();
                    tell(&told);
                }
                Step::Current(seq) => {
                    showing.watchers -= 1;
                    self.showing.watchers -= 1;
                    out.send(pid, &mut |w| {
                        w.raw(head).tuple(2).unsigned(seq).atom("current");
                        None
                    });
                }
                Step::AskPage(after) => self.asked.push_back((Arc::from(node), key.clone(), after)),
                Step::Waits => break false,
                Step::Tired => return Fed::Part,
                Step::Overrun => {
                    self.overruns += 1;
                    out.send(pid, &mut |w| {
                        w.raw(head).atom("overrun");
                        None
                    });
                    break true;
                }
                Step::Failed(error) => {
                    out.send(pid, &mut |w| {
                        write_failed(w.raw(head), &error);
                        None
                    });
                    break true;
                }
            }
        };
        if is_over {
            out.demonitor(pid, reference);
            self.remove(node, key, None);
        }
        Fed::All
    }

    /// Whether a reader of pages is to be started.
    pub(super) fn begins_to_read(&mut self) -> bool {
        let begins = !self.is_read && self.asked.iter().any(|(node, ..)| self.has_room_for(node));
        self.is_read |= begins;
        begins
    }

    /// Whether a page may be read for this node.
    fn has_room_for(&self, node: &str) -> bool {
        let has_none = |on_node: &OnNode| on_node.showing.bytes == 0;
        self.showing.bytes < SHOWN_BYTES_MAX || self.nodes.get(node).is_some_and(has_none)
    }

    /// The reader of pages ends, or ends early.
    pub(super) const fn ends_reading(&mut self) {
        self.is_read = false;
    }

    /// The next page that is to be read; `None`: none, for now.
    pub(super) fn next_page(&mut self) -> Option<WantedPage> {
        loop {
            let next = self.asked.iter().position(|(node, ..)| self.has_room_for(node))?;
            let (node, key, after) = self.asked.remove(next)?;
            let watch = self.nodes.get(&node).and_then(|on_node| on_node.watches.get(&key));
            // It may be over.
            if let Some(Watch { watcher, .. }) = watch
                && watcher.shown_since().is_some()
            {
                let wants = watcher.wants().clone();
                return Some(WantedPage { node, key, wants, after });
            }
        }
    }

    /// A page was read. Gives whether its node's connection is to be asked to take it.
    pub(super) fn page_came(&mut self, wanted: &WantedPage, came: Result<Page, StoreError>) -> bool {
        let Some(on_node) = self.nodes.get_mut(&wanted.node) else { return false };
        let Some(watch) = on_node.watches.get_mut(&wanted.key) else { return false };
        let Some((since, _)) = watch.watcher.shown_since() else { return false };
        match came {
            Ok(mut page) => {
                // What has changed since is told by its event.
                page.entries.retain(|entry| !self.log.has_changed(entry.key(), since));
                let bytes = page.entries.iter().map(Told::bytes).sum::<usize>();
                on_node.showing.bytes += bytes;
                self.showing.bytes += bytes;
                watch.watcher.page_came(Ok(page));
            }
            Err(error) => {
                on_node.showing.forget(&watch.watcher);
                self.showing.forget(&watch.watcher);
                watch.watcher.page_came(Err(error));
            }
        }
        on_node.ready.push_back(wanted.key.clone());
        !std::mem::replace(&mut on_node.is_announced, true)
    }
}

/// Writes `{:error, reason}`.
fn write_failed(w: &mut TermWriter<'_>, error: &StoreError) {
    w.tuple(2).atom("error");
    write_reason(w, error);
}
