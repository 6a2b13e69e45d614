//! Backups: all stores of a folder in one file, as they were at one moment.
//!
//! ```text
//! backup = "kvnode backup\n", version:32, store*, 5, stores:32, entries:64, bytes:64, xxh3:128 of all before
//! store  = 1, text(names, one a line), revision:64, (2, text(name), text(note))*, (3, head, text(key), text(value))*,
//!          4, entries:64, bytes:64
//! text   = length:32, bytes
//! ```
//!
//! A store's revision is what it had counted to; before version 3 it was not there. A head is that of an entry (`store/head.rs`); in
//! version 1 it was a byte, always. Numbers are big-endian. A file is written under a name that nobody has (`kvnode-backup-*.new`), synced, and then named,
//! which overwrites nothing: one that has its name is whole.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::engine::View;
use super::error::{engine_error, store_error};
use super::record::{Found, plain_key};
use super::staged::Held;
use crate::store::head::Head;
use crate::store::{StoreError, Value};

const MARK: &[u8; 14] = b"kvnode backup\n";
/// The version of the file. A newer one is not read.
const VERSION: u32 = 3;
/// From this one on it has what the stores had counted to.
const COUNTED_FROM: u32 = 3;
const STORE: u8 = 1;
const NOTE: u8 = 2;
const ENTRY: u8 = 3;
const STORE_END: u8 = 4;
const END: u8 = 5;
/// Bytes that are read or written at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Entries between two tellings of how far it is.
const TELL_EVERY: u64 = 256;

/// What a store holds, or a backup of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCount {
    /// The store's names.
    pub names: Vec<String>,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of their keys and values, and of the numbers that stand beside some.
    pub bytes: u64,
}

/// Why a backup was not written, or not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupError {
    /// Something is where it is to be written.
    Exists(PathBuf),
    /// It is no backup, or not as it was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer kvnode wrote it.
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The system refused.
    System {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A store could not be written, or there is no room for the file.
    Store(StoreError),
    /// An entry of a store could not be read, so that there is no backup of it.
    Unreadable {
        /// The store's names.
        store: String,
        /// What is known of it.
        what: String,
    },
    /// Another restore into the folder goes on.
    Restoring(PathBuf),
    /// The caller, which is told how far it is, wanted no more of it.
    Stopped,
}

