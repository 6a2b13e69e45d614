//! The store in memory: sharded, one allocation per entry.
//!
//! An entry is one block of bytes, `traits:8, revision:56, key length:16, key, value`, so that an entry of small key and
//! value costs one allocation and sixteen bytes of table. What other numbers an entry has (`head.rs`) stand before its value. A
//! large value has a block of its own that is shared with its readers.
//!
//! Its tables have no order. Where one was asked for it stands beside them (`order.rs`).

mod cleared;
mod deadlines;
mod many;
mod order;
mod pages;

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
    Batch, Change, Cleared, Done, Due, DueDone, Engine, Keeper, OpenError, Order, Page, Pending, PendingMany,
    ReadDone, ReadManyDone, Room, Scan, ScanDone, Shows, Store, StoreError, Update, UpdateMany, Value, Visit,
    WriteDone,
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

    /// A write counts for so many more. Under the locks of its shards.
    fn count_more(&self, more: u64) {
        if more > 0 {
            self.ahead.fetch_add(more, Ordering::AcqRel);
        }
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
    /// Its keys in Erlang's order, where that was asked for.
    order: Option<order::Order>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::within(Arc::default())
    }
}

impl MemoryStore {
    /// A store that holds as much as there is room for, which others may share.
    pub fn within(room: Arc<Room>) -> Self {
        Self::hashed_by(RandomState::new(), room, false)
    }

    /// The same, with its keys in Erlang's order of terms beside its table: pages may ask for that.
    pub fn ordered_within(room: Arc<Room>) -> Self {
        Self::hashed_by(RandomState::new(), room, true)
    }

    fn hashed_by(hasher: RandomState, room: Arc<Room>, is_ordered: bool) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let (numbers, deadlines) = (Numbers::default(), Deadlines::default());
        Self { hasher, shards, room, numbers, deadlines, order: is_ordered.then(order::Order::default) }
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
                let placed = self.placed(key);
                let taken = entry.bytes() + PAIR_BYTES + Self::bytes_of(placed.as_ref());
                self.room.exchange(0, taken)?;
                self.list(placed).inspect_err(|_| self.room.give_back(taken))?;
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

    /// The part that a key is in.
    #[cfg(feature = "etcd")]
    pub(super) fn part_of(&self, key: &[u8]) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }

    /// One like it, without entries; with the same hashes, so that a key is in the same shard there.
    fn emptied(&self) -> Self {
        Self::hashed_by(self.hasher.clone(), Arc::clone(&self.room), self.order.is_some())
    }

    /// All entries take the places of those of another store with the same hashes; `then` is called while nobody reads or writes.
    fn exchange_all<R>(&self, with: &Self, then: impl FnOnce() -> R) -> R {
        // All are held at once: a reader of two keys sees both as before or, from the first new one on, both as now.
        let mut shards: Vec<_> = self.shards.iter().map(RwLock::write).collect();
        for (shard, with) in shards.iter_mut().zip(&*with.shards) {
            std::mem::swap(&mut **shard, &mut *with.write());
        }
        self.deadlines.swap(&with.deadlines);
        if let (Some(order), Some(with)) = (&self.order, &with.order) {
            order.swap(with);
        }
        then()
    }

    fn remove(&self, shard: &mut Shard, hash: u64, key: &[u8]) -> Option<Entry> {
        let Shard { table, bytes } = shard;
        let removed = table.find_entry(hash, |entry| entry.key() == key).ok().map(|entry| entry.remove().0);
        if let Some(removed) = &removed {
            *bytes -= removed.bytes();
            self.deadlines.note(hash, Some(removed), None);
            self.room.give_back(removed.bytes() + PAIR_BYTES + self.unlist(key));
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

    fn clear(&self, _later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        Some(Ok(self.clear_now()))
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

    fn deadlines(&self) -> usize {
        self.deadlines.entries()
    }

    fn keeper(&self) -> Keeper {
        Keeper::Memory
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().table.len()).sum()
    }

    fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }

    fn next_due(&self) -> Option<u64> {
        self.deadlines.next(self.rough_len())
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

    fn page(
        &self,
        order: Order<'_>,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        match order {
            Order::Any => Ok(self.show_page(after, shows, visit)),
            Order::OfTerms { range, reverse } => self.show_in_order((range, reverse), after, shows, visit),
        }
    }

    fn staging(&self) -> Option<Self> {
        Some(self.emptied())
    }

    fn replace(&self, with: Self) -> Option<Self> {
        self.numbers.raise(with.numbers.revision());
        self.exchange_all(&with, || {});
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
    is_ordered: bool,
}

impl MemoryEngine {
    /// Stores that hold together as much as there is room for.
    pub const fn within(room: Arc<Room>) -> Self {
        Self { room, is_ordered: false }
    }

    /// The same, whose stores have their keys in Erlang's order of terms beside their tables where `is_ordered`, which they have
    /// not by default. docs/operations.md says what it costs.
    pub const fn ordered(mut self, is_ordered: bool) -> Self {
        self.is_ordered = is_ordered;
        self
    }

    fn store(&self) -> MemoryStore {
        let room = Arc::clone(&self.room);
        if self.is_ordered { MemoryStore::ordered_within(room) } else { MemoryStore::within(room) }
    }
}

impl Engine for MemoryEngine {
    type Store = MemoryStore;

    fn open(&self, _names: &[String]) -> Result<MemoryStore, OpenError> {
        Ok(self.store())
    }

    fn open_again(&self, _store: &MemoryStore) -> MemoryStore {
        self.store()
    }

    fn settle(&self, done: Done) {
        done(Ok(()));
    }

    fn close(&self) {}
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let in_order = self.order.as_ref().map_or(0, order::Order::bytes);
        self.room.give_back(self.bytes() + self.len() as u64 * PAIR_BYTES + in_order);
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests;
