//! The engine with its keyspaces: one for what is known of the stores, and one for each store.
//!
//! ```text
//! meta   "s", store:32 -> its names, one a line        "t", store:32 -> entries:64, bytes:64, revision:64, deadlines:64
//!        "n", store:32, name -> a note               "b" -> the last batch's number (ledger.rs)
//!        "o", store:32 -> how far the order of its keys goes (engine/order.rs)
//!        "g", store:32 -> number:32, of what it has, since it was cleared; before, that is the store's own
//!        "x", number:32 -> nothing: what has this number is to go (engine/cleared.rs)
//! s1 ..  the entries of a number (record.rs)
//! ends   number:32, deadline:64, the engine's key -> nothing (ends.rs)
//! order  number:32, a place in Erlang's order of terms -> the engine's key (engine/order.rs)
//! ```
//!
//! A batch writes the totals beside the entries that they count, and how far the store's revisions have come with them. (Before
//! format 4 no revision stands there, and none in the entries. Where no number of deadlines stands there they are counted once.)

mod cleared;
mod order;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ahash::AHashMap;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode};
use parking_lot::Mutex;

use super::ends::Space;
use super::ledger::{self, Ledger};
use super::queue::{BATCH_BYTES_MAX, Change, Decided, Write};
use super::record::{self, Entry, Found};
use super::staged::{Held, Place, Staged};
use crate::store::revision::{self, REVISION_RAISED_MAX, REVISION_UNKNOWN};
use crate::store::{self, Due, Pending, StoreError};
use cleared::Cleared;
pub(super) use order::Sum;
pub(super) use view::View;

/// Values from this size on are written once, to files of their own, instead of again at each merge, in bytes.
const SEPARATE_FROM_BYTES: u32 = 16 << 10;
/// What a store has in memory until it is written to a table, in bytes: it has to be read from the journal again at the
/// next start.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// The engine's journals may have so many bytes, its least. They go when all that is in them is in tables.
const JOURNALS_BYTES: u64 = 64 << 20;
/// After so many bytes all keyspaces are written to tables, the quiet ones too, which would keep the journals of the
/// others: so a start has to read twice that and one journal at most.
const TABLES_EVERY_BYTES: u64 = 32 << 20;
/// Tables that wait to be written. From 4 on the engine makes the thread that writes wait for them, without an end where
/// its own threads have failed.
pub(super) const TABLES_WAITING_MAX: usize = 2;

/// What a store holds, and how far it has come.
#[derive(Debug)]
pub(super) struct Totals {
    pub entries: AtomicU64,
    pub bytes: AtomicU64,
    /// Entries that have a deadline.
    pub deadlines: AtomicU64,
    /// The number of the last write that has taken effect, counted from 1 at each start.
    pub seq: AtomicU64,
    /// What its revisions have counted to.
    revision: AtomicU64,
    /// So far is that on disk.
    kept: AtomicU64,
}

impl Totals {
    pub(super) fn new(held: Held) -> Self {
        let Held { entries, bytes, deadlines, revision } = held;
        Self {
            entries: entries.into(),
            bytes: bytes.into(),
            deadlines: deadlines.into(),
            seq: AtomicU64::new(1),
            revision: revision.max(REVISION_UNKNOWN).into(),
            kept: revision.into(),
        }
    }

    pub(super) fn held(&self) -> Held {
        Held {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            deadlines: self.deadlines.load(Ordering::Relaxed),
            revision: self.revision(),
        }
    }

    /// It holds so much now, and that is on disk.
    pub(super) fn hold(&self, held: Held) {
        self.entries.store(held.entries, Ordering::Relaxed);
        self.bytes.store(held.bytes, Ordering::Relaxed);
        self.deadlines.store(held.deadlines, Ordering::Relaxed);
        // It may have been raised meanwhile.
        self.revision.fetch_max(held.revision, Ordering::AcqRel);
        self.kept.fetch_max(held.revision, Ordering::AcqRel);
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// See [`Store::raise_revision`](store::Store::raise_revision).
    pub(super) fn raise_revision(&self, above: u64) {
        self.revision.fetch_max(above.min(REVISION_RAISED_MAX), Ordering::AcqRel);
    }

    /// It was raised, and that is not on disk.
    fn is_raised(&self) -> bool {
        self.revision() > self.kept.load(Ordering::Acquire).max(REVISION_UNKNOWN)
    }
}

/// The engine, open.
pub(super) struct Engine {
    pub db: Database,
    meta: Keyspace,
    ends: Keyspace,
    order: Keyspace,
    stores: AHashMap<u32, Space>,
    cleared: Mutex<Cleared>,
    /// Of the last batch when it was opened.
    number: u64,
    /// Bytes since all was written to tables.
    since_tables: AtomicU64,
    /// Each [`View`] has one.
    viewers: Arc<()>,
}

/// How the engine is behind a batch that it has written.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Sound,
    /// It failed with something else: nothing more is written before it was opened again.
    Failed,
}

