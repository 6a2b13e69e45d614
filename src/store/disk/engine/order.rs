//! The keys of all stores in Erlang's order: beside the entries, and changed in one batch with these.
//!
//! An entry has one record here, and a record has its entry: the place of its key (`store/ordered.rs`), with the engine's key. A
//! write over a key that is there leaves it alone.
//!
//! A folder of a format before 6 has none of them. When it is opened they are written, in the order of the entries, batch after
//! batch; each batch says how far it is (`"o"` in `meta`), and the last one that all is there. So it goes on after a kill where it was.
//! Where the disk has no room for it the store is opened without an order, and it goes on at the next start: meanwhile keys that come
//! and go have their records changed as ever, which is right whether they come before that place or behind it.
//!
//! ```text
//! "o", store:32 -> 1                          all entries have their records
//!                  0, the engine's key        those up to this one have; nothing stands there before the first batch
//! ```

use std::ops::Bound;

use fjall::{OwnedWriteBatch, PersistMode, Readable, Slice};
use xxhash_rust::xxh3::Xxh3;

use super::{Engine, Health, Space, TABLES_WAITING_MAX, View, meta_key};
use crate::store::disk::error::engine_error;
use crate::store::disk::ledger::Ledger;
use crate::store::disk::record::{self, Found};
use crate::store::ordered::{Index, order_head_of, place_of};
use crate::store::{Shows, StoreError, Value, Visit};

const STORE_BYTES: usize = size_of::<u32>();
const WHOLE: u8 = 1;
const BEHIND: u8 = 0;
/// A batch of records that an older folder gets has about so many bytes.
const BATCH_BYTES: usize = if cfg!(test) { 16 << 10 } else { 4 << 20 };
/// Entries between two lines in the log that say how far it is.
const TELL_EVERY: u64 = 1_000_000;

impl Space {
    fn order_record(&self, place: &[u8]) -> Vec<u8> {
        [&self.number.to_be_bytes(), place].concat()
    }

    /// Adds to a batch what stands in a place; `None`: nothing does.
    pub(in crate::store::disk) fn put_in_order(
        &self,
        batch: &mut OwnedWriteBatch,
        place: &[u8],
        engine_key: Option<&[u8]>,
    ) {
        match engine_key {
            Some(engine_key) => batch.insert(&self.order, self.order_record(place), engine_key),
            None => batch.remove(&self.order, self.order_record(place)),
        }
    }

    /// What stands in a place.
    pub(in crate::store::disk) fn in_place(&self, place: &[u8]) -> fjall::Result<Option<Slice>> {
        self.order.get(self.order_record(place))
    }
}

impl Engine {
    /// Adds to the batch that makes a store that it has an order.
    pub(super) fn begin_in_order(&self, id: u32, batch: &mut OwnedWriteBatch) {
        self.put_in_order_whole(id, batch);
        if let Some(space) = self.stores.get(&id) {
            space.set_ordered();
        }
    }

    /// Adds to a batch that all entries of a store have their records: it has none.
    pub(super) fn put_in_order_whole(&self, id: u32, batch: &mut OwnedWriteBatch) {
        batch.insert(&self.meta, meta_key(b'o', id), [WHOLE]);
    }

    pub(super) fn look_for_order(&self, id: u32) -> fjall::Result<()> {
        let mark = self.meta.get(meta_key(b'o', id))?;
        if let Some(space) = self.stores.get(&id).filter(|_| mark.is_some_and(|mark| *mark == [WHOLE])) {
            space.set_ordered();
        }
        Ok(())
    }

    /// Gives the stores of an older format their order, where there is room for it. `has_room` says whether there is for so many bytes.
    ///
    /// # Errors
    /// What is there cannot be read, or what is written fails: the engine is opened again before anything else is written.
    pub(in crate::store::disk) fn put_all_in_order(
        &self,
        ledger: &Ledger,
        has_room: &dyn Fn(u64) -> bool,
    ) -> fjall::Result<()> {
        let view = self.view();
        for (id, names) in self.names()? {
            let Some(space) = self.stores.get(&id).filter(|space| !space.is_ordered()) else { continue };
            let (entries, _) = view.totals(id)?;
            let tells = entries >= TELL_EVERY;
            let store = names.join(", ");
            if tells {
                tracing::info!(
                    store,
                    entries,
                    "the keys are put in order, once: this folder is of a version without"
                );
            }
            let mut done = 0;
            while !space.is_ordered() {
                self.wait_for_tables(TABLES_WAITING_MAX)?;
                #[cfg(test)]
                let has_room = &|bytes| {
                    super::planted::fail(super::planted::Place::RoomForOrder).is_ok() && has_room(bytes)
                };
                if !has_room(BATCH_BYTES as u64) {
                    tracing::warn!(
                        store,
                        "the disk has no room to put the keys in order: scans in order are refused until a start that finds room"
                    );
                    break;
                }
                let before = done / TELL_EVERY;
                done += self.put_in_order(space, &view, ledger)?;
                if tells && done / TELL_EVERY > before {
                    tracing::info!(store, done, entries, "keys are put in order");
                }
            }
        }
        Ok(())
    }

