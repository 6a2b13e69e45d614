//! A store is emptied by one batch. Where it holds little, that deletes its entries, and may have other writes before and behind. Else
//! a small one of its own does, however much the store holds: its entries have a number, and from this batch on it has another one, of
//! which there are none. What the former number has is deleted afterwards, part by part, by the thread that writes when it has nothing
//! else to do, and every now and then when it has; after a kill the next start goes on with it.
//!
//! ```text
//! "g", store:32 -> number:32      what the store has now; before it is cleared first its number is its own
//! "x", number:32 -> nothing       what has this number is to go: its keyspace as a whole, then its records in `order` and `ends`
//! ```
//!
//! A number is given once, to a store that is made or cleared. (`Keyspace::clear` of the engine would do without numbers for the entries, but
//! not for what stands beside them, and it is no part of a batch: a kill behind it would leave entries and totals that disagree.)
//!
//! The batch is synced whatever the policy is, and everything before it with it. It has to be where there is a former number: what has
//! that goes for good next, which a power cut does not undo, and it must not undo the batch either.

use std::ops::Bound;
use std::sync::Arc;

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Health, Totals, entries_name, meta_key};
use crate::store::disk::ends::Space;
use crate::store::disk::ledger::Ledger;
use crate::store::disk::record::{self, Found};
use crate::store::disk::staged::{Held, Place, Staged};
use crate::store::revision;

/// So many entries at most are deleted with a clear, which takes some milliseconds: to make a keyspace and to delete one takes a tenth
/// of a second.
const FEW: u64 = if cfg!(test) { 5 } else { 4 << 10 };
/// And only where they have so many bytes at most: some are read for it.
const FEW_BYTES: u64 = 4 << 20;
/// But where so many versions and deletions of entries lie about, as far as is known: all of them are looked through.
const FEW_LOOKED_AT: usize = 16 * FEW as usize;
/// Records that one part has: a few milliseconds, which a write that comes meanwhile waits.
const RECORDS_AT_ONCE: usize = if cfg!(test) { 64 } else { 1 << 10 };
const NUMBER_BYTES: usize = size_of::<u32>();

/// What was there before stores were cleared.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// What has these numbers is to go.
    numbers: Vec<u32>,
    /// How far it is with the first of them: what was deleted would be looked through each time.
    course: Course,
}

#[derive(Debug, Default)]
struct Course {
    /// All that is in order is deleted, and what ends comes next.
    is_at_ends: bool,
    /// The last record that was deleted.
    behind: Vec<u8>,
}

impl Engine {
    /// The number of what a store has.
    pub(super) fn number_of(&self, id: u32) -> fjall::Result<u32> {
        match self.meta.get(meta_key(b'g', id))? {
            Some(number) => read_number(&number).ok_or(fjall::Error::Unrecoverable),
            None => Ok(id),
        }
    }

    /// Finds what is to go, when it is opened.
    pub(super) fn look_for_cleared(&self) -> fjall::Result<()> {
        let mut cleared = Cleared::default();
        for record in self.meta.prefix([b'x']) {
            let number = record.key()?.get(1..).and_then(read_number);
            cleared.numbers.push(number.ok_or(fjall::Error::Unrecoverable)?);
        }
        *self.cleared.lock() = cleared;
        Ok(())
    }

    /// A number that nothing has, for a store that is made or cleared.
    ///
    /// # Errors
    /// None is left.
    pub(in crate::store::disk) fn next_number(&self) -> fjall::Result<u32> {
        let cleared = self.cleared.lock();
        let stores = self.stores.iter().flat_map(|(id, space)| [*id, space.number]);
        // The number that a store has is higher than those that it had, so none comes again.
        let last = stores.chain(cleared.numbers.iter().copied()).fold(0, u32::max);
        last.checked_add(1).ok_or(fjall::Error::Unrecoverable)
    }

