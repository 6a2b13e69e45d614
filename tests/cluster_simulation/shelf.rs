//! The store of a virtual node: one in memory, which shows its keys in an order that is the same in every run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvnode::etf::{TermView, Traits, encode};
use kvnode::store::{
    Batch, Cleared, Done, Due, DueDone, MemoryStore, Order, Page, Pending, PendingMany, ReadDone, Room, Scan,
    ScanDone, Shows, Store, StoreError, Update, UpdateMany, Value, Visit, WriteDone,
};
use parking_lot::Mutex;

/// Parts that it is scanned in: few, as each costs a step.
pub const PARTS: usize = 4;

/// What a store holds: a number under each key.
pub type Data = BTreeMap<u64, u64>;

/// A store as it is looked at from outside.
pub trait Look: Store {
    /// Changes when what it holds may have changed.
    fn changes(&self) -> u64;

    /// What it holds, as far as its slaves get to know: up to this write.
    fn data(&self, seq: u64) -> Data;

    /// The revision of each key, once nothing is under way.
    fn revisions(&self) -> Data;

    /// When each key ends; 0: it stays.
    fn ends(&self) -> Data;

    /// What a copy has taken the place of since this was asked last.
    fn take_replaced(&self) -> Option<Data>;
}

/// What has happened to a shelf.
#[derive(Default)]
pub struct Changes {
    count: AtomicU64,
    /// What it held before the last copy took its place.
    replaced: Mutex<Option<Data>>,
}

pub struct Shelf {
    entries: MemoryStore,
    /// The same, to be looked at often.
    data: Mutex<Data>,
    changes: Arc<Changes>,
}

impl Shelf {
    pub fn within(room: &Arc<Room>) -> Self {
        Self::of(MemoryStore::within(Arc::clone(room)), Data::new())
    }

    fn of(entries: MemoryStore, data: Data) -> Self {
        Self { entries, data: Mutex::new(data), changes: Arc::default() }
    }