    /// Writes a batch of it; gives of how many entries.
    fn put_in_order(&self, space: &Space, view: &View, ledger: &Ledger) -> fjall::Result<u64> {
        let mark_key = meta_key(b'o', space.id);
        let mark = self.meta.get(&mark_key)?;
        let after = mark.as_ref().and_then(|mark| mark.strip_prefix(&[BEHIND])).unwrap_or_default();
        let entries =
            view.snapshot.range::<&[u8], _>(&space.entries, (Bound::Excluded(after), Bound::Unbounded));
        let (mut batch, mut bytes, mut count) = (self.db.batch(), 0, 0);
        let mut mark = vec![WHOLE];
        for pair in entries {
            let (engine_key, entry) = pair.into_inner_if(|key: &Slice| record::is_digest(key))?;
            let found = match entry {
                Some(entry) => Some(Found::new(&engine_key, entry).ok_or(fjall::Error::Unrecoverable)?),
                None => None,
            };
            let key =
                found.as_ref().and_then(Found::long_key).unwrap_or_else(|| record::plain_key(&engine_key));
            let place = place_of(key);
            bytes += STORE_BYTES + place.len() + engine_key.len();
            count += 1;
            space.put_in_order(&mut batch, &place, Some(&engine_key));
            if bytes >= BATCH_BYTES {
                mark = [&[BEHIND], &engine_key[..]].concat();
                break;
            }
        }
        let is_whole = mark == [WHOLE];
        batch.insert(&self.meta, mark_key, mark);
        // The mark says what is there: a power cut must not take the one and leave the other.
        if self.commit_stamped(batch, PersistMode::SyncData, ledger)? == Health::Failed {
            return Err(fjall::Error::Poisoned);
        }
        #[cfg(test)]
        super::planted::fail(super::planted::Place::BetweenOrders)?;
        self.written(bytes as u64)?;
        if is_whole {
            space.set_ordered();
        }
        Ok(count)
    }
}

/// The records of a store, or what they should be, as one number: the same for the same records, in whatever order they are added.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::disk) struct Sum {
    records: u64,
    hashes: u128,
}

impl Sum {
    pub(in crate::store::disk) fn add(&mut self, place: &[u8], engine_key: &[u8]) {
        let mut hash = Xxh3::new();
        hash.update(place);
        hash.update(engine_key);
        self.records += 1;
        self.hashes = self.hashes.wrapping_add(hash.digest128());
    }
}

impl View {
    /// What is wrong with the order of a store, whose entries should have records with this sum. `goes_on` is asked now and then.
    ///
    /// # Errors
    /// It cannot be read.
    pub(in crate::store::disk) fn misplaced(
        &self,
        id: u32,
        expected: Sum,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> fjall::Result<Option<String>> {
        let Some(space) = self.stores.get(&id).filter(|space| space.is_ordered()) else { return Ok(None) };
        let mut sum = Sum::default();
        let records = || self.snapshot.prefix(&space.order, space.number.to_be_bytes());
        for pair in records() {
            let (record, engine_key) = pair.into_inner()?;
            sum.add(record.get(STORE_BYTES..).unwrap_or_default(), &engine_key);
            if sum.records.is_multiple_of(1 << 16) && !goes_on() {
                return Ok(Some("was not read to its end".into()));
            }
        }
        if sum == expected {
            return Ok(None);
        }
        // Which it is takes a look at each.
        for pair in self.snapshot.iter(&space.entries) {
            let (engine_key, entry) = pair.into_inner()?;
            let found = Found::new(&engine_key, entry).ok_or(fjall::Error::Unrecoverable)?;
            let key = found.long_key().unwrap_or_else(|| record::plain_key(&engine_key));
            let record = self.snapshot.get(&space.order, space.order_record(&place_of(key)))?;
            if record.is_none_or(|record| record != engine_key) {
                return Ok(Some("has an entry that is missing in the order of its keys".into()));
            }
        }
        Ok(Some(format!(
            "has {} entries, and {} keys are in order: some are of entries that are not there",
            expected.records, sum.records
        )))
    }

    /// The keys of a store in order; `None`: they are in none.
    pub(in crate::store::disk) fn order_of(&self, id: u32, shows: Shows) -> Option<Ordered<'_>> {
        let space = self.stores.get(&id).filter(|space| space.is_ordered())?;
        Some(Ordered { view: self, space, shows })
    }
}

