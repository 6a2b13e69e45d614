//! The store in memory: sharded, one allocation per entry.
//!
//! An entry is one block of bytes, `traits:8, revision:56, key length:16, key, value`, so that an entry of small key and
//! value costs one allocation and sixteen bytes of table. What other numbers an entry has (`head.rs`) stand before its value. A
//! large value has a block of its own that is shared with its readers.

mod deadlines;
mod many;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::RwLock;

use deadlines::Deadlines;

use super::head::Head;
use super::revision::REVISION_RAISED_MAX;
use super::room::PAIR_BYTES;
use super::{
    Batch, Change, Done, Due, DueDone, Engine, OpenError, Pending, PendingMany, ReadDone, ReadManyDone, Room,
    Scan, ScanDone, Shows, Store, StoreError, Update, UpdateMany, Value, WriteDone,
};
use crate::etf::SharedBytes;

/// Number of shards: a table that grows is rehashed a 256th at a time, and two cores rarely meet in one.
const SHARDS: usize = 256;
/// Values from this size on are shared instead of copied, in bytes: above it a copy costs more than a reference
/// count and a slice of its own in the write.
const SHARED_FROM_BYTES: usize = 64 << 10;
/// A key's length has two bytes: it is less than `SHARED_FROM_BYTES`.
const HEAD_BYTES: usize = 10;
const _: () = assert!(SHARED_FROM_BYTES <= 1 << 16, "a short key's length fits");

enum Entry {
    Small(Box<[u8]>),
    Large(Box<Large>),
}

struct Large {
    key: Box<[u8]>,
    value: SharedBytes,
    /// Without the revision.
    head: Head,
    revision: u64,
}

impl Entry {
    /// One that is [given](Self::give) its revision when it is put.
    fn new(key: &[u8], value: Value<'_>) -> Self {
        // It is no number among others here.
        let head = Head { revision: 0, ..Head::of(&value) };
        if value.bytes.len() >= SHARED_FROM_BYTES || key.len() >= SHARED_FROM_BYTES {
            return Self::Large(Box::new(Large {
                key: key.into(),
                value: value.shared.map_or_else(|| value.bytes.into(), SharedBytes::clone),
                head,
                revision: 0,
            }));
        }
        let mut block = Vec::with_capacity(HEAD_BYTES + key.len() + head.numbers_len() + value.bytes.len());
        let [a, b] = (key.len() as u16).to_le_bytes();
        block.extend_from_slice(&[head.first(), 0, 0, 0, 0, 0, 0, 0, a, b]);
        block.extend_from_slice(key);
        head.write_numbers(&mut block);
        block.extend_from_slice(value.bytes);
        Self::Small(block.into_boxed_slice())
    }

