//! A store on disk is a map, whatever happens to its process and its files.

mod batches;
mod cleared;
mod ends;
mod folder;
mod formats;
mod many;
mod order;
mod revisions;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::etf::Traits;
use crate::store::scan::at_once;
use crate::store::{self, Written, wait};

/// Bytes of a revision, where that is the only number of an entry.
const REVISION_BYTES: u64 = 9;

fn value(bytes: &[u8]) -> Value<'_> {
    Value::of(bytes, Traits::V4_NC)
}

fn names(name: &str) -> Vec<String> {
    vec![format!("global:{name}")]
}

/// Does something, and waits for what becomes of it.
fn done(ask: impl FnOnce(Done)) -> Result<(), StoreError> {
    wait(ask).unwrap()
}

/// Writes, and waits for what becomes of it.
fn written(write: impl FnOnce(WriteDone)) -> Result<(), StoreError> {
    let (tell, told) = mpsc::channel();
    write(Box::new(move |result| tell.send(result.map(|_| ())).unwrap()));
    told.recv().unwrap()
}

fn note(store: &DiskStore, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    wait(|done| Notes::read(store, name, done)).unwrap()
}

/// Shows what a scan shows.
fn scanned(
    store: &DiskStore,
    part: Option<usize>,
    shows: Shows,
    mut show: impl FnMut(&[u8], Option<Value<'_>>),
) {
    let mut scan = store.scan(part, shows);
    loop {
        let batch = at_once(&mut *scan).unwrap().unwrap();
        batch.iter().for_each(|(key, value)| show(key, value));
        if batch.is_last {
            return;
        }
    }
}

fn put(store: &DiskStore, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    written(|done| assert_eq!(store.put(key, value(bytes), || done), None))
}

fn delete(store: &DiskStore, key: &[u8]) -> Result<(), StoreError> {
    written(|done| assert_eq!(store.delete(key, || done), None))
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

fn revision(store: &DiskStore, key: &[u8]) -> Option<u64> {
    let (tell, told) = mpsc::channel();
    let of = |found: Option<Value<'_>>| found.map(|found| found.revision);
    let later = || -> ReadDone { Box::new(move |found| tell.send(of(found.unwrap())).unwrap()) };
    store.get(key, of, later).unwrap_or_else(|| told.recv().unwrap())
}

fn all(store: &DiskStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut seen = BTreeMap::new();
    scanned(store, None, Shows::Pairs, |key, value| {
        let value = value.expect("nothing is under way");
        assert_eq!(value.traits, Traits::V4_NC);
        assert!(seen.insert(key.to_vec(), value.bytes.to_vec()).is_none(), "a key is shown twice");
    });
    seen
}

/// What becomes of a value: of a short one a longer one, of a longer one none, and the longest stay.
fn appended(present: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
    match present {
        Some(present) if present.len() > 20_000 => None,
        Some(present) if present.len() > 9 => Some(None),
        present => Some(Some([present.unwrap_or_default(), b"more"].concat())),
    }
}

/// The same as an update.
struct Append {
    decided: Option<Option<Vec<u8>>>,
    tell: mpsc::Sender<Option<Option<Vec<u8>>>>,
}

impl Update for Append {
    fn decide(&mut self, present: Option<Value<'_>>) -> store::Change<'_> {
        self.decided = appended(present.map(|present| present.bytes));
        match &self.decided {
            None => store::Change::Keep,
            Some(None) => store::Change::Delete,
            Some(Some(bytes)) => store::Change::Put(value(bytes)),
        }
    }
}

impl Pending for Append {
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        let shown = result.unwrap().map(|written| match written.changes {
            [(_, store::Change::Put(value))] => Some(value.bytes.to_vec()),
            _ => None,
        });
        assert_eq!(shown, self.decided, "what was written is what was decided");
        self.tell.send(shown).unwrap();
    }
}

fn append(store: &DiskStore, key: &[u8]) -> mpsc::Receiver<Option<Option<Vec<u8>>>> {
    let (tell, told) = mpsc::channel();
    let mut update = Append { decided: None, tell: tell.clone() };
    assert_eq!(store.update(key, &mut update, |_| Box::new(Append { decided: None, tell })), None);
    told
}

/// What a folder's files are at this moment, as a killed process leaves them.
fn crashed(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        // What goes meanwhile, a keyspace that is deleted, is as good as gone.
        let Ok(entries) = fs::read_dir(from) else { return };
        let mut entries: Vec<_> = entries.map(Result::unwrap).collect();
        // What says how far the journals come is written after them, so it is copied before them.
        entries.sort_by_key(|entry| entry.file_type().unwrap().is_dir());
        for entry in entries {
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to.join(entry.file_name()));
            } else if let Err(error) = fs::copy(entry.path(), to.join(entry.file_name())) {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

/// The same of a store that may be cleared meanwhile: no keyspace is made or deleted between the copies of its files and of what says
/// that it is there, as no process is killed at two moments.
fn killed(store: &DiskStore) -> tempfile::TempDir {
    store.disk.shared.with_engine(|engine, _| engine.as_it_is(|| crashed(store.disk.dir())))
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// One step of the model's.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    /// Adds four bytes to what is there, and once more in the same batch; deletes it where it is long, and keeps it where it
    /// is longer.
    Append(u8),
    Get(u8),
    /// Puts, and clears of all, that nobody waits for.
    Burst(Vec<(u8, usize)>),
    Clear,
    /// The process is killed, after a burst perhaps.
    Crash(Vec<(u8, usize)>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0_u8..12, 0_usize..4);
    let burst = prop::collection::vec((0..=CLEARS, 0_usize..4), 0..20);
    prop_oneof![
        6 => write.prop_map(|(key, size)| Step::Put(key, size)),
        2 => (0_u8..12).prop_map(Step::Delete),
        3 => (0_u8..12).prop_map(Step::Append),
        3 => (0_u8..12).prop_map(Step::Get),
        1 => burst.clone().prop_map(Step::Burst),
        1 => Just(Step::Clear),
        1 => burst.prop_map(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

/// In the place of a key in a burst: all keys go.
const CLEARS: u8 = 12;

fn key_of(number: u8) -> Vec<u8> {
    if number == 0 { vec![109; 70_000] } else { vec![number; usize::from(number)] }
}

fn bytes_of(mark: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![mark as u8; [4, 100, 20_000, 70_000][size]];
    bytes[..4].copy_from_slice(&(mark as u32).to_be_bytes());
    bytes
}

/// Puts that nobody waits for yet; every state that they bring about, and where their results come.
fn push(
    store: &DiskStore,
    model: &Model,
    burst: &[(u8, usize)],
    mark: &mut usize,
) -> (Vec<Model>, mpsc::Receiver<Result<(), StoreError>>) {
    let (tell, told) = mpsc::channel();
    let mut states = vec![model.clone()];
    for (key, size) in burst {
        *mark += 1;
        let tell = tell.clone();
        if *key == CLEARS {
            store.clear(|| Box::new(move |result| tell.send(result.map(|_| ())).unwrap()));
            states.push(Model::new());
            continue;
        }
        let (key, bytes) = (key_of(*key), bytes_of(*mark, *size));
        store.put(&key, value(&bytes), || Box::new(move |result| tell.send(result.map(|_| ())).unwrap()));
        let mut next = states.last().unwrap().clone();
        next.insert(key, bytes);
        states.push(next);
    }
    (states, told)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn it_is_a_map_through_crashes_and_reopenings(steps in prop::collection::vec(step(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let open = |dir: &Path| {
            Disk::open(dir, SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap()
        };
        let mut store = open(dir.path());
        let (mut model, mut mark) = (Model::new(), 0);
        for step in steps {
            match step {
                Step::Put(key, size) => {
                    mark += 1;
                    let (key, bytes) = (key_of(key), bytes_of(mark, size));
                    prop_assert_eq!(put(&store, &key, &bytes), Ok(()));
                    model.insert(key, bytes);
                }
                Step::Delete(key) => {
                    prop_assert_eq!(delete(&store, &key_of(key)), Ok(()));
                    model.remove(&key_of(key));
                }
                Step::Clear => {
                    prop_assert_eq!(written(|done| assert!(store.clear(|| done).is_none())), Ok(()));
                    model.clear();
                }
                Step::Append(key) => {
                    let key = key_of(key);
                    let told = [append(&store, &key), append(&store, &key)].map(|told| told.recv().unwrap());
                    for told in told {
                        let expected = appended(model.get(&key).map(Vec::as_slice));
                        prop_assert_eq!(&told, &expected);
                        match expected {
                            Some(Some(bytes)) => _ = model.insert(key.clone(), bytes),
                            Some(None) => _ = model.remove(&key),
                            None => {}
                        }
                    }
                }
                Step::Get(key) => {
                    prop_assert_eq!(get(&store, &key_of(key)), Ok(model.get(&key_of(key)).cloned()));
                }
                Step::Burst(burst) => {
                    let (mut states, told) = push(&store, &model, &burst, &mut mark);
                    // It waits for those before it, whatever their keys.
                    prop_assert!(told.iter().take(burst.len()).all(|result| result.is_ok()));
                    model = states.pop().unwrap();
                }
                Step::Crash(burst) => {
                    let (states, told) = push(&store, &model, &burst, &mut mark);
                    let answered = told.try_iter().count();
                    let left = killed(&store);
                    prop_assert!(told.iter().take(burst.len() - answered).all(|result| result.is_ok()));
                    drop(store);
                    dir = left;
                    store = open(dir.path());
                    // All that was answered, and of the rest what came first.
                    let found = all(&store);
                    prop_assert!(states[answered..].contains(&found), "{answered} of {} answered", burst.len());
                    model = found;
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
            }
            // Counted after a completion has been called.
            settle(&store);
            prop_assert_eq!(store.len(), model.len());
            let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert_eq!(store.bytes(), bytes as u64 + model.len() as u64 * REVISION_BYTES);
        }
        prop_assert_eq!(&all(&store), &model);
        let mut parts = Model::new();
        for part in 0..store.parts() {
            scanned(&store, Some(part), Shows::Pairs, |key, value| {
                parts.insert(key.to_vec(), value.expect("nothing is under way").bytes.to_vec());
            });
        }
        prop_assert_eq!(&parts, &model);
        let mut keys = Vec::new();
        for part in 0..store.parts() {
            scanned(&store, Some(part), Shows::Keys, |key, _| keys.push(key.to_vec()));
        }
        keys.sort();
        prop_assert!(keys.iter().eq(model.keys()));
        prop_assert!(store.disk.check(&mut |_, _| true).is_ok());
    }
}

/// Waits until all that was written is done.
fn settle(store: &DiskStore) {
    let (tell, told) = mpsc::channel();
    store.disk.settled(move |result| tell.send(result).unwrap());
    assert_eq!(told.recv().unwrap(), Ok(()));
}

#[test]
fn a_backup_has_one_moment_and_what_is_restored_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&dir.path().join("a"), SyncPolicy::Never, u64::MAX).unwrap();
    let (a, b) = (disk.store(&names("a")).unwrap(), disk.store(&names("b")).unwrap());
    for number in 0..2_000_u32 {
        put(&a, &number.to_be_bytes(), &[7; 100]).unwrap();
    }
    put(&b, &[109; 70_000], &[1; 100_000]).unwrap();
    done(|done| Notes::write(&a, "slaves", b"s", done)).unwrap();
    let file = dir.path().join("backup");
    let mut written = false;
    let counts = disk.backup(&file, &mut |_, all| {
        assert_eq!(all, 2_001);
        // Whatever is written meanwhile is of another moment.
        if !std::mem::replace(&mut written, true) {
            put(&a, b"later", b"1").unwrap();
            delete(&b, &[109; 70_000]).unwrap();
        }
        true
    });
    let counts = counts.unwrap();
    assert!(written && a.len() == 2_001 && b.is_empty());
    assert_eq!(counts.iter().map(|store| store.entries).collect::<Vec<_>>(), [2_000, 1]);
    let again = disk.backup(&file, &mut |_, _| true);
    assert_eq!(again, Err(BackupError::Exists(file.clone())));
    assert_eq!(disk.backup(&dir.path().join("no"), &mut |_, _| false), Err(BackupError::Stopped));
    // The name that one was written under before was anybody's.
    fs::write(dir.path().join("no.new"), "mine").unwrap();
    assert_eq!(disk.backup(&dir.path().join("no"), &mut |_, _| false), Err(BackupError::Stopped));
    disk.backup(&dir.path().join("no"), &mut |_, _| true).unwrap();
    assert_eq!(fs::read(dir.path().join("no.new")).unwrap(), b"mine");
    let mut there: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["a", "backup", "no", "no.new"], "nothing is left of those that failed");

    let restored = dir.path().join("b");
    assert_eq!(Disk::restore(&file, &restored, &mut |_, _| true).unwrap(), counts);
    assert_eq!(
        Disk::restore(&file, &restored, &mut |_, _| true),
        Err(BackupError::Exists(restored.clone())),
        "nothing is overwritten"
    );
    let disk = Disk::open(&restored, SyncPolicy::Always, u64::MAX).unwrap();
    let (a, b) = (disk.store(&names("a")).unwrap(), disk.store(&names("b")).unwrap());
    assert_eq!((a.len(), b.len()), (2_000, 1));
    assert_eq!(get(&a, b"later"), Ok(None));
    assert_eq!(get(&b, &[109; 70_000]), Ok(Some(vec![1; 100_000])));
    assert_eq!(note(&a, "slaves"), Ok(Some(b"s".to_vec())));
    assert_eq!(all(&a).len(), 2_000);
}

#[test]
fn a_backup_that_is_not_whole_is_refused_and_nothing_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&dir.path().join("a"), SyncPolicy::Never, u64::MAX).unwrap();
    let a = disk.store(&names("a")).unwrap();
    for number in 0..20_u32 {
        put(&a, &number.to_be_bytes(), &[7; 10]).unwrap();
    }
    let file = dir.path().join("backup");
    disk.backup(&file, &mut |_, _| true).unwrap();
    let whole = fs::read(&file).unwrap();
    let into = dir.path().join("b");
    let restore = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let restored = Disk::restore(&file, &into, &mut |_, _| true);
        assert!(!into.exists());
        restored.unwrap_err()
    };
    for len in 0..whole.len() {
        let error = restore(&whole[..len]);
        assert!(matches!(error, BackupError::Damaged { .. }), "{len} bytes: {error}");
    }
    for at in 0..whole.len() {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 0x20;
        let error = restore(&spoilt);
        let newer = matches!(error, BackupError::NewerVersion { .. });
        assert!(newer || matches!(error, BackupError::Damaged { .. }), "at {at}: {error}");
    }
    let error = restore(&[&whole[..], b"more"].concat());
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
}

#[test]
fn callers_backups_stay_where_they_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&dir.path().join("a"), SyncPolicy::Never, u64::MAX).unwrap();
    let store = disk.store(&names("a")).unwrap();
    let backup = |path: &str| {
        let (tell, told) = mpsc::channel();
        let later = || Box::new(move |result| tell.send(result).unwrap()) as Done;
        store.backup(path, later).unwrap_or_else(|| told.recv().unwrap())
    };
    assert_eq!(backup("x"), Err(StoreError::Io("eacces")), "nobody has allowed it");
    let allowed = dir.path().join("backups");
    disk.allow_backups(&allowed).unwrap();
    fs::create_dir(allowed.join("in")).unwrap();
    std::os::unix::fs::symlink(dir.path(), allowed.join("out")).unwrap();
    for link in ["link", "linked.new"] {
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), allowed.join(link)).unwrap();
    }
    assert_eq!((backup("link"), backup("linked")), (Err(StoreError::Io("eexist")), Ok(())));
    assert_eq!((backup("x"), backup("in/x")), (Ok(()), Ok(())));
    assert_eq!(backup(&format!("{}/y", allowed.display())), Ok(()));
    assert_eq!(backup("x"), Err(StoreError::Io("eexist")));
    let elsewhere = format!("{}/x", dir.path().display());
    for path in ["../x", "in/../../x", "out/x", "..", ".", "", "in/", "/", &elsewhere] {
        assert_eq!(backup(path), Err(StoreError::Io("eacces")), "{path:?}");
    }
    assert_eq!(backup("none/x"), Err(StoreError::Io("enoent")));
    let mut there: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["a", "backups"]);
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
            Box::new(move |result| tell.send(result.map(|_| ())).unwrap())
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
    done(|done| Notes::write(&a, "slaves", b"s", done)).unwrap();
    drop((a, b, disk));
    let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
    let a = disk.store(&["local:x".into(), "global:a".into()]).unwrap();
    assert_eq!(get(&a, b"k"), Ok(Some(b"a".to_vec())));
    assert_eq!(note(&a, "slaves"), Ok(Some(b"s".to_vec())));
    assert_eq!(get(&disk.store(&["local:x".into()]).unwrap(), b"k"), Ok(Some(b"a".to_vec())));
    let both = ["local:x".to_owned(), "global:b".to_owned()];
    assert!(matches!(disk.store(&both), Err(OpenError::Names { .. })));
}