/// The keys of a store in order, at one moment.
pub(in crate::store::disk) struct Ordered<'a> {
    view: &'a View,
    space: &'a Space,
    shows: Shows,
}

impl Ordered<'_> {
    /// The entry of a record, which is there.
    fn found(&self, engine_key: &Slice) -> Result<(Found, usize), StoreError> {
        let entry = self.view.snapshot.get(&self.space.entries, engine_key);
        let entry = entry.map_err(|error| engine_error(&error))?.ok_or(StoreError::Io("damaged"))?;
        let read = entry.len();
        Ok((Found::new(engine_key, entry).ok_or(StoreError::Io("damaged"))?, read))
    }
}

impl Index for Ordered<'_> {
    type At = Slice;

    fn between<'s>(
        &'s self,
        low: Bound<&'s [u8]>,
        high: Bound<&'s [u8]>,
        reverse: bool,
    ) -> Box<dyn Iterator<Item = Result<(Vec<u8>, Slice), StoreError>> + 's> {
        let low = match low {
            Bound::Unbounded => Bound::Included(self.space.order_record(&[])),
            low => low.map(|low| self.space.order_record(low)),
        };
        let high = match high {
            Bound::Unbounded => self
                .space
                .number
                .checked_add(1)
                .map_or(Bound::Unbounded, |next| Bound::Excluded(next.to_be_bytes().to_vec())),
            high => high.map(|high| self.space.order_record(high)),
        };
        let records = self.view.snapshot.range(&self.space.order, (low, high));
        let read = |pair: fjall::Guard| {
            let (record, engine_key) = pair.into_inner().map_err(|error| engine_error(&error))?;
            Ok((record.get(STORE_BYTES..).unwrap_or_default().to_vec(), engine_key))
        };
        if reverse { Box::new(records.rev().map(read)) } else { Box::new(records.map(read)) }
    }

    fn show(
        &self,
        engine_key: &Slice,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Option<(Visit, usize)>, StoreError> {
        if self.shows == Shows::Keys && !record::is_digest(engine_key) {
            return Ok(Some((visit(record::plain_key(engine_key), None), 0)));
        }
        let (found, read) = self.found(engine_key)?;
        let key = found.long_key().unwrap_or_else(|| record::plain_key(engine_key));
        let value = (self.shows != Shows::Keys).then(|| found.value());
        Ok(Some((visit(key, value), read)))
    }

    fn whole(&self, engine_key: &Slice, max: usize) -> Result<(Vec<u8>, usize), StoreError> {
        if !record::is_digest(engine_key) {
            return Ok((order_head_of(record::plain_key(engine_key), max), engine_key.len()));
        }
        let (found, read) = self.found(engine_key)?;
        Ok((order_head_of(found.long_key().unwrap_or_default(), max), read))
    }
}

#[cfg(test)]
mod spoiled {
    use super::*;

    impl Engine {
        /// Leaves what a version without the order leaves.
        pub(in crate::store::disk) fn take_order_out(&self, ledger: &Ledger) -> fjall::Result<()> {
            let mut batch = self.db.batch();
            for id in self.stores.keys() {
                batch.remove(&self.meta, meta_key(b'o', *id));
            }
            for record in self.order.iter() {
                batch.remove(&self.order, record.key()?);
            }
            assert_eq!(self.commit_stamped(batch, PersistMode::SyncAll, ledger)?, Health::Sound);
            Ok(())
        }

        /// Takes out what is in a place, or puts something there that has no entry.
        pub(in crate::store::disk) fn misplace(
            &self,
            is_more: bool,
            key: &[u8],
            place: &[u8],
            ledger: &Ledger,
        ) -> fjall::Result<()> {
            let (mut batch, space) = (self.db.batch(), &self.stores[&1]);
            let engine_key = [&record::engine_key(key), &b"other"[..]].concat();
            space.put_in_order(&mut batch, place, is_more.then_some(&engine_key));
            assert_eq!(self.commit_stamped(batch, PersistMode::SyncAll, ledger)?, Health::Sound);
            Ok(())
        }
    }
}
