//! Several keys at once: their shards are locked together, in the order of their numbers, so that two such requests never wait
//! for each other, and no reader sees a half of one.

use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::RwLockWriteGuard;

use super::{Entry, MemoryStore, PAIR_BYTES, SHARDS, Shard};
use crate::store::{Change, StoreError, UpdateMany, Value};

/// Where a key is.
#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    /// Its shard's place among those that are locked.
    locked: usize,
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.table.find(hash, |entry| entry.key() == key)
    }
}

impl MemoryStore {
    /// Where keys are, and the numbers of the shards that these are in, in their order.
    fn places(&self, keys: &[&[u8]]) -> (Vec<Place>, Vec<usize>) {
        let places = keys.iter().map(|key| {
            let hash = self.hasher.hash_one(*key);
            (hash, (hash >> 32) as usize % SHARDS)
        });
        let places: Vec<_> = places.collect();
        let mut shards: Vec<usize> = places.iter().map(|(_, shard)| *shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let place = |(hash, shard)| Place { hash, locked: shards.partition_point(|&known| known < shard) };
        (places.into_iter().map(place).collect(), shards)
    }

    pub(super) fn read_many<R>(&self, keys: &[&[u8]], now: impl FnOnce(&[Option<Value<'_>>]) -> R) -> R {
        let (places, shards) = self.places(keys);
        let locked: Vec<_> = shards.iter().map(|&shard| self.shards[shard].read()).collect();
        let found = places.iter().zip(keys);
        let found = found.map(|(at, key)| locked[at.locked].find(at.hash, key).map(Entry::value));
        now(&found.collect::<Vec<_>>())
    }

    pub(super) fn change_many(
        &self,
        keys: &[&[u8]],
        update: &mut impl UpdateMany,
    ) -> Result<Option<u64>, StoreError> {
        let (places, shards) = self.places(keys);
        let mut locked: Vec<_> = shards.iter().map(|&shard| self.shards[shard].write()).collect();
        let mut changes = Vec::new();
        {
            let look = |(at, key): (&Place, &&[u8])| locked[at.locked].find(at.hash, key).map(Entry::value);
            let present: Vec<_> = if update.looks() {
                places.iter().zip(keys).map(look).collect()
            } else {
                vec![None; keys.len()]
            };
            update.decide(&present, &mut |at, change| match change {
                Change::Keep => {}
                Change::Put(value) => changes.push((at, Some((Entry::new(keys[at], value), value.revision)))),
                Change::Delete => changes.push((at, None)),
            });
        }
        if changes.is_empty() {
            return Ok(None);
        }
        // Before anything changes: it is all or nothing.
        let bytes = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.bytes() + PAIR_BYTES);
        let (mut old, mut new, mut listed) = (0, 0, Vec::new());
        for (at, entry) in &changes {
            let (place, key) = (places[*at], keys[*at]);
            let before = locked[place.locked].find(place.hash, key);
            old += bytes(before);
            new += bytes(entry.as_ref().map(|(entry, _)| entry));
            let placed = if before.is_some() == entry.is_some() { None } else { self.placed(key) };
            if entry.is_none() {
                old += Self::bytes_of(placed.as_ref());
                continue;
            }
            new += Self::bytes_of(placed.as_ref());
            if placed.is_some() {
                // It is nowhere to be seen: its shard is locked.
                self.list(placed).inspect_err(|_| self.unlist_all(&listed))?;
                listed.push(key);
            }
        }
        self.room.exchange(old, new).inspect_err(|_| self.unlist_all(&listed))?;
        let seq = self.numbers.next();
        let more = changes.len() as u64 - 1;
        let mut replaced = Vec::with_capacity(changes.len());
        for (at, entry) in changes {
            let place = places[at];
            let entry = entry.map(|(mut entry, revision)| {
                entry.give(self.numbers.revision_of(seq, revision));
                entry
            });
            replaced.extend(self.exchange(&mut locked[place.locked], place.hash, keys[at], entry));
        }
        self.numbers.count_more(more);
        // What they had is dropped without the locks.
        drop(locked);
        drop(replaced);
        Ok(Some(seq))
    }

    /// Puts an entry, for which there is room, in the place of what a key has; gives that.
    fn exchange(
        &self,
        shard: &mut RwLockWriteGuard<'_, Shard>,
        hash: u64,
        key: &[u8],
        entry: Option<Entry>,
    ) -> Option<Entry> {
        let Shard { table, bytes } = &mut **shard;
        *bytes += entry.as_ref().map_or(0, Entry::bytes);
        let (hash_of, new) = (|entry: &Entry| self.hasher.hash_one(entry.key()), entry.as_ref());
        self.deadlines.note(hash, table.find(hash, |entry| entry.key() == key), new);
        let replaced = match (table.entry(hash, |entry| entry.key() == key, hash_of), entry) {
            (TableEntry::Occupied(mut occupied), Some(entry)) => {
                Some(std::mem::replace(occupied.get_mut(), entry))
            }
            (TableEntry::Occupied(occupied), None) => {
                self.unlist(key);
                Some(occupied.remove().0)
            }
            (TableEntry::Vacant(vacant), Some(entry)) => {
                vacant.insert(entry);
                None
            }
            (TableEntry::Vacant(_), None) => None,
        };
        *bytes -= replaced.as_ref().map_or(0, Entry::bytes);
        replaced
    }
}

#[cfg(test)]
mod tests;