    /// Gives it the revision of the write that puts it.
    #[inline]
    fn give(&mut self, revision: u64) {
        match self {
            Self::Small(block) => {
                // It was made here, with a head.
                if let Some(word) = block.first_chunk_mut::<8>() {
                    *word = (revision << 8 | u64::from(word[0])).to_le_bytes();
                }
            }
            Self::Large(large) => large.revision = revision,
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        match self {
            Self::Small(block) => {
                let len = u16::from_le_bytes([block[8], block[9]]) as usize;
                &block[HEAD_BYTES..HEAD_BYTES + len]
            }
            Self::Large(large) => &large.key,
        }
    }

    /// Of key and value, and of the numbers beside these.
    #[inline]
    fn bytes(&self) -> u64 {
        match self {
            Self::Small(block) => (block.len() - HEAD_BYTES) as u64,
            Self::Large(large) => (large.key.len() + large.value.len() + large.head.numbers_len()) as u64,
        }
    }

    /// What stands beside the value, and where that begins in the block.
    #[inline]
    fn head_of(block: &[u8], key_len: usize) -> (Head, usize) {
        let from = HEAD_BYTES + key_len;
        // It was written here.
        let (head, numbers) = Head::read(block[0], &block[from..]).unwrap_or_default();
        (head, from + numbers)
    }

    #[inline]
    fn revision_of(block: &[u8]) -> u64 {
        block.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word) >> 8)
    }

    /// See [`Value::deadline`].
    #[inline]
    fn deadline(&self) -> u64 {
        match self {
            Self::Small(block) if !Head::has_numbers(block[0]) => 0,
            Self::Small(block) => Self::head_of(block, self.key().len()).0.deadline,
            Self::Large(large) => large.head.deadline,
        }
    }

    fn copy(&self) -> u32 {
        match self {
            Self::Small(block) => Self::head_of(block, self.key().len()).0.copy,
            Self::Large(large) => large.head.copy,
        }
    }

    #[inline]
    fn value(&self) -> Value<'_> {
        match self {
            Self::Small(block) => {
                let (Head { traits, copy, deadline, .. }, from) = Self::head_of(block, self.key().len());
                let revision = Self::revision_of(block);
                Value { bytes: &block[from..], shared: None, traits, copy, revision, deadline }
            }
            Self::Large(large) => {
                let Head { traits, copy, deadline, .. } = large.head;
                let (bytes, revision) = (&large.value, large.revision);
                Value { bytes, shared: Some(bytes), traits, copy, revision, deadline }
            }
        }
    }
}

/// One part of the entries.
#[derive(Default)]
struct Shard {
    table: HashTable<Entry>,
    /// Of all keys and values, and of the numbers beside these.
    bytes: u64,
}

/// Counts the writes. On a line of its own: readers of what stands next to it would wait for writers.
#[repr(align(64))]
struct Numbers {
    seq: AtomicU64,
    /// By so much a write's revision is higher than its number. It never gets less.
    ahead: AtomicU64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { seq: AtomicU64::new(1), ahead: AtomicU64::new(0) }
    }
}

impl Numbers {
    /// The number of a write. Under the lock of its shard, so that the writes of a key have theirs in order.
    #[inline]
    fn next(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The revision of the write with a number, where it comes with this one. Under the same lock.
    #[inline]
    fn revision_of(&self, seq: u64, of_value: u64) -> u64 {
        if of_value != 0 {
            self.ahead.fetch_max(of_value.min(REVISION_RAISED_MAX).saturating_sub(seq), Ordering::AcqRel);
            return of_value;
        }
        seq + self.ahead.load(Ordering::Relaxed)
    }

    fn revision(&self) -> u64 {
        self.seq.load(Ordering::Acquire) + self.ahead.load(Ordering::Acquire)
    }

    fn raise(&self, above: u64) {
        // Every write from here on has a higher number than this.
        let seq = self.seq.load(Ordering::Acquire);
        self.ahead.fetch_max(above.min(REVISION_RAISED_MAX).saturating_sub(seq), Ordering::AcqRel);
    }
}

/// A store in memory. Answers at once, always.
pub struct MemoryStore {
    hasher: RandomState,
    shards: Arc<[RwLock<Shard>]>,
    room: Arc<Room>,
    numbers: Numbers,
    deadlines: Deadlines,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::within(Arc::default())
    }
}

impl MemoryStore {
    /// A store that holds as much as there is room for, which others may share.
    pub fn within(room: Arc<Room>) -> Self {
        Self::hashed_by(RandomState::new(), room)
    }

