//! The store in etcd: several kvnodes serve one store, and it outlives any of their machines, and any of etcd's.
//!
//! ```text
//! connections -> put, delete, update -> queue -> a transaction at a time -> etcd
//!      |                                                                     |
//!      |         completions, others' writes <- table <- the watch, answers -'
//!      '-- get ------------------------------------^  at once; behind the writes of the key that wait
//! ```
//!
//! Each process keeps all entries in memory, fed by one watch: a get costs what it costs a store in memory. Writes go to etcd in
//! transactions of all that have gathered while the transaction before was on its way, and are answered when the table has them. The module `machine`
//! has it all, as a value; `batch` says what a transaction is, `layout` how a store lies in etcd. The shell is a thread with the client
//! of [`crate::etcd`].
//!
//! ```no_run
//! use kvnode::etcd::{Config, Etcd};
//! use kvnode::store::{Engine, EtcdEngine};
//!
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let etcd = Etcd::connect(Config::new(["http://a:2379", "http://b:2379", "http://c:2379"]))?;
//! let engine = EtcdEngine::new(etcd, "kvnode");
//! let store = engine.open(&["global:kv".to_owned()])?;
//! println!("{store:?}");
//! engine.close();
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - A write that is answered `Ok` is committed by etcd, and in the table: a reader here finds it, or what came behind it.
//! - A reader here sees the writes of all processes in one order, that of etcd's revisions, each as a whole, and never goes back in it. It
//!   may be behind what another process has answered already, unless it [catches up](EtcdStore::catch_up).
//! - A decision ([`Store::update`]) is carried out on the newest value in etcd, of any process: it is made by the table, and etcd compares
//!   the revisions of the keys; where one differs the decision is made anew. This holds for a decision to keep a value too.
//! - Within 4.5 s each write is answered: [`Unavailable`](StoreError::Unavailable) where it was surely not done, as no member could be asked,
//!   [`Unknown`](StoreError::Unknown) where etcd has not said. None is done twice.
//!
//! # Of the rules of engines (`store/mod.rs`)
//!
//! | rule | here |
//! | --- | --- |
//! | 1, 2 | The writes of another process are told of by [`Store::tell_of_others`], as it made them: those of a transaction come into the table together, and each has its number. Numbers are this process's own, but for those of [changes](super::Written::numbers). |
//! | 3 | A write that was answered by `Unknown`, and turns out to be done, is told of as another's. |
//! | 4, 5, 6, 7, 9, 10 | As they stand. A clear of another process is told of as one, and so is what another program does that leaves no key. |
//! | 8 | A revision is that of the write's transaction in etcd, times 256, and its place there. It is higher than all before, over restarts and processes. A value keeps **no revision that it brings** ([`Value::revision`]), and [`Store::raise_revision`] raises nothing: such a store can be a primary, and no slave. A write of several keys has one revision, and takes a place for each: the number of each change in all processes (the module `places`). |
//!
//! It has neither [`staging`](Store::staging) nor [`backup`](Store::backup): all stores of a prefix are backed up together, by
//! `EtcdEngine::backup`, and need not be open.
//!
//! A write has at most 119 keys that it changes or looks at ([`TooMany`](StoreError::TooMany)), and about as many bytes as etcd takes in a request
//! ([`TooLarge`](StoreError::TooLarge)). [`Notes`] are shared by the processes that have the store. An etcd that has reached its quota takes no
//! deletions either, as each moves the writer's mark: [`NoSpace`](StoreError::NoSpace) until it is compacted and defragmented.
//!
//! # What is bounded
//!
//! Writes that wait: a connection that writes more than 16 MiB that are not answered waits until there is room, half a second at most, and
//! is then answered [`Unavailable`](StoreError::Unavailable), as are all behind it until there is room. A
//! transaction is about 1 MiB. 262,144 reads may wait for writes of processes here, and as many for those of others: one more is answered by the
//! error `system_limit`. A load is read in pages of about 8 MiB into a table beside the old one. What the watch brings is bounded by
//! the client ([`Config`](crate::etcd::Config)).
//!
//! While all is loaded anew nothing is written: what is asked waits, and past 4 s is [`Unavailable`](StoreError::Unavailable).
//!
//! # After a restore of etcd
//!
//! A cluster that is restored from a snapshot counts revisions on from that of the snapshot. A process that goes on would wait for
//! revisions that it knows already, and take others' writes for these: **end all processes that have the store before etcd is restored**, and start
//! them behind it. Numbers that watchers have seen since the snapshot are none of the restored store: its watchers begin anew.
//!
//! # For the server
//!
//! It hands the store a callback for the writes of other processes, and counts on from the number that it gets then
//! ([`Store::tell_of_others`], `kv/others.rs`): slaves and watchers get every process's writes.
//!
//! A reader that wants the writes of all processes asks for [`EtcdStore::catch_up`] first, or by [`Store::catch_up_holding`].

