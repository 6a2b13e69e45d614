//! An engine of your own under a store that has all that kvnode's own stores have. This one keeps pairs behind a thread that
//! takes 1 ms for each operation, as a machine at the other end of a network would, and so it answers late. The numbers in its
//! comments are those of the rules on the page of `kvnode::store`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kvnode::config::ServerName;
use kvnode::kv::{self, Replication};
use kvnode::store::{
    Batch, Change, Done, Due, DueDone, Engine, NoteDone, Notes, OpenError, OwnedValue, Pending, PendingMany,
    REVISION_RAISED_MAX, ReadDone, ReadManyDone, Scan, ScanDone, Shows, Store, StoreError, Update,
    UpdateMany, Value, Written,
};
use kvnode::{Node, ServerRef};

/// How long each operation takes.
const EACH: Duration = Duration::from_millis(1);

/// Entries of a scan that are shown at a time.
const BATCH: usize = 100;

/// What is carried out in its turn, on the engine's thread.
type Operation = Box<dyn FnOnce() + Send>;

/// A key with what becomes of it; `None`: it is deleted.
type Changes = Vec<(Vec<u8>, Option<OwnedValue>)>;

#[derive(Default)]
struct Table {
    pairs: BTreeMap<Vec<u8>, OwnedValue>,
    notes: BTreeMap<String, Vec<u8>>,
    seq: u64,
    revision: u64,
    bytes: u64,
    deadlines: usize,
    is_closed: bool,
}

impl Table {
    /// Rules 1 and 8: each write has the next number, and gives a revision to what comes without one.
    fn write(&mut self, changes: &mut Changes) -> u64 {
        let next = self.revision + 1;
        self.revision += changes.len() as u64;
        for (key, value) in changes {
            if let Some(value) = value {
                value.revision = if value.revision == 0 { next } else { value.revision };
                self.revision = self.revision.max(value.revision.min(REVISION_RAISED_MAX));
            }
            self.set(key, value.clone());
        }
        self.seq += 1;
        self.seq
    }

    fn set(&mut self, key: &[u8], value: Option<OwnedValue>) {
        let size = |value: &OwnedValue| (key.len() + value.bytes.len()) as u64;
        let is_due = |value: &OwnedValue| usize::from(value.deadline != 0);
        if let Some(value) = &value {
            self.bytes += size(value);
            self.deadlines += is_due(value);
        }
        let before = match value {
            Some(value) => self.pairs.insert(key.to_vec(), value),
            None => self.pairs.remove(key),
        };
        if let Some(before) = before {
            self.bytes -= size(&before);
            self.deadlines -= is_due(&before);
        }
    }
}

/// A store. Its clones are the same. All that is asked of it is carried out in the order in which it was asked, and told of
/// before the next begins, which keeps the rules 2 to 7.
#[derive(Clone)]
struct SlowStore {
    table: Arc<Mutex<Table>>,
    operations: Sender<Operation>,
}

impl SlowStore {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, operation: impl FnOnce(&Self) + Send + 'static) {
        let store = self.clone();
        // The thread lives as long as this end of its channel.
        let _ = self.operations.send(Box::new(move || operation(&store)));
    }

    /// Carries out a write whose changes are decided by what is there, and gives it with its number.
    fn write(&self, decide: impl FnOnce(&Table) -> Changes) -> Result<Option<(u64, Changes)>, StoreError> {
        let mut table = self.table();
        if table.is_closed {
            return Err(StoreError::Io("terminated"));
        }
        let mut changes = decide(&table);
        if changes.is_empty() {
            return Ok(None);
        }
        Ok(Some((table.write(&mut changes), changes)))
    }
}

