//! The thread that writes: batch after batch, each with one sync, and what it does when the system refuses.
//!
//! ```text
//!           a write or a sync fails                    the disk takes a file and syncs it
//! Writing --------------------------> Broken (reads go on) ------------------------------> Writing
//! ```
//!
//! After a failure the engine's journal is not trusted: the batch is taken out of it before the engine reads it again,
//! so that a write that was answered by an error is not there later. What is written next tries that first: a batch, or the
//! names of a store, on another thread. A full disk does not get that far: a batch that would fill it is refused before the
//! engine sees it.
//!
//! Locks are taken in this order: `reviving`, `engine`, `broken`.

mod reads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use fjall::PersistMode;
use parking_lot::{Condvar, Mutex, RwLock};

use super::SyncPolicy;
use super::backup::{Progress, StoreCount};
use super::check::number_in_tables;
use super::dir::Dir;
use super::engine::{Engine, Health, RoomFor, TABLES_WAITING_MAX, Totals, View};
use super::error::{OpenError, engine_error, store_error};
use super::ledger::{Access, Journals, Ledger, Verdict};
use super::queue::{BATCH_BYTES_MAX, Change, Queue, Read, Write};
use super::record::Found;
use super::staged::Held;
use crate::store::StoreError;
use crate::store::revision::LEAP;

/// A system that has no more room than this beside what is written is full, in bytes: the engine writes what it holds in
/// memory to new files before it lets go of old ones, and should not fail in the middle of that. Deletes may use half.
const ROOM_BYTES: u64 = 64 << 20;
/// The engine is opened again so often at most: what reads waits for it.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// While there is something to write, a part of what was there before a clear is deleted behind so many turns.
const CLEANS_EVERY: u32 = 8;
/// What was there before so many clears may be on its way. Beyond it each write waits for a part of that to go, and for all files of
/// entries, which clears would make faster than they go.
const CLEARED_MAX: usize = if cfg!(test) { 2 } else { 16 };
/// Past so many bytes at most a connection that writes waits until there is room again, as one to a full socket does:
/// only those get here who write without waiting for answers.
const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// What the engine keeps in memory of what it has read at most, in bytes.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Each of the two has so many bytes at least.
const BYTES_LEAST: u64 = 1 << 20;

/// What may be taken of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub cache_bytes: u64,
    /// Of writes that wait.
    pub queue_bytes: usize,
}

impl Memory {
    /// About so many bytes together.
    pub(super) fn within(bytes_max: u64) -> Self {
        let half = (bytes_max / 2).max(BYTES_LEAST);
        let queue_bytes = usize::try_from(half.min(QUEUE_BYTES_MAX)).unwrap_or(usize::MAX);
        Self { cache_bytes: half.min(CACHE_BYTES_MAX), queue_bytes }
    }
}

/// What the threads and the stores share.
pub(super) struct Shared {
    dir: Dir,
    ledger: Ledger,
    sync: SyncPolicy,
    memory: Memory,
    /// `None` when it could not be opened again.
    engine: RwLock<Option<Engine>>,
    totals: RwLock<AHashMap<u32, Arc<Totals>>>,
    queue: Mutex<Queue>,
    /// Writes in the queue or being carried out: a look without the lock.
    waiting: AtomicUsize,
    work: Condvar,
    room: Condvar,
    closed: Condvar,
    broken: Mutex<Option<Broken>>,
    /// One thread opens the engine again.
    reviving: Mutex<()>,
}

/// The engine has failed to write.
#[derive(Clone, Copy, Debug, Default)]
struct Broken {
    /// When it was opened again in vain last.
    tried: Option<Instant>,
}