    fn hashed_by(hasher: RandomState, room: Arc<Room>) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher, shards, room, numbers: Numbers::default(), deadlines: Deadlines::default() }
    }

    #[inline]
    fn shard(&self, key: &[u8]) -> (u64, &RwLock<Shard>) {
        let hash = self.hasher.hash_one(key);
        // The table itself uses the lowest and the highest bits.
        (hash, &self.shards[(hash >> 32) as usize % SHARDS])
    }

    /// Puts an entry into its shard, with the revision that its value has come with. Gives the write's number, and the entry that
    /// it replaces, to be dropped without the lock.
    #[inline]
    fn insert(
        &self,
        shard: &mut Shard,
        hash: u64,
        key: &[u8],
        mut entry: Entry,
        revision: u64,
    ) -> Result<(u64, Option<Entry>), StoreError> {
        let Shard { table, bytes } = shard;
        let hash_of = |entry: &Entry| self.hasher.hash_one(entry.key());
        match table.entry(hash, |entry| entry.key() == key, hash_of) {
            TableEntry::Occupied(mut occupied) => {
                let (old, new) = (occupied.get().bytes(), entry.bytes());
                self.room.exchange(old, new)?;
                *bytes = *bytes - old + new;
                self.deadlines.note(hash, Some(occupied.get()), Some(&entry));
                let seq = self.number(&mut entry, revision);
                Ok((seq, Some(std::mem::replace(occupied.get_mut(), entry))))
            }
            TableEntry::Vacant(vacant) => {
                self.room.exchange(0, entry.bytes() + PAIR_BYTES)?;
                *bytes += entry.bytes();
                self.deadlines.note(hash, None, Some(&entry));
                let seq = self.number(&mut entry, revision);
                vacant.insert(entry);
                Ok((seq, None))
            }
        }
    }

    /// Gives an entry that there is room for its numbers.
    #[inline]
    fn number(&self, entry: &mut Entry, revision: u64) -> u64 {
        let seq = self.numbers.next();
        entry.give(self.numbers.revision_of(seq, revision));
        seq
    }

    fn remove(&self, shard: &mut Shard, hash: u64, key: &[u8]) -> Option<Entry> {
        let Shard { table, bytes } = shard;
        let removed = table.find_entry(hash, |entry| entry.key() == key).ok().map(|entry| entry.remove().0);
        if let Some(removed) = &removed {
            *bytes -= removed.bytes();
            self.deadlines.note(hash, Some(removed), None);
            self.room.give_back(removed.bytes() + PAIR_BYTES);
        }
        removed
    }
}

impl Store for MemoryStore {
    const AT_ONCE: bool = true;

    #[inline]
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        _later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let (hash, shard) = self.shard(key);
        let shard = shard.read();
        Some(now(shard.table.find(hash, |entry| entry.key() == key).map(Entry::value)))
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        _later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let (hash, shard) = self.shard(key);
        let mut shard = shard.write();
        let present = shard.table.find(hash, |entry| entry.key() == key).map(Entry::value);
        let (seq, replaced) = match update.decide(present) {
            Change::Keep => return Some(Ok(None)),
            Change::Put(value) => {
                match self.insert(&mut shard, hash, key, Entry::new(key, value), value.revision) {
                    Ok(done) => done,
                    Err(full) => return Some(Err(full)),
                }
            }
            Change::Delete => {
                let removed = self.remove(&mut shard, hash, key);
                (self.numbers.next(), removed)
            }
        };
        drop(shard);
        drop(replaced);
        Some(Ok(Some(seq)))
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        _later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        let (hash, shard) = self.shard(key);
        // Made before, and the old one dropped after, the lock is held.
        let entry = Entry::new(key, value);
        let mut shard = shard.write();
        let (seq, replaced) = match self.insert(&mut shard, hash, key, entry, value.revision) {
            Ok(done) => done,
            Err(full) => return Some(Err(full)),
        };
        drop(shard);
        drop(replaced);
        Some(Ok(seq))
    }

    fn delete(&self, key: &[u8], _later: impl FnOnce() -> WriteDone) -> Option<Result<u64, StoreError>> {
        let (hash, shard) = self.shard(key);
        let mut shard = shard.write();
        let removed = self.remove(&mut shard, hash, key);
        let seq = self.numbers.next();
        drop(shard);
        drop(removed);
        Some(Ok(seq))
    }

    fn get_many<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        _later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        Some(self.read_many(keys, now))
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        _later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        Some(self.change_many(keys, update))
    }

    fn barrier(&self, _later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        Some(Ok(()))
    }

    fn seq(&self) -> u64 {
        self.numbers.seq.load(Ordering::Acquire)
    }

    fn revision(&self) -> u64 {
        self.numbers.revision()
    }

    fn raise_revision(&self, above: u64) {
        self.numbers.raise(above);
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().table.len()).sum()
    }

    fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }

    fn next_due(&self) -> Option<u64> {
        self.deadlines.next()
    }

    fn due(&self, now: u64, max: usize, _later: impl FnOnce() -> DueDone) -> Option<Due> {
        Some(self.due_now(now, max))
    }

    fn parts(&self) -> usize {
        SHARDS
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        let (next, end) = part.map_or((0, SHARDS), |part| (part, part + 1));
        Box::new(MemoryScan { shards: Arc::clone(&self.shards), next, end, shows })
    }

    fn staging(&self) -> Option<Self> {
        // With the same hashes, so that a key is in the same shard there.
        Some(Self::hashed_by(self.hasher.clone(), Arc::clone(&self.room)))
    }

    fn replace(&self, with: Self) -> Option<Self> {
        self.numbers.raise(with.numbers.revision());
        // All are held at once: a reader of two keys sees both as before or, from the first new one on, both as now.
        let mut shards: Vec<_> = self.shards.iter().map(RwLock::write).collect();
        for (shard, with) in shards.iter_mut().zip(&*with.shards) {
            std::mem::swap(&mut **shard, &mut *with.write());
        }
        self.deadlines.swap(&with.deadlines);
        drop(shards);
        // What was here goes with it, and nobody waits for that.
        Some(with)
    }
}

