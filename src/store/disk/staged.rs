//! A batch while it is put together: what it makes of the engine's keys so far, and what the stores then hold.

use std::sync::Arc;

use ahash::AHashMap;
use fjall::{OwnedWriteBatch, Slice};

use super::ends::Space;
use super::engine::Totals;
use super::error::engine_error;
use super::record::{self, Found};
use crate::store::{StoreError, ordered};

/// What a batch has made of one of the engine's keys.
struct Changed {
    /// What is there afterwards.
    entry: Option<Slice>,
    /// Whose it is.
    key: Arc<[u8]>,
}

/// The batch.
pub(super) struct Staged {
    pub(super) batch: OwnedWriteBatch,
    /// Of the engine's keys that it has changed so far.
    changed: AHashMap<(u32, Vec<u8>), Changed>,
    /// What the stores hold with it.
    pub(super) held: AHashMap<u32, Held>,
    /// Of the stores that get entries that end, when the first of these does.
    pub(super) ends: AHashMap<u32, u64>,
    /// Of the places that are cut, and that it has changed so far: what is there afterwards.
    cut: AHashMap<(u32, Vec<u8>), Option<Vec<u8>>>,
    /// Of the stores that it empties, the keys that got an entry since.
    emptied: AHashMap<u32, Vec<Arc<[u8]>>>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Of the entries, those that have a deadline.
    pub(super) deadlines: u64,
    /// What its revisions have counted to; 0: nothing was counted.
    pub(super) revision: u64,
}

impl Held {
    /// As it is kept.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.entries, self.bytes, self.revision, self.deadlines].map(u64::to_be_bytes).concat()
    }
}

/// A key of a store, with the engine's key for it.
pub(super) struct Place<'a> {
    space: &'a Space,
    pub(super) key: &'a Arc<[u8]>,
    engine_key: Vec<u8>,
}

impl<'a> Place<'a> {
    pub(super) fn new(space: &'a Space, key: &'a Arc<[u8]>) -> Self {
        Self { space, key, engine_key: record::engine_key(key) }
    }
}

/// What a key has before a change.
#[derive(Clone, Copy)]
struct Before {
    /// Of the entry, in bytes.
    len: u64,
    /// When it ends; 0: never.
    deadline: u64,
}

impl Before {
    fn of(entry: &[u8]) -> Self {
        Self { len: entry.len() as u64, deadline: record::deadline(entry) }
    }
}

/// A change that can be made, with what the key has now.
pub(super) struct Change<'a> {
    place: Place<'a>,
    entry: Option<Slice>,
    before: Option<Before>,
    /// Where the key is in the order of keys, if it comes or goes.
    ordered: Option<Vec<u8>>,
}

impl Change<'_> {
    /// The place of a key that is told from others by a digest there.
    pub(super) fn cut_place(&self) -> Option<&[u8]> {
        self.ordered.as_deref().filter(|place| ordered::is_cut(place))
    }

    pub(super) fn engine_key(&self) -> &[u8] {
        &self.place.engine_key
    }

    /// Counts what the key has before.
    pub(super) fn count_before(&self, held: &mut Held) {
        if let Some(before) = self.before {
            held.entries += 1;
            held.bytes += record::bytes(&self.place.engine_key, before.len);
            held.deadlines += u64::from(before.deadline != 0);
        }
    }
}

impl Staged {
    pub(super) fn new(batch: OwnedWriteBatch) -> Self {
        Self {
            batch,
            changed: AHashMap::new(),
            held: AHashMap::new(),
            ends: AHashMap::new(),
            cut: AHashMap::new(),
            emptied: AHashMap::new(),
        }
    }

    /// Whether it empties a store.
    pub(super) fn empties(&self) -> bool {
        !self.emptied.is_empty()
    }

    /// The keys that a store has with the batch as it is so far, each once. `before`: reads those that it had before the batch.
    ///
    /// # Errors
    /// Those of `before`.
    pub(super) fn keys_of<E>(
        &self,
        space: &Space,
        before: impl FnOnce() -> Result<Vec<Arc<[u8]>>, E>,
    ) -> Result<Vec<Arc<[u8]>>, E> {
        let mut keys = if let Some(since) = self.emptied.get(&space.id) {
            since.clone()
        } else {
            let added = self.changed.iter().filter(|((id, _), _)| *id == space.id);
            before()?.into_iter().chain(added.map(|(_, changed)| Arc::clone(&changed.key))).collect()
        };
        keys.retain(|key| {
            let changed = self.changed(&Place::new(space, key));
            changed.is_none_or(|changed| changed.entry.is_some() && changed.key == *key)
        });
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Adds to the batch that a store is emptied, by the deletions of all its keys. It has counted to `counted` then.
    pub(super) fn empty(&mut self, space: &Space, deletions: Vec<Change<'_>>, counted: u64) {
        for deletion in deletions {
            self.add(deletion, counted, |_| None);
        }
        self.held.insert(space.id, Held { revision: counted, ..Held::default() });
        self.emptied.insert(space.id, Vec::new());
    }

    fn changed(&self, place: &Place<'_>) -> Option<&Changed> {
        // Most batches change no key twice, and many are of one write.
        if self.changed.is_empty() {
            return None;
        }
        self.changed.get(&(place.space.id, place.engine_key.clone()))
    }

    /// What a key has, with what the batch has made of it so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn present(&self, place: &Place<'_>) -> Result<Option<Found>, StoreError> {
        match self.changed(place) {
            Some(changed) if changed.key == *place.key => {
                Ok(changed.entry.clone().and_then(|entry| Found::of(place.key, entry)))
            }
            Some(_) => Ok(None),
            None => {
                let entry = place.space.entries.get(&place.engine_key);
                entry.and_then(|entry| record::found(&place.engine_key, place.key, entry)).map_err(|error| {
                    tracing::error!(?error, "a key is not updated: what it has cannot be read");
                    engine_error(&error)
                })
            }
        }
    }