/// What came of a batch beside that it is written.
pub(super) struct Committed {
    pub health: Health,
    /// So many of the writes, the first ones, were in it: with them it is large enough, or the next one empties a store of many
    /// entries, see [`Engine::clear`].
    pub count: usize,
    /// What the stores hold now.
    pub held: AHashMap<u32, Held>,
    /// Writes that were refused, by their place in the batch.
    pub refused: Vec<(usize, StoreError)>,
}

/// What of a batch the disk has room for. What changes nothing needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomFor {
    All,
    /// Which is how others get room, and for notes.
    Deletes,
    Nothing,
}

impl RoomFor {
    pub(super) const fn takes(self, decided: &Decided) -> bool {
        match decided {
            Decided::Keep => true,
            Decided::Put(_) => matches!(self, Self::All),
            Decided::Delete => !matches!(self, Self::Nothing),
        }
    }
}

impl Engine {
    /// Opens the engine of a folder, whose journals the ledger has looked through.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> fjall::Result<Self> {
        let builder = Database::builder(path).cache_size(cache_bytes).max_journaling_size(JOURNALS_BYTES);
        Self::of(builder.open()?)
    }

    /// The same to read from: nothing is done in the background.
    pub(super) fn open_to_read(path: &Path, cache_bytes: u64) -> fjall::Result<Self> {
        Self::of(Database::builder(path).cache_size(cache_bytes).worker_threads_unchecked(0).open()?)
    }

    fn of(db: Database) -> fjall::Result<Self> {
        let meta = db.keyspace("meta", KeyspaceCreateOptions::default)?;
        let ends = db.keyspace("ends", KeyspaceCreateOptions::default)?;
        let order = db.keyspace("order", KeyspaceCreateOptions::default)?;
        let mut engine = Self {
            db,
            meta,
            ends,
            order,
            stores: AHashMap::new(),
            cleared: Mutex::default(),
            number: 0,
            since_tables: AtomicU64::new(0),
            viewers: Arc::default(),
        };
        engine.look_for_cleared()?;
        for (id, _) in engine.names()? {
            engine.open_store(id)?;
            engine.look_for_order(id)?;
        }
        if let Some(stamp) = engine.meta.get(ledger::KEY)? {
            engine.number = ledger::number_of(&stamp).ok_or(fjall::Error::Unrecoverable)?;
        }
        Ok(engine)
    }

    /// The number of the last batch that it had when it was opened; 0: there was none.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Writes a batch that has something in it. One at a time.
    ///
    /// # Errors
    /// It is not written, and out until the ledger takes it back.
    fn commit_stamped(
        &self,
        batch: OwnedWriteBatch,
        mode: PersistMode,
        ledger: &Ledger,
    ) -> fjall::Result<Health> {
        let mut batch = batch.durability(Some(mode));
        let Some(stamp) = ledger.stamp(self.db.seqno()) else {
            tracing::error!("nothing is written behind a batch that failed before it is taken back");
            return Err(fjall::Error::Poisoned);
        };
        // The last of it: see the module `ledger`.
        batch.insert(&self.meta, ledger::KEY, stamp);
        let commit = || -> fjall::Result<()> {
            #[cfg(test)]
            planted::fail(planted::Place::BeforeCommit)?;
            batch.commit()?;
            #[cfg(test)]
            planted::fail(planted::Place::BehindCommit)?;
            Ok(())
        };
        let health = match unless_it_panics(commit) {
            Some(committed) => committed.map(|()| Health::Sound)?,
            None if self.has(stamp) => Health::Failed,
            None => return Err(fjall::Error::Poisoned),
        };
        ledger.wrote(mode != PersistMode::Buffer);
        Ok(health)
    }

    /// Whether the last batch that it has is the one with this stamp.
    fn has(&self, stamp: [u8; ledger::STAMP_BYTES]) -> bool {
        let found = unless_it_panics(|| self.meta.get(ledger::KEY));
        matches!(found, Some(Ok(Some(found))) if *found == stamp)
    }

    fn open_store(&mut self, id: u32) -> fjall::Result<()> {
        let space = self.open_space(id, self.number_of(id)?)?;
        self.stores.insert(id, space);
        Ok(())
    }

    fn open_space(&self, id: u32, number: u32) -> fjall::Result<Space> {
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATE_FROM_BYTES);
        let options = || {
            KeyspaceCreateOptions::default()
                .with_kv_separation(Some(separation))
                .max_memtable_size(MEMTABLE_BYTES)
        };
        let keyspace = self.db.keyspace(&entries_name(number), options)?;
        Space::open((id, number), keyspace, self.ends.clone(), self.order.clone())
    }

    /// The stores, with their names.
    pub(super) fn names(&self) -> fjall::Result<Vec<(u32, Vec<String>)>> {
        self.view().names()
    }

    /// All as it is now, for as long as it is held, whatever is written meanwhile. It holds the engine open.
    pub(super) fn view(&self) -> View {
        View {
            snapshot: self.db.snapshot(),
            meta: self.meta.clone(),
            stores: self.stores.clone(),
            _db: self.db.clone(),
            _viewer: Arc::clone(&self.viewers),
        }
    }

    /// Keeps the names of a store, new or not, durably.
    ///
    /// # Errors
    /// See [`commit`](Self::commit).
    pub(super) fn name(&mut self, id: u32, names: &[String], ledger: &Ledger) -> fjall::Result<Health> {
        let mut batch = self.db.batch();
        if !self.stores.contains_key(&id) {
            self.open_store(id)?;
            self.begin_in_order(id, &mut batch);
        }
        batch.insert(&self.meta, meta_key(b's', id), names.join("\n"));
        self.commit_stamped(batch, PersistMode::SyncAll, ledger)
    }

    pub(super) fn held(&self, id: u32) -> fjall::Result<Held> {
        self.view().held(id)
    }

    pub(super) fn note(&self, id: u32, name: &[u8]) -> fjall::Result<Option<Vec<u8>>> {
        Ok(self.meta.get(note_key(id, name))?.map(|note| note.to_vec()))
    }

    pub(super) fn read(&self, id: u32, key: &[u8]) -> Result<Option<Found>, fjall::Error> {
        let Some(store) = self.stores.get(&id) else { return Ok(None) };
        let engine_key = record::engine_key(key);
        let entry = store.entries.get(&engine_key)?;
        record::found(&engine_key, key, entry)
    }

    /// Keys of a store that have ended by now, `max` at most.
    pub(super) fn due(&self, id: u32, now: u64, max: usize) -> fjall::Result<Due> {
        let view = || self.db.snapshot();
        self.stores.get(&id).map_or_else(|| Ok(Due::default()), |store| store.due(view, now, max))
    }

    /// See [`Store::next_due`](store::Store::next_due).
    pub(super) fn next_due(&self, id: u32) -> fjall::Result<Option<u64>> {
        self.stores.get(&id).map_or(Ok(None), |store| store.next_due(|| self.db.snapshot()))
    }

    /// Waits until no more than so many tables of a store wait to be written.
    ///
    /// # Errors
    /// The engine has failed to write, and writes nothing any more.
    pub(super) fn wait_for_tables(&self, waiting_max: usize) -> fjall::Result<()> {
        let waiting = |keyspace: &Keyspace| keyspace.sealed_memtable_count() > waiting_max;
        loop {
            // Says whether it has failed.
            self.db.persist(PersistMode::Buffer)?;
            let all = [&self.meta, &self.ends, &self.order].into_iter().chain(self.entries());
            if !all.into_iter().any(waiting) {
                return Ok(());
            }
            // The engine has nothing that could be waited for.
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether somebody reads from it as it was at some moment: it cannot be closed then.
    pub(super) fn is_viewed(&self) -> bool {
        Arc::strong_count(&self.viewers) > 1
    }

    /// Has all that is in memory written to tables, in the background.
    pub(super) fn write_tables(&self) -> fjall::Result<()> {
        for keyspace in self.entries().chain([&self.ends, &self.order, &self.meta]) {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// Those of the entries.
    fn entries(&self) -> impl Iterator<Item = &Keyspace> {
        self.stores.values().map(|store| &store.entries)
    }

    /// So many bytes were written.
    fn written(&self, bytes: u64) -> fjall::Result<()> {
        #[cfg(test)]
        planted::fail(planted::Place::Tables)?;
        if self.since_tables.fetch_add(bytes, Ordering::Relaxed) + bytes >= TABLES_EVERY_BYTES {
            self.since_tables.store(0, Ordering::Relaxed);
            self.write_tables()?;
        }
        Ok(())
    }

    /// Writes a batch as a whole. `mode` is how far it is brought before this returns, at least. What there is no room for is refused,
    /// and so is a write whose key has something that cannot be read.
    ///
    /// # Errors
    /// The journal may have it, or a part of it: the engine has to be opened again before anything is written.
    pub(super) fn commit(
        &self,
        writes: &mut [Write],
        mode: PersistMode,
        room: RoomFor,
        ledger: &Ledger,
        totals_of: impl Fn(u32) -> Option<Arc<Totals>>,
    ) -> fjall::Result<Committed> {
        let mut staged = Staged::new(self.db.batch());
        let (mut staged_bytes, mut refused, mut count) = (Bytes::default(), Vec::new(), writes.len());
        for (at, write) in writes.iter_mut().enumerate() {
            if room != RoomFor::Nothing
                && matches!(write.change, Change::Clear(_))
                && !self.clear_few(write.store, &mut staged, &totals_of)
            {
                count = at;
                break;
            }
            match self.stage(write, room, &mut staged, &totals_of) {
                Ok(bytes) => staged_bytes.add(bytes),
                // Nothing of it is in the batch.
                Err(error) => refused.push((at, error)),
            }
            // Small writes may have found, and may leave, large entries.
            if staged_bytes.sum() >= BATCH_BYTES_MAX as u64 {
                count = at + 1;
                break;
            }
        }
        let mode = if staged.empties() { PersistMode::SyncAll } else { mode };
        let Staged { mut batch, held, ends, .. } = staged;
        for (id, held) in &held {
            batch.insert(&self.meta, meta_key(b't', *id), held.to_bytes());
        }
        let mut committed = Committed { health: Health::Sound, count, held, refused };
        if batch.is_empty() {
            return Ok(committed);
        }
        committed.health = self.commit_stamped(batch, mode, ledger)?;
        for (id, deadline) in ends {
            if let Some(store) = self.stores.get(&id) {
                store.has_ended_from(deadline);
            }
        }
        // What was committed is, whatever comes of the tables.
        match unless_it_panics(|| self.written(staged_bytes.written)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(?error, "tables are not written");
                committed.health = Health::Failed;
            }
            None => committed.health = Health::Failed,
        }
        Ok(committed)
    }

    /// Adds a write to a batch; gives about the bytes that this takes.
    ///
    /// # Errors
    /// There is no room for it, or its key cannot be read or written: nothing is added.
    fn stage(
        &self,
        write: &mut Write,
        room: RoomFor,
        staged: &mut Staged,
        totals_of: impl Fn(u32) -> Option<Arc<Totals>>,
    ) -> Result<Bytes, StoreError> {
        let has_room = match write.change {
            Change::Put(..) => room == RoomFor::All,
            // What a store knows of itself has to stand before a deletion that relies on it; it is small.
            Change::Delete(_) | Change::Clear(_) | Change::Note(..) => room != RoomFor::Nothing,
            // By what it decides.
            Change::Update(..) | Change::UpdateMany(_) | Change::Nothing(_) => true,
        };
        if !has_room {
            return Err(StoreError::NoSpace);
        }
        let mut bytes = Bytes { written: write.bytes() as u64, found: 0 };
        if room != RoomFor::Nothing && totals_of(write.store).is_some_and(|totals| totals.is_raised()) {
            staged.keep(write.store, &totals_of);
        }
        if let Change::Note(note, _) = &mut write.change {
            staged.batch.insert(&self.meta, note_key(write.store, &write.key), std::mem::take(note));
            return Ok(bytes);
        }
        let Some(space) = self.stores.get(&write.store) else { return Ok(bytes) };
        let place = Place::new(space, &write.key);
        let last = staged.counted(write.store, &totals_of);
        let (entry, counted) = match &mut write.change {
            // What a clear deletes is in the batch by now.
            Change::Note(..) | Change::Clear(_) | Change::Nothing(_) => return Ok(bytes),
            Change::Put(entry, _) => {
                let (entry, counted) = entry.give(last);
                (Some(entry), counted)
            }
            Change::Delete(_) => (None, revision::counted(0, last)),
            Change::Update(update, decided) => {
                let (now, counted, found) = decide(&mut **update, &place, staged, last)?;
                bytes.found = found;
                if !room.takes(&now) {
                    return Err(StoreError::NoSpace);
                }
                *decided = now;
                match decided {
                    Decided::Keep => return Ok(bytes),
                    Decided::Put(entry) => bytes.written += entry.len() as u64,
                    Decided::Delete => {}
                }
                (decided.entry(), counted)
            }
            Change::UpdateMany(many) => {
                bytes.add(many.stage(space, room, staged, totals_of)?);
                return Ok(bytes);
            }
        };
        let change = staged.prepare(place, entry)?;
        staged.add(change, counted, totals_of);
        Ok(bytes)
    }
}

/// What is held for a batch until its writes are told, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bytes {
    /// Of what it writes.
    pub(super) written: u64,
    /// Of what its updates were shown, and may have kept.
    pub(super) found: u64,
}

impl Bytes {
    const fn add(&mut self, more: Self) {
        self.written += more.written;
        self.found += more.found;
    }

    const fn sum(self) -> u64 {
        self.written + self.found
    }
}

/// Has the engine do something; `None`: it panicked.
fn unless_it_panics<T>(it_does: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(it_does));
    done.inspect_err(|_| tracing::error!("the engine panicked (a bug: please report it)")).ok()
}