/// Holds the thread that writes, in a completion, until this is sent something or dropped.
fn hold(store: &DiskStore) -> mpsc::Sender<()> {
    let (go, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    store.put(b"held", value(b"1"), || {
        Box::new(move |_| {
            tell.send(()).unwrap();
            _ = held.recv();
        })
    });
    told.recv().unwrap();
    go
}

#[test]
fn a_note_is_read_behind_the_writes_of_it_that_were_asked_for_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
    let (a, b) = (disk.store(&names("a")).unwrap(), disk.store(&names("b")).unwrap());
    let go = hold(&a);
    let (tell, told) = mpsc::channel();
    let write = |note: &'static [u8]| {
        let tell = tell.clone();
        Notes::write(
            &a,
            "n",
            note,
            Box::new(move |result| tell.send(("written", result.map(|()| None))).unwrap()),
        );
    };
    let read = |store: &DiskStore, name: &str| {
        let tell = tell.clone();
        Notes::read(store, name, Box::new(move |note| tell.send(("read", note)).unwrap()));
    };
    write(b"1");
    read(&a, "n");
    write(b"2");
    read(&a, "n");
    assert!(told.try_recv().is_err(), "nothing that a crash could take back is shown");
    for (store, name) in [(&a, "another"), (&b, "n")] {
        read(store, name);
        assert_eq!(told.try_recv(), Ok(("read", Ok(None))), "what nobody writes is read at once");
    }
    // The key of an entry is no name of a note.
    put_later(&a, b"other");
    read(&a, "other");
    assert_eq!(told.try_recv(), Ok(("read", Ok(None))));
    drop(go);
    let told: Vec<_> = (0..4).map(|_| told.recv().unwrap()).collect();
    assert_eq!(told[..2], [("written", Ok(None)), ("written", Ok(None))]);
    assert_eq!(told[2..], [("read", Ok(Some(b"2".to_vec()))), ("read", Ok(Some(b"2".to_vec())))]);
    assert_eq!(note(&a, "n"), Ok(Some(b"2".to_vec())));
}

