//! The store of a virtual node: one in memory, which shows its keys in an order that is the same in every run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvnode::etf::{TermView, Traits, encode};
use kvnode::store::{MemoryStore, ReadDone, Room, Store, StoreError, Value, WriteDone};
use parking_lot::Mutex;

/// Parts that it is scanned in: few, as each costs a step.
const PARTS: usize = 4;

/// What a store holds: a number under each key.
pub type Data = BTreeMap<u64, u64>;

/// What has happened to a shelf.
#[derive(Default)]
pub struct Changes {
    count: AtomicU64,
    /// What it held before the last copy took its place.
    replaced: Mutex<Option<Data>>,
}

pub struct Shelf {
    entries: MemoryStore,
    changes: Arc<Changes>,
}

impl Shelf {
    pub fn within(room: &Arc<Room>) -> Self {
        Self { entries: MemoryStore::within(Arc::clone(room)), changes: Arc::default() }
    }

    /// Changes when what it holds may have changed.
    pub fn changes(&self) -> u64 {
        self.changes.count.load(Ordering::Relaxed)
    }

    /// What a copy has taken the place of since this was asked last.
    pub fn take_replaced(&self) -> Option<Data> {
        self.changes.replaced.lock().take()
    }

    pub fn data(&self) -> Data {
        let mut data = Data::new();
        self.entries.visit(&mut |key, value| {
            data.insert(number(key), number(value.bytes));
            true
        });
        data
    }

    fn changed(&self) {
        self.changes.count.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn term(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

pub fn number(bytes: &[u8]) -> u64 {
    TermView::parse(bytes).expect("a term").as_unsigned().expect("a number")
}

impl Store for Shelf {
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        self.entries.get(key, now, later)
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<(), StoreError>> {
        self.changed();
        self.entries.put(key, value, later)
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<(), StoreError>> {
        self.changed();
        self.entries.delete(key, later)
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> u64 {
        self.entries.bytes()
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        (0..PARTS).all(|part| self.visit_part(part, visit))
    }

    fn parts(&self) -> usize {
        PARTS
    }

    fn visit_part(&self, part: usize, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        let in_part: Vec<(u64, u64)> =
            self.data().into_iter().filter(|(key, _)| *key as usize % PARTS == part).collect();
        in_part.into_iter().all(|(key, value)| {
            visit(&term(key), Value { bytes: &term(value), shared: None, traits: Traits::none() })
        })
    }

    fn staging(&self) -> Option<Self> {
        // Each with changes of its own: what is put aside is nothing that a reader sees.
        Some(Self { entries: self.entries.staging()?, changes: Arc::default() })
    }

    fn replace(&self, with: Self) -> Option<Self> {
        *self.changes.replaced.lock() = Some(self.data());
        self.changed();
        Some(Self { entries: self.entries.replace(with.entries)?, changes: Arc::default() })
    }
}