/// Shows an update what a key has, with what the batch has made of it so far. Gives what it decides, what the store, which has
/// counted to `last`, has counted to with that, and the bytes that were shown.
fn decide(
    update: &mut dyn Pending,
    place: &Place<'_>,
    staged: &Staged,
    last: u64,
) -> Result<(Decided, u64, u64), StoreError> {
    let found = staged.present(place)?;
    let found = found.as_ref().map(Found::value);
    let bytes = found.map_or(0, |value| value.bytes.len() as u64);
    Ok(match update.decide(found) {
        store::Change::Keep => (Decided::Keep, last, bytes),
        store::Change::Put(value) => {
            let (entry, counted) = Entry::new(place.key, value).give(last);
            (Decided::Put(entry), counted, bytes)
        }
        store::Change::Delete => (Decided::Delete, revision::counted(0, last), bytes),
    })
}

/// The keyspace of the entries of a number.
fn entries_name(number: u32) -> String {
    format!("s{number}")
}

fn meta_key(kind: u8, id: u32) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn note_key(id: u32, name: &[u8]) -> Vec<u8> {
    let mut key = meta_key(b'n', id);
    key.extend_from_slice(name);
    key
}

/// Failures of the engine on the thread of a test.
#[cfg(test)]
pub(super) mod planted {
    use std::cell::Cell;
    use std::io;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::store::disk) enum Place {
        /// A batch has its number, and nothing is written.
        BeforeCommit,
        /// The engine has all of the batch.
        BehindCommit,
        /// A batch is written, and tables may follow.
        Tables,
        /// An older folder has a part of the order of its keys.
        BetweenOrders,
        /// It is to get the next part.
        RoomForOrder,
        /// A part of what was there before a clear is deleted.
        BetweenParts,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::store::disk) enum Fault {
        Panics,
        /// The disk is full.
        Full,
    }

    thread_local! {
        static NEXT: Cell<Option<(Place, Fault)>> = const { Cell::new(None) };
    }

    /// The engine fails once, when it gets to this place.
    pub(in crate::store::disk) fn plant(place: Place, fault: Fault) {
        NEXT.set(Some((place, fault)));
    }

    /// Nothing is planted any more.
    pub(in crate::store::disk) fn clear() {
        NEXT.set(None);
    }

    /// Nothing is planted that the engine has not got to.
    pub(in crate::store::disk) fn is_passed() -> bool {
        NEXT.get().is_none()
    }

    pub(super) fn fail(here: Place) -> fjall::Result<()> {
        match NEXT.get() {
            Some((place, fault)) if place == here => {
                NEXT.set(None);
                assert_ne!(fault, Fault::Panics, "planted");
                Err(fjall::Error::Io(io::ErrorKind::StorageFull.into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