impl BackupError {
    pub(super) fn system(path: &Path, error: &io::Error) -> Self {
        Self::System { path: path.into(), reason: error.to_string() }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => {
                write!(f, "{} is there already, and is not overwritten: choose another name", path.display())
            }
            Self::Damaged { file, what } => {
                write!(f, "{} is no whole backup: {what}. Nothing was changed", file.display())
            }
            Self::NewerVersion { file, version } => write!(
                f,
                "{} was written by a newer kvnode (version {version}; this one reads {VERSION}): use that one",
                file.display()
            ),
            Self::System { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Store(error) => error.fmt(f),
            Self::Unreadable { store, what } => {
                write!(f, "the store {store} cannot be read to its end: {what}; `kvnode check` says where")
            }
            Self::Restoring(path) => write!(f, "{} is being written by another restore", path.display()),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for BackupError {}

/// Told of entries that are done, and of all; `false` ends it.
pub(in crate::store) type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// What a backup consists of, as it is read or written.
#[derive(Debug)]
pub enum Part<'a> {
    /// A store begins: its names, and what its revisions had counted to (0: it is not known).
    Store(&'a [String], u64),
    /// A note of the store that began: its name, and what it says.
    Note(&'a str, &'a [u8]),
    /// An entry of that store: its key and value. A value without a revision has 0.
    Entry(&'a [u8], Value<'a>),
}

/// Shown each part.
pub(in crate::store) type Show<'a> = &'a mut dyn FnMut(Part<'_>) -> Result<(), BackupError>;

/// Writes what `view` shows into a new file.
pub(super) fn write(
    view: &View,
    file: &Path,
    progress: Progress<'_>,
) -> Result<Vec<StoreCount>, BackupError> {
    let mut writer = Writer::create(file)?;
    visit(view, &mut |part| writer.add(&part), progress)?;
    writer.finish()
}

/// Shows each store of a view, and checks that it has as many entries as it was left with.
pub(super) fn visit(view: &View, show: Show<'_>, progress: Progress<'_>) -> Result<(), BackupError> {
    let engine = |error: fjall::Error| BackupError::Store(engine_error(&error));
    let all = view.entries().map_err(engine)?;
    let mut done = 0;
    for (id, names) in view.names().map_err(engine)? {
        let Held { revision, .. } = view.held(id).map_err(engine)?;
        show(Part::Store(&names, revision))?;
        for note in view.notes(id) {
            let (name, note) = note.map_err(engine)?;
            show(Part::Note(&String::from_utf8_lossy(&name), &note))?;
        }
        let (mut entries, mut bytes) = (0, 0);
        let unreadable = |what: &dyn fmt::Display, entries: u64| BackupError::Unreadable {
            store: names.join(", "),
            what: format!("{what}, behind {entries} good entries"),
        };
        let entries_of = view.entries_of(id, None).ok_or_else(|| unreadable(&"it is missing", 0))?;
        for pair in entries_of {
            let (key, entry) =
                pair.into_inner().map_err(|error| unreadable(&engine_error(&error), entries))?;
            let found = Found::new(&key, entry).ok_or_else(|| unreadable(&"it is no entry", entries))?;
            let key = found.long_key().unwrap_or_else(|| plain_key(&key));
            // As it is there: a value of a version without revisions has none.
            show(Part::Entry(key, Value { revision: found.head().revision, ..found.value() }))?;
            entries += 1;
            bytes += found.bytes(key);
            done += 1;
            if done % TELL_EVERY == 0 && !progress(done, all) {
                return Err(BackupError::Stopped);
            }
        }
        if view.totals(id).map_err(engine)? != (entries, bytes) {
            return Err(unreadable(&"its entries are not as many as they were", entries));
        }
    }
    progress(all, all);
    Ok(())
}

/// A backup that is being written. One that is dropped before it is finished leaves no file.
pub(in crate::store) struct Writer {
    out: Hashed<BufWriter<File>>,
    name: PathBuf,
    /// What the file is called until it is whole.
    new: PathBuf,
    stores: Vec<StoreCount>,
    is_named: bool,
    head: Vec<u8>,
}

impl Writer {
    /// Begins.
    ///
    /// # Errors
    /// The file is there, or the system refuses.
    pub(in crate::store) fn create(file: &Path) -> Result<Self, BackupError> {
        if fs::symlink_metadata(file).is_ok() {
            return Err(BackupError::Exists(file.into()));
        }
        let (new, out) = create_beside(file).map_err(|error| BackupError::system(file, &error))?;
        let out = Hashed { inner: BufWriter::with_capacity(BUFFER_BYTES, out), hash: Xxh3::new() };
        let (name, stores, head) = (file.to_owned(), Vec::new(), Vec::new());
        let mut writer = Self { out, name, new, stores, is_named: false, head };
        let begun = writer.out.write_all(MARK).and_then(|()| writer.out.write_all(&VERSION.to_be_bytes()));
        begun.map_err(|error| writer.failed(&error))?;
        Ok(writer)
    }

    fn failed(&self, error: &io::Error) -> BackupError {
        match store_error(error) {
            StoreError::NoSpace => BackupError::Store(StoreError::NoSpace),
            _ => BackupError::system(&self.new, error),
        }
    }

    /// Adds what comes next. A store ends where another begins.
    ///
    /// # Errors
    /// The system refuses.
    pub(in crate::store) fn add(&mut self, part: &Part<'_>) -> Result<(), BackupError> {
        let added = match part {
            Part::Store(names, revision) => self.begin_store(names, *revision),
            Part::Note(name, note) => self.out.tagged(NOTE, &[name.as_bytes(), note]),
            Part::Entry(key, value) => self.add_entry(key, value),
        };
        added.map_err(|error| self.failed(&error))
    }

    fn begin_store(&mut self, names: &[String], revision: u64) -> io::Result<()> {
        self.end_store()?;
        self.out.tagged(STORE, &[names.join("\n").as_bytes()])?;
        self.stores.push(StoreCount { names: names.to_vec(), entries: 0, bytes: 0 });
        self.out.write_all(&revision.to_be_bytes())
    }

    fn end_store(&mut self) -> io::Result<()> {
        let Some(StoreCount { entries, bytes, .. }) = self.stores.last() else { return Ok(()) };
        self.out.counts(STORE_END, None, *entries, *bytes)
    }

    fn add_entry(&mut self, key: &[u8], value: &Value<'_>) -> io::Result<()> {
        let head = Head::of(value);
        if let Some(store) = self.stores.last_mut() {
            store.entries += 1;
            store.bytes += (key.len() + head.numbers_len() + value.bytes.len()) as u64;
        }
        self.head.clear();
        self.head.extend([ENTRY, head.first()]);
        head.write_numbers(&mut self.head);
        self.out.write_all(&self.head)?;
        self.out.text(key)?;
        self.out.text(value.bytes)
    }

    /// Writes the end, syncs the file, and gives it its name. Gives what the stores hold.
    ///
    /// # Errors
    /// Something has the name meanwhile, or the system refuses.
    pub(in crate::store) fn finish(mut self) -> Result<Vec<StoreCount>, BackupError> {
        self.write_end().map_err(|error| self.failed(&error))?;
        let name_it = || {
            name_new(&self.new, &self.name)?;
            File::open(folder_of(&self.name))?.sync_all()
        };
        match name_it() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(self.name.clone()));
            }
            Err(error) => return Err(BackupError::system(&self.name, &error)),
        }
        self.is_named = true;
        Ok(std::mem::take(&mut self.stores))
    }

    fn write_end(&mut self) -> io::Result<()> {
        self.end_store()?;
        let (entries, bytes) = sums(&self.stores);
        self.out.counts(END, Some(self.stores.len() as u32), entries, bytes)?;
        let digest = self.out.hash.digest128();
        self.out.inner.write_all(&digest.to_be_bytes())?;
        self.out.inner.flush()?;
        self.out.inner.get_ref().sync_all()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_named {
            // Of no use to anybody. It was made here, so it is nobody else's.
            let _ = fs::remove_file(&self.new);
        }
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in the same folder, under a name that was nobody's: links are not followed either.
fn create_beside(file: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let name = format!("kvnode-backup-{:016x}.new", RandomState::new().hash_one(file));
        let new = folder_of(file).join(name);
        // All values stand in it.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (new, made)),
        }
    }
}

/// Gives a file its name, if nobody has it.
fn name_new(new: &Path, name: &Path) -> io::Result<()> {
    match fs::hard_link(new, name) {
        Ok(()) => fs::remove_file(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without links, FAT perhaps.
        Err(_) if fs::symlink_metadata(name).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(new, name),
    }
}

/// Reads a whole backup, each part shown to `show`, and checks it. Only when this is done is what was shown known to be
/// right. `progress` is told of bytes. Gives what the stores hold once they are restored: every entry has a revision then.
///
/// # Errors
/// See [`BackupError`], and what `show` gives.
pub fn read(path: &Path, show: Show<'_>, progress: Progress<'_>) -> Result<Vec<StoreCount>, BackupError> {
    let system = |error: io::Error| BackupError::system(path, &error);
    let file = File::open(path).map_err(system)?;
    let all = file.metadata().map_err(system)?.len();
    let inner = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut reader = Reader { inner, hash: Xxh3::new(), left: all, all, path };
    if reader.array::<14>()? != *MARK {
        return Err(reader.damaged("it does not begin as one"));
    }
    let version = u32::from_be_bytes(reader.array()?);
    if version > VERSION {
        return Err(BackupError::NewerVersion { file: path.into(), version });
    }
    let (mut stores, mut done): (Vec<StoreCount>, u64) = (Vec::new(), 0);
    let mut open: Option<StoreCount> = None;
    // What the entries take more once they are restored, of each store.
    let (mut more, mut more_of): (u64, Vec<u64>) = (0, Vec::new());
    let (mut key, mut value) = (Vec::new(), Vec::new());
    loop {
        let [tag] = reader.array()?;
        match (tag, &mut open) {
            (STORE, None) => {
                reader.text(&mut key)?;
                let names = String::from_utf8_lossy(&key).lines().map(str::to_owned).collect();
                let store = StoreCount { names, entries: 0, bytes: 0 };
                let counted = if version < COUNTED_FROM { 0 } else { u64::from_be_bytes(reader.array()?) };
                show(Part::Store(&store.names, counted))?;
                open = Some(store);
            }
            (NOTE, Some(_)) => {
                reader.text(&mut key)?;
                reader.text(&mut value)?;
                show(Part::Note(&String::from_utf8_lossy(&key), &value))?;
            }
            (ENTRY, Some(store)) => {
                let head = reader.head()?;
                reader.text(&mut key)?;
                reader.text(&mut value)?;
                store.entries += 1;
                store.bytes += (key.len() + head.numbers_len() + value.len()) as u64;
                more += (head.revised().numbers_len() - head.numbers_len()) as u64;
                let Head { traits, copy, revision, deadline } = head;
                let value = Value { copy, revision, deadline, ..Value::of(&value, traits) };
                show(Part::Entry(&key, value))?;
                done += 1;
                if done % TELL_EVERY == 0 && !progress(all - reader.left, all) {
                    return Err(BackupError::Stopped);
                }
            }
            (STORE_END, Some(store)) => {
                if reader.counts()? != (store.entries, store.bytes) {
                    return Err(reader.damaged("a store has not as many entries as it should"));
                }
                stores.extend(open.take());
                more_of.push(std::mem::take(&mut more));
            }
            (END, None) => break,
            _ => return Err(reader.damaged("something stands in it that cannot be there")),
        }
    }
    let count = u32::from_be_bytes(reader.array()?);
    if u64::from(count) != stores.len() as u64 || reader.counts()? != sums(&stores) {
        return Err(reader.damaged("it has not as many stores and entries as it should"));
    }
    let digest = reader.hash.digest128();
    if reader.array()? != digest.to_be_bytes() {
        return Err(reader.damaged("the checksum is wrong"));
    }
    if reader.left > 0 {
        return Err(reader.damaged("something follows its end"));
    }
    progress(all, all);
    stores.iter_mut().zip(more_of).for_each(|(store, more)| store.bytes += more);
    Ok(stores)
}

fn sums(stores: &[StoreCount]) -> (u64, u64) {
    (stores.iter().map(|store| store.entries).sum(), stores.iter().map(|store| store.bytes).sum())
}

/// A file whose bytes are taken into a checksum as they are written.
struct Hashed<W> {
    inner: W,
    hash: Xxh3,
}

impl<W: Write> Hashed<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What came in a frame, whose length has 32 bits, or is a few names.
        self.write_all(&(bytes.len() as u32).to_be_bytes())?;
        self.write_all(bytes)
    }

