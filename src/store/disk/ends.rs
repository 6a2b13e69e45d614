//! The entries of a store that end, in the order in which they do: beside the entries, and changed in one batch with these.
//!
//! An entry with a deadline has one record here, and no other entry has one. To keep it so, a write in a store that has such entries
//! reads what its key has before: also a large value, which lies elsewhere. Other stores pay nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::{Keyspace, OwnedWriteBatch, Readable, Snapshot};
use parking_lot::Mutex;

use super::record::{self, Found};
use crate::store::Due;

/// Entries whose keys one call of [`Space::due`] gives have so many bytes together at most, not counting the last of them.
const DUE_BYTES_MAX: usize = 1 << 20;
const STORE_BYTES: usize = size_of::<u32>();
const HEAD_BYTES: usize = STORE_BYTES + size_of::<u64>();

/// A store's part of the engine.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) id: u32,
    /// What its entries are told by from those that were there before it was cleared (`engine/cleared.rs`).
    pub(super) number: u32,
    pub(super) entries: Keyspace,
    ends: Keyspace,
    /// Of all stores: where the keys are in Erlang's order (`engine/order.rs`).
    pub(super) order: Keyspace,
    state: Arc<State>,
}

struct State {
    /// It has had an entry that ends since the engine was opened.
    has_ends: AtomicBool,
    looked: Mutex<Looked>,
    /// Held while records are looked through: one after the other says what is not there.
    looking: Mutex<()>,
    /// All entries have their records in `order`.
    is_ordered: AtomicBool,
}

/// Where to begin: what was deleted before would be looked through each time.
#[derive(Clone, Copy)]
struct Looked {
    /// No record is before this.
    from: u64,
    /// The first that was written since it was looked last.
    since: u64,
}

impl Space {
    /// # Errors
    /// The engine cannot be read.
    pub(super) fn open(
        (id, number): (u32, u32),
        entries: Keyspace,
        ends: Keyspace,
        order: Keyspace,
    ) -> fjall::Result<Self> {
        let first = ends.prefix(number.to_be_bytes()).next().map(|pair| pair.key()).transpose()?;
        let has_ends = AtomicBool::new(first.is_some());
        let looked = Mutex::new(Looked { from: 0, since: u64::MAX });
        let state = State { has_ends, looked, looking: Mutex::default(), is_ordered: AtomicBool::new(false) };
        Ok(Self { id, number, entries, ends, order, state: Arc::new(state) })
    }

    /// Whether all entries have their records in the order of keys: those of a folder of an older format get them when it is opened.
    pub(super) fn is_ordered(&self) -> bool {
        self.state.is_ordered.load(Ordering::Acquire)
    }

    pub(super) fn set_ordered(&self) {
        self.state.is_ordered.store(true, Ordering::Release);
    }

    /// Whether an entry may end.
    pub(super) fn has_ends(&self) -> bool {
        self.state.has_ends.load(Ordering::Relaxed)
    }

    fn record(&self, deadline: u64, engine_key: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEAD_BYTES + engine_key.len());
        record.extend_from_slice(&self.number.to_be_bytes());
        record.extend_from_slice(&deadline.to_be_bytes());
        record.extend_from_slice(engine_key);
        record
    }

    /// Adds to a batch that an entry ends at another time than before; 0: never.
    pub(super) fn end(&self, batch: &mut OwnedWriteBatch, engine_key: &[u8], before: u64, now: u64) {
        if before == now {
            return;
        }
        if before != 0 {
            batch.remove(&self.ends, self.record(before, engine_key));
        }
        if now != 0 {
            self.state.has_ends.store(true, Ordering::Relaxed);
            batch.insert(&self.ends, self.record(now, engine_key), []);
        }
    }

    /// A batch is written with an entry that ends, the first of its entries then.
    pub(super) fn has_ended_from(&self, deadline: u64) {
        let mut looked = self.state.looked.lock();
        looked.from = looked.from.min(deadline);
        looked.since = looked.since.min(deadline);
    }

    /// The records of entries that end at this time or later.
    fn records(
        &self,
        snapshot: &Snapshot,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = fjall::Result<(u64, Vec<u8>)>> {
        let records = snapshot.range(&self.ends, self.record(from, &[])..self.record(to, &[]));
        records.map(|pair| {
            let record = pair.key()?;
            let deadline = record.get(STORE_BYTES..HEAD_BYTES).and_then(|bytes| bytes.try_into().ok());
            let deadline = deadline.map(u64::from_be_bytes).ok_or(fjall::Error::Unrecoverable)?;
            Ok((deadline, record.get(HEAD_BYTES..).unwrap_or_default().to_vec()))
        })
    }

    /// See [`Store::due`](crate::store::Store::due); `view` shows the engine as it is when it is called.
    pub(super) fn due(&self, view: impl FnOnce() -> Snapshot, now: u64, max: usize) -> fjall::Result<Due> {
        let _looking = self.state.looking.lock();
        let (mut due, mut first, mut bytes) = (Due::default(), None, 0);
        let (from, snapshot) = (self.state.looked.lock().from, &view());
        for record in self.records(snapshot, from, now.saturating_add(1)) {
            let (deadline, engine_key) = record?;
            first = first.or(Some(deadline));
            if due.keys.len() >= max || bytes >= DUE_BYTES_MAX {
                due.is_more = true;
                break;
            }
            // What is deleted is read.
            bytes +=
                snapshot.size_of(&self.entries, &engine_key)?.unwrap_or_default() as usize + engine_key.len();
            if record::is_digest(&engine_key) {
                let entry = snapshot.get(&self.entries, &engine_key)?;
                let found = entry.and_then(|entry| Found::new(&engine_key, entry));
                due.keys.extend(found.and_then(|found| found.long_key().map(Into::into)));
            } else {
                due.keys.push(record::plain_key(&engine_key).into());
            }
        }
        self.looked_up_to(first.unwrap_or(now));
        Ok(due)
    }

    /// No record was before this in a snapshot that was taken since it was looked last.
    fn looked_up_to(&self, first: u64) {
        let mut looked = self.state.looked.lock();
        // What was written since the snapshot was taken is not in it.
        looked.from = first.min(looked.since);
        looked.since = u64::MAX;
    }

    /// See [`Store::next_due`](crate::store::Store::next_due); `view` as in [`due`](Self::due).
    pub(super) fn next_due(&self, view: impl FnOnce() -> Snapshot) -> fjall::Result<Option<u64>> {
        if !self.has_ends() {
            return Ok(None);
        }
        let _looking = self.state.looking.lock();
        let (from, snapshot) = (self.state.looked.lock().from, &view());
        let first = self.records(snapshot, from, u64::MAX).next().transpose()?.map(|(deadline, _)| deadline);
        self.looked_up_to(first.unwrap_or(u64::MAX));
        Ok(first)
    }

    pub(super) fn count(&self, snapshot: &Snapshot) -> fjall::Result<u64> {
        self.records(snapshot, 0, u64::MAX).try_fold(0, |count, record| record.map(|_| count + 1))
    }
}
