//! The order of a store's writes: that of their numbers, whatever order they are done in.
//!
//! Slaves get the writes in this order. A store that answers at once takes its numbers while [`Order::hold`] is held. One that
//! answers later completes its writes in any order: what is done before a write with a lower number is kept back here until that
//! is done too. Of a store all of whose numbers come to their completions (`store/mod.rs`, rules 1 and 3) no more is ever kept
//! back than it has under way.
//!
//! A number that never comes here was given to a former life of the server, whose last writes were still being handed in when
//! this one began. It is told by nothing being under way any more, or by too much being kept back for it: then the order goes
//! on behind the gap, and slaves are sent everything ([`Next::Gap`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::MutexGuard;

use super::ranked::{Guard, Ranked, rank};

use crate::etf::{TermView, Traits};
use crate::replica::ReplicaWrite;
use crate::store::{Change, OwnedValue, Value, Written};

/// A write as its slaves are told of it.
#[derive(Clone, Copy)]
pub(super) struct Committed<'a> {
    pub written: Written<'a>,
    /// Of the key and the value; of several keys nothing, as each has its own.
    pub traits: Traits,
    /// Of values that have none: of a store that has told of the write by its number alone.
    pub revision: u64,
    /// A caller waits for slaves to have it.
    pub confirmed: bool,
    /// It deletes a key whose time is over.
    pub has_ended: bool,
}