/// A shard after the other.
struct MemoryScan {
    shards: Arc<[RwLock<Shard>]>,
    next: usize,
    end: usize,
    shows: Shows,
}

impl Scan for MemoryScan {
    fn next_batch(&mut self, done: ScanDone) {
        let mut batch = Batch::default();
        if let Some(shard) = self.shards.get(self.next) {
            for entry in &shard.read().table {
                match self.shows {
                    Shows::Keys => batch.push(entry.key(), None),
                    Shows::Copies => batch.push_copy(entry.key(), entry.copy()),
                    Shows::Pairs => batch.push(entry.key(), Some(entry.value())),
                }
            }
        }
        self.next += 1;
        batch.is_last = self.next >= self.end;
        done(Ok(batch));
    }
}

/// Memory: each store is as new as its server.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    room: Arc<Room>,
}

impl MemoryEngine {
    /// Stores that hold together as much as there is room for.
    pub const fn within(room: Arc<Room>) -> Self {
        Self { room }
    }
}

impl Engine for MemoryEngine {
    type Store = MemoryStore;

    fn open(&self, _names: &[String]) -> Result<MemoryStore, OpenError> {
        Ok(MemoryStore::within(Arc::clone(&self.room)))
    }

    fn open_again(&self, _store: &MemoryStore) -> MemoryStore {
        MemoryStore::within(Arc::clone(&self.room))
    }

    fn settle(&self, done: Done) {
        done(Ok(()));
    }

    fn close(&self) {}
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.room.give_back(self.bytes() + self.len() as u64 * PAIR_BYTES);
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::revision::REVISION_MAX;
    use super::*;
    use crate::etf::Traits;
    use crate::store::scan::at_once;

