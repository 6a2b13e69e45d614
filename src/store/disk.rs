//! The store on disk: what was answered `:ok` is there after a crash, and a store may be larger than memory.
//!
//! ```text
//! connections -> put, delete -> queue -> one thread: a batch, one commit, one sync -> completions -> callers
//!                                 |
//!             get ----------------+--> the engine, at once; after the sync where the key waits in the queue
//! ```
//!
//! All stores of a node share one [`Disk`]: a folder, an engine (fjall, a log-structured merge tree with a journal) and
//! the thread that writes. While it syncs one batch, all that comes meanwhile becomes the next: so callers share syncs,
//! the more of them the more there are, and none is waited for. Reads do not go through the queue. A key that has a
//! write waiting is answered when that is synced, since nothing may be shown that a crash could take back, and a
//! process that writes and then reads finds what it wrote.
//!
//! A batch is one batch of the engine's journal, with a checksum: after a crash it is there as a whole or not at all.
//!
//! What it does not do: spread over disks, encrypt, compress.

mod backup;
mod check;
mod dir;
mod ends;
mod engine;
mod error;
mod frames;
mod ledger;
mod many;
mod pages;
mod queue;
mod record;
mod restore;
mod scan;
mod staged;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

pub use backup::{BackupError, Part, StoreCount, read as read_backup};
#[cfg(feature = "etcd")]
pub(super) use backup::{Progress, Writer};
pub use check::ReadOnlyDisk;
pub use error::OpenError;
pub use ledger::TornEnd;

use super::{
    Cleared, Done, Due, DueDone, Engine, Keeper, NoteDone, Notes, Order, Page, Pending, PendingMany,
    ReadDone, ReadManyDone, Scan, Shows, Store, StoreError, SyncPolicy, Update, UpdateMany, Value, Visit,
    WriteDone,
};
use engine::Totals;
use many::Many;
use queue::{Change, Decided, Write};
use record::{Entry, Found};
use scan::DiskScan;
use writer::{Memory, Shared};

/// A folder with the stores of one node, open: nobody else has it meanwhile.
///
/// Dropped, it carries out what waits, syncs, and lets go of the folder.
pub struct Disk {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where callers may have backups written.
    backups: Mutex<Option<PathBuf>>,
    /// One is being written for a caller.
    backing_up: Arc<AtomicBool>,
}