/// Tells of a write, without the lock: what is told may ask for something.
fn tell(
    wrote: Result<Option<(u64, Changes)>, StoreError>,
    done: impl FnOnce(Result<Option<Written<'_>>, StoreError>),
) {
    let (seq, changes) = match wrote {
        Ok(Some(wrote)) => wrote,
        Ok(None) => return done(Ok(None)),
        Err(error) => return done(Err(error)),
    };
    let changes: Vec<(&[u8], Change<'_>)> = changes
        .iter()
        .map(|(key, value)| {
            let change = value.as_ref().map_or(Change::Delete, |value| Change::Put(value.value()));
            (key.as_slice(), change)
        })
        .collect();
    done(Ok(Some(Written { seq, changes: &changes, numbers: &[] })));
}

fn decided(key: &[u8], change: Change<'_>) -> Option<(Vec<u8>, Option<OwnedValue>)> {
    match change {
        Change::Keep => None,
        Change::Put(value) => Some((key.to_vec(), Some(value.to_owned()))),
        Change::Delete => Some((key.to_vec(), None)),
    }
}

impl Store for SlowStore {
    fn get<R>(
        &self,
        key: &[u8],
        _now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let (key, done) = (key.to_vec(), later());
        self.ask(move |store| {
            let found = store.table().pairs.get(&key).cloned();
            done(Ok(found.as_ref().map(OwnedValue::value)));
        });
        None
    }

    fn get_many<R>(
        &self,
        keys: &[&[u8]],
        _now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        let (keys, done) = (owned(keys), later());
        self.ask(move |store| {
            let found: Vec<Option<OwnedValue>> = {
                let table = store.table();
                keys.iter().map(|key| table.pairs.get(key).cloned()).collect()
            };
            let shown: Vec<_> = found.iter().map(|value| value.as_ref().map(OwnedValue::value)).collect();
            done(Ok(&shown));
        });
        None
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let (key, mut update) = (key.to_vec(), later(update));
        self.ask(move |store| {
            let wrote = store.write(|table| {
                let present = table.pairs.get(&key).map(OwnedValue::value);
                decided(&key, update.decide(present)).into_iter().collect()
            });
            tell(wrote, |result| update.done(result));
        });
        None
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let (keys, mut update) = (owned(keys), later(update));
        self.ask(move |store| {
            let wrote = store.write(|table| {
                let present: Vec<_> =
                    keys.iter().map(|key| table.pairs.get(key).map(OwnedValue::value)).collect();
                let mut changes = Changes::new();
                update.decide(&present, &mut |at, change| changes.extend(decided(&keys[at], change)));
                changes
            });
            tell(wrote, |result| update.done(result));
        });
        None
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        let done = later();
        self.ask(move |_| done(Ok(())));
        None
    }

    fn seq(&self) -> u64 {
        self.table().seq
    }

    fn revision(&self) -> u64 {
        self.table().revision
    }

    fn raise_revision(&self, above: u64) {
        let mut table = self.table();
        table.revision = table.revision.max(above.min(REVISION_RAISED_MAX));
    }

    fn next_due(&self) -> Option<u64> {
        let table = self.table();
        table.pairs.values().map(|value| value.deadline).filter(|deadline| *deadline != 0).min()
    }

    fn due(&self, now: u64, max: usize, _later: impl FnOnce() -> DueDone) -> Option<Due> {
        let table = self.table();
        let has_ended = |value: &OwnedValue| value.deadline != 0 && value.deadline <= now;
        let keys = table.pairs.iter().filter(|(_, value)| has_ended(value)).map(|(key, _)| key[..].into());
        let keys: Vec<Box<[u8]>> = keys.take(max).collect();
        Some(Due { is_more: keys.len() == max, keys })
    }

    fn deadlines(&self) -> usize {
        self.table().deadlines
    }

    fn len(&self) -> usize {
        self.table().pairs.len()
    }

    fn bytes(&self) -> u64 {
        self.table().bytes
    }

    fn scan(&self, _part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        Box::new(SlowScan { store: self.clone(), shows, after: Arc::default() })
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }
}

fn owned(keys: &[&[u8]]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.to_vec()).collect()
}

/// What the store has to know of itself when its process is started again: its slaves, the primary that it follows.
impl Notes for SlowStore {
    fn write(&self, name: &str, note: &[u8], done: Done) {
        let (name, note) = (name.to_owned(), note.to_vec());
        self.ask(move |store| {
            store.table().notes.insert(name, note);
            done(Ok(()));
        });
    }

    fn read(&self, name: &str, done: NoteDone) {
        let name = name.to_owned();
        self.ask(move |store| {
            let note = store.table().notes.get(&name).cloned();
            done(Ok(note));
        });
    }
}

/// All entries, in the order of their keys.
struct SlowScan {
    store: SlowStore,
    shows: Shows,
    /// The last key that was shown.
    after: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Scan for SlowScan {
    fn next_batch(&mut self, done: ScanDone) {
        let (shows, after) = (self.shows, Arc::clone(&self.after));
        self.store.ask(move |store| {
            let mut batch = Batch::default();
            let mut after = after.lock().unwrap_or_else(PoisonError::into_inner);
            let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, value) in store.table().pairs.range((from, Bound::Unbounded)).take(BATCH) {
                match shows {
                    Shows::Keys => batch.push(key, None),
                    Shows::Copies => batch.push_copy(key, value.copy),
                    Shows::Pairs => batch.push(key, Some(value.value())),
                }
                *after = Some(key.clone());
            }
            drop(after);
            batch.is_last = batch.len() < BATCH;
            done(Ok(batch));
        });
    }
}

/// Opens such stores by their names. They last as long as the program.
struct SlowEngine {
    operations: Sender<Operation>,
    stores: Mutex<Vec<(Vec<String>, SlowStore)>>,
}

impl SlowEngine {
    fn start() -> Self {
        let (operations, asked) = channel::<Operation>();
        thread::spawn(move || {
            for operation in asked {
                thread::sleep(EACH);
                operation();
            }
        });
        Self { operations, stores: Mutex::default() }
    }

    fn stores(&self) -> MutexGuard<'_, Vec<(Vec<String>, SlowStore)>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for SlowEngine {
    type Store = SlowStore;

    fn open(&self, names: &[String]) -> Result<SlowStore, OpenError> {
        let mut stores = self.stores();
        let known: Vec<_> =
            stores.iter().filter(|(known, _)| names.iter().any(|name| known.contains(name))).collect();
        match known[..] {
            [] => {}
            [(_, store)] => return Ok(store.clone()),
            _ => return Err(OpenError::Names { names: names.to_vec() }),
        }
        // The number of its last write is 1 before there is one.
        let table = Table { seq: 1, revision: 1, ..Table::default() };
        let store = SlowStore { table: Arc::new(Mutex::new(table)), operations: self.operations.clone() };
        stores.push((names.to_vec(), store.clone()));
        Ok(store)
    }

    fn open_again(&self, store: &SlowStore) -> SlowStore {
        store.clone()
    }

    fn settle(&self, done: Done) {
        // Behind everything that was asked before.
        let _ = self.operations.send(Box::new(move || done(Ok(()))));
    }

    fn close(&self) {
        for (_, store) in &*self.stores() {
            store.table().is_closed = true;
        }
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("own").start()?;
    // An Elixir server and a kvnode, which both have a write before it is answered.
    let replication = Replication::default()
        .with_slave(ServerRef::global("elixir"))
        .with_slave(ServerRef::global("rust"))
        .with_confirm(2);
    let names = [ServerName::global("own"), ServerName::local("own")];
    kv::serve(&node, names, replication, SlowEngine::start())?;
    node.wait();
    Ok(())
}
