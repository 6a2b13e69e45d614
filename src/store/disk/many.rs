//! A write of several keys: all of it is in one batch, or nothing.

use std::sync::Arc;

use super::ends::Space;
use super::engine::{Bytes, RoomFor, Totals};
use super::queue::{Decided, Keys};
use super::record::{Entry, Found};
use super::staged::{Place, Staged};
use crate::store::{Change, FOUND_BYTES_MAX, PendingMany, StoreError, Value, Written, revision};

/// An update of several keys, with what it has decided.
pub(super) struct Many {
    keys: Keys,
    update: Box<dyn PendingMany>,
    /// The places of the keys that change, and what becomes of each.
    decided: Vec<(usize, Decided)>,
}

impl Many {
    pub(super) fn new(keys: &[&[u8]], update: Box<dyn PendingMany>) -> Self {
        Self { keys: keys.iter().map(|key| Arc::from(*key)).collect(), update, decided: Vec::new() }
    }

    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What it holds of memory beside the keys.
    pub(super) fn bytes(&self) -> usize {
        self.update.bytes()
    }

    /// Adds what the update decides to a batch; gives the bytes of that, and of what it was shown.
    ///
    /// # Errors
    /// A key cannot be read or written, or there is no room for all of it: nothing is added.
    pub(super) fn stage(
        &mut self,
        space: &Space,
        room: RoomFor,
        staged: &mut Staged,
        totals_of: impl Fn(u32) -> Option<Arc<Totals>>,
    ) -> Result<Bytes, StoreError> {
        let place = |key| Place::new(space, key);
        let mut read = Reading::default();
        let present: Vec<Option<Found>> = if self.update.looks() {
            let found = self.keys.iter().enumerate().map(|(at, key)| {
                let found = staged.present(&place(key))?;
                let needs_bytes = self.update.needs_bytes(at);
                read.take(found.map(|found| if needs_bytes { found } else { found.without_bytes() }))
            });
            found.collect::<Result<_, _>>()?
        } else {
            (0..self.keys.len()).map(|_| None).collect()
        };
        let present: Vec<Option<Value<'_>>> =
            present.iter().map(|found| found.as_ref().map(Found::value)).collect();
        let found = read.bytes as u64;
        let (keys, decided) = (&self.keys, &mut self.decided);
        let last = staged.counted(space.id, &totals_of);
        // All of it is one write, and each key counts.
        let mut counted = last;
        self.update.decide(&present, &mut |at, change| match change {
            Change::Keep => {}
            Change::Put(value) => {
                let (entry, with_it) = Entry::new(&keys[at], value).give(last);
                counted = counted.max(with_it);
                decided.push((at, Decided::Put(entry)));
            }
            Change::Delete => decided.push((at, Decided::Delete)),
        });
        let more = (self.decided.len() as u64).saturating_sub(1);
        counted = counted.max(revision::counted(0, last)).saturating_add(more).min(revision::REVISION_MAX);
        if !self.decided.iter().all(|(_, decided)| room.takes(decided)) {
            return Err(StoreError::NoSpace);
        }
        let change = |(at, decided): &(usize, Decided)| staged.prepare(place(&keys[*at]), decided.entry());
        let changes: Vec<_> = self.decided.iter().map(change).collect::<Result<_, _>>()?;
        let entries = self.decided.iter().filter_map(|(_, decided)| decided.entry());
        let written = entries.map(|entry| entry.len() as u64).sum();
        // Two long keys with one digest would take the place of each other.
        if changes.len() > 1
            && !(are_distinct(changes.iter().map(|change| change.engine_key()))
                && are_distinct(changes.iter().filter_map(|change| change.cut_place())))
        {
            return Err(StoreError::Io("eexist"));
        }
        for change in changes {
            staged.add(change, counted, &totals_of);
        }
        Ok(Bytes { written, found })
    }

    pub(super) fn fail(self, error: StoreError) {
        self.update.done(Err(error));
    }

    /// Tells of what was carried out; `number` gives its number, where that is a change.
    pub(super) fn succeed(self, number: impl FnOnce() -> u64) {
        if self.decided.is_empty() {
            return self.update.done(Ok(None));
        }
        // What was made by us is an entry.
        let entries = self.decided.iter().map(|(at, decided)| {
            let key = &*self.keys[*at];
            (key, decided.entry().and_then(|entry| Found::of(key, entry)))
        });
        let entries: Vec<(&[u8], Option<Found>)> = entries.collect();
        let changes: Vec<(&[u8], Change<'_>)> =
            entries.iter().map(|(key, found)| (*key, change_of(found.as_ref()))).collect();
        self.update.done(Ok(Some(Written { seq: number(), changes: &changes, numbers: &[] })));
    }
}

/// What is read for one question, in bounds.
#[derive(Default)]
pub(super) struct Reading {
    /// Of values.
    pub(super) bytes: usize,
}

impl Reading {
    /// Counts one more.
    ///
    /// # Errors
    /// The question's fault: it is too much.
    pub(super) fn take(&mut self, found: Option<Found>) -> Result<Option<Found>, StoreError> {
        self.bytes += found.as_ref().map_or(0, |found| found.value().bytes.len());
        if self.bytes > FOUND_BYTES_MAX {
            Err(StoreError::TooLarge(FOUND_BYTES_MAX as u64))
        } else {
            Ok(found)
        }
    }
}

fn change_of(found: Option<&Found>) -> Change<'_> {
    found.map_or(Change::Delete, |found| Change::Put(found.value()))
}

fn are_distinct<'a>(keys: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys.windows(2).all(|pair| pair[0] != pair[1])
}