impl Disk {
    /// Opens a folder, made where there is none, and brings it to the state of the last batch that was written whole.
    ///
    /// `memory_bytes_max` is about what it may take of memory, whatever it holds: half of it for what was read, up to
    /// 64 MiB, and half for writes that wait, up to 256 MiB. A connection whose write does not fit waits; none is refused.
    /// Beside it come the engine's write buffers, with a few times 16 MiB for each store that is written to.
    ///
    /// # Errors
    /// See [`OpenError`]: somebody else has the folder, it is damaged or of a newer version, or the system refuses.
    /// Nothing is changed then.
    ///
    /// Damage is found in the journals here, also where their end or one of them is missing (the module `ledger` says which
    /// losses can be seen), and in what is read of the tables; [`check`](Self::check) reads all of them.
    pub fn open(dir: &Path, sync: SyncPolicy, memory_bytes_max: u64) -> Result<Arc<Self>, OpenError> {
        let shared = Arc::new(Shared::open(dir, sync, Memory::within(memory_bytes_max))?);
        let mut threads = Vec::new();
        let mut start = |name: &str, work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(name.into()).spawn(move || work(&shared));
            threads.push(thread.map_err(|error| OpenError::system(dir, &error))?);
            Ok(())
        };
        start("kvnode-disk", Shared::write_until_closed)?;
        if matches!(sync, SyncPolicy::Interval(_)) {
            start("kvnode-sync", Shared::sync_until_closed)?;
        }
        let (threads, backups) = (Mutex::new(threads), Mutex::default());
        Ok(Arc::new(Self { shared, threads, backups, backing_up: Arc::default() }))
    }

    /// The store that has one of `names`, or a new one with them. A name is any text; all are kept, and tell the store
    /// again when the folder is opened the next time.
    ///
    /// # Errors
    /// The names belong to more than one store, or the system refuses to make a new one.
    pub fn store(self: &Arc<Self>, names: &[String]) -> Result<DiskStore, OpenError> {
        let (id, totals) = self.shared.store(names)?;
        Ok(DiskStore { disk: Arc::clone(self), id, totals })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.shared.dir()
    }

    /// The names of each store that is in the folder.
    pub fn stores(&self) -> Vec<Vec<String>> {
        self.shared.named()
    }

    /// Calls `done` when all that was written before is carried out; `Ok` where it is on disk.
    pub fn settled(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        let change = Change::Nothing(Box::new(done));
        self.shared.push(Write { store: 0, key: Arc::from(&[][..]), change });
    }

    /// Carries out what waits, syncs, and ends the threads; what is written afterwards fails.
    pub fn close(&self) {
        self.shared.close();
        for thread in self.threads.lock().drain(..) {
            // The last to let go may be a completion, on the thread itself.
            if thread.thread().id() != thread::current().id() {
                // A thread that has panicked has said so.
                let _ = thread.join();
            }
        }
    }

    /// Reads every entry of every store. `progress` is told how many entries are done and how many there are, now and
    /// then, and ends it by `false`.
    ///
    /// # Errors
    /// The first entry that cannot be read, or counts that are not as they were written.
    #[doc(hidden)]
    pub fn check(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Vec<StoreCount>, OpenError> {
        self.shared.check(progress)
    }

    /// Writes all stores into a new file, as they are now, while others write: with all that was answered, and nothing
    /// by half. `progress` is as for [`check`](Self::check).
    ///
    /// # Errors
    /// See [`BackupError`]. There is no such file then.
    #[doc(hidden)]
    pub fn backup(
        &self,
        file: &Path,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Vec<StoreCount>, BackupError> {
        let view = self.shared.view().map_err(BackupError::Store)?;
        backup::write(&view, file, progress)
    }

    /// Makes a folder of a backup. The file is checked from its beginning to its end before anything is written. The folder
    /// must not be there, or be empty but for `lost+found`; a node refuses it until all is in it. `progress` is as for
    /// [`check`](Self::check), of bytes.
    ///
    /// # Errors
    /// See [`BackupError`]. The folder is as it was then.
    #[doc(hidden)]
    pub fn restore(
        file: &Path,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Vec<StoreCount>, BackupError> {
        restore::restore(file, dir, progress)
    }

    /// Lets callers of its stores have backups written, into this folder and those in it; it is made where there is none.
    ///
    /// # Errors
    /// The system refuses to make it.
    pub fn allow_backups(&self, dir: &Path) -> Result<(), OpenError> {
        let made = dir::make(dir).and_then(|()| dir.canonicalize());
        let made = made.map_err(|error| OpenError::system(dir, &error))?;
        *self.backups.lock() = Some(made);
        Ok(())
    }

    /// Where a backup goes that a caller asks for.
    fn backup_path(&self, path: &str) -> Result<PathBuf, StoreError> {
        let Some(allowed) = self.backups.lock().clone() else { return Err(StoreError::Io("eacces")) };
        let wanted = allowed.join(path);
        // By way of links too it must end there.
        let dir = wanted.parent().ok_or(StoreError::Io("eacces"))?.canonicalize();
        let dir = dir.map_err(|error| error::store_error(&error))?;
        match wanted.file_name() {
            Some(name) if dir.starts_with(&allowed) && !path.ends_with('/') => Ok(dir.join(name)),
            _ => Err(StoreError::Io("eacces")),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("dir", &self.shared.dir()).finish_non_exhaustive()
    }
}

/// One store of a [`Disk`].
#[derive(Clone)]
pub struct DiskStore {
    disk: Arc<Disk>,
    id: u32,
    totals: Arc<Totals>,
}

impl DiskStore {
    fn write(&self, key: &[u8], change: Change) {
        self.disk.shared.push(Write { store: self.id, key: key.into(), change });
    }
}

impl Engine for Arc<Disk> {
    type Store = DiskStore;

    fn open(&self, names: &[String]) -> Result<DiskStore, OpenError> {
        self.store(names)
    }

    fn open_again(&self, store: &DiskStore) -> DiskStore {
        store.clone()
    }

    fn settle(&self, done: Done) {
        self.settled(done);
    }

    fn close(&self) {
        Disk::close(self);
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.dir().to_owned())
    }
}

impl Store for DiskStore {
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let shared = &self.disk.shared;
        // One of the two is used, and the compiler cannot know which.
        let mut later = Some(later);
        let waits = shared.read_later(self.id, key, || later.take().expect("asked for once")());
        if waits {
            return None;
        }
        match shared.read(self.id, key) {
            Ok(None) => Some(now(None)),
            Ok(Some(found)) => Some(now(Some(found.value()))),
            Err(error) => {
                if let Some(later) = later.take() {
                    later()(Err(error));
                }
                None
            }
        }
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.write(key, Change::Update(later(update), Decided::default()));
        None
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        self.write(key, Change::Put(Entry::new(key, value), later()));
        None
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<u64, StoreError>> {
        self.write(key, Change::Delete(later()));
        None
    }

    fn get_many<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        let shared = &self.disk.shared;
        // As in `get`.
        let mut later = Some(later);
        if shared.read_many_later(self.id, keys, || later.take().expect("asked for once")()) {
            return None;
        }
        match shared.read_many(self.id, keys) {
            Ok(found) => {
                Some(now(&found.iter().map(|found| found.as_ref().map(Found::value)).collect::<Vec<_>>()))
            }
            Err(error) => {
                if let Some(later) = later.take() {
                    later()(Err(error));
                }
                None
            }
        }
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.write(&[], Change::UpdateMany(Many::new(keys, later(update))));
        None
    }

    fn clear(&self, later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        self.write(&[], Change::Clear(later()));
        None
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        self.write(&[], Change::Nothing(later()));
        None
    }

    fn seq(&self) -> u64 {
        self.totals.seq.load(Ordering::Acquire)
    }

    fn revision(&self) -> u64 {
        self.totals.revision()
    }

    fn raise_revision(&self, above: u64) {
        self.totals.raise_revision(above);
    }

    fn next_due(&self) -> Option<u64> {
        // What cannot be read is told of by what asks for it.
        self.disk.shared.next_due(self.id).unwrap_or(Some(0))
    }

    fn due(&self, now: u64, max: usize, later: impl FnOnce() -> DueDone) -> Option<Due> {
        match self.disk.shared.due(self.id, now, max) {
            Ok(due) => Some(due),
            Err(error) => {
                later()(Err(error));
                None
            }
        }
    }

    fn deadlines(&self) -> usize {
        usize::try_from(self.totals.deadlines.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn keeper(&self) -> Keeper {
        Keeper::Disk
    }

    fn len(&self) -> usize {
        usize::try_from(self.totals.entries.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> u64 {
        self.totals.bytes.load(Ordering::Relaxed)
    }

    fn parts(&self) -> usize {
        record::PARTS
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        Box::new(DiskScan::new(Arc::clone(&self.disk.shared), self.id, part, shows))
    }

    fn page(
        &self,
        order: Order<'_>,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        pages::page(self, order, after, shows, visit)
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }

    fn backup(&self, path: &str, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        let file = match self.disk.backup_path(path) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        if self.disk.backing_up.swap(true, Ordering::AcqRel) {
            return Some(Err(StoreError::Io("ebusy")));
        }
        let (shared, busy, done) =
            (Arc::clone(&self.disk.shared), Arc::clone(&self.disk.backing_up), later());
        let work = move || {
            // Nobody waits for it at the end of the node.
            let progress = &mut |_, _| !shared.is_closed();
            let written = shared
                .view()
                .map_err(BackupError::Store)
                .and_then(|view| backup::write(&view, &file, progress));
            busy.store(false, Ordering::Release);
            done(match written {
                Ok(stores) => {
                    let entries: u64 = stores.iter().map(|store| store.entries).sum();
                    tracing::info!(file = %file.display(), entries, "backup written");
                    Ok(())
                }
                Err(error) => {
                    tracing::error!(file = %file.display(), "no backup was written: {error}");
                    Err(match error {
                        BackupError::Store(error) => error,
                        BackupError::Unreadable { .. } => StoreError::Io("damaged"),
                        BackupError::Exists(_) => StoreError::Io("eexist"),
                        BackupError::Stopped => StoreError::Io("terminated"),
                        _ => StoreError::Io("eio"),
                    })
                }
            });
        };
        if let Err(error) = thread::Builder::new().name("kvnode-backup".into()).spawn(work) {
            self.disk.backing_up.store(false, Ordering::Release);
            // The caller's completion went with the thread: its call ends by its time-out.
            tracing::error!(%error, "no thread for a backup");
        }
        None
    }
}

impl Notes for DiskStore {
    fn write(&self, name: &str, note: &[u8], done: Done) {
        Self::write(self, name.as_bytes(), Change::Note(note.to_vec(), done));
    }

    fn read(&self, name: &str, done: NoteDone) {
        self.disk.shared.read_note(self.id, name, done);
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("id", &self.id).field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