    fn value(bytes: &[u8]) -> Value<'_> {
        Value::of(bytes, Traits::V4_NC)
    }

    fn never<T>() -> T {
        panic!("memory answers at once")
    }

    fn get(store: &MemoryStore, key: &[u8]) -> Option<Vec<u8>> {
        let found = store.get(
            key,
            |value| {
                value.map(|value| {
                    assert_eq!(value.traits, Traits::V4_NC);
                    value.bytes.to_vec()
                })
            },
            never,
        );
        found.expect("memory answers at once")
    }

    fn all(store: &MemoryStore) -> HashMap<Vec<u8>, Vec<u8>> {
        let mut scan = store.scan(None, Shows::Pairs);
        let mut seen = HashMap::new();
        loop {
            let batch = at_once(&mut *scan).expect("memory answers at once").expect("and fails at nothing");
            for (key, value) in batch.iter() {
                let value = value.expect("nothing is under way");
                assert!(seen.insert(key.to_vec(), value.bytes.to_vec()).is_none(), "a key is shown twice");
            }
            if batch.is_last {
                return seen;
            }
        }
    }

    /// Adds to what is there, up to a length.
    struct Append(u8);

    impl Update for (Append, Vec<u8>) {
        fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
            self.1 = present.map_or_else(Vec::new, |present| present.bytes.to_vec());
            match self.1.len() {
                0..3 => self.1.push(self.0.0),
                3 => return Change::Keep,
                _ => return Change::Delete,
            }
            Change::Put(value(&self.1))
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u8..4, 0_u8..20, 0_usize..4), 1..200)) {
            let store = MemoryStore::default();
            let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
            for (step, (what, key, size)) in steps.into_iter().enumerate() {
                let key = vec![key; 1 + usize::from(key)];
                match what {
                    0 => {
                        let bytes = vec![step as u8; [0, 1, 100, SHARED_FROM_BYTES][size]];
                        prop_assert_eq!(store.put(&key, value(&bytes), never), Some(Ok(store.seq())));
                        model.insert(key, bytes);
                    }
                    1 => {
                        prop_assert_eq!(store.delete(&key, never), Some(Ok(store.seq())));
                        model.remove(&key);
                    }
                    2 => {
                        let mut update = (Append(step as u8), Vec::new());
                        let seq = store.update(&key, &mut update, |_| never()).expect("at once").expect("room");
                        let present = model.get(&key).map_or(0, Vec::len);
                        prop_assert_eq!(seq, (present != 3).then(|| store.seq()));
                        match present {
                            0..3 => model.entry(key).or_default().push(step as u8),
                            3 => {}
                            _ => _ = model.remove(&key),
                        }
                    }
                    _ => prop_assert_eq!(get(&store, &key), model.get(&key).cloned()),
                }
                prop_assert_eq!(store.len(), model.len());
                let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
                prop_assert_eq!(store.bytes(), bytes as u64);
                prop_assert_eq!(&all(&store), &model);
            }
        }
    }

    #[test]
    fn a_full_store_changes_nothing_and_reads_and_deletes_go_on() {
        let room = Arc::new(Room::new(2 * (PAIR_BYTES + 10)));
        let (store, other) = (MemoryStore::within(Arc::clone(&room)), MemoryStore::within(Arc::clone(&room)));
        assert_eq!(store.put(b"a", value(b"123456789"), never), Some(Ok(2)));
        assert_eq!(other.put(b"b", value(b"123456789"), never), Some(Ok(2)));
        for (key, bytes) in [(b"c", &b""[..]), (b"a", b"1234567890")] {
            assert_eq!(store.put(key, value(bytes), never), Some(Err(StoreError::NoSpace)));
        }
        assert_eq!((get(&store, b"a"), get(&store, b"c")), (Some(b"123456789".to_vec()), None));
        assert_eq!((store.len(), store.bytes()), (1, 10));
        assert_eq!(store.put(b"a", value(b"987654321"), never), Some(Ok(3)), "as large as before");
        drop(other);
        assert_eq!(store.put(b"c", value(b"1"), never), Some(Ok(4)), "what another store had");
        assert_eq!((store.delete(b"a", never), store.delete(b"c", never)), (Some(Ok(5)), Some(Ok(6))));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn the_number_of_a_copy_stays_beside_a_value_and_counts_where_it_is_there() {
        let store = MemoryStore::default();
        for (len, copy) in [(3, 7), (SHARED_FROM_BYTES, u32::MAX), (3, 0)] {
            let bytes = vec![1; len];
            let value = Value { copy, ..value(&bytes) };
            assert!(store.put(b"k", value, never).is_some_and(|written| written.is_ok()));
            let found = store.get(b"k", |found| found.map(|found| (found.bytes.len(), found.copy)), never);
            assert_eq!(found, Some(Some((len, copy))));
            assert_eq!(store.bytes(), (1 + len + if copy == 0 { 0 } else { 5 }) as u64);
            let mut batches = store.scan(None, Shows::Copies);
            let mut seen = Vec::new();
            loop {
                let batch = at_once(&mut *batches).expect("at once").expect("it fails at nothing");
                seen.extend(batch.copies().map(|(key, copy)| (key.to_vec(), copy)));
                assert!(batch.iter().all(|(_, value)| value.is_none()), "values are not shown");
                if batch.is_last {
                    break;
                }
            }
            assert_eq!(seen, [(b"k".to_vec(), Some(copy))]);
        }
    }

    fn revision(store: &MemoryStore, key: &[u8]) -> Option<u64> {
        store.get(key, |found| found.map(|found| found.revision), never).expect("at once")
    }

    #[test]
    fn a_key_has_the_number_of_its_last_write_or_the_revision_that_it_comes_with() {
        let store = MemoryStore::default();
        let large = vec![1; SHARED_FROM_BYTES];
        let put =
            |key: &[u8], bytes: &[u8], revision| store.put(key, Value { revision, ..value(bytes) }, never);
        assert_eq!((store.revision(), put(b"a", b"1", 0), revision(&store, b"a")), (1, Some(Ok(2)), Some(2)));
        assert_eq!((put(b"b", &large, 0), revision(&store, b"b")), (Some(Ok(3)), Some(3)));
        assert_eq!((put(b"a", b"2", 40), revision(&store, b"a")), (Some(Ok(4)), Some(40)));
        assert_eq!((put(b"b", &large, 20), revision(&store, b"b")), (Some(Ok(5)), Some(20)));
        assert_eq!((store.delete(b"a", never), store.revision()), (Some(Ok(6)), 42));
        assert_eq!((put(b"a", b"1", 0), revision(&store, b"a")), (Some(Ok(7)), Some(43)));
        for (above, expected) in [(20, 43), (50, 50), (u64::MAX, REVISION_RAISED_MAX)] {
            store.raise_revision(above);
            assert_eq!(store.revision(), expected);
        }
        assert_eq!(put(b"a", b"1", 0), Some(Ok(8)));
        assert_eq!(
            (revision(&store, b"a"), store.revision()),
            (Some(REVISION_RAISED_MAX + 1), REVISION_RAISED_MAX + 1)
        );
        put(b"c", b"1", REVISION_MAX);
        assert_eq!(revision(&store, b"c"), Some(REVISION_MAX), "seven bytes hold it");
        assert_eq!(store.revision(), REVISION_RAISED_MAX + 2);
        let value = store.get(b"c", |found| found.map(|found| (found.bytes.to_vec(), found.traits)), never);
        assert_eq!(value, Some(Some((b"1".to_vec(), Traits::V4_NC))), "beside the rest");
    }

    #[test]
    fn what_takes_the_place_of_a_store_brings_its_revisions() {
        let store = MemoryStore::default();
        store.put(b"a", value(b"1"), never);
        let with = store.staging().expect("there is one");
        for (key, revision) in [(b"b", 70), (b"c", 50)] {
            with.put(key, Value { revision, ..value(b"1") }, never);
        }
        let before = store.replace(with).expect("it gives what it had");
        assert_eq!(revision(&before, b"a"), Some(2));
        assert_eq!([b"a", b"b", b"c"].map(|key| revision(&store, key)), [None, Some(70), Some(50)]);
        store.put(b"a", value(b"1"), never);
        assert!(revision(&store, b"a") > Some(70));
    }

    #[test]
    fn a_slot_of_the_table_takes_two_words() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn a_large_key_is_found() {
        let store = MemoryStore::default();
        let key = vec![1; SHARED_FROM_BYTES];
        store.put(&key, value(b"v"), never);
        assert_eq!(get(&store, &key), Some(b"v".to_vec()));
    }
}