    /// Looks whether a key can be changed. `entry`: what it gets; `None`: it goes.
    ///
    /// # Errors
    /// What it has cannot be read, or another key has its place.
    pub(super) fn prepare<'a>(
        &self,
        place: Place<'a>,
        entry: Option<Slice>,
    ) -> Result<Change<'a>, StoreError> {
        let before = match self.changed(&place) {
            Some(changed) if changed.entry.is_some() && changed.key != *place.key => {
                return Err(StoreError::Io("eexist"));
            }
            Some(changed) => changed.entry.as_deref().map(Before::of),
            None => before(place.space, &place.engine_key, place.key)?,
        };
        let ordered = (before.is_some() != entry.is_some()).then(|| ordered::place_of(place.key));
        if let Some(ordered) = ordered.as_ref().filter(|ordered| entry.is_some() && ordered::is_cut(ordered))
        {
            self.must_be_free(&place, ordered)?;
        }
        Ok(Change { place, entry, before, ordered })
    }

    /// Refuses a key of which another one has the place in the order of keys: it was made on purpose, with the same digest.
    fn must_be_free(&self, place: &Place<'_>, ordered: &[u8]) -> Result<(), StoreError> {
        let taken = match self.cut.get(&(place.space.id, ordered.to_vec())) {
            Some(changed) => changed.as_ref().is_some_and(|other| *other != place.engine_key),
            None => {
                let other = place.space.in_place(ordered).map_err(|error| engine_error(&error))?;
                other.is_some_and(|other| *other != place.engine_key)
            }
        };
        if taken { Err(StoreError::Io("eexist")) } else { Ok(()) }
    }

    /// What a store has counted to, with the batch as it is so far.
    pub(super) fn counted(&self, store: u32, totals_of: impl Fn(u32) -> Option<Arc<Totals>>) -> u64 {
        self.held(store, totals_of).revision
    }

    /// What a store holds, with the batch as it is so far.
    pub(super) fn held(&self, store: u32, totals_of: impl Fn(u32) -> Option<Arc<Totals>>) -> Held {
        let before = || totals_of(store).map_or_else(Held::default, |totals| totals.held());
        self.held.get(&store).copied().unwrap_or_else(before)
    }

    /// Has what a store holds kept with the batch.
    pub(super) fn keep(&mut self, store: u32, totals_of: impl Fn(u32) -> Option<Arc<Totals>>) -> &mut Held {
        let held = self.held(store, totals_of);
        self.held.entry(store).or_insert(held)
    }

    /// Adds a change to the batch, with which its store has counted to `counted`. `totals_of` is what a store holds before it.
    pub(super) fn add(
        &mut self,
        change: Change<'_>,
        counted: u64,
        totals_of: impl Fn(u32) -> Option<Arc<Totals>>,
    ) {
        let Change { place: Place { space, key, engine_key }, entry, before, ordered } = change;
        let held = self.keep(space.id, totals_of);
        held.revision = held.revision.max(counted);
        if let Some(before) = before {
            held.entries = held.entries.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(record::bytes(&engine_key, before.len));
            held.deadlines = held.deadlines.saturating_sub(u64::from(before.deadline != 0));
        }
        if let Some(entry) = &entry {
            held.entries += 1;
            held.bytes += record::bytes(&engine_key, entry.len() as u64);
            held.deadlines += u64::from(record::deadline(entry) != 0);
        }
        if entry.is_some()
            && let Some(since) = self.emptied.get_mut(&space.id)
        {
            since.push(Arc::clone(key));
        }
        let changed = Changed { entry: entry.clone(), key: Arc::clone(key) };
        self.changed.insert((space.id, engine_key.clone()), changed);
        let ends = [before.map(|before| before.deadline), entry.as_deref().map(record::deadline)];
        let [ended, ends] = ends.map(|deadline| deadline.unwrap_or(0));
        if ended | ends != 0 {
            space.end(&mut self.batch, &engine_key, ended, ends);
        }
        if ends != 0 {
            let first = self.ends.entry(space.id).or_insert(ends);
            *first = ends.min(*first);
        }
        if let Some(ordered) = ordered {
            let now = entry.is_some().then_some(&engine_key[..]);
            space.put_in_order(&mut self.batch, &ordered, now);
            if ordered::is_cut(&ordered) {
                self.cut.insert((space.id, ordered), now.map(<[u8]>::to_vec));
            }
        }
        match entry {
            Some(entry) => self.batch.insert(&space.entries, engine_key, entry),
            None => self.batch.remove(&space.entries, engine_key),
        }
    }
}

/// What a store holds for a key; `None`: nothing. Where another key has the place, it is taken.
fn before(space: &Space, engine_key: &[u8], key: &[u8]) -> Result<Option<Before>, StoreError> {
    let failed = |error: fjall::Error| {
        tracing::error!(?error, "a key is not written: what it has cannot be read");
        engine_error(&error)
    };
    let is_long = record::is_long(key);
    if !is_long && !space.has_ends() {
        // A value that lies elsewhere is not read.
        let length = space.entries.size_of(engine_key).map_err(failed)?;
        return Ok(length.map(|len| Before { len: len.into(), deadline: 0 }));
    }
    let Some(other) = space.entries.get(engine_key).map_err(failed)? else { return Ok(None) };
    let before = Before::of(&other);
    let is_its = || Found::new(engine_key, other).is_some_and(|found| found.long_key() == Some(key));
    if !is_long || is_its() { Ok(Some(before)) } else { Err(StoreError::Io("eexist")) }
}