fn put_later(store: &DiskStore, key: &[u8]) {
    store.put(key, value(b"1"), || Box::new(|_| {}));
}

fn open(dir: &Path, sync: SyncPolicy) -> Result<DiskStore, OpenError> {
    Disk::open(dir, sync, u64::MAX)?.store(&names("a"))
}

#[test]
fn a_backup_is_restored_into_a_folder_that_is_there_if_nothing_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let counts = {
        let store = open(&dir.path().join("a"), SyncPolicy::Never).unwrap();
        put(&store, b"k", b"v").unwrap();
        store.disk.backup(&file, &mut |_, _| true).unwrap()
    };
    let restore = |into: &Path| Disk::restore(&file, into, &mut |_, _| true);
    let read = |from: &Path| get(&open(from, SyncPolicy::Always).unwrap(), b"k");
    let (mounted, deep) = (dir.path().join("mounted"), dir.path().join("b/c/d"));
    fs::create_dir_all(mounted.join("lost+found")).unwrap();
    // What a restore has left that was killed.
    drop(Disk::open(&mounted.join("restoring"), SyncPolicy::Never, u64::MAX).unwrap());
    for into in [&mounted, &deep] {
        assert_eq!(restore(into).as_ref(), Ok(&counts));
        assert_eq!(read(into), Ok(Some(b"v".to_vec())));
        assert_eq!(restore(into), Err(BackupError::Exists(into.clone())));
    }
    let mut there: Vec<_> = fs::read_dir(&mounted).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["engine", "format", "lock", "lost+found", "reached"]);
    // One that goes on is not disturbed, and until it is done the folder is nobody's.
    let busy = dir.path().join("busy");
    let other = Disk::open(&busy.join("restoring"), SyncPolicy::Never, u64::MAX).unwrap();
    assert_eq!(restore(&busy), Err(BackupError::Restoring(busy.join("restoring"))));
    assert!(matches!(open(&busy, SyncPolicy::Always), Err(OpenError::NotOurs { .. })));
    drop(other);
    assert_eq!(restore(&busy), Ok(counts));
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
    assert!(matches!(again, Err(OpenError::InUse { .. })), "each holder of the disk holds the folder");
    drop((store, disk));
    let store = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
    assert_eq!(get(&store, b"k"), Ok(Some(b"v".to_vec())));
}