mod ask;
mod batch;
mod layout;
mod looks;
mod machine;
#[cfg(feature = "disk")]
mod moving;
mod places;
pub mod planted;
mod shell;
mod table;
mod waits;

use std::fmt;
#[cfg(feature = "disk")]
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use self::ask::{Ask, Key};
#[cfg(feature = "cli")]
pub(crate) use self::batch::OPERATIONS_MAX;
pub use self::layout::base_of;
#[cfg(feature = "disk")]
pub use self::moving::{EtcdBackupError, EtcdRestore, TooLarge};
use self::shell::Shared;
use super::{
    Batch, Cleared, Done, Due, DueDone, Engine, EtcdMember, EtcdState, Keeper, MemoryStore, NoteDone, Notes,
    OpenError, Order, OthersTold, Page, Pending, PendingMany, ReadDone, ReadManyDone, Scan, ScanDone, Shows,
    Store, StoreError, Update, UpdateMany, Value, Visit, WriteDone,
};
use crate::etcd::Etcd;
#[cfg(feature = "disk")]
use crate::store::disk::StoreCount;

/// Stores in one etcd, below one prefix. Its clones are the same; the stores end with the last of them.
#[derive(Clone)]
pub struct EtcdEngine {
    etcd: Etcd,
    prefix: Arc<str>,
    is_ordered: bool,
    open: Arc<Open>,
}

/// The stores of an engine. Their threads end with it.
#[derive(Default)]
struct Open {
    /// Held while a store is opened, which takes as long as its load: no other thread opens the same one. Taken before the stores.
    opening: Mutex<()>,
    stores: Mutex<Stores>,
}

#[derive(Default)]
struct Stores {
    /// By their ids.
    open: Vec<(String, EtcdStore)>,
    /// The store that is being loaded.
    loading: Option<EtcdStore>,
    /// How often all were closed.
    closed: u64,
}

impl Open {
    fn all(&self) -> Vec<EtcdStore> {
        self.stores.lock().open.iter().map(|(_, store)| store.clone()).collect()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stores.get_mut().open.iter().for_each(|(_, store)| store.0.close());
    }
}

impl EtcdEngine {
    /// Stores below `prefix`: all that have the same etcd and the same prefix have the same stores.
    pub fn new(etcd: Etcd, prefix: &str) -> Self {
        Self { etcd, prefix: prefix.into(), is_ordered: false, open: Arc::default() }
    }

    /// The same, whose stores have their keys in Erlang's order of terms beside their tables where `is_ordered`, which they have not by default.
    #[must_use]
    pub fn ordered(self, is_ordered: bool) -> Self {
        Self { is_ordered, ..self }
    }
}

impl EtcdEngine {
    /// The members of its etcd.
    #[doc(hidden)]
    pub fn members(&self) -> Vec<EtcdMember> {
        members_of(&self.etcd)
    }