    /// Makes the keyspace that a store is to have when it is cleared: before readers are kept away, as that takes some syncs.
    ///
    /// # Errors
    /// No number is left, or the engine fails.
    pub(in crate::store::disk) fn prepare_clear(&self, id: u32) -> fjall::Result<()> {
        let number = self.next_number()?;
        // Nobody looks at what is made by half.
        let _cleared = self.cleared.lock();
        self.open_space(id, number)?;
        Ok(())
    }

    /// Has a batch empty a store that holds few entries with what it has so far. Gives whether that is so; otherwise, and where they
    /// cannot be read, nothing is added, and [`clear`](Self::clear) does it.
    pub(super) fn clear_few(
        &self,
        id: u32,
        staged: &mut Staged,
        totals_of: impl Fn(u32) -> Option<Arc<Totals>>,
    ) -> bool {
        let Some(space) = self.stores.get(&id) else { return true };
        let held = staged.held(id, totals_of);
        let keys = match self.few_keys(space, held, staged) {
            Ok(Some(keys)) => keys,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(?error, "what a store has cannot be read, and is cleared as a whole");
                return false;
            }
        };
        let deletion = |key| staged.prepare(Place::new(space, key), None);
        let Ok(deletions) = keys.iter().map(deletion).collect::<Result<Vec<_>, _>>() else { return false };
        let mut counted = Held { revision: held.revision, ..Held::default() };
        deletions.iter().for_each(|deletion| deletion.count_before(&mut counted));
        if counted != held {
            return false;
        }
        staged.empty(space, deletions, emptied(held, 1).revision);
        true
    }

    /// The keys of a store that holds so much with what a batch has so far; `None`: these are many.
    fn few_keys(&self, space: &Space, held: Held, staged: &Staged) -> fjall::Result<Option<Vec<Arc<[u8]>>>> {
        if held.entries == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut are_few = held.entries <= FEW && held.bytes <= FEW_BYTES;
        let keys = staged.keys_of(space, || {
            are_few = are_few && space.entries.approximate_len() <= FEW_LOOKED_AT;
            let mut keys = Vec::new();
            if !are_few {
                return Ok(keys);
            }
            for entry in space.entries.iter() {
                let (engine_key, entry) = entry.into_inner_if(|key| record::is_digest(key))?;
                keys.push(match entry {
                    None => record::plain_key(&engine_key).into(),
                    Some(entry) => {
                        let found = Found::new(&engine_key, entry);
                        let key = found.as_ref().and_then(Found::long_key);
                        key.ok_or(fjall::Error::Unrecoverable)?.into()
                    }
                });
                // Most of them may go with this very batch.
                if keys.len() > FEW_LOOKED_AT {
                    are_few = false;
                    break;
                }
            }
            Ok::<_, fjall::Error>(keys)
        })?;
        Ok(are_few.then_some(keys))
    }

    /// Empties a store that holds so much; `times`: so many writes are this. Gives what it holds then. Nobody has a
    /// [`View`](super::View) made meanwhile.
    ///
    /// # Errors
    /// See [`commit`](Self::commit).
    pub(in crate::store::disk) fn clear(
        &mut self,
        id: u32,
        before: Held,
        times: usize,
        ledger: &Ledger,
    ) -> fjall::Result<(Health, Held)> {
        let held = emptied(before, times);
        let Some(former) = self.stores.get(&id).map(|space| space.number) else {
            return Ok((Health::Sound, before));
        };
        let mut batch = self.db.batch();
        batch.insert(&self.meta, meta_key(b't', id), held.to_bytes());
        // The one that is prepared, where no store was made meanwhile, and the engine was not opened again.
        let number = self.next_number()?;
        let space = self.open_space(id, number)?;
        batch.insert(&self.meta, meta_key(b'g', id), number.to_be_bytes());
        batch.insert(&self.meta, meta_key(b'x', former), []);
        // Nothing is in order, whether the store had an order or not.
        self.put_in_order_whole(id, &mut batch);
        let health = self.commit_stamped(batch, PersistMode::SyncAll, ledger)?;
        space.set_ordered();
        self.stores.insert(id, space);
        self.cleared.lock().numbers.push(former);
        Ok((health, held))
    }

    /// Whether something is to go.
    pub(in crate::store::disk) fn has_cleared(&self) -> bool {
        self.cleared_count() > 0
    }

    /// Clears of which something is to go still.
    pub(in crate::store::disk) fn cleared_count(&self) -> usize {
        self.cleared.lock().numbers.len()
    }

    /// Deletes a part of what is to go. Gives whether there is more, and room for that: `has_room` says so.
    ///
    /// # Errors
    /// See [`commit`](Self::commit).
    pub(in crate::store::disk) fn clean(
        &self,
        mode: PersistMode,
        ledger: &Ledger,
        has_room: &dyn Fn() -> bool,
    ) -> fjall::Result<bool> {
        let numbers = self.cleared.lock().numbers.clone();
        let Some(&number) = numbers.first() else { return Ok(false) };
        // Most of the room, and none is needed for it.
        for name in numbers.into_iter().map(entries_name) {
            if self.db.keyspace_exists(&name) {
                // Its files go with the last of its readers, or at the next start.
                self.db.delete_keyspace(self.db.keyspace(&name, KeyspaceCreateOptions::default)?)?;
            }
        }
        if !has_room() {
            return Ok(false);
        }
        let (mut batch, mut bytes) = (self.db.batch(), 0);
        let Course { mut is_at_ends, mut behind } = std::mem::take(&mut self.cleared.lock().course);
        loop {
            let records = if is_at_ends { &self.ends } else { &self.order };
            for record in part_of(number, records, &behind)? {
                bytes += record.len();
                batch.remove(records, &record[..]);
                behind = record;
            }
            if is_at_ends || !batch.is_empty() {
                break;
            }
            (is_at_ends, behind) = (true, Vec::new());
        }
        let is_last = batch.is_empty();
        if is_last {
            batch.remove(&self.meta, meta_key(b'x', number));
        }
        if self.commit_stamped(batch, mode, ledger)? == Health::Failed {
            return Err(fjall::Error::Poisoned);
        }
        {
            let mut cleared = self.cleared.lock();
            if is_last {
                cleared.numbers.retain(|known| *known != number);
            } else {
                cleared.course = Course { is_at_ends, behind };
            }
        }
        #[cfg(test)]
        super::planted::fail(super::planted::Place::BetweenParts)?;
        self.written(bytes as u64)?;
        Ok(self.has_cleared())
    }
}

