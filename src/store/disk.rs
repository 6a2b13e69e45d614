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

mod dir;
mod engine;
mod error;
mod journal;
mod queue;
mod record;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

pub use error::OpenError;

use super::{ReadDone, Store, StoreError, Value, WriteDone};
use engine::Totals;
use queue::{Change, Write};
use writer::{Memory, Shared};

/// When a write is synced, and so what a power cut can take. A killed process loses nothing that was answered by any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Before it is answered. Nothing that was answered is lost.
    #[default]
    Always,
    /// So often: what was answered in the last such time can be lost.
    Interval(Duration),
    /// When the system does it by itself.
    Never,
}

/// A folder with the stores of one node, open: nobody else has it meanwhile.
///
/// Dropped, it carries out what waits, syncs, and lets go of the folder.
pub struct Disk {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads) }))
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

    /// The names of each store that is in the folder.
    pub fn stores(&self) -> Vec<Vec<String>> {
        self.shared.named()
    }

    /// Calls `done` when all that was written before is carried out; `Ok` where it is on disk.
    pub fn settled(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.shared.push(Write {
            store: 0,
            key: Arc::from(&[][..]),
            change: Change::Nothing,
            done: Box::new(done),
        });
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

    /// Reads every entry of every store: a number of entries and of bytes for each.
    ///
    /// # Errors
    /// The first entry that cannot be read.
    pub fn check(&self) -> Result<Vec<(Vec<String>, u64, u64)>, OpenError> {
        self.shared.check()
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
    fn write(&self, key: &[u8], change: Change, done: WriteDone) {
        self.disk.shared.push(Write { store: self.id, key: key.into(), change, done });
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

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<(), StoreError>> {
        self.write(key, Change::Put(record::encode(key, value)), later());
        None
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<(), StoreError>> {
        self.write(key, Change::Delete, later());
        None
    }

    fn len(&self) -> usize {
        usize::try_from(self.totals.entries.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> u64 {
        self.totals.bytes.load(Ordering::Relaxed)
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        self.disk.shared.visit(self.id, visit).unwrap_or_else(|error| {
            tracing::error!(%error, "a store could not be read to its end");
            false
        })
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn keep_note(&self, name: &str, note: &[u8], later: impl FnOnce() -> WriteDone) {
        self.write(name.as_bytes(), Change::Note(note.to_vec()), later());
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.shared.note(self.id, name)
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("id", &self.id).field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::mpsc;

    use proptest::prelude::*;

    use super::*;
    use crate::etf::Traits;

    fn value(bytes: &[u8]) -> Value<'_> {
        Value { bytes, shared: None, traits: Traits::V4_NC }
    }

    fn names(name: &str) -> Vec<String> {
        vec![format!("global:{name}")]
    }

    /// Writes, and waits for what becomes of it.
    fn done(write: impl FnOnce(WriteDone)) -> Result<(), StoreError> {
        let (tell, told) = mpsc::channel();
        write(Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap()
    }

    fn put(store: &DiskStore, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        done(|done| assert_eq!(store.put(key, value(bytes), || done), None))
    }

    fn delete(store: &DiskStore, key: &[u8]) -> Result<(), StoreError> {
        done(|done| assert_eq!(store.delete(key, || done), None))
    }

    fn get(store: &DiskStore, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (tell, told) = mpsc::channel();
        let later = || -> ReadDone {
            Box::new(move |found| {
                tell.send(found.map(|found| found.map(|found| found.bytes.to_vec()))).unwrap();
            })
        };
        let now = store.get(key, |found| found.map(|found| found.bytes.to_vec()), later);
        now.map_or_else(|| told.recv().unwrap(), Ok)
    }

    fn all(store: &DiskStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut seen = BTreeMap::new();
        assert!(store.visit(&mut |key, value| {
            assert_eq!(value.traits, Traits::V4_NC);
            seen.insert(key.to_vec(), value.bytes.to_vec()).is_none()
        }));
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn it_is_a_map_also_after_it_was_opened_again(
            steps in prop::collection::vec((0_u8..8, 0_u8..12, 0_usize..4), 1..60),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let open = || Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap().store(&names("a")).unwrap();
            let mut store = open();
            let mut model = BTreeMap::new();
            for (step, (what, key, size)) in steps.into_iter().enumerate() {
                let key = if key == 0 { vec![109; 70_000] } else { vec![key; usize::from(key)] };
                match what {
                    0..=3 => {
                        let bytes = vec![step as u8; [1, 100, 20_000, 70_000][size]];
                        prop_assert_eq!(put(&store, &key, &bytes), Ok(()));
                        model.insert(key, bytes);
                    }
                    4 => {
                        prop_assert_eq!(delete(&store, &key), Ok(()));
                        model.remove(&key);
                    }
                    5 | 6 => prop_assert_eq!(get(&store, &key), Ok(model.get(&key).cloned())),
                    _ => {
                        drop(store);
                        store = open();
                    }
                }
                prop_assert_eq!(store.len(), model.len());
                let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
                prop_assert_eq!(store.bytes(), bytes as u64);
            }
            prop_assert_eq!(all(&store), model);
            prop_assert!(store.disk.check().is_ok());
        }
    }

    #[test]
    fn writes_that_wait_share_a_sync_and_reads_of_their_keys_see_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
        let (tell, told) = mpsc::channel();
        for number in 0..1_000_u32 {
            let tell = tell.clone();
            let key = (number % 10).to_be_bytes();
            store.put(&key, value(&number.to_be_bytes()), || {
                Box::new(move |result| tell.send(result).unwrap())
            });
            assert_eq!(get(&store, b"another"), Ok(None));
        }
        for key in 0..10_u32 {
            let newest = (990 + key).to_be_bytes().to_vec();
            assert_eq!(get(&store, &key.to_be_bytes()), Ok(Some(newest)));
        }
        for _ in 0..1_000 {
            assert_eq!(told.recv().unwrap(), Ok(()));
        }
        assert_eq!(store.len(), 10);
    }

    #[test]
    fn a_store_is_told_by_any_of_its_names_and_two_are_never_one() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
        let (a, b) = (disk.store(&names("a")).unwrap(), disk.store(&names("b")).unwrap());
        put(&a, b"k", b"a").unwrap();
        put(&b, b"k", b"b").unwrap();
        done(|done| a.keep_note("slaves", b"s", || done)).unwrap();
        drop((a, b, disk));
        let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
        let a = disk.store(&["local:x".into(), "global:a".into()]).unwrap();
        assert_eq!(get(&a, b"k"), Ok(Some(b"a".to_vec())));
        assert_eq!(a.note("slaves"), Ok(Some(b"s".to_vec())));
        assert_eq!(get(&disk.store(&["local:x".into()]).unwrap(), b"k"), Ok(Some(b"a".to_vec())));
        let both = ["local:x".to_owned(), "global:b".to_owned()];
        assert!(matches!(disk.store(&both), Err(OpenError::Names { .. })));
    }

    /// A store with three entries, each a batch, and its journal.
    fn three(dir: &Path) -> PathBuf {
        let store = Disk::open(dir, SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
        for key in [b"1", b"2", b"3"] {
            put(&store, key, &[7; 5_000]).unwrap();
        }
        dir.join("engine/0.jnl")
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_before_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = three(dir.path());
        let whole = fs::read(&journal).unwrap();
        let end = journal::inspect(&journal, &mut |_| {}).unwrap().whole_bytes as usize;
        let mut torn = whole.clone();
        torn[end - 3_000] ^= 1;
        fs::write(&journal, &torn).unwrap();
        let store = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
        assert_eq!(get(&store, b"2"), Ok(Some(vec![7; 5_000])));
        assert_eq!(get(&store, b"3"), Ok(None));
        assert_eq!(store.len(), 2);
        drop(store);

        let mut damaged = whole;
        damaged[end - 9_000] ^= 1;
        fs::write(&journal, &damaged).unwrap();
        let refused = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap_err();
        assert!(matches!(&refused, OpenError::Damaged { file, .. } if *file == journal), "{refused}");
        assert_eq!(fs::read(&journal).unwrap(), damaged, "it is as it was");
        // Without a promise there is nothing to be kept but what is whole.
        let store = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap().store(&names("a")).unwrap();
        assert_eq!((get(&store, b"1").unwrap().is_some(), get(&store, b"2")), (true, Ok(None)));
    }

    #[test]
    fn what_is_closed_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
        let store = disk.store(&names("a")).unwrap();
        put(&store, b"k", b"v").unwrap();
        disk.close();
        assert_eq!(put(&store, b"k", b"w"), Err(StoreError::Io("terminated")));
        let again = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).map(|_| ());
        assert!(matches!(again, Err(OpenError::InUse { .. })), "whoever holds it holds the folder");
        drop((store, disk));
        let store = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
        assert_eq!(get(&store, b"k"), Ok(Some(b"v".to_vec())));
    }
}