impl Shared {
    pub(super) fn open(path: &Path, sync: SyncPolicy, memory: Memory) -> Result<Self, OpenError> {
        let dir = Dir::take(path)?;
        let access = Access::Write { always: sync == SyncPolicy::Always };
        let in_tables = |journals: &Journals| number_in_tables(&dir.engine(), journals);
        let (ledger, verdict, _) = Ledger::open(path, access, &in_tables)?;
        let was_not_synced = !ledger.was_always();
        let engine = open_engine(&dir, &ledger, verdict, memory)?;
        let has_room = |bytes: u64| dir.free_bytes().is_ok_and(|free| free >= ROOM_BYTES + bytes * 2);
        let ordered = catch_unwind(AssertUnwindSafe(|| engine.put_all_in_order(&ledger, &has_room)));
        let ordered = ordered.unwrap_or(Err(fjall::Error::Poisoned));
        ordered.map_err(|error| OpenError::engine(&dir.engine(), error))?;
        let mut totals = AHashMap::new();
        let failed = |error| OpenError::engine(path, error);
        for (id, _) in engine.names().map_err(failed)? {
            let held = Totals::new(engine.held(id).map_err(failed)?);
            if was_not_synced {
                held.raise_revision(held.revision().saturating_add(LEAP));
            }
            totals.insert(id, Arc::new(held));
        }
        Ok(Self {
            dir,
            ledger,
            sync,
            memory,
            engine: RwLock::new(Some(engine)),
            totals: RwLock::new(totals),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            work: Condvar::new(),
            room: Condvar::new(),
            closed: Condvar::new(),
            broken: Mutex::new(None),
            reviving: Mutex::new(()),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// Shows a test the engine, with its ledger.
    #[cfg(test)]
    pub(super) fn with_engine<R>(&self, show: impl FnOnce(&Engine, &Ledger) -> R) -> R {
        show(self.engine.read().as_ref().expect("it is open"), &self.ledger)
    }

    pub(super) fn named(&self) -> Vec<Vec<String>> {
        let engine = self.engine.read();
        let names = engine.as_ref().and_then(|engine| engine.names().ok()).unwrap_or_default();
        names.into_iter().map(|(_, names)| names).collect()
    }

    pub(super) fn store(&self, names: &[String]) -> Result<(u32, Arc<Totals>), OpenError> {
        let refused = |reason: String| OpenError::System { path: self.dir.path.clone(), reason };
        let failed = |error| match error {
            fjall::Error::Poisoned => refused("the engine has failed to write; try it again".into()),
            error => OpenError::engine(&self.dir.path, error),
        };
        // Nobody else may come to write.
        let revived = self.revive().map_err(|error| refused(error.to_string()));
        let mut guard = self.engine.write();
        let Some(engine) = guard.as_mut() else {
            return Err(revived.err().unwrap_or_else(|| refused("it is closed".into())));
        };
        let known = engine.names().map_err(failed)?;
        let mut of_it = known.iter().filter(|(_, of_it)| names.iter().any(|name| of_it.contains(name)));
        let found = of_it.next();
        if of_it.next().is_some() {
            return Err(OpenError::Names { names: names.to_vec() });
        }
        let id = match found {
            Some((id, _)) => *id,
            None => engine.next_number().map_err(failed)?,
        };
        if found.is_none_or(|(_, of_it)| of_it != names) {
            revived?;
            let mut broken = self.broken.lock();
            // Behind a batch that failed none comes before that is taken back. (The ledger would not have it either.)
            if broken.is_some() {
                return Err(failed(fjall::Error::Poisoned));
            }
            match engine.name(id, names, &self.ledger) {
                Ok(Health::Sound) => {}
                Ok(Health::Failed) => *broken = Some(Broken::default()),
                Err(error) => {
                    *broken = Some(Broken::default());
                    return Err(failed(error));
                }
            }
        }
        let totals = Arc::clone(
            self.totals.write().entry(id).or_insert_with(|| Arc::new(Totals::new(Default::default()))),
        );
        Ok((id, totals))
    }

    pub(super) fn push(&self, write: Write) {
        let mut queue = self.queue.lock();
        while queue.bytes() > self.memory.queue_bytes && !queue.closed {
            self.room.wait(&mut queue);
        }
        if queue.closed {
            drop(queue);
            return write.fail(StoreError::Io("terminated"));
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        queue.push(write);
        drop(queue);
        self.work.notify_one();
    }

    /// See [`Queue::waiting_keys`].
    pub(super) fn waiting_keys(&self, store: u32) -> Vec<Arc<[u8]>> {
        self.queue.lock().waiting_keys(store)
    }

    /// Whether a write waits, or is being told of.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// All stores as they are now.
    pub(super) fn view(&self) -> Result<View, StoreError> {
        self.engine.read_recursive().as_ref().map(Engine::view).ok_or(StoreError::Io("eio"))
    }

    /// Reads everything; `progress` is told of entries.
    pub(super) fn check(&self, progress: Progress<'_>) -> Result<Vec<StoreCount>, OpenError> {
        let unopened =
            |_| OpenError::Damaged { file: self.dir.engine(), what: "it could not be opened again".into() };
        self.view().map_err(unopened)?.check(&self.dir.engine(), progress)
    }

    /// Syncs all that was written.
    pub(super) fn sync_all(&self) -> Result<(), StoreError> {
        let engine = self.engine.read();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        let last = self.ledger.last();
        engine.db.persist(PersistMode::SyncAll).map_err(|error| engine_error(&error))?;
        self.ledger.synced(last);
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
        self.closed.notify_all();
    }

    /// The writing thread's work.
    pub(super) fn write_until_closed(&self) {
        // Something may be left of what was there before a clear.
        let (mut cleans, mut batches) = (true, 0_u32);
        let mut is_from_before = self.cleared_count() > Some(0);
        if is_from_before {
            tracing::info!("what was there before :clear is being deleted, while stores are used");
        }
        loop {
            let (writes, is_closed) = {
                let mut queue = self.queue.lock();
                while queue.is_empty() && !queue.closed && !cleans {
                    self.work.wait(&mut queue);
                }
                (queue.take(BATCH_BYTES_MAX), queue.closed)
            };
            if !writes.is_empty() {
                let mut rest = writes;
                while !rest.is_empty() {
                    rest = self.carry_out(rest);
                    if self.cleared_count() > Some(CLEARED_MAX) {
                        self.clean();
                    }
                }
                batches = batches.wrapping_add(1);
                cleans = true;
                if !batches.is_multiple_of(CLEANS_EVERY) {
                    continue;
                }
            } else if is_closed {
                break;
            }
            cleans = cleans && self.clean();
            if is_from_before && self.cleared_count() == Some(0) {
                is_from_before = false;
                tracing::info!("what was there before :clear is deleted");
            }
        }
        if let Some(engine) = self.engine.read().as_ref()
            && self.broken.lock().is_none()
        {
            match engine.db.persist(PersistMode::SyncAll) {
                Ok(()) => self.ledger.close(),
                Err(error) => {
                    tracing::error!(dir = %self.dir.path.display(), ?error, "the last sync failed");
                }
            }
        }
        // The folder may be opened again from now on: nobody revives the engine.
        let _reviving = self.reviving.lock();
        *self.engine.write() = None;
        *self.broken.lock() = None;
    }

    /// Carries out a batch of the first of these writes, and tells of it; gives the others.
    fn carry_out(&self, mut writes: Vec<Write>) -> Vec<Write> {
        // Its memory goes into the engine; the queue counts as it counted when it came.
        let sizes: Vec<usize> = writes.iter().map(Write::bytes).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.commit(&mut writes, sizes.iter().sum())));
        let (count, mut results) = outcome.unwrap_or_else(|_| {
            tracing::error!("a batch panicked before it was written (a bug: please report it)");
            *self.broken.lock() = Some(Broken::default());
            (writes.len(), Err(StoreError::Io("eio")))
        });
        let rest = writes.split_off(count);
        let written: Vec<_> = writes.iter().filter_map(Write::place).collect();
        let totals = self.totals.read().clone();
        for (at, write) in writes.into_iter().enumerate() {
            let failed = match &mut results {
                Ok(refused) => {
                    let found = refused.binary_search_by_key(&at, |(refused, _)| *refused);
                    found.ok().map(|found| refused[found].1.clone())
                }
                Err(error) => Some(error.clone()),
            };
            let of_it = totals.get(&write.store);
            let number = || of_it.map_or(0, |totals| totals.seq.fetch_add(1, Ordering::AcqRel) + 1);
            tell(|| match failed {
                Some(error) => write.fail(error),
                None => write.succeed(number),
            });
        }
        // After the completions: a key that waits no more has been told of to slaves.
        let reads = self.queue.lock().carried_out(count, written, sizes[..count].iter().sum());
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        self.room.notify_all();
        for read in reads {
            tell(|| match read {
                Read::Entry(store, key, done) => {
                    let found = self.read(store, &key);
                    let found = found.as_ref().map(|found| found.as_ref().map(Found::value));
                    done(found.map_err(Clone::clone));
                }
                Read::Entries(store, keys, done) => match self.read_many(store, &keys) {
                    Ok(found) => {
                        done(Ok(&found
                            .iter()
                            .map(|found| found.as_ref().map(Found::value))
                            .collect::<Vec<_>>()));
                    }
                    Err(error) => done(Err(error)),
                },
                Read::Note(store, name, done) => done(self.note(store, &name)),
            });
        }
        // Written, and the engine has failed behind it: it is opened again, and so synced, though nobody may come to write.
        if results.is_ok() && self.broken.lock().is_some() {
            let _ = self.revive();
        }
        rest
    }

    /// The syncing thread's work, where writes do not wait for it.
    pub(super) fn sync_until_closed(&self) {
        let SyncPolicy::Interval(interval) = self.sync else { return };
        let mut queue = self.queue.lock();
        while !queue.closed {
            self.closed.wait_for(&mut queue, interval);
            parking_lot::MutexGuard::unlocked(&mut queue, || self.sync_now());
        }
    }

    fn sync_now(&self) {
        let engine = self.engine.read();
        let mut broken = self.broken.lock();
        let Some(engine) = engine.as_ref().filter(|_| broken.is_none()) else { return };
        let last = self.ledger.last();
        match engine.db.persist(PersistMode::SyncData) {
            Ok(()) => self.ledger.synced(last),
            Err(error) => {
                tracing::error!(dir = %self.dir.path.display(), ?error, "a sync failed: what was written since the last one may be lost");
                *broken = Some(Broken::default());
            }
        }
    }

    /// Writes a batch of the first of these writes; gives how many these are, and which of them were refused by themselves.
    fn commit(
        &self,
        writes: &mut [Write],
        bytes: usize,
    ) -> (usize, Result<Vec<(usize, StoreError)>, StoreError>) {
        match self.commit_first(writes, bytes) {
            Ok((0, _)) => {}
            Ok((count, refused)) => return (count, Ok(refused)),
            Err(error) => return (writes.len(), Err(error)),
        }
        // The first one empties a store of many entries: by itself, with others of that kind behind it.
        let clears = |write: &Write| matches!(write.change, Change::Clear(_)).then_some(write.store);
        let Some(store) = writes.first().and_then(clears) else { return (writes.len(), Ok(Vec::new())) };
        let times = writes.iter().take_while(|write| clears(write) == Some(store)).count();
        (times, self.clear(store, times).map(|()| Vec::new()))
    }

    /// The same; gives none where the first one cannot be in a batch with others.
    fn commit_first(
        &self,
        writes: &mut [Write],
        bytes: usize,
    ) -> Result<(usize, Vec<(usize, StoreError)>), StoreError> {
        self.revive()?;
        if let Err(error) = self.wait_for_tables() {
            // What it failed at may have passed since.
            let error = self.failed(&error);
            self.revive().map_err(|_| error)?;
        }
        let room = self.room(writes, bytes)?;
        let mode = self.mode();
        let engine = self.engine.read();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        let totals = self.totals.read();
        match engine.commit(writes, mode, room, &self.ledger, |id| totals.get(&id).cloned()) {
            Ok(committed) => {
                for (id, held) in committed.held {
                    if let Some(totals) = totals.get(&id) {
                        totals.hold(held);
                    }
                }
                if committed.health == Health::Failed {
                    *self.broken.lock() = Some(Broken::default());
                }
                Ok((committed.count, committed.refused))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    const fn mode(&self) -> PersistMode {
        match self.sync {
            SyncPolicy::Always => PersistMode::SyncData,
            SyncPolicy::Interval(_) | SyncPolicy::Never => PersistMode::Buffer,
        }
    }

    /// Empties a store; `times`: so many writes in turn are this.
    fn clear(&self, store: u32, times: usize) -> Result<(), StoreError> {
        let Some(totals) = self.totals.read().get(&store).cloned() else { return Ok(()) };
        match self.empty(store, totals.held(), times) {
            Ok((health, held)) => {
                totals.hold(held);
                if health == Health::Failed {
                    *self.broken.lock() = Some(Broken::default());
                }
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn empty(&self, store: u32, before: Held, times: usize) -> fjall::Result<(Health, Held)> {
        if let Some(engine) = self.engine.read().as_ref() {
            engine.prepare_clear(store)?;
        }
        // Nobody reads meanwhile: a view has the numbers and the entries from before, or from now.
        match self.engine.write().as_mut() {
            Some(engine) => engine.clear(store, before, times, &self.ledger),
            None => Err(fjall::Error::Poisoned),
        }
    }

    /// Clears of which something is to go still. `None`: the engine is closed.
    fn cleared_count(&self) -> Option<usize> {
        self.engine.read().as_ref().map(Engine::cleared_count)
    }

    /// Deletes a part of what was there before a clear; gives whether there is more, and it can be gone on with now.
    pub(super) fn clean(&self) -> bool {
        if self.broken.lock().is_some() || self.wait_for_tables().is_err() {
            return false;
        }
        let engine = self.engine.read();
        let Some(engine) = engine.as_ref().filter(|engine| engine.has_cleared()) else { return false };
        let has_room = || self.dir.free_bytes().is_ok_and(|free| free >= ROOM_BYTES / 2);
        let cleaned = catch_unwind(AssertUnwindSafe(|| engine.clean(self.mode(), &self.ledger, &has_room)));
        match cleaned {
            Ok(Ok(is_more)) => is_more,
            Ok(Err(error)) => {
                self.failed(&error);
                false
            }
            Err(_) => {
                tracing::error!("the engine panicked (a bug: please report it)");
                *self.broken.lock() = Some(Broken::default());
                false
            }
        }
    }

    /// What there is room for of a batch.
    fn room(&self, writes: &[Write], bytes: usize) -> Result<RoomFor, StoreError> {
        let free = self.dir.free_bytes().map_err(|error| store_error(&error))?;
        if free >= ROOM_BYTES + bytes as u64 * 2 {
            return Ok(RoomFor::All);
        }
        let deletes: usize = writes.iter().map(Write::delete_bytes).sum();
        let enough = free >= ROOM_BYTES / 2 + deletes as u64 * 2;
        Ok(if enough { RoomFor::Deletes } else { RoomFor::Nothing })
    }

    /// The engine has failed to write: nothing is written before it was opened again.
    fn failed(&self, error: &fjall::Error) -> StoreError {
        tracing::error!(
            dir = %self.dir.path.display(), ?error,
            "the disk does not take what is written; callers are told, reads go on"
        );
        *self.broken.lock() = Some(Broken::default());
        if !matches!(error, fjall::Error::Poisoned) {
            return engine_error(error);
        }
        // The engine does not say what its threads failed with: the disk is asked.
        match self.dir.free_bytes() {
            Ok(free) if free < ROOM_BYTES / 2 => StoreError::NoSpace,
            _ => self.dir.probe().map_or_else(|refused| store_error(&refused), |()| engine_error(error)),
        }
    }

    fn wait_for_tables(&self) -> fjall::Result<()> {
        let engine = self.engine.read();
        engine.as_ref().map_or(Ok(()), |engine| engine.wait_for_tables(TABLES_WAITING_MAX))
    }

    /// Opens the engine again after a failure, once the disk takes what is written.
    fn revive(&self) -> Result<(), StoreError> {
        if self.broken.lock().is_none() {
            return Ok(());
        }
        let _reviving = self.reviving.lock();
        // Another thread may have done it meanwhile.
        let Some(broken) = *self.broken.lock() else { return Ok(()) };
        self.dir.probe().map_err(|error| store_error(&error))?;
        if broken.tried.is_some_and(|tried| tried.elapsed() < TRY_EVERY) {
            return Err(StoreError::Io("eio"));
        }
        let reopened = self.reopen();
        *self.broken.lock() = reopened.is_err().then(|| Broken { tried: Some(time()) });
        match reopened {
            Ok(()) => {
                tracing::warn!(dir = %self.dir.path.display(), "the disk takes writes again");
                Ok(())
            }
            Err(what) => {
                tracing::error!(dir = %self.dir.path.display(), "the disk does not take writes yet: {what}");
                Err(StoreError::Io("eio"))
            }
        }
    }

    /// Opens the engine again, without what it failed to write; gives why not.
    fn reopen(&self) -> Result<(), String> {
        {
            let mut engine = self.engine.write();
            if engine.as_ref().is_some_and(Engine::is_viewed) {
                return Err("a copy or a backup is being made".into());
            }
            // It writes out what it has in its buffer when it goes; only then is the journal's end known.
            drop(engine.take());
            let taken_back = self.ledger.take_back();
            taken_back.map_err(|error| format!("the journal could not be cut: {error}"))?;
            let in_tables = |journals: &Journals| number_in_tables(&self.dir.engine(), journals);
            let looked = self.ledger.look(&in_tables);
            let opened =
                looked.and_then(|(verdict, _)| open_engine(&self.dir, &self.ledger, verdict, self.memory));
            let opened = opened.map_err(|error| error.to_string())?;
            for (id, known) in self.totals.read().iter() {
                known.hold(opened.held(*id).map_err(|error| error.to_string())?);
            }
            *engine = Some(opened);
        }
        // A system that has failed to sync forgets that it has: what the journal holds is written once more, elsewhere.
        // Reads go on meanwhile.
        let engine = self.engine.read();
        let Some(engine) = engine.as_ref() else { return Ok(()) };
        let written = engine.write_tables().and_then(|()| engine.wait_for_tables(0));
        written.map_err(|error| error.to_string())
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause between two attempts, and nothing else")]
fn time() -> Instant {
    Instant::now()
}

/// Opens the engine of a folder, where its journals are as they must be.
fn open_engine(dir: &Dir, ledger: &Ledger, verdict: Verdict, memory: Memory) -> Result<Engine, OpenError> {
    verdict.torn()?;
    let path = dir.engine();
    let engine = opened(&path, || Engine::open(&path, memory.cache_bytes))?;
    ledger.opened(engine.number())?;
    Ok(engine)
}

/// Opens an engine that is to be called by `path`.
pub(super) fn opened(path: &Path, open: impl FnOnce() -> fjall::Result<Engine>) -> Result<Engine, OpenError> {
    // What it finds on the disk is nobody's promise: a panic in it is damage, not our end.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| OpenError::engine(path, error)),
        Err(_) => {
            let what = "the engine panicked while it opened it".into();
            Err(OpenError::Damaged { file: path.into(), what })
        }
    }
}

/// Tells somebody, whose panic is not ours.
fn tell(done: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(done)).is_err() {
        tracing::error!("a completion panicked (a bug: please report it)");
    }
}

#[cfg(test)]
mod tests;