    /// Writes all stores below the prefix into a new file, as they were at one revision of etcd, which is given: the file is one of
    /// [`Disk::restore`](super::Disk::restore) too. Stores need not be open, and may be written to meanwhile. `progress` is told how many
    /// entries are done and how many there are, now and then, and ends it by `false`. Waits until it is done, and holds about 1 MiB of
    /// entries at a time.
    ///
    /// # Errors
    /// See [`EtcdBackupError`]. There is no such file then.
    #[cfg(feature = "disk")]
    #[doc(hidden)]
    pub fn backup(
        &self,
        file: &Path,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(Vec<StoreCount>, u64), EtcdBackupError> {
        shell::moving::backup(&self.etcd, &self.prefix, file, progress)
    }

    /// Makes the stores of a backup, one of a folder or of an etcd, below the prefix. The file is read to its end and checked first. All or
    /// nothing: until the last entry is there no process opens a store below the prefix, and what an interrupted restore has left the next
    /// one removes. Keys keep their deadlines; revisions are etcd's. `progress` is told how much is done and how much there is.
    ///
    /// # Errors
    /// See [`EtcdBackupError`].
    #[cfg(feature = "disk")]
    #[doc(hidden)]
    pub fn restore(
        &self,
        file: &Path,
        restore: &EtcdRestore<'_>,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Vec<StoreCount>, EtcdBackupError> {
        shell::moving::restore(&self.etcd, &self.prefix, file, restore, progress)
    }
}

impl Engine for EtcdEngine {
    type Store = EtcdStore;

    /// Waits until the store is loaded, or the engine is closed.
    fn open(&self, names: &[String]) -> Result<EtcdStore, OpenError> {
        let _alone = self.open.opening.lock();
        let closed = self.open.stores.lock().closed;
        let id = shell::names::id_of(&self.etcd, &self.prefix, names)?;
        if let Some((_, store)) = self.open.stores.lock().open.iter().find(|(known, _)| *known == id) {
            return Ok(store.clone());
        }
        let entries = if self.is_ordered {
            MemoryStore::ordered_within(Arc::default())
        } else {
            MemoryStore::within(Arc::default())
        };
        let (shared, loaded) = shell::start(&self.etcd, &self.prefix, &id, entries)?;
        let store = EtcdStore(shared);
        self.open.stores.lock().loading = Some(store.clone());
        let mut loaded = loaded.wait();
        {
            let stores = &mut *self.open.stores.lock();
            stores.loading = None;
            if loaded.is_ok() && stores.closed != closed {
                loaded = Err(OpenError::Etcd { reason: "the stores were closed meanwhile".to_owned() });
            }
            if loaded.is_ok() {
                stores.open.push((id, store.clone()));
            }
        }
        if loaded.is_err() {
            store.0.close();
            store.0.join();
        }
        loaded?;
        Ok(store)
    }

    fn open_again(&self, store: &EtcdStore) -> EtcdStore {
        store.clone()
    }

    fn settle(&self, done: Done) {
        let all = Arc::new(Settling(Mutex::new((Ok(()), Some(done)))));
        for store in self.open.all() {
            let all = Arc::clone(&all);
            let settled: Done = Box::new(move |settled| {
                let (so_far, _) = &mut *all.0.lock();
                *so_far = so_far.clone().and(settled);
            });
            store.0.ask(Vec::new(), Ask::Barrier(settled));
        }
    }

    /// Carries out what waits, for 4 s at most, and ends the threads of all its stores.
    fn close(&self) {
        let stores: Vec<EtcdStore> = {
            let stores = &mut *self.open.stores.lock();
            stores.closed += 1;
            let open = std::mem::take(&mut stores.open).into_iter().map(|(_, store)| store);
            open.chain(stores.loading.take()).collect()
        };
        stores.iter().for_each(|store| store.0.close());
        stores.iter().for_each(|store| store.0.join());
    }
}

/// What the stores have answered so far, all at the same time. The last of them answers all, as it lets go of this.
struct Settling(Mutex<(Result<(), StoreError>, Option<Done>)>);

impl Drop for Settling {
    fn drop(&mut self) {
        let (so_far, done) = self.0.get_mut();
        if let Some(done) = done.take() {
            done(so_far.clone());
        }
    }
}

impl fmt::Debug for EtcdEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { etcd, prefix, .. } = self;
        f.debug_struct("EtcdEngine").field("etcd", etcd).field("prefix", prefix).finish_non_exhaustive()
    }
}

/// What stands beside a key that waits to be read, in bytes: its completion, and its place among those that wait.
const LOOK_BYTES: usize = 256;