    fn changed(&self) {
        self.changes.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Something of each value.
    fn of_each(&self, what: impl Fn(Value<'_>) -> u64) -> Data {
        let data = self.data.lock();
        let of = |key: &u64| {
            let what = |value: Option<Value<'_>>| what(value.expect("it is there"));
            (*key, self.entries.get(&term(*key), what, || panic!("at once")).expect("at once"))
        };
        data.keys().map(of).collect()
    }

    /// A key may have changed.
    fn look(&self, key: &[u8]) {
        let value =
            self.entries.get(key, |value| value.map(|value| number(value.bytes)), || Box::new(|_| {}));
        match value.flatten() {
            Some(value) => _ = self.data.lock().insert(number(key), value),
            None => _ = self.data.lock().remove(&number(key)),
        }
    }
}

/// The room of a node's stores in memory. A store beside them takes some of it at times.
pub struct Memory {
    pub room: Arc<Room>,
    other: MemoryStore,
}

impl Memory {
    /// Bytes of all: enough for what is ever written, twice.
    const BYTES: u64 = 16 << 10;
    /// About what a pair of a number each takes.
    pub const PAIR_BYTES: u64 = 100;

    /// Leaves so much to the stores; `None`: all that there is.
    pub fn leave(&self, bytes: Option<u64>) {
        let key = [106];
        let at_once = "memory answers at once";
        self.other.delete(&key, || panic!("{at_once}")).expect(at_once).expect("there was one, or none");
        let free = Self::BYTES - self.room.used();
        let Some(taken) = bytes.and_then(|bytes| free.checked_sub(bytes + Self::PAIR_BYTES)) else { return };
        let value = vec![106; taken as usize];
        let value = Value::of(&value, Traits::none());
        self.other.put(&key, value, || panic!("{at_once}")).expect(at_once).expect("it was free");
    }
}

impl Default for Memory {
    fn default() -> Self {
        let room = Arc::new(Room::new(Self::BYTES));
        Self { other: MemoryStore::within(Arc::clone(&room)), room }
    }
}

impl Look for Shelf {
    fn changes(&self) -> u64 {
        self.changes.count.load(Ordering::Relaxed)
    }

    fn data(&self, _seq: u64) -> Data {
        self.data.lock().clone()
    }

    fn revisions(&self) -> Data {
        self.of_each(|value| value.revision)
    }

    fn ends(&self) -> Data {
        self.of_each(|value| value.deadline)
    }

    fn take_replaced(&self) -> Option<Data> {
        self.changes.replaced.lock().take()
    }
}

pub fn term(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

pub fn number(bytes: &[u8]) -> u64 {
    TermView::parse(bytes).expect("a term").as_unsigned().expect("a number")
}

impl Store for Shelf {
    const AT_ONCE: bool = true;

    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        self.entries.get(key, now, later)
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.changed();
        let updated = self.entries.update(key, update, later);
        self.look(key);
        updated
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.changed();
        let updated = self.entries.update_many(keys, update, later);
        keys.iter().for_each(|key| self.look(key));
        updated
    }

    fn clear(&self, later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        self.changed();
        let cleared = self.entries.clear(later);
        self.data.lock().clear();
        cleared
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.entries.barrier(later)
    }

    fn seq(&self) -> u64 {
        self.entries.seq()
    }

    fn revision(&self) -> u64 {
        self.entries.revision()
    }

    fn raise_revision(&self, above: u64) {
        self.entries.raise_revision(above);
    }

    fn deadlines(&self) -> usize {
        self.entries.deadlines()
    }

    fn next_due(&self) -> Option<u64> {
        self.entries.next_due()
    }

    fn due(&self, now: u64, max: usize, later: impl FnOnce() -> DueDone) -> Option<Due> {
        self.entries.due(now, max, later)
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> u64 {
        self.entries.bytes()
    }

    fn parts(&self) -> usize {
        PARTS
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        let data = self.data(u64::MAX).into_iter();
        Box::new(Shown(
            data.filter(|(key, _)| part.is_none_or(|part| *key as usize % PARTS == part)).collect(),
            shows,
        ))
    }

    fn page(
        &self,
        order: Order<'_>,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        if order != Order::Any {
            return Ok(Page::Unordered);
        }
        let mut last = after.unwrap_or_default().to_vec();
        let keys: Vec<u64> = self.data.lock().keys().copied().collect();
        let after = after.filter(|after| !after.is_empty()).map(number);
        for key in keys.into_iter().filter(|key| after.is_none_or(|after| *key > after)) {
            let key = term(key);
            let mut show = |value: Option<Value<'_>>| visit(&key, value.filter(|_| shows == Shows::Pairs));
            match self.entries.get(&key, &mut show, || panic!("at once")).expect("at once") {
                Visit::Next => last = key,
                Visit::Enough => return Ok(Page::Behind(key)),
                Visit::Back => return Ok(Page::Behind(last)),
            }
        }
        Ok(Page::Last)
    }

    fn staging(&self) -> Option<Self> {
        // Each with changes of its own: what is put aside is nothing that a reader sees.
        Some(Self::of(self.entries.staging()?, Data::new()))
    }

    fn replace(&self, with: Self) -> Option<Self> {
        self.changed();
        let before = std::mem::replace(&mut *self.data.lock(), with.data.into_inner());
        *self.changes.replaced.lock() = Some(before.clone());
        Some(Self::of(self.entries.replace(with.entries)?, before))
    }
}

/// In an order that is the same in every run.
struct Shown(Data, Shows);

impl Scan for Shown {
    fn next_batch(&mut self, done: ScanDone) {
        let mut batch = Batch::default();
        for (key, value) in &self.0 {
            let value = term(*value);
            let value = Value::of(&value, Traits::none());
            batch.push(&term(*key), (self.1 == Shows::Pairs).then_some(value));
        }
        batch.is_last = true;
        done(Ok(batch));
    }
}