    fn tagged(&mut self, tag: u8, texts: &[&[u8]]) -> io::Result<()> {
        self.write_all(&[tag])?;
        texts.iter().try_for_each(|text| self.text(text))
    }

    fn counts(&mut self, tag: u8, stores: Option<u32>, entries: u64, bytes: u64) -> io::Result<()> {
        self.write_all(&[tag])?;
        if let Some(stores) = stores {
            self.write_all(&stores.to_be_bytes())?;
        }
        self.write_all(&entries.to_be_bytes())?;
        self.write_all(&bytes.to_be_bytes())
    }
}

/// A file that is read in the same way.
struct Reader<'a> {
    inner: BufReader<File>,
    hash: Xxh3,
    left: u64,
    all: u64,
    path: &'a Path,
}

impl Reader<'_> {
    fn damaged(&self, what: &str) -> BackupError {
        let what = format!("{what} (up to byte {} of {})", self.all - self.left, self.all);
        BackupError::Damaged { file: self.path.into(), what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let read = self.inner.read_exact(bytes);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("its end is missing"),
            _ => BackupError::system(self.path, &error),
        })?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.hash.update(bytes);
        Ok(())
    }

    fn text(&mut self, into: &mut Vec<u8>) -> Result<(), BackupError> {
        let len = u32::from_be_bytes(self.array()?);
        // A length that is wrong costs no more memory than the file has bytes.
        if u64::from(len) > self.left {
            return Err(self.damaged("its end is missing"));
        }
        into.clear();
        into.resize(len as usize, 0);
        self.fill(into)
    }

    fn head(&mut self) -> Result<Head, BackupError> {
        let [first] = self.array()?;
        let mut numbers = Vec::new();
        if Head::has_numbers(first) {
            let [fields] = self.array()?;
            numbers.resize(Head::numbers_len_of(fields), 0);
            self.fill(&mut numbers[1..])?;
            numbers[0] = fields;
        }
        match Head::read(first, &numbers) {
            Some((head, _)) => Ok(head),
            None => Err(self.damaged("an entry has numbers that are not known here")),
        }
    }

    fn counts(&mut self) -> Result<(u64, u64), BackupError> {
        Ok((u64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?)))
    }
}