/// The revision that a write has where the store has counted to `last` with it: each key counts.
pub(super) fn revision_of(changes: &[(&[u8], Change<'_>)], last: u64) -> u64 {
    let changed = changes.iter().filter(|(_, change)| !matches!(change, Change::Keep)).count() as u64;
    last.saturating_sub(changed.saturating_sub(1))
}

impl Committed<'_> {
    /// It has deleted all keys.
    pub(super) const fn is_clear(&self) -> bool {
        self.written.changes.is_empty()
    }

    /// A value with its revision.
    const fn revised<'v>(&self, value: Value<'v>) -> Value<'v> {
        if value.revision == 0 { Value { revision: self.revision, ..value } } else { value }
    }

    /// Gives what it has changed to `with`, each key as slaves are told of it.
    pub(super) fn with_writes<R>(&self, with: impl FnOnce(&[ReplicaWrite<'_>]) -> R) -> R {
        match self.written.changes {
            [(key, change)] => with(self.write_of(key, change).as_slice()),
            changes => {
                let writes = changes.iter().filter_map(|(key, change)| self.write_of(key, change));
                with(&writes.collect::<Vec<_>>())
            }
        }
    }

    /// `None`: the key stays as it was.
    fn write_of<'w>(&'w self, key: &'w [u8], change: &'w Change<'w>) -> Option<ReplicaWrite<'w>> {
        Some(match change {
            Change::Keep => return None,
            Change::Put(value) => {
                let (value, traits) = (self.revised(*value), self.traits.union(value.traits));
                let Value { bytes: value, revision, deadline, .. } = value;
                ReplicaWrite::Put { key, value, traits, revision, deadline }
            }
            Change::Delete => {
                let traits = match self.written.changes {
                    [_] => self.traits,
                    _ => TermView::parse(key).map_or(self.traits, TermView::traits),
                };
                ReplicaWrite::Delete { key, traits }
            }
        })
    }
}

/// The same, kept back. Without changes where all keys went.
struct HeldBack {
    changes: Vec<(Box<[u8]>, Kept)>,
    numbers: Vec<u64>,
    traits: Traits,
    confirmed: bool,
    has_ended: bool,
}

/// What becomes of a key.
enum Kept {
    /// It stays: a write in which all stay is no clear.
    AsItIs,
    Put(OwnedValue),
    Deleted,
}

impl HeldBack {
    fn new(committed: &Committed<'_>) -> Self {
        let changed = committed.written.changes.iter().map(|(key, change)| {
            let kept = match change {
                Change::Keep => Kept::AsItIs,
                Change::Put(value) => Kept::Put(committed.revised(*value).to_owned()),
                Change::Delete => Kept::Deleted,
            };
            ((*key).into(), kept)
        });
        let &Committed { traits, confirmed, has_ended, .. } = committed;
        let numbers = committed.written.numbers.to_vec();
        Self { changes: changed.collect(), numbers, traits, confirmed, has_ended }
    }

    fn bytes(&self) -> usize {
        let of = |(key, kept): &(Box<[u8]>, Kept)| {
            key.len() + if let Kept::Put(value) = kept { value.bytes.len() } else { 0 }
        };
        self.changes.iter().map(of).sum()
    }

    fn show(&self, seq: u64, show: &mut dyn FnMut(&Committed<'_>)) {
        let changes = self.changes.iter().map(|(key, kept)| {
            let change = match kept {
                Kept::AsItIs => Change::Keep,
                Kept::Put(value) => Change::Put(value.value()),
                Kept::Deleted => Change::Delete,
            };
            (&**key, change)
        });
        let changes: Vec<_> = changes.collect();
        let written = Written { seq, changes: &changes, numbers: &self.numbers };
        let &Self { traits, confirmed, has_ended, .. } = self;
        show(&Committed { written, traits, revision: 0, confirmed, has_ended });
    }
}

/// Writes that are kept back for one with a lower number, and bytes of them.
const HELD_BACK_MAX: usize = 4096;
const HELD_BACK_BYTES_MAX: usize = 64 << 20;

/// What comes next for the slaves.
pub(super) enum Next<'a> {
    /// A write.
    Write(&'a Committed<'a>),
    /// Up to this number not every write was seen: the slaves miss any of them.
    Gap(u64),
}

/// The order, and how far it has come.
#[derive(Default)]
pub(super) struct Order {
    hold: Ranked<rank::Order, ()>,
    /// The number of the last write that went on to the slaves, of a store that answers later.
    seq: AtomicU64,
    /// Locked by the holder of the order, and by readers of it.
    held_back: Ranked<rank::HeldBack, BTreeMap<u64, HeldBack>>,
    /// Bytes of these.
    held_back_bytes: AtomicUsize,
    /// Writes that were handed in by this life of the server, and are not answered.
    under_way: AtomicU64,
}

impl Order {
    /// A write is about to be handed in. Each is [`ended`](Self::ended).
    pub(super) fn begun(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// A write that was handed in is answered, and [`committed`](Self::committed) if it took effect.
    pub(super) fn ended(&self, show: &mut dyn FnMut(Next<'_>)) {
        if self.under_way.fetch_sub(1, Ordering::AcqRel) > 1 || self.held_back.lock().is_empty() {
            return;
        }
        let _hold = self.hold.lock();
        // Whatever was handed in since has a higher number than all that is kept back.
        self.go_on_behind_gap(show);
    }

    /// Whether writes that were handed in are not answered.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    fn go_on_behind_gap(&self, show: &mut dyn FnMut(Next<'_>)) {
        let held = std::mem::take(&mut *self.held_back.lock());
        self.held_back_bytes.store(0, Ordering::Relaxed);
        if let Some((&last, _)) = held.last_key_value() {
            self.seq.store(last, Ordering::Release);
            show(Next::Gap(last));
        }
    }

    /// Meanwhile no write goes on to the slaves, and none is carried out of a store that answers at once.
    pub(super) fn hold(&self) -> Guard<MutexGuard<'_, ()>> {
        self.hold.lock()
    }

    /// All writes up to this number are done and known, and none is under way.
    pub(super) fn begin_behind(&self, seq: u64) {
        self.seq.store(seq, Ordering::Release);
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Shows the keys of all writes that are kept back.
    pub(super) fn each_kept_back(&self, mut show: impl FnMut(&[u8])) {
        for write in self.held_back.lock().values() {
            write.changes.iter().for_each(|(key, _)| show(key));
        }
    }

    /// Whether a write of the key is done, and kept back.
    pub(super) fn keeps_back(&self, key: &[u8]) -> bool {
        // All keys, where none is named.
        let is_of = |held: &HeldBack| {
            held.changes.is_empty() || held.changes.iter().any(|(changed, _)| **changed == *key)
        };
        self.held_back.lock().values().any(is_of)
    }

    /// A write is done. Shows, under the order, those whose turn it is now: it and others behind it, or none.
    pub(super) fn committed(&self, committed: &Committed<'_>, show: &mut dyn FnMut(Next<'_>)) {
        let _hold = self.hold.lock();
        let seq = committed.written.seq;
        if seq <= self.seq() {
            // Of the gap behind which it went on: it may have been read before this.
            return show(Next::Gap(self.seq()));
        }
        if seq != self.seq() + 1 {
            let held = HeldBack::new(committed);
            let bytes = self.held_back_bytes.fetch_add(held.bytes(), Ordering::Relaxed) + held.bytes();
            let mut all = self.held_back.lock();
            all.insert(seq, held);
            let is_too_much = all.len() > HELD_BACK_MAX || bytes > HELD_BACK_BYTES_MAX;
            drop(all);
            if is_too_much || !self.is_busy() {
                self.go_on_behind_gap(show);
            }
            return;
        }
        self.seq.store(seq, Ordering::Release);
        show(Next::Write(committed));
        loop {
            let next = self.seq() + 1;
            let Some(held) = self.held_back.lock().remove(&next) else { break };
            self.held_back_bytes.fetch_sub(held.bytes(), Ordering::Relaxed);
            self.seq.store(next, Ordering::Release);
            held.show(next, &mut |committed| show(Next::Write(committed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_another_process_is_not_kept_back_where_nothing_is_under_way() {
        let order = Order::default();
        order.begin_behind(4);
        let mut shown = Vec::new();
        commit(&order, 6, &mut shown);
        assert_eq!((shown.as_slice(), order.keeps_back(b"k")), (&[Err(6)][..], false));
        order.begun();
        commit(&order, 8, &mut shown);
        assert!(order.keeps_back(b"k"), "what is missing is under way");
    }

    #[test]
    fn writes_go_on_in_the_order_of_their_numbers_and_are_known_while_they_are_kept_back() {
        let order = Order::default();
        order.begin_behind(4);
        (0..4).for_each(|_| order.begun());
        let mut shown = Vec::new();
        let mut commit = |seq: u64, key: &[u8]| {
            let change = if seq == 6 { Change::Delete } else { Change::Put(Value::of(b"v", Traits::V4_NC)) };
            let changes = [(key, change)];
            let written = Written { seq, changes: &changes, numbers: &[] };
            let committed = Committed {
                written,
                traits: Traits::none(),
                revision: 100 + seq,
                confirmed: seq == 7,
                has_ended: false,
            };
            order.committed(&committed, &mut |next| {
                let Next::Write(committed) = next else { panic!("there is no gap") };
                let seq = committed.written.seq;
                committed.with_writes(|writes| {
                    let [write] = writes else { panic!("{writes:?}") };
                    if let ReplicaWrite::Put { traits, revision, .. } = write {
                        assert_eq!((*traits, *revision), (Traits::V4_NC, 100 + seq));
                    }
                    shown.push((seq, matches!(write, ReplicaWrite::Put { .. }), committed.confirmed));
                });
            });
            shown.len()
        };
        assert_eq!((commit(7, b"c"), commit(6, b"b")), (0, 0));
        assert!(order.keeps_back(b"c") && order.keeps_back(b"b") && !order.keeps_back(b"a"));
        assert_eq!(order.seq(), 4);
        assert_eq!((commit(5, b"a"), commit(8, b"d")), (3, 4));
        assert!(!order.keeps_back(b"c"));
        assert_eq!(
            (order.seq(), shown),
            (8, vec![(5, true, false), (6, false, false), (7, true, true), (8, true, false)])
        );
    }

    #[test]
    fn of_a_write_of_several_keys_those_that_have_changed_are_shown() {
        let key = |number: u8| [97, number];
        let keys = [key(1), key(2), key(3), key(4)];
        let value = Value::of(b"v", Traits::V4_NC);
        let changes = [Change::Put(value), Change::Delete, Change::Put(value), Change::Keep];
        let changes: Vec<(&[u8], Change<'_>)> = keys.iter().map(|key| &key[..]).zip(changes).collect();
        let written = Written { seq: 9, changes: &changes, numbers: &[] };
        let committed =
            Committed { written, traits: Traits::none(), revision: 9, confirmed: false, has_ended: false };
        let shown = |committed: &Committed<'_>| {
            let of = |write: &ReplicaWrite<'_>| match write {
                ReplicaWrite::Put { key, traits, .. } => (key[1], true, *traits),
                ReplicaWrite::Delete { key, traits } => (key[1], false, *traits),
            };
            committed.with_writes(|writes| writes.iter().map(of).collect::<Vec<_>>())
        };
        let wanted = [(1, true, Traits::V4_NC), (2, false, Traits::none()), (3, true, Traits::V4_NC)];
        assert_eq!(shown(&committed), wanted);
        let mut again = Vec::new();
        HeldBack::new(&committed).show(9, &mut |committed| again = shown(committed));
        assert_eq!(again, wanted, "kept back");
    }

    fn commit(order: &Order, seq: u64, shown: &mut Vec<Result<u64, u64>>) {
        let changes = [(&b"k"[..], Change::Delete)];
        let committed = Committed {
            written: Written { seq, changes: &changes, numbers: &[] },
            traits: Traits::none(),
            revision: 0,
            confirmed: false,
            has_ended: false,
        };
        order.committed(&committed, &mut |next| note(&next, shown));
    }

    fn note(next: &Next<'_>, shown: &mut Vec<Result<u64, u64>>) {
        shown.push(match next {
            Next::Write(committed) => Ok(committed.written.seq),
            Next::Gap(seq) => Err(*seq),
        });
    }

    #[test]
    fn a_number_of_a_former_life_keeps_nothing_back_once_nothing_is_under_way() {
        let order = Order::default();
        let mut shown = Vec::new();
        (0..3).for_each(|_| order.begun());
        for seq in [1, 3, 4] {
            commit(&order, seq, &mut shown);
            order.ended(&mut |next| note(&next, &mut shown));
        }
        // 2 went to a former life.
        assert_eq!((shown.as_slice(), order.seq()), (&[Ok(1), Err(4)][..], 4));
        assert!(!order.keeps_back(b"k"));
        // It comes all the same: it may have been read before.
        commit(&order, 2, &mut shown);
        commit(&order, 5, &mut shown);
        assert_eq!(shown[2..], [Err(4), Ok(5)]);
    }

    #[test]
    fn what_is_kept_back_has_a_bound() {
        let order = Order::default();
        let mut shown = Vec::new();
        order.begun();
        for seq in 2..HELD_BACK_MAX as u64 + 3 {
            commit(&order, seq, &mut shown);
        }
        assert_eq!(shown, [Err(HELD_BACK_MAX as u64 + 2)]);
    }
}