/// One store of an [`EtcdEngine`]. Its clones are the same.
#[derive(Clone)]
pub struct EtcdStore(Arc<Shared>);

impl EtcdStore {
    /// Calls `done` when this process has every write that any process has been answered `Ok` for by now: later reads are not older.
    /// One question to etcd serves all that ask at the same time. After 4 s it is [`Unavailable`](StoreError::Unavailable).
    /// Where very many wait it is refused with the word `system_limit`.
    #[doc(hidden)]
    pub fn catch_up(&self, done: Done) {
        self.ask_to_catch_up(0, done);
    }

    /// The same, of a question that holds so many bytes until then.
    fn ask_to_catch_up(&self, bytes: usize, done: Done) {
        let bytes = bytes + LOOK_BYTES;
        if !self.0.take_room(bytes) {
            return done(Err(StoreError::Io("system_limit")));
        }
        let shared = Arc::clone(&self.0);
        let told: Done = Box::new(move |result| {
            shared.give_back(bytes);
            done(result);
        });
        self.0.ask(Vec::new(), Ask::CatchUp(told));
    }

    /// From now on, where `is_careful`, a value is read once this process [has caught up](Self::catch_up): for callers that another process has
    /// answered a moment ago. It costs a question to etcd, which all share that read at the same time. (A scan, a page and a count show
    /// what is here.)
    #[doc(hidden)]
    pub fn read_carefully(&self, is_careful: bool) {
        self.0.read_carefully(is_careful);
    }

    /// Has a value shown when this process has caught up.
    fn read_caught_up(&self, key: &[u8], done: ReadDone) {
        let (store, key) = (self.clone(), Key::from(key));
        self.ask_to_catch_up(
            key.len(),
            Box::new(move |caught_up| {
                let mut done = Some(done);
                if let Err(error) = caught_up {
                    return done.take().into_iter().for_each(|done| done(Err(error.clone())));
                }
                // Behind the writes of the key that wait.
                if !store.0.read_later(&key, || done.take().unwrap_or_else(no_completion)) {
                    let shown = store.entries().get(
                        &key,
                        |value| done.take().into_iter().for_each(|done| done(Ok(value))),
                        no_completion,
                    );
                    debug_assert!(shown.is_some(), "memory answers at once");
                }
            }),
        );
    }

    /// The same of several.
    fn read_many_caught_up(&self, keys: &[&[u8]], done: ReadManyDone) {
        let bytes = keys.iter().map(|key| key.len() + LOOK_BYTES).sum();
        let (store, keys): (_, Vec<Key>) = (self.clone(), keys.iter().map(|key| Key::from(*key)).collect());
        self.ask_to_catch_up(
            bytes,
            Box::new(move |caught_up| {
                let mut done = Some(done);
                if let Err(error) = caught_up {
                    return done.take().into_iter().for_each(|done| done(Err(error.clone())));
                }
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                if !store.0.read_many_later(&keys, || done.take().unwrap_or_else(|| Box::new(|_| {}))) {
                    let shown = store.entries().get_many(
                        &keys,
                        |found| done.take().into_iter().for_each(|done| done(Ok(found))),
                        || Box::new(|_| {}),
                    );
                    debug_assert!(shown.is_some(), "memory answers at once");
                }
            }),
        );
    }

    /// How it stands to etcd.
    #[doc(hidden)]
    pub fn state(&self) -> EtcdState {
        self.0.state()
    }

    /// The revision of etcd up to which all is here.
    #[doc(hidden)]
    pub fn etcd_revision(&self) -> i64 {
        self.0.table().applied()
    }

    /// What all its keys in etcd begin with.
    #[doc(hidden)]
    pub fn base(&self) -> &[u8] {
        self.0.base()
    }

    /// The key that etcd has while a restore of its prefix goes on, or was interrupted: the store's names are nobody's then.
    #[doc(hidden)]
    pub fn restore_key(&self) -> Vec<u8> {
        layout::claim_beside(self.base()).to_vec()
    }

    fn entries(&self) -> &MemoryStore {
        &self.0.table().entries
    }

    fn write(&self, key: &[u8], ask: Ask) {
        self.0.ask(vec![Key::from(key)], ask);
    }
}