/// What a store holds once it is emptied so often.
fn emptied(before: Held, times: usize) -> Held {
    let revision = (0..times).fold(before.revision, |last, _| revision::counted(0, last));
    Held { revision, ..Held::default() }
}

/// The next records of a number, behind one of them, or from the first on.
fn part_of(number: u32, records: &Keyspace, behind: &[u8]) -> fjall::Result<Vec<Vec<u8>>> {
    let first = number.to_be_bytes();
    let from = if behind.is_empty() { Bound::Included(&first[..]) } else { Bound::Excluded(behind) };
    let found = records.range::<&[u8], _>((from, Bound::Unbounded)).map(|record| Ok(record.key()?.to_vec()));
    let is_its =
        |record: &fjall::Result<Vec<u8>>| record.as_ref().map_or(true, |key| key.starts_with(&first));
    found.take_while(is_its).take(RECORDS_AT_ONCE).collect()
}

fn read_number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<NUMBER_BYTES>().map(|number| u32::from_be_bytes(*number))
}

#[cfg(test)]
mod left {
    use super::*;

    impl Engine {
        /// Nothing is cleared or deleted meanwhile.
        pub(in crate::store::disk) fn as_it_is<R>(&self, look: impl FnOnce() -> R) -> R {
            let _cleared = self.cleared.lock();
            look()
        }

        /// Records that stand beside entries, of whatever number, and keyspaces of entries.
        pub(in crate::store::disk) fn records(&self) -> (usize, Vec<String>) {
            let names = self.db.list_keyspace_names();
            let entries = names.iter().filter(|name| name.starts_with("s")).map(|name| name.to_string());
            let mut entries: Vec<_> = entries.collect();
            entries.sort();
            (self.order.iter().count() + self.ends.iter().count(), entries)
        }
    }
}
