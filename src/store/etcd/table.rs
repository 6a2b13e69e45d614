//! The store in memory: the entries, which readers share, and the numbers of writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ask::{Changes, Key, Wrote, change_of};
use super::layout;
use super::places;
use crate::store::scan::at_once;
use crate::store::{
    Change, MemoryStore, OwnedValue, PendingMany, Shows, Store, StoreError, UpdateMany, Value, WriteDone,
};

/// Changes of a reload that have one number at most.
const TOGETHER: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) entries: MemoryStore,
    /// The number of the last write.
    seq: AtomicU64,
    /// The revision of etcd up to which all is here.
    applied: AtomicU64,
}

/// An update that puts given values.
struct Given<'a>(&'a [(Key, Option<OwnedValue>)]);

impl UpdateMany for Given<'_> {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, _present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        for (at, (_, value)) in self.0.iter().enumerate() {
            change(at, change_of(value.as_ref()));
        }
    }
}

impl Table {
    pub(super) fn new(entries: MemoryStore) -> Self {
        Self { entries, seq: AtomicU64::new(1), applied: AtomicU64::new(0) }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// The revision of etcd up to which all is here.
    pub(super) fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire) as i64
    }

    pub(super) fn set_applied(&self, revision: i64) {
        self.applied.fetch_max(revision.max(0) as u64, Ordering::AcqRel);
    }

    /// See [`Store::revision`].
    pub(super) fn revision(&self) -> u64 {
        layout::last_revision(self.applied())
    }

    /// The number of a write that is in the table.
    pub(super) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// What a key has.
    pub(super) fn get(&self, key: &[u8]) -> Option<OwnedValue> {
        self.entries.get(key, |found| found.map(Value::to_owned), || Box::new(|_| {})).flatten()
    }

    /// The revision of etcd that a key has; 0: none.
    pub(super) fn mod_revision(&self, key: &[u8]) -> i64 {
        let revision = self.entries.get(key, |found| found.map(|found| found.revision), || Box::new(|_| {}));
        revision.flatten().map_or(0, layout::mod_revision)
    }

    /// Applies a write, so that no reader sees a half of it; gives its number. No key is named twice.
    pub(super) fn apply(&self, changes: &Changes) -> u64 {
        put_all(&self.entries, changes);
        self.next_seq()
    }

    /// Applies a write of all keys.
    pub(super) fn clear(&self) -> u64 {
        if let Some(Ok(cleared)) = self.entries.clear(no_completion) {
            // The former entries are let go of here and now: no reader finds them any more.
            drop(cleared);
        }
        self.next_seq()
    }

    /// Takes a fresh load in the place of the entries; gives the former entries.
    pub(super) fn replace(&self, with: MemoryStore) -> Option<MemoryStore> {
        self.entries.replace(with)
    }

    /// The keys that a fresh load changes where it takes the place of the entries; `None`: they are more than `max`.
    pub(super) fn changed_by(&self, load: &MemoryStore, max: usize) -> Option<Vec<Key>> {
        let (mut keys, mut is_over) = (Vec::new(), false);
        each_difference(&self.entries, load, |key, _| {
            is_over |= keys.len() >= max;
            if !is_over {
                keys.push(key);
            }
        });
        (!is_over).then_some(keys)
    }

    /// The differences to the former entries, and the values of these keys, in parts.
    pub(super) fn differs(&self, before: &MemoryStore, keys: Vec<Key>) -> Vec<Wrote> {
        let mut differs = Changes::new();
        each_difference(before, &self.entries, |key, value| differs.push((key, value.map(Value::to_owned))));
        let known: BTreeSet<Key> = differs.iter().map(|(key, _)| Arc::clone(key)).collect();
        let again =
            keys.into_iter().collect::<BTreeSet<Key>>().into_iter().filter(|key| !known.contains(key));
        differs.extend(again.map(|key| {
            let value = self.get(&key);
            (key, value)
        }));
        let mut parts = Vec::new();
        while !differs.is_empty() {
            let rest = differs.split_off(differs.len().min(TOGETHER));
            let changes = std::mem::replace(&mut differs, rest);
            let numbers = places::unknown(self.applied(), changes.len());
            parts.push(Wrote { seq: self.next_seq(), changes, numbers, has_ended: false });
        }
        parts
    }
}

/// The completion that a store makes which answers at once: none.
fn no_completion() -> WriteDone {
    Box::new(|_| {})
}

/// Puts changes into entries.
pub(super) fn put_all(entries: &MemoryStore, changes: &Changes) {
    let failed = match &changes[..] {
        [(key, Some(value))] => entries.put(key, value.value(), no_completion).map(|done| done.map(|_| ())),
        [(key, None)] => entries.delete(key, no_completion).map(|done| done.map(|_| ())),
        changes => {
            let keys: Vec<&[u8]> = changes.iter().map(|(key, _)| &**key).collect();
            // It answers at once, and asks for no completion.
            let later = |_: &mut Given<'_>| -> Box<dyn PendingMany> { Box::new(Never) };
            entries.update_many(&keys, &mut Given(changes), later).map(|done| done.map(|_| ()))
        }
    };
    if let Some(Err(error)) = failed {
        // Of a store with an order alone: two long keys that were made to have one digest.
        tracing::error!(%error, "what etcd has cannot be kept in memory, and is not shown");
    }
}

/// The completion of an update that is done at once.
struct Never;

impl UpdateMany for Never {
    fn decide(&mut self, _present: &[Option<Value<'_>>], _change: &mut dyn FnMut(usize, Change<'_>)) {}
}

impl PendingMany for Never {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, _result: Result<Option<crate::store::Written<'_>>, StoreError>) {}
}

/// Shows the keys that are not the same in both, with what they have after.
fn each_difference(before: &MemoryStore, after: &MemoryStore, mut show: impl FnMut(Key, Option<Value<'_>>)) {
    for part in 0..after.parts() {
        // The two have each key in the same part.
        let mut known = BTreeMap::new();
        each(before, part, |key, value| _ = known.insert(Key::from(key), value.revision));
        each(after, part, |key, value| {
            if known.remove(key) != Some(value.revision) {
                show(key.into(), Some(value));
            }
        });
        known.into_keys().for_each(|key| show(key, None));
    }
}

/// Shows the entries of a part.
fn each(entries: &MemoryStore, part: usize, mut show: impl FnMut(&[u8], Value<'_>)) {
    let mut scan = entries.scan(Some(part), Shows::Pairs);
    while let Some(Ok(batch)) = at_once(&mut *scan) {
        batch.iter().for_each(|(key, value)| {
            if let Some(value) = value {
                show(key, value);
            }
        });
        if batch.is_last {
            return;
        }
    }
}