impl Store for EtcdStore {
    const IS_SHARED: bool = true;

    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        if self.0.reads_carefully() {
            self.read_caught_up(key, later());
            return None;
        }
        self.get_caught_up(key, now, later)
    }

    fn get_caught_up<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        if self.0.read_later(key, later) {
            return None;
        }
        self.entries().get(key, now, no_completion)
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.write(key, Ask::Update(later(update)));
        None
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        self.write(key, Ask::Put(value.to_owned(), later()));
        None
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<u64, StoreError>> {
        self.write(key, Ask::Delete(later()));
        None
    }

    fn get_many<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        if self.0.reads_carefully() {
            self.read_many_caught_up(keys, later());
            return None;
        }
        self.get_many_caught_up(keys, now, later)
    }

    fn get_many_caught_up<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        if self.0.read_many_later(keys, later) {
            return None;
        }
        self.entries().get_many(keys, now, || Box::new(|_| {}))
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.0.ask(keys.iter().map(|key| Key::from(*key)).collect(), Ask::UpdateMany(later(update)));
        None
    }

    fn clear(&self, later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        self.0.ask(Vec::new(), Ask::Clear(later()));
        None
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.0.ask(Vec::new(), Ask::Barrier(later()));
        None
    }

    fn catch_up_holding(&self, bytes: usize, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.ask_to_catch_up(bytes, later());
        None
    }

    fn seq(&self) -> u64 {
        self.0.table().seq()
    }

    fn revision(&self) -> u64 {
        self.0.table().revision()
    }

    /// Nothing: etcd counts.
    fn raise_revision(&self, _above: u64) {}

    fn keeper(&self) -> Keeper {
        Keeper::Etcd(self.0.figures())
    }

    fn next_due(&self) -> Option<u64> {
        self.entries().next_due()
    }

    fn due(&self, now: u64, max: usize, later: impl FnOnce() -> DueDone) -> Option<Due> {
        self.entries().due(now, max, later)
    }

    fn deadlines(&self) -> usize {
        self.entries().deadlines()
    }

    fn tell_of_others(&self, tell: OthersTold) -> u64 {
        self.0.tell_of_others(tell)
    }

    fn len(&self) -> usize {
        self.entries().len()
    }

    fn bytes(&self) -> u64 {
        self.entries().bytes()
    }

    fn parts(&self) -> usize {
        self.entries().parts()
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        // Before the entries are looked at, so that none is written too late for the one and too early for the other.
        let waiting = self.0.waiting_keys().into_iter();
        let waiting = waiting.filter(|key| part.is_none_or(|part| self.entries().part_of(key) == part));
        let (waiting, entries) = (waiting.collect(), self.entries().scan(part, shows));
        Box::new(EtcdScan { waiting, entries })
    }

    fn page(
        &self,
        order: Order<'_>,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        self.entries().page(order, after, shows, visit)
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }
}

/// The members that a client asks, and those that it leaves alone.
fn members_of(etcd: &Etcd) -> Vec<EtcdMember> {
    let members = etcd.endpoints().iter().cloned().zip(etcd.good_members());
    members.map(|(endpoint, is_asked)| EtcdMember { endpoint, is_asked, seen: None }).collect()
}

fn no_completion() -> ReadDone {
    Box::new(|_| {})
}

impl Notes for EtcdStore {
    fn write(&self, name: &str, note: &[u8], done: Done) {
        Self::write(self, name.as_bytes(), Ask::Note(note.to_vec(), done));
    }

    fn read(&self, name: &str, done: NoteDone) {
        Self::write(self, name.as_bytes(), Ask::ReadNote(done));
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The keys that wait, and then the entries.
struct EtcdScan {
    waiting: Vec<Key>,
    entries: Box<dyn Scan>,
}

impl Scan for EtcdScan {
    fn next_batch(&mut self, done: ScanDone) {
        if self.waiting.is_empty() {
            return self.entries.next_batch(done);
        }
        let mut batch = Batch::default();
        self.waiting.drain(..).for_each(|key| batch.push(&key, None));
        done(Ok(batch));
    }
}
